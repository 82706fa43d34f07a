"""The domains of a generation: which one an image is of, and its features as that one shows them (docs/domains.md).

A domain called NAME has four tensors, `domain/NAME/` and: `scale` and `shift` `(channels,)` of all convolutions,
`direction` `(f,)` and `offset` `(1,)` of what tells its images (`csk_sdk.method.domains`); all float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import DOMAIN_MODEL, DOMAIN_SCALE, DOMAIN_SHIFT
from csk_sdk.errors import StateError
from csk_sdk.method.domains import domain_of
from csk_sdk.runtime.sessions import Graph
from csk_sdk.state.versions import DOMAIN, domain_names

PREFIX = DOMAIN
PARTS = SCALE, SHIFT, DIRECTION, OFFSET = "scale", "shift", "direction", "offset"
Tensors = dict[str, NDArray[Any]]
# As many as go through the other graphs at once where only features are asked for.
_AT_ONCE = 8


def domain_tensors(tensors: Mapping[str, NDArray[Any]], name: str | None = None) -> Tensors:
    """Those of a domain, or of all."""
    start = PREFIX if name is None else f"{PREFIX}{name}/"
    return {key: tensors[key] for key in tensors if key.startswith(start)}


def _require_fitting(bundle: Bundle, tensors: Mapping[str, NDArray[Any]], name: str) -> None:
    channels, features = (bundle.manifest.domain_channels,), (bundle.manifest.head.features,)
    for part, shape in zip(PARTS, (channels, channels, features, (1,)), strict=True):
        found = tensors.get(f"{PREFIX}{name}/{part}")
        if found is None or found.shape != shape:
            raise StateError(f"Domain '{name}' does not fit its network: roll back to an earlier task.")


class Domains:
    """A generation's domains, for who computes features. Thread-safe: threads share one opened graph.

    The graph is opened with the first image that is of a domain: where none is, it costs a product with a vector.
    """

    def __init__(self, bundle: Bundle, tensors: Mapping[str, NDArray[Any]], threads: int = 0) -> None:
        self._bundle, self._tensors, self._threads = bundle, tensors, threads
        self.names = domain_names(tensors)
        for name in self.names:
            _require_fitting(bundle, tensors, name)
        parts = {
            part: [np.asarray(tensors[f"{PREFIX}{name}/{part}"], np.float32) for name in self.names]
            for part in PARTS
        }
        self._scales, self._shifts = parts[SCALE], parts[SHIFT]
        self._directions = np.array(parts[DIRECTION])
        self._offsets = np.array(parts[OFFSET]).reshape(-1)
        self._graph: Graph | None = None
        self._opening = Lock()

    def told(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Of features `(n, f)` without any domain: the number in `names` of each image's, -1 for none."""
        return domain_of(features @ self._directions.T - self._offsets)

    def __call__(
        self, images: NDArray[Any], features: NDArray[np.float32], told: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Features `(n, f)` of images `(n, c, ...)`, of which `features` are those without any domain.

        `told` is what `told` says of them, where that was asked already.
        """
        if not self.names:
            return features
        told = self.told(features) if told is None else told
        if (told < 0).all():
            return features
        features = features.copy()
        for index in range(len(self.names)):
            rows = np.flatnonzero(told == index)
            if len(rows):
                features[rows] = self.through(index, images[rows])
        return features

    def through(self, index: int, images: NDArray[Any]) -> NDArray[np.float32]:
        """Features `(n, f)` of images that are all of one domain, by its number in `names`."""
        graph = self._opened()
        fed = {DOMAIN_SCALE: self._scales[index], DOMAIN_SHIFT: self._shifts[index]}
        parts = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
        return np.concatenate([graph.run({"image": part, **fed})["features"] for part in parts])

    def close(self) -> None:
        """The end of it: its memory goes back to the system."""
        if self._graph is not None:
            self._graph.close()

    def _opened(self) -> Graph:
        with self._opening:
            if self._graph is None:
                self._graph = self._bundle.graph(DOMAIN_MODEL, self._tensors, self._threads)
            return self._graph
