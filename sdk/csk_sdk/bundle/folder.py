"""Opening a bundle: everything is verified before anything is used."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from csk_sdk.bundle.checks import check_channels, check_checkpoint, check_file, read_manifest
from csk_sdk.bundle.manifest_checks import check_manifest
from csk_sdk.bundle.signing import check_signature
from csk_sdk.contract.manifest import (
    CHECKPOINT,
    DOMAIN_CHANNELS,
    DOMAIN_MODEL,
    DOMAIN_STATISTICS,
    EVAL_MODEL,
    INT8,
    MANIFEST,
    MEMORY_MODEL,
    MEMORY_SUFFIX,
    TRAINING_MODEL,
    TRAINING_SUFFIX,
    WEIGHTS,
    Manifest,
    Site,
    exact_twin,
)
from csk_sdk.data.preprocess import Preprocessing
from csk_sdk.data.preprocess_signals import preprocessing_of
from csk_sdk.errors import BundleError
from csk_sdk.formats.given import optional_path, path_of
from csk_sdk.formats.stored_tensors import StoredTensors
from csk_sdk.objectives import Objective, objective_of
from csk_sdk.runtime.sessions import ON_CPU, Graph, Provider, int8_sums_saturate

# What takes a graph's place from the cut on; the memory model has the eval model's features too.
_SUFFIXES = {TRAINING_MODEL: TRAINING_SUFFIX, EVAL_MODEL: MEMORY_SUFFIX, MEMORY_MODEL: MEMORY_SUFFIX}


class Bundle:
    """A folder of training artifacts, read-only: threads may share it. Open it with `Bundle.open`.

    - `folder`, `manifest`: where it lies, and what it says of itself
    - `id`: the sha256 of the manifest, by which a state knows it
    - `origin`: by whose key it is signed; "" where no key was asked for
    - `precision`, `from_prefix`, `wide_sums`, `spinning`, `providers`, `time_limit` (seconds), `partial`: the form of
      its graphs, as `view` gives another one
    """

    def __init__(self, folder: Path, manifest: Manifest, identity: str, origin: str = "") -> None:
        self.folder = folder
        self.manifest = manifest
        self.id = identity
        self.origin = origin
        self.precision = manifest.precision
        self.from_prefix = False
        self.wide_sums: bool | None = None
        self.spinning = False
        self.providers = ON_CPU
        self.time_limit: float | None = None
        self.partial = False

    @classmethod
    def open(cls, folder: Path | str, trust: Path | str | None = None) -> Bundle:
        """Read the manifest and check every file that it lists: size, sha256, and that it is safe to open.

        `trust` is a PEM file with an ed25519 public key; given one, only bundles that its holder signed are opened.
        Raises BundleError for a missing, damaged, hostile or untrusted bundle, or one of a newer schema or with an
        unknown loss; ConfigError when `trust` is no such key.
        """
        bundle = cls.read_manifest(folder, trust)
        for name in bundle.manifest.files:
            bundle.verify_file(name)
        return bundle

    @classmethod
    def read_manifest(cls, folder: Path | str, trust: Path | str | None = None) -> Bundle:
        """A bundle whose manifest is checked, and its signature, but none of its files yet.

        Raises BundleError and ConfigError as `open` does.
        """
        folder = path_of(folder, "bundle", BundleError)
        trust = optional_path(trust, "trust")
        text = read_manifest(folder)
        if trust is not None:
            # Before anything in it is believed.
            check_signature(folder, text, trust)
        manifest = Manifest.from_json(text.decode("utf-8", "replace"), str(folder / MANIFEST))
        objective_of(manifest.loss)
        check_manifest(manifest, folder)
        origin = "" if trust is None else f"signed by the key of {trust}"
        return cls(folder, manifest, hashlib.sha256(text).hexdigest(), origin)

    def verify_file(self, name: str) -> None:
        """Raise BundleError unless a file of the manifest is in the bundle, as it was built, and safe to open."""
        check_file(self.folder, self.manifest, name)

    @property
    def objective(self) -> Objective:
        """What the bundle's loss means for labels, heads, predictions and measures."""
        return objective_of(self.manifest.loss)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """From images or signals to the model's input, as the workstation did it."""
        return preprocessing_of(self.manifest)

    def path(self, name: str) -> Path:
        """Where a file of the bundle lies."""
        return self.folder / name

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """The learnable state before the first task, generation 0: shapes and dtypes are in docs/bundle.md.

        Raises BundleError where the file is damaged, or holds another network's.
        """
        tensors = self._read(CHECKPOINT)
        check_checkpoint(self.manifest, tensors, self.path(CHECKPOINT))
        return tensors

    def stored_checkpoint(self) -> StoredTensors:
        """The same, left in its file until its tensors are asked for, and not checked again.

        Raises BundleError where it cannot be read.
        """
        return StoredTensors(self.path(CHECKPOINT), BundleError)

    def weights(self, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
        """Frozen tensors, float32, by their name in the source model and of its shapes, as `(c_out, c_in, 3, 3)`.

        `names` picks some; all when None. Raises BundleError where the file cannot be read, or lacks a name.
        """
        return self._read(WEIGHTS, names)

    def folded_kernels(
        self, tensors: Mapping[str, NDArray[Any]], names: Iterable[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """The sites' kernels `(c_out, c_in / groups, *kernel)` float32 with a generation's centers, by weight name.

        `tensors` are a generation's, as `checkpoint` gives them. `names` picks some; all when None. Raises BundleError
        as `weights` does.
        """
        sites = {site.weight: site for site in self.manifest.sites}
        kernels = self.weights(sites if names is None else names)
        for name, kernel in kernels.items():
            put_centers(kernel, sites[name], tensors[f"center/{sites[name].name}"])
        return kernels

    def domain_channels(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """How base images are: mean and deviation `(channels,)` float32 of what all convolutions give of them.

        Only of a bundle with graphs for domains. Raises BundleError where the file is damaged, or another network's.
        """
        stored = self._read(DOMAIN_CHANNELS)
        tensors = {name: array for name, array in stored.items() if array.dtype == np.float32}
        check_channels(self.manifest, tensors, self.path(DOMAIN_CHANNELS))
        return tensors["mean"], tensors["deviation"]

    def graph_file(self, name: str) -> str:
        """The file of one of the bundle's graphs, such as "eval_model.onnx", in the form of this view of the bundle."""
        if name in (DOMAIN_MODEL, DOMAIN_STATISTICS):
            # Of whole images, and in float32 in any bundle.
            return name
        if self.from_prefix:
            name = _SUFFIXES[name]
        return exact_twin(name) if self.precision != self.manifest.precision else name

    def graph(
        self,
        name: str,
        tensors: Mapping[str, NDArray[Any]],
        threads: int = 0,
        channels: Mapping[str, int] | None = None,
    ) -> Graph:
        """Open one of the bundle's graphs as a generation sees it, in the form of this view of the bundle.

        On another provider than the CPU's, the numbers of selected channels by site are fixed at `channels`, or at the
        one of neutral deltas: OpenVINO has no convolution with a kernel of open shape. `tensors` are a generation's,
        of the shapes and dtypes in docs/bundle.md; `threads` 0 means one per core.
        Raises RuntimeMissingError without ONNX Runtime, BundleError where the graph cannot be opened.
        """
        name = self.graph_file(name)
        kernels = self.folded_kernels(tensors, self.manifest.kernels[name])
        # Features alone are asked of a graph that has the second moments too.
        return Graph(self.path(name), threads, kernels, **self.session(channels))

    def session(self, channels: Mapping[str, int] | None = None) -> dict[str, Any]:
        """How this view of the bundle opens its graphs, as arguments of `Graph`."""
        sizes = {f"{site.name}.k": (channels or {}).get(site.name, 1) for site in self.manifest.sites}
        return {
            "partial": self.from_prefix or self.partial,
            "wide_sums": self.adds_wide,
            "spinning": self.spinning,
            "providers": self.providers,
            "time_limit": self.time_limit,
            "sizes": None if self.providers == ON_CPU else sizes,
        }

    def view(
        self,
        precision: str | None = None,
        from_prefix: bool | None = None,
        wide_sums: bool | None = None,
        spinning: bool | None = None,
        providers: tuple[Provider, ...] | None = None,
        time_limit: float | None = None,
        partial: bool | None = None,
    ) -> Bundle:
        """The same bundle with its graphs in another form; what is None stays as it is.

        With `from_prefix` the input `image` of the graphs holds prefix features. `wide_sums` says how int8 adds up:
        until it is said, as this CPU needs it (`adds_wide`). `spinning`,
        `providers`, `time_limit` and `partial` are those of `Graph`.
        Raises BundleError where the bundle was built without these graphs.
        """
        other = copy.copy(self)
        if precision is not None:
            if precision not in self.precisions:
                raise BundleError(
                    f"{self.folder} was built for precision {' and '.join(self.precisions)}, and has no graphs for "
                    f"{precision}: build it again with --precision {precision}."
                )
            other.precision = precision
        if from_prefix is not None:
            if from_prefix and not self.manifest.prefix:
                raise BundleError(
                    f"{self.folder} has no graphs that start behind the frozen layers: build it again, for the "
                    "portable backend, and with --trainable from:NODE where its first layer is trained."
                )
            other.from_prefix = from_prefix
        if wide_sums is not None:
            other.wide_sums = wide_sums
        if spinning is not None:
            other.spinning = spinning
        if providers is not None:
            other.providers = providers
        if time_limit is not None:
            other.time_limit = time_limit
        if partial is not None:
            other.partial = partial
        return other

    @property
    def adds_wide(self) -> bool:
        """Whether the graphs of this view are opened with wide int8 sums: exact ones never are."""
        if self.precision != INT8:
            return False
        return int8_sums_saturate() if self.wide_sums is None else self.wide_sums

    @property
    def precisions(self) -> tuple[str, ...]:
        """What the bundle has graphs for, its default first."""
        return self.manifest.precisions or (self.manifest.precision,)

    def _read(self, name: str, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
        try:
            with safe_open(self.path(name), framework="numpy") as file:
                return {key: file.get_tensor(key) for key in (file.keys() if names is None else names)}
        except (OSError, SafetensorError, TypeError, ValueError) as error:
            raise BundleError(f"{self.path(name)} cannot be read ({error}). Copy the bundle again.") from None


def center_of(site: Site) -> tuple[slice | int, ...]:
    """The index of the centers in a site's weight: `W[:, :, kh // 2, kw // 2]`."""
    return (slice(None), slice(None), *(size // 2 for size in site.shape[2:]))


def centers_of(kernel: NDArray[Any], site: Site) -> NDArray[Any]:
    """What of a site's kernel is trainable, `(c_out, width)`: a copy."""
    return np.array(kernel if site.whole else kernel[center_of(site)]).reshape(site.shape[0], site.width)


def put_centers(kernel: NDArray[Any], site: Site, centers: NDArray[Any]) -> None:
    """Write what is trainable, `(c_out, width)`, into a site's kernel, in place."""
    if site.whole:
        kernel[...] = centers.reshape(site.shape)
    else:
        kernel[center_of(site)] = centers
