"""A domain learned from images without labels: `Learner.adapt`. All under the state's lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import (
    CHANNEL_MEAN,
    CHANNEL_VARIANCE,
    DOMAIN_DEVIATION,
    DOMAIN_MEAN,
    DOMAIN_STATISTICS,
)
from csk_sdk.contract.sentences import said
from csk_sdk.errors import BundleError, TaskError
from csk_sdk.formats.wording import plural
from csk_sdk.method.domains import (
    LEAST_IMAGES,
    MOST_DOMAINS,
    TOLD,
    UNLIKE,
    ChannelSum,
    affine,
    brings_nothing,
    looked_at,
    telling,
)
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.unknown import REJECT
from csk_sdk.network.domains import (
    DIRECTION,
    OFFSET,
    PREFIX,
    SCALE,
    SHIFT,
    Domains,
    domain_tensors,
)
from csk_sdk.network.finite import require_answers
from csk_sdk.network.knowledge import FeatureExtractor
from csk_sdk.network.predicting import class_distance, class_head, is_folder_name
from csk_sdk.objectives.classification import PRIOR_PICTURES
from csk_sdk.state import BASE, Generation, State
from csk_sdk.state.versions import domain_names


@dataclass(frozen=True)
class Adapted:
    """What `Learner.adapt` did. Immutable.

    - `domain`: its name; `generation`: the number of the generation that was committed
    - `images`: how many its statistics are of
    - `apart`: how many deviations lie between its images and what is known, along the direction that tells them best
    - `told`: the share of its images that are told to be of it, 0 to 1
    - `unknown`: the share of them that is still unlike all that is known, 0 to 1; None as `distance`
    - `distance`, `distance_before`: the median distance of its images from all that is known (`Prediction.distance`),
      seen as the domain shows them, and as they were seen before; None where nothing was measured of how far known
      ones reach
    - `warnings`: sentences for its user
    """

    domain: str
    generation: int
    images: int
    apart: float
    told: float
    unknown: float | None
    distance: float | None
    distance_before: float | None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for `adapt --json`."""
        return asdict(self)


class _Unlabelled:
    """What a domain is learned from: images spread over those that were given, batch by batch as the graphs take them.

    Raises TaskError where they are too few.
    """

    def __init__(self, bundle: Bundle, images: NDArray[Any] | Sequence[Any], name: str) -> None:
        self._bundle, self.noun = bundle, bundle.manifest.input.noun
        pixels = bundle.preprocessing.stack(images)
        if len(pixels) < LEAST_IMAGES:
            few = plural(len(pixels), self.noun)
            raise TaskError(said("domain_few", name=name, images=few, least=str(LEAST_IMAGES)))
        self._pixels = pixels[looked_at(len(pixels))]

    def __len__(self) -> int:
        return len(self._pixels)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        size = self._bundle.manifest.batch_size
        for start in range(0, len(self), size):
            yield self._bundle.preprocessing.normalize(self._pixels[start : start + size])

    def beside(
        self, features: NDArray[np.float32]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """The batches, each with its part of what is known of all images."""
        start = 0
        for batch in self:
            yield batch, features[start : start + len(batch)]
            start += len(batch)

    def __str__(self) -> str:
        return plural(len(self), self.noun)


def adapt(
    bundle: Bundle,
    state: State,
    name: str,
    images: NDArray[Any] | Sequence[Any],
    threads: int = 0,
    replace: bool = False,
) -> Adapted:
    """Learn the domain `name` from images without labels, and commit a generation.

    Raises TaskError for a name that cannot be used, images that are too few, look like what is known or come no nearer
    to it, BundleError where the bundle has no graphs for domains.
    """
    generation = state.load()
    _require_possible(bundle, generation, name, replace)
    given = _Unlabelled(bundle, images, name)
    others = {key: value for key, value in generation.tensors.items() if not key.startswith(PREFIX)}
    kept = {key: value for key, value in generation.tensors.items() if not key.startswith(f"{PREFIX}{name}/")}
    features = _features(bundle, others, given, threads)
    tensors, apart = _domain(bundle, others, name, given, features, threads)
    with closing(Domains(bundle, kept, threads)) as known:
        now = np.concatenate([known(batch, part) for batch, part in given.beside(features)])
        of_another = known.told(features) >= 0 if known.names else np.zeros(len(features), np.bool_)
    with closing(Domains(bundle, {**others, **tensors}, threads)) as domain:
        seen = np.concatenate([domain.through(0, batch) for batch in given])
        told = float((domain.told(features) == 0).mean())
    distance = class_distance(generation, class_head(generation, bundle.manifest))
    before = after = unknown = None
    if distance is not None:
        were, are = distance.of(now), distance.of(seen)
        before, after = _medians(were, are)
        unknown = float((are > distance.limit(REJECT)).mean())
        another = _medians(were[of_another], are[of_another]) if of_another.mean() > 0.5 else None
        if brings_nothing(before, after, unknown, another):
            raise TaskError(said("domain_no_nearer", name=name, images=str(given)))
    committed = state.commit(generation.number, generation.tasks, {**kept, **tensors})
    state.clear_progress()
    warnings: tuple[str, ...] = ()
    if unknown is not None and unknown > UNLIKE:
        warnings = (said("domain_unlike", unknown=f"{100 * unknown:.0f}", noun=given.noun),)
    return Adapted(name, committed.number, len(given), apart, told, unknown, after, before, warnings)


def forget_domain(state: State, name: str) -> Generation:
    """Take back a domain. Commits a generation; raises TaskError for one that is not known."""
    generation = state.load()
    gone = domain_tensors(generation.tensors, name)
    if not gone:
        raise _not_known(name, domain_names(generation.tensors))
    left = {key: value for key, value in generation.tensors.items() if key not in gone}
    committed = state.commit(generation.number, generation.tasks, left)
    state.clear_progress()
    return committed


def _require_possible(bundle: Bundle, generation: Generation, name: str, replace: bool) -> None:
    if not bundle.manifest.domain_channels:
        raise BundleError(said("domain_no_graphs", bundle=str(bundle.folder)))
    if not is_folder_name(name) or name == BASE:
        raise TaskError(said("domain_name", name=repr(name[:40])))
    known = domain_names(generation.tensors)
    if name in known and not replace:
        raise TaskError(said("domain_known", name=name))
    if name not in known and replace:
        raise _not_known(name, known)
    if name not in known and len(known) >= MOST_DOMAINS:
        raise TaskError(said("domain_many", name=name, known=str(len(known))))


def _not_known(name: str, known: Sequence[str]) -> TaskError:
    return TaskError(said("domain_unknown", name=name, known=", ".join(known) or "none"))


def _features(
    bundle: Bundle, tensors: dict[str, NDArray[Any]], images: _Unlabelled, threads: int
) -> NDArray[np.float32]:
    found: list[NDArray[np.float32]] = []
    with closing(FeatureExtractor(bundle, tensors, threads, release=True)) as extractor:
        for batch in images:
            found.append(extractor(batch))
            require_answers(found[-1], images.noun, sum(map(len, found[:-1])))
    return np.concatenate(found)


def _domain(
    bundle: Bundle,
    tensors: dict[str, NDArray[Any]],
    name: str,
    images: _Unlabelled,
    features: NDArray[np.float32],
    threads: int,
) -> tuple[dict[str, NDArray[Any]], float]:
    """The domain's tensors, and how far it is apart."""
    told = telling(ClassStatistics.from_tensors(tensors), features, PRIOR_PICTURES)
    if told is None:
        raise TaskError(said("domain_nothing_known", name=name))
    if told.apart < TOLD:
        raise TaskError(said("domain_alike", name=name, images=str(images)))
    mean, deviation = bundle.domain_channels()
    total = ChannelSum()
    with closing(bundle.graph(DOMAIN_STATISTICS, tensors, threads)) as graph:
        for batch in images:
            found = graph.run({"image": batch, DOMAIN_MEAN: mean, DOMAIN_DEVIATION: deviation})
            total.add(found[CHANNEL_MEAN], found[CHANNEL_VARIANCE], len(batch))
    scale, shift = affine(total, mean, deviation)
    parts = {SCALE: scale, SHIFT: shift, DIRECTION: told.direction}
    parts[OFFSET] = np.array([told.offset], np.float32)
    return {f"{PREFIX}{name}/{part}": array for part, array in parts.items()}, told.apart


def _medians(before: NDArray[np.float32], after: NDArray[np.float32]) -> tuple[float, float]:
    """Of distances `(n,)` of the same images."""
    return float(np.median(before)), float(np.median(after))
