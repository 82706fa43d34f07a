"""Where a task's images come from: an array in memory, or image files decoded when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from csk_sdk.data.bit_depth import eight_bits, require_bit_depth, require_bright
from csk_sdk.data.deep_png import deep_values
from csk_sdk.data.picture_structure import slow_to_open, slow_to_paint
from csk_sdk.data.source import Files, undecodable, unreadable
from csk_sdk.errors import TaskError

Pixels = NDArray[np.uint8]

# Only these decoders see a file, whatever its suffix claims: Pillow knows formats that run other programs.
_DECODERS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "GIF": (".gif",),  # its first frame
    "TIFF": (".tif", ".tiff"),  # stored as it is
    # These where this Pillow has them.
    **({"AVIF": (".avif",)} if "avif" in features.modules and features.check_module("avif") else {}),
    **({"HEIF": (".heic", ".heif")} if find_spec("pillow_heif") else {}),
}
PICTURE_SUFFIXES = frozenset(suffix for suffixes in _DECODERS.values() for suffix in suffixes)
PICTURE_FORMATS = "PNG, JPEG, BMP, WebP, GIF or TIFF"

# Above today's 50-megapixel phone cameras; decoded to RGB, already 192 MiB of the device's memory.
MAX_PIXELS = 64 << 20

# Pillow unpacks these byte by byte in Python: a file of 200 bytes could keep it busy for minutes. Found by fuzzing.
_MOST_RUN_LENGTH_PIXELS = 1 << 20


class ArrayImages:
    """Images of one size in a uint8 RGB array, `(n, h, w, c)`, or `(n, h, w)` if they are gray.

    where: what messages call the array. Raises TaskError when the array is of another dtype or shape.
    """

    noun = "image"

    def __init__(self, images: NDArray[Any], where: str = "images") -> None:
        _check_pixels(images, where)
        self._images: Pixels = images[:, :, :, None] if images.ndim == 3 else images
        self._where = where

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def read(self, index: int) -> Pixels:
        """Return a view of the image, uint8 `(h, w, c)`."""
        picture: Pixels = self._images[index]
        return picture

    def name(self, index: int) -> str:
        """Return the array's name and the index."""
        return f"{self._where}[{index}]"

    def identity(self, index: int) -> str:
        """Return index, shape, byte size and sha256 of the pixels."""
        pixels = np.ascontiguousarray(self._images[index])
        return f"{index} {pixels.shape} {pixels.nbytes} {hashlib.sha256(pixels.data).hexdigest()}"


class FileImages(Files):
    """Image files, opened only while one of them is read.

    bit_depth: how many bits of a 16-bit value count, all 16 when None (`data/bit_depth.py`); files of 8 bits have 8.
    Raises ConfigError for another one than 8 to 16.
    """

    noun = "image"

    def __init__(
        self, paths: Sequence[Path | str], root: Path | None = None, bit_depth: int | None = None
    ) -> None:
        super().__init__(paths, root)
        require_bit_depth(bit_depth)
        self._bit_depth = bit_depth
        # The brightest 16-bit value read so far, and where it was.
        self._top: tuple[int, Path] | None = None

    def identity(self, index: int) -> str:
        """As `Files.identity`, and the bit depth where one is set: the same file is another image then."""
        plain = super().identity(index)
        return plain if self._bit_depth is None else f"{plain} {self._bit_depth} bits"

    def require_bright(self) -> None:
        """Raise TaskError where all 16-bit images read so far are dark, and no bit depth was set."""
        if self._top is not None:
            require_bright(self._top[0], self._bit_depth, self._top[1])

    def read(self, index: int) -> Pixels:
        """Decode an image: uint8 `(h, w, 1)` if it is gray, else RGB `(h, w, 3)`, upright, without alpha.

        Of a GIF the first frame. Raises TaskError when the file is missing, unreadable, damaged, larger than 64
        Mi pixels or slow to decode by its structure, a TIFF that is compressed, or of a format that is not
        read: PICTURE_FORMATS, and HEIC and AVIF where Pillow has them; or where it has values of another bit
        depth.
        """
        path = self._paths[index]
        try:
            with ExitStack() as opened:

                def again() -> Image.Image:
                    file = opened.enter_context(self._open(index))
                    if (slow := slow_to_open(file)) is not None:
                        raise undecodable(path, slow)
                    return opened.enter_context(Image.open(file, formats=_formats()))

                image = again()
                if image.width * image.height > MAX_PIXELS:
                    raise undecodable(path, f"{image.width}x{image.height} pixels, more than {MAX_PIXELS}")
                if image.width * image.height > _MOST_RUN_LENGTH_PIXELS and _is_run_length_encoded(image):
                    raise undecodable(path, "a run-length encoded BMP; store it as PNG")
                if image.format == "JPEG" and (slow := slow_to_paint(*_file_and_pixels(image))) is not None:
                    raise undecodable(path, slow)
                if image.format == "TIFF" and any(tile[0] != "raw" for tile in getattr(image, "tile", ())):
                    raise undecodable(path, "a compressed TIFF; store it as PNG")
                if image.mode == "F":
                    raise undecodable(path, "pixels that are not integers; store it as PNG")
                exact = self._bit_depth not in (None, 16)
                deep = deep_values(image, again, exact)
                if deep is None:
                    return _upright_pixels(image)
            top = (int(deep.max(initial=0)), path)
            self._top = top if self._top is None else max(self._top, top)
            return eight_bits(deep, self._bit_depth, str(path))
        except TaskError:
            raise
        except UnidentifiedImageError:
            raise undecodable(path, f"not a {PICTURE_FORMATS} image") from None
        except Exception as error:
            # Decoders raise what they like on damaged data: OSError, SyntaxError, struct.error and others.
            if isinstance(error, OSError) and error.errno is not None:
                raise unreadable(path, error) from None
            raise undecodable(path, str(error).rstrip(".") or type(error).__name__) from None


@cache
def _formats() -> tuple[str, ...]:
    if "HEIF" in _DECODERS:
        import_module("pillow_heif").register_heif_opener()
    return tuple(_DECODERS)


def _file_and_pixels(image: Image.Image) -> tuple[BinaryIO, int]:
    file: BinaryIO = image.fp  # type: ignore[attr-defined]
    return file, image.width * image.height


def _is_run_length_encoded(image: Image.Image) -> bool:
    return any(tile[0] == "bmp_rle" for tile in getattr(image, "tile", ()))


def _upright_pixels(image: Image.Image) -> Pixels:
    upright = ImageOps.exif_transpose(image)
    # A palette's alpha is dropped like any other; left in place, Pillow would warn about dropping it.
    upright.info.pop("transparency", None)
    if upright.mode in ("1", "L", "LA", "La"):
        return np.asarray(upright.convert("L"))[:, :, None]
    return np.asarray(upright.convert("RGB"))


def _check_pixels(images: NDArray[Any], where: str) -> None:
    if np.issubdtype(images.dtype, np.floating):
        bad = int(np.isnan(images).sum())
        if bad:
            raise TaskError(
                f"{where} has {bad} NaN values, and images must be uint8 (0 to 255): remove the images "
                "that hold them, and store the others as uint8."
            )
    if images.dtype == np.uint16 and images.ndim >= 3:
        raise TaskError(
            f"{where} is uint16, and how many of its 16 bits the camera fills is not said: set bit_depth (10, 12, 14, "
            "16) under [data] in csk.toml, or pass bit_depth= to Task, so that the upper 8 of them are taken."
        )
    if images.dtype != np.uint8:
        perhaps = " Signals go into an array called signals, or into Task.from_signals."
        raise TaskError(
            f"{where} is {images.dtype}, and images must be uint8 (0 to 255): normalisation is part of the "
            "bundle, so store the pixels as the camera or the file gave them."
            + (perhaps if images.ndim < 4 else "")
        )
    gray = images.ndim == 3
    if not gray and images.ndim != 4:
        raise TaskError(
            f"{where} has shape {images.shape}, and images must be (n, height, width, channels), "
            "or (n, height, width) if they are gray."
        )
    if len(images) == 0:
        raise TaskError(f"{where} holds no image (shape {images.shape}): put at least one into it.")
    if images.size == 0:
        raise TaskError(f"{where} has shape {images.shape}: there is no pixel in its images.")
