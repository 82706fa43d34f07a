"""From values of up to 16 bits to the 8 that an image has: one rule for files and arrays, training and prediction.

A camera of 10, 12 or 14 bits has its values at the lower end of 16: 4095 is white for one of 12. The PNG standard says
that 65535 is (its chunk sBIT, too, tells of values that were scaled up), so a file does not tell; and no image is
scaled by what is in it, which would take its brightness. The bit depth is a setting instead, and the upper 8 of that
many bits count: `value >> (bit_depth - 8)`. Where it is not set 16 count, and what is dark by that is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import ConfigError, TaskError

_LEAST, _MOST = 8, 16
# An image without any value of more than 12 bits is black on 8; a task without any of more than 14, dark.
_BLACK, _DARK = 1 << 12, 1 << 14
_SAY = "under [data] in csk.toml (bit_depth= in Python, --bit-depth where a bundle is built)"


def require_bit_depth(value: Any, where: str = "bit_depth is") -> None:
    """Raise ConfigError unless it is None, or a whole number from 8 to 16. `where` begins the sentence."""
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not _LEAST <= value <= _MOST:
        raise ConfigError(
            f"{where} {value!r}; it must be a whole number from {_LEAST} to {_MOST}: how many bits of a 16-bit "
            "value the camera fills."
        )


def eight_bits(values: NDArray[Any], bit_depth: int | None, where: str) -> NDArray[np.uint8]:
    """The upper 8 of the `bit_depth` bits of integers of any shape, 16 where it is None.

    Raises TaskError where a value has more bits, or where none is set and all values are black.
    """
    top = int(values.max(initial=0))
    if bit_depth is None and top < _BLACK:
        raise _doubt(f"{where} has 16 bits a value", top)
    bits = bit_depth or _MOST
    if top >> bits:
        raise _with_advice(
            f"{where} has a value of {top}, and with bit_depth = {bits} white is {(1 << bits) - 1}",
            f"set bit_depth to the camera's own {_SAY}.",
        )
    shifted: NDArray[np.uint8] = (values >> (bits - _LEAST)).astype(np.uint8)
    return shifted


def images_of_eight_bits(
    arrays: dict[str, NDArray[Any]], bit_depth: int | None, where: str
) -> dict[str, NDArray[Any]]:
    """A task's arrays, with images of uint16 as uint8 where the bit depth is known. Raises as `eight_bits` does."""
    require_bit_depth(bit_depth)
    if bit_depth is None:
        return arrays
    deep = [name for name in ("images", "test_images") if name in arrays and arrays[name].dtype == np.uint16]
    return arrays | {name: eight_bits(arrays[name], bit_depth, f"{where}{name}") for name in deep}


def require_bright(top: int, bit_depth: int | None, example: Path | str) -> None:
    """Raise TaskError where the largest 16-bit value of many images is `top`, and they are dark by no setting."""
    if bit_depth is None and top < _DARK:
        raise _doubt(f"All images of 16 bits a value are dark ({example} is one)", top)


def _doubt(what: str, top: int) -> TaskError:
    return _with_advice(
        f"{what}, and none of them is above {top} of 65535",
        f"data of 10, 12 or 14 bits? Set bit_depth to the camera's own {_SAY}, or to 16 where they are meant to be "
        "this dark.",
    )


def _with_advice(what: str, advice: str) -> TaskError:
    """Apart, for a list of several (data/broken.py), which gives it once."""
    error = TaskError(f"{what}: {advice}")
    vars(error).update(what=what, advice=advice[0].upper() + advice[1:])
    return error
