"""What the frozen layers in front of the first site make of each image, computed once (docs/decisions/0013).

Augmentation comes before these layers, so an image is kept in several views: as it is, mirrored, and moved at random.
Training goes through an image's views in turn, from a random one on; everything else reads the first.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import PREFIX_CACHES, TrainingConfig, augmentation
from csk_sdk.contract.manifest import INT8, PORTABLE, PREFIX_MODEL
from csk_sdk.data.augment import augment
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.network.knowledge import Batch
from csk_sdk.runtime.sessions import Graph

OFF, MEMORY, DISK, AUTO = PREFIX_CACHES
MEMORY_BYTES = 64 << 20
# Left free on the disk: the commit needs room, and whatever else the device does.
_SPARE_DISK = 256 << 20

Features = NDArray[Any]


def choose_place(config: TrainingConfig, bundle: Bundle, pictures: int, backend: str = PORTABLE) -> str:
    """Where to keep the prefix features of so many images: "off", "memory" or "disk".

    "auto" is memory where all of them fit into MEMORY_BYTES, and off where they do not. A bundle without a frozen
    prefix, or another backend than the portable one, has nothing to keep, and a memory budget no room for it: off.
    """
    if backend != PORTABLE or not bundle.manifest.prefix or config.memory_budget is not None:
        return OFF
    if config.prefix_cache != AUTO:
        return config.prefix_cache
    fits = pictures * config.prefix_views * feature_bytes(bundle) <= MEMORY_BYTES
    return MEMORY if fits else OFF


def feature_dtype(bundle: Bundle) -> np.dtype[Any]:
    """How the bundle's prefix model stores its features in the precision that it runs in."""
    rounded = bundle.precision == INT8 and not bundle.manifest.in_float
    return np.dtype(np.uint8 if rounded else np.float16)


def feature_bytes(bundle: Bundle) -> int:
    """Bytes of one view of one image."""
    return int(np.prod(bundle.manifest.prefix)) * feature_dtype(bundle).itemsize


class PrefixCache:
    """Prefix features of a split's images, in `views` views of each, with batches as training reads them.

    Those of the first images that fit are kept, the others' are computed each time. `config.prefix_cache` is "memory"
    (up to MEMORY_BYTES) or "disk" (a file without a name in `folder`, which the system removes when the process ends,
    however it ends). Results do not depend on the place. What a view looks like depends on the seed, the image and
    the view.
    Call `fill` first, and use it in a `with` block.
    """

    def __init__(
        self,
        bundle: Bundle,
        tensors: Mapping[str, NDArray[Any]],
        pixels: PixelCache,
        config: TrainingConfig,
        folder: Path | None = None,
    ) -> None:
        self._bundle, self._tensors, self._threads = bundle, tensors, config.threads
        self._pixels = pixels
        self._flip, self._shift = augmentation(config, bundle.manifest)
        self.views = config.prefix_views
        self._seed = config.seed
        self._place, self._folder = config.prefix_cache, folder
        self._first_view = np.random.default_rng((config.seed, self.views)).integers(
            self.views, size=len(pixels)
        )
        self._graph: Graph | None = None
        self._kept: _Store = _InMemory(0, (), np.dtype(np.uint8))

    def __enter__(self) -> PrefixCache:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    @property
    def kept(self) -> int:
        """Of how many images the features are kept."""
        return self._kept.capacity // self.views

    def fill(self, batch_size: int) -> None:
        """Compute and keep the features of as many images as fit, in the order of the split."""
        self._kept = self._open()
        for start in range(0, self.kept, batch_size):
            index = np.arange(start, min(start + batch_size, self.kept))
            computed = [self._compute(index, np.full(len(index), view)) for view in range(self.views)]
            # One image's views lie together.
            rows = np.stack(computed, axis=1).reshape(-1, *self._bundle.manifest.prefix)
            if not self._kept.write(start * self.views, rows):
                self._kept.capacity = start * self.views
                break
        if self.kept == len(self._pixels):
            # Neither is needed again, or not often.
            self._pixels.forget()
            self._graph = None

    def training(self, index: NDArray[np.int64], epoch: int) -> Features:
        """Features `(n, *prefix)` of the images `index` `(n,)`, in this epoch's view of each."""
        return self._take(index, (self._first_view[index] + epoch) % self.views)

    def plain(self, size: int, order: NDArray[np.int64]) -> Iterator[Batch]:
        """The whole split once in this order, `size` at a time, as it is: features and labels."""
        return self._batches(size, order, 0)

    def mirrored(self, size: int, order: NDArray[np.int64]) -> Iterator[Batch]:
        """The same with each image mirrored."""
        return self._batches(size, order, 1)

    def _batches(self, size: int, order: NDArray[np.int64], view: int) -> Iterator[Batch]:
        for start in range(0, len(order), size):
            index = order[start : start + size]
            yield self._take(index, np.full(len(index), view)), self._pixels.labels[index]

    def _take(self, index: NDArray[np.int64], views: NDArray[np.int64]) -> Features:
        rows = index * self.views + views
        # A mirrored view that is not among those kept lies behind them.
        there = (index < self.kept) & (views < self.views)
        if there.all():
            return self._kept.read(rows)
        features = np.empty((len(index), *self._bundle.manifest.prefix), feature_dtype(self._bundle))
        features[there] = self._kept.read(rows[there])
        features[~there] = self._compute(index[~there], views[~there])
        return features

    def _compute(self, index: NDArray[np.int64], views: NDArray[np.int64]) -> Features:
        pictures = self._pixels.batch(index)
        seen = [
            self._view(picture, int(i), int(view))
            for picture, i, view in zip(pictures, index, views, strict=True)
        ]
        if self._graph is None:
            self._graph = self._bundle.graph(PREFIX_MODEL, self._tensors, self._threads)
        feeds = {"image": self._bundle.preprocessing.normalize(np.stack(seen))}
        return self._graph.run(feeds, release=True)["prefix"]

    def _view(self, picture: NDArray[Any], index: int, view: int) -> NDArray[Any]:
        """0 as it is; 1 mirrored, where images may be; then moved, and perhaps mirrored, at random."""
        if view == 0:
            return picture
        if view == 1 and self._flip:
            return picture[:, ::-1]
        rng = np.random.default_rng((self._seed, index, view))
        moved: NDArray[Any] = augment(picture[None], rng, self._flip, self._shift)[0]
        return moved

    def _open(self) -> _Store:
        size = feature_bytes(self._bundle)
        room = MEMORY_BYTES
        if self._place == DISK:
            assert self._folder is not None
            room = max(0, shutil.disk_usage(self._folder).free - _SPARE_DISK)
        pictures = min(len(self._pixels), room // (size * self.views))
        made = pictures * self.views, self._bundle.manifest.prefix, feature_dtype(self._bundle)
        return _OnDisk(*made, cast(Path, self._folder)) if self._place == DISK else _InMemory(*made)


class _Store(Protocol):
    """Rows of one shape and type, written in order and read in any; `capacity` is how many there are."""

    capacity: int

    def write(self, start: int, rows: Features) -> bool:
        """Whether there was room."""
        ...

    def read(self, rows: NDArray[np.int64]) -> Features: ...

    def close(self) -> None: ...


class _InMemory:
    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.capacity = capacity
        self._rows = np.empty((capacity, *shape), dtype)

    def write(self, start: int, rows: Features) -> bool:
        self._rows[start : start + len(rows)] = rows
        return True

    def read(self, rows: NDArray[np.int64]) -> Features:
        return self._rows[rows]

    def close(self) -> None:
        self._rows = self._rows[:0]


class _OnDisk:
    """A file without a name. Read by position, not mapped: mapped pages would count as the process's memory."""

    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: np.dtype[Any], folder: Path) -> None:
        self.capacity = capacity
        self._shape, self._dtype = shape, dtype
        self._size = int(np.prod(shape)) * dtype.itemsize
        self._file: BinaryIO | None = None
        try:
            # Features of images are as private as the images: never under a name that could outlive the task.
            self._file = cast(BinaryIO, tempfile.TemporaryFile(prefix=".features-", dir=folder, buffering=0))  # noqa: SIM115
        except OSError:
            self.capacity = 0

    def write(self, start: int, rows: Features) -> bool:
        assert self._file is not None
        data = np.ascontiguousarray(rows).data.cast("B")
        try:
            self._file.seek(start * self._size)
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            return False
        return True

    def read(self, rows: NDArray[np.int64]) -> Features:
        found = np.empty((len(rows), *self._shape), self._dtype)
        assert self._file is not None or not len(rows)
        for place, row in zip(found, rows, strict=True):
            assert self._file is not None
            self._file.seek(int(row) * self._size)
            data = place.data.cast("B")
            while data:
                count = self._file.readinto(data)  # type: ignore[attr-defined]
                if not count:
                    raise OSError("the cache of prefix features was cut short")
                data = data[count:]
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
