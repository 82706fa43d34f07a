"""What a generation's network sees in data: features, second moments, class statistics (docs/method.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, MEMORY_MODEL, Site
from csk_sdk.contract.thresholds import integer
from csk_sdk.data.labels import Labels
from csk_sdk.errors import TaskError
from csk_sdk.method.heads import STATISTICS
from csk_sdk.method.unknown import FAMILIARITY
from csk_sdk.network.domains import PREFIX as DOMAIN_PREFIX
from csk_sdk.network.domains import Domains
from csk_sdk.network.finite import require_learnable_features
from csk_sdk.network.ledger import LEDGER
from csk_sdk.runtime.peak_memory import available_bytes

Tensors = dict[str, NDArray[Any]]
# One batch: images (n, c, h, w) float32, labels (n,) int64 or a table (n, columns) float32.
# Of a bundle's view from the prefix on, prefix features (n, *prefix) as they are stored instead of images.
Batch = tuple[NDArray[Any], Labels]

# Images at once where features and sums count: half the working memory of a batch, in the same time (decision 0014).
_AT_ONCE = 8
# Matrices of features by features, float64, at once where statistics are summed up or a head is computed of them.
_SQUARES = 3
HEAD_SAMPLE_BYTES = integer("head", "sample_bytes")
_HEAD = re.compile(r"head/[^/]*/(weight|bias)")


def require_room(features: int) -> None:
    """Raise TaskError where sums over so many features of an image do not fit into this device's memory.

    What is to be allocated is known before; a system that promises more than it has would end the process instead.
    """
    needed, available = _SQUARES * 8 * features**2, available_bytes()
    if available is not None and needed > available:
        raise TaskError(
            f"The model has {features:,} features, and what is known of classes over so many takes {needed / 1e9:.1f} "
            f"GB of memory, of which this device has {available / 1e9:.1f} GB left. Build the bundle with --features "
            "last, or from a network whose classifier sees fewer (a pooling in front of it)."
        )


class FeatureExtractor:
    """A generation's network up to the head: images `(n, c, h, w)` float32 -> features `(n, f)` float32.

    With `release`, for one that other graphs follow, features are copies, few images are looked at at once, and `close`
    gives all its memory back.
    """

    def __init__(
        self, bundle: Bundle, tensors: Mapping[str, NDArray[Any]], threads: int = 0, release: bool = False
    ) -> None:
        self._release = release
        head = bundle.manifest.head
        self._graph = bundle.graph(EVAL_MODEL, tensors, threads)
        self._feeds = neutral_deltas(bundle.manifest.sites)
        if not bundle.from_prefix:
            self._feeds[head.weight] = np.zeros((1, head.features), np.float32)
            self._feeds[head.bias] = np.zeros(1, np.float32)
        self._domains = Domains(bundle, tensors, threads)

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains that are known."""
        return tuple(self._domains.names)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of one batch; of an image of a domain, as that shows it."""
        return self.told(images)[0]

    def told(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features of one batch, and of each image `(n,)` the number of its domain in `domains`, -1 for none."""
        if self._release:
            starts = range(0, len(images), _AT_ONCE)
            # A copy, also of one part: what the runtime returned holds its arena.
            features = np.concatenate([self._seen(images[start : start + _AT_ONCE]) for start in starts])
        else:
            features = self._seen(images)
        if not self.domains:
            return features, np.full(len(features), -1)
        told = self._domains.told(features)
        return self._domains(images, features, told), told

    def _seen(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._graph.run({"image": images, **self._feeds}, ["features"])["features"]

    def close(self) -> None:
        """The end of it."""
        self._graph.close()
        self._domains.close()


def learnable_features(
    bundle: Bundle, tensors: Mapping[str, NDArray[Any]], batches: Iterable[Batch], threads: int = 0
) -> Generator[tuple[NDArray[np.float32], Labels]]:
    """Each batch's features `(n, f)` and labels, as the network in `tensors` sees them.

    Raises DivergedError where some are not finite. The graph is open until the last batch, or `close`.
    """
    with closing(FeatureExtractor(bundle, tensors, threads, release=True)) as extractor:
        for images, labels in batches:
            features = extractor(images)
            require_learnable_features(features, bundle.manifest.input.noun)
            yield features, labels


class FeatureSample:
    """Features to fit a task's head on, as many as fit into a fixed memory; `room` is for how many more."""

    def __init__(self, features: int, room_bytes: int = HEAD_SAMPLE_BYTES) -> None:
        self.room = max(1, room_bytes // (4 * features))
        self._features: list[NDArray[np.float32]] = []
        self._labels: list[Labels] = []
        self._together: NDArray[np.float32] | None = None

    @property
    def full(self) -> bool:
        """Whether no more features fit."""
        return self.room == 0

    @property
    def parts(self) -> list[NDArray[np.float32]]:
        """Features `(n, f)` as they were added, one array for each time."""
        return self._features

    @property
    def pairs(self) -> list[tuple[NDArray[np.float32], Labels]]:
        """The same with their labels `(n,)`."""
        return list(zip(self._features, self._labels, strict=True))

    @property
    def nbytes(self) -> int:
        """The memory of the features."""
        return sum(one.nbytes for one in self._features)

    def add(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Keep of features `(n, f)` and their labels as many as fit."""
        self._together = None
        self._features.append(features[: self.room])
        self._labels.append(labels[: self.room])
        self.room -= len(self._labels[-1])

    def arrays(self, parts: int | None = None) -> tuple[NDArray[np.float32], Labels]:
        """All features kept, `(n, f)`, and their labels; or those of the first `parts` only. Not to be written into."""
        if self._together is None:
            self._together = np.concatenate(self._features)
            self._together.flags.writeable = False
            # The parts lie in it from now on: all features twice would be a lesson's largest arrays.
            ends = np.cumsum([len(one) for one in self._features])[:-1]
            self._features = np.split(self._together, ends)
        count = sum(map(len, self._labels[:parts]))
        return self._together[:count], np.concatenate(self._labels[:parts])


def measure_knowledge(
    bundle: Bundle,
    tensors: Mapping[str, NDArray[Any]],
    batches: Iterable[Batch],
    on_features: Callable[[NDArray[np.float32], Labels], None],
    threads: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """What one pass over data tells (docs/method.md): second moments, and features.

    The moments are `moment/SITE`: K = sum of x_c^T x_c, `(groups, width, width)` of a `Site`.
    `on_features` sees each batch's features `(n, f)` and labels.
    """
    require_room(bundle.manifest.head.features)
    graph = bundle.graph(MEMORY_MODEL, tensors, threads)
    sites = bundle.manifest.sites
    feeds = neutral_deltas(sites)
    moments = {site.name: np.zeros((site.groups, site.width, site.width)) for site in sites}
    with closing(graph), closing(Domains(bundle, tensors, threads)) as domains:
        for images, labels in batches:
            seen = []
            for start in range(0, len(images), _AT_ONCE):
                outputs = graph.run({"image": images[start : start + _AT_ONCE], **feeds})
                for site in sites:
                    moments[site.name] += outputs.pop(site.moment)
                seen.append(outputs.pop("features").copy())
            on_features(domains(images, np.concatenate(seen)), labels)
    return {f"moment/{name}": moment for name, moment in moments.items()}


def known_tensors(tensors: Iterable[str], sites: Sequence[Site]) -> set[str]:
    """Which of these names mean something to this csk-sdk. Others are a newer one's, and are carried on untouched."""
    own = {key for key in tensors if key.startswith(DOMAIN_PREFIX)}
    own |= {f"{kind}/{site.name}" for kind in ("center", "moment") for site in sites}
    own |= (
        {f"statistics.{name}" for name in STATISTICS}
        | {f"familiarity.{name}" for name in FAMILIARITY}
        | set(LEDGER)
    )
    return {key for key in tensors if key in own or _HEAD.fullmatch(key)}


def neutral_deltas(sites: Sequence[Site]) -> Tensors:
    """Graph inputs that change nothing: one channel, a delta of zero."""
    feeds: Tensors = {}
    for site in sites:
        feeds[site.indices] = np.zeros(1, np.int64)
        feeds[site.delta] = np.zeros((site.rows, 1), np.float32)
    return feeds
