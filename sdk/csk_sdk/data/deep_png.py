"""All 16 bits of a PNG file's values, of which Pillow gives the upper 8 where the image is in color or has alpha.

Its decoder is told that the bytes lie otherwise, so that the lower ones come out, too. Whatever else decoding does
(filters, interlacing, checks of the data) stays Pillow's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Deep = NDArray[np.uint16]

_GRAY_ALPHA = "LA;16B"
# What Pillow calls big-endian values in color, and little-endian ones: it takes the byte that comes first, or second.
_COLOR = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def deep_values(image: Image.Image, again: Callable[[], Image.Image], exact: bool) -> Deep | None:
    """The values `(h, w, 1)` or `(h, w, 3)` of an image of 16 bits, upright, without alpha; None for another.

    image: opened, and not decoded yet; `again` opens it once more. Unless `exact`, the lower 8 bits of colors are all
    set, which takes half the time. Raises what Pillow's decoder raises.
    """
    layout = _layout(image)
    if layout in _COLOR:
        upper = _bytes(image)[:, :, :3]
        if not exact:
            return _joined(upper, np.uint8(255))
        with again() as other:
            return _joined(upper, _bytes(_read_as(other, _COLOR[layout]))[:, :, :3])
    if layout == _GRAY_ALPHA:
        pixels = _bytes(_read_as(image, "RGBA"))  # the two bytes of gray, then those of alpha
        return _joined(pixels[:, :, :1], pixels[:, :, 1:2])
    if image.mode.startswith("I"):
        # Pillow's own conversion to 8 bits would clip everything above 255 to white; older versions have 32 bits here.
        gray: Deep = np.clip(np.asarray(ImageOps.exif_transpose(image)), 0, 65535).astype(np.uint16)
        return gray[:, :, None]
    return None


def _joined(upper: NDArray[np.uint8], lower: NDArray[np.uint8] | np.uint8) -> Deep:
    joined: Deep = np.left_shift(upper, 8, dtype=np.uint16)
    joined |= lower
    return joined


def _bytes(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(ImageOps.exif_transpose(image))


def _layout(image: Image.Image) -> Any:
    tiles: Any = getattr(image, "tile", ())
    return tiles[0][3] if len(tiles) == 1 else None


def _read_as(image: Any, layout: str) -> Image.Image:
    image.tile = [(*tile[:3], layout) for tile in image.tile]
    other: Image.Image = image
    return other
