"""From a uint8 RGB image of any size to the float32 input of the bundle's graphs, and what signals share with that.

Two halves, because only the second is needed on every step: `to_size` (channels, then size; still uint8, so
that resized images are small to keep) and `normalize` (float32, channels first). Calling a `Preprocessing` does both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csk_sdk.contract.manifest import InputSpec, PreprocessingSpec
from csk_sdk.data.signals import Signal
from csk_sdk.errors import BundleError, TaskError
from csk_sdk.formats.given import items_of
from csk_sdk.formats.wording import plural

Pixels = NDArray[np.uint8]


class Preprocessing(ABC):
    """What the bundle's manifest says about its input, as functions on arrays.

    `shape` and `dtype` are those of one image or signal out of `to_size`: `(*size, channels)`.
    Raises BundleError when the manifest's mean, std or resize cannot be applied.
    """

    dtype: ClassVar[np.dtype[Any]]
    _RESIZES: ClassVar[tuple[str, str]]

    def __init__(self, spec: PreprocessingSpec, input_spec: InputSpec, scale: float) -> None:
        channels = input_spec.channels
        mean = np.asarray(spec.mean, np.float64)
        std = np.asarray(spec.std, np.float64)
        if mean.shape != (channels,) or std.shape != (channels,):
            raise BundleError(
                f"The bundle's preprocessing has {mean.size} means and {std.size} standard deviations for "
                f"{channels} input channels: build the bundle again."
            )
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise BundleError(
                f"The bundle's preprocessing has mean {spec.mean} and std {spec.std}, and every mean must be "
                "finite and every std above zero: build the bundle again."
            )
        if spec.resize not in self._RESIZES:
            raise BundleError(
                f"The bundle's preprocessing asks for resize '{spec.resize}', and this csk-sdk knows "
                f"{' and '.join(repr(way) for way in self._RESIZES)}: update csk-sdk on this device."
            )
        self.channels = channels
        self.shape = (*input_spec.size, channels)
        # (x * scale - mean) / std as one multiplication and one addition; the constants are rounded once.
        per_channel = (channels, *[1] * len(input_spec.size))
        self._gain = (scale / std).astype(np.float32).reshape(per_channel)
        self._offset = (-mean / std).astype(np.float32).reshape(per_channel)

    @abstractmethod
    def to_size(self, item: Any, where: str) -> NDArray[Any]:
        """Give one image or signal the model's size; `where` names it in errors. Raises TaskError."""

    @abstractmethod
    def stack(self, items: NDArray[Any] | Sequence[Any]) -> NDArray[Any]:
        """`to_size` for many: `(n, *shape)`. Raises TaskError."""

    def normalize(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """`(x * scale - mean) / std` per channel.

        batch: `(n, *size, channels)` out of `stack`. Returns float32 `(n, channels, *size)`, C-contiguous.
        """
        result = np.moveaxis(batch, -1, 1).astype(np.float32, order="C")
        result *= self._gain
        result += self._offset
        return result

    def __call__(self, items: NDArray[Any] | Sequence[Any]) -> NDArray[np.float32]:
        """`normalize(stack(items))`: float32 `(n, channels, *size)`. Raises TaskError."""
        return self.normalize(self.stack(items))


class PicturePreprocessing(Preprocessing):
    """Images as the manifest says: uint8, the model's channels, resized."""

    dtype = np.dtype(np.uint8)
    _RESIZES = ("bilinear", "none")

    def __init__(self, spec: PreprocessingSpec, input_spec: InputSpec) -> None:
        super().__init__(spec, input_spec, spec.scale)
        self.height, self.width = input_spec.size
        self._resizes = spec.resize == "bilinear"

    def to_size(self, item: NDArray[Any], where: str) -> Pixels:
        """Give an image the model's channels and size.

        item: uint8 `(h, w)` or `(h, w, c)`, c = 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha);
        a model with another number of channels takes images with just that many. Alpha is dropped.
        where: names the image in errors. Returns uint8 `(height, width, channels)`, C-contiguous; the very
        memory of `item` if nothing had to change.
        Raises TaskError for another dtype or shape, and for another size if the bundle does not resize.
        """
        self._check(item, where)
        pixels = item[:, :, None] if item.ndim == 2 else item
        height, width, channels = pixels.shape
        if (height, width) != (self.height, self.width) and not self._resizes:
            raise TaskError(
                f"{where} is {width}x{height} pixels (width x height) and the model takes "
                f"{self.width}x{self.height}: resize it, or build the bundle with --resize bilinear."
            )
        if channels != self.channels:
            pixels = self._convert(pixels, where)
        if (height, width) != (self.height, self.width):
            pixels = _resize(pixels, self.height, self.width)
        if pixels.shape[2] != self.channels:
            pixels = np.repeat(pixels, self.channels, axis=2)  # gray: resized once, repeated afterwards
        return np.ascontiguousarray(pixels)

    def stack(self, items: NDArray[Any] | Sequence[Any]) -> Pixels:
        """`to_size` for many: a uint8 RGB `(n, h, w, c)` array, or a list of images of any size.

        A model with one channel also takes `(n, h, w)`. Returns uint8 `(n, height, width, channels)`.
        Raises TaskError as `to_size` does.
        """
        items = items_of(items, "images")
        if isinstance(items, np.ndarray):
            items = self._as_nhwc(items)
            if items.shape[1:] == self.shape:
                return np.ascontiguousarray(items)
        batch = np.empty((len(items), *self.shape), np.uint8)
        for i, image in enumerate(items):
            batch[i] = self.to_size(image, f"image {i}")
        return batch

    def _as_nhwc(self, images: NDArray[Any]) -> Pixels:
        _require_no_uint16("The images are", images)
        if images.dtype != np.uint8:
            raise TaskError(
                f"The images are {images.dtype} and must be uint8 (0 to 255): normalisation is part of the "
                "bundle, so hand over the pixels as the camera or the file gave them."
            )
        # A single color image would otherwise pass as `h` gray ones, each 3 pixels wide.
        one_picture = images.ndim == 3 and images.shape[2] <= 4 and images.shape[2] != self.width
        if images.ndim == 3 and self.channels == 1 and not one_picture:
            return images[:, :, :, None]
        if images.ndim != 4:
            raise TaskError(
                f"The images have shape {images.shape} and a batch has shape (n, height, width, channels): "
                "hand over a single image as image[None]."
            )
        return images

    def _check(self, image: NDArray[Any] | Signal, where: str) -> None:
        if isinstance(image, Signal):
            raise TaskError(
                f"{where} is a signal of {plural(len(image.samples), 'sample')}, and the model takes images of "
                f"{self.width}x{self.height} pixels (width x height): hand over uint8 images."
            )
        if not isinstance(image, np.ndarray):
            raise TaskError(f"{where} is a {type(image).__name__} and must be a uint8 NumPy array.")
        _require_no_uint16(f"{where} is", image)
        if image.dtype != np.uint8:
            raise TaskError(f"{where} is {image.dtype} and must be uint8 (0 to 255).")
        if image.ndim not in (2, 3):
            raise TaskError(
                f"{where} has shape {image.shape} and must be (height, width) or (height, width, channels)."
            )
        if image.size == 0:
            raise TaskError(f"{where} has shape {image.shape}: there is no pixel in it.")

    def _convert(self, pixels: Pixels, where: str) -> Pixels:
        """`(h, w, c)` to the model's channels; gray for an RGB model stays `(h, w, 1)`."""
        channels = pixels.shape[2]
        if channels != 4 == self.channels:
            raise TaskError(
                f"{where} has {plural(channels, 'channel')} without alpha, which is not read of picture files, and the "
                "model takes 4: hand over arrays, such as those of an npz file, with the channels that the model was "
                "trained on."
            )
        if channels > 4 or self.channels not in (1, 3):
            raise TaskError(
                f"{where} has {plural(channels, 'channel')} and the model takes {self.channels}: "
                "hand over images with the channels that the model was trained on."
            )
        if channels in (2, 4):
            pixels = np.ascontiguousarray(pixels[:, :, :-1])
        if self.channels == 1 and pixels.shape[2] == 3:
            return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
        return pixels


def _require_no_uint16(where: str, image: NDArray[Any]) -> None:
    if image.dtype == np.uint16:
        raise TaskError(
            f"{where} uint16 and must be uint8: hand over the upper 8 of the bits that the camera fills, "
            "(images >> (bit_depth - 8)).astype(numpy.uint8), as tasks with that bit_depth have them."
        )


def _resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Pillow's (antialiased) bilinear resize of uint8 `(h, w, c)`."""
    size = (width, height)
    if pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    # Channel by channel, since Pillow would take two or four channels for alpha and weigh the others by it.
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, Image.Resampling.BILINEAR))
        for plane in np.moveaxis(pixels, 2, 0)
    ]
    return np.stack(planes, axis=2)
