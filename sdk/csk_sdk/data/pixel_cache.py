"""A split's images or signals at the model's input size, as many of them in memory as a budget allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.data.broken import require_whole
from csk_sdk.data.preprocess import Preprocessing
from csk_sdk.data.source import require_bright
from csk_sdk.data.tasks import Split
from csk_sdk.errors import TaskError

# uint8 images, or float32 signals.
Pixels = NDArray[Any]


class PixelCache:
    """Batches of resized images, uint8, or of cropped signals, float32.

    The first ones that fit into `budget_bytes` are kept, the rest is decoded each time. Nothing is ever
    evicted: training visits all of them once per epoch, and there a least-recently-used cache that is too
    small never hits.
    """

    def __init__(self, split: Split, preprocessing: Preprocessing, budget_bytes: int = 64 << 20) -> None:
        self._images = split.images
        self._labels = split.labels
        self._preprocessing = preprocessing
        self._capacity = budget_bytes // (int(np.prod(preprocessing.shape)) * preprocessing.dtype.itemsize)
        self._kept: dict[int, Pixels] = {}

    def __len__(self) -> int:
        """Return the number of images in the split."""
        return len(self._images)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the images kept; images already in memory at the right size are kept as views."""
        return sum(pixels.nbytes for pixels in self._kept.values())

    @property
    def labels(self) -> NDArray[Any]:
        """The split's labels, in its order."""
        return self._labels

    def forget(self) -> None:
        """Drop the images kept: they are decoded again when they are asked for."""
        self._kept.clear()
        self._capacity = 0

    def batch(self, indices: Iterable[int] | NDArray[np.int64]) -> Pixels:
        """Return the images at `indices` (of the split): a new array `(n, *size, channels)`.

        Raises TaskError when an image cannot be read or has a size that the bundle does not take.
        """
        pictures = [self._picture(int(index)) for index in indices]
        return (
            np.stack(pictures)
            if pictures
            else np.empty((0, *self._preprocessing.shape), self._preprocessing.dtype)
        )

    def batches(
        self, size: int, order: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
        """The whole split once: images as `batch` gives them, and labels, `size` at a time; the last may be fewer.

        `order` `(n,)` are indices of the split, by default its own order. Raises TaskError for an image that cannot be
        read and, at the end, where all of them are dark for want of a bit depth.
        """
        indices = np.arange(len(self)) if order is None else order
        for start in range(0, len(indices), size):
            part = indices[start : start + size]
            yield self.batch(part), self._labels[part]
        require_bright(self._images)

    def verify(self) -> None:
        """Read every image once, so that a bad one is found before anything is learned.

        Raises TaskError for bad images, each reason once, or where all of them are dark for want of a bit depth.
        """
        broken = []
        for index in range(len(self._images)):
            try:
                self._picture(index)
            except TaskError as error:
                broken.append((self._images.name(index), error))
        require_whole(broken, len(self._images), self._images.noun)
        require_bright(self._images)

    def _picture(self, index: int) -> Pixels:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        pixels = self._preprocessing.to_size(self._images.read(index), self._images.name(index))
        if len(self._kept) < self._capacity:
            self._kept[index] = pixels
        return pixels
