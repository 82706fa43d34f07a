"""The header of a safetensors file, checked before a library reads the file and believes it.

The format: 8 bytes of length (little-endian), a JSON object of that length, the data. Each entry of the object says a
tensor's dtype, shape and place in the data.
"""

from __future__ import annotations

import json
import os
import struct
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from csk_sdk.formats.opening import open_file

_BYTES = {"F64": 8, "F32": 4, "I64": 8, "U8": 1, "F16": 2, "BF16": 2, "I32": 4, "I16": 2, "I8": 1, "BOOL": 1}
# Some 100,000 tensors with long names, or the names of as many classes in the metadata.
_LONGEST_HEADER = 16 << 20
_BY_PLACE = itemgetter(0, 1)
# Of a shape or an offset.
_MOST = 1 << 48


def check_header(path: Path) -> None:
    """Raise ValueError, saying what is wrong, unless the header of `path` describes just the data behind it.

    Every tensor must have the bytes that its dtype and shape ask for, none may overlap another or leave a hole, and
    all of them must fill the file. Raises OSError where it cannot be read.
    """
    with open_file(path) as file:
        check_open_header(file)


def check_open_header(file: IO[bytes]) -> tuple[dict[str, Any], int]:
    """`check_header` of a file that is open, at its beginning; gives what `read_entries` does."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    if len(prefix) < 8:
        raise ValueError(f"it has {len(prefix)} bytes, too few for a safetensors file")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(_LONGEST_HEADER, size - 8):
        raise ValueError(f"its header claims {length} bytes, and the file has {size}")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise ValueError("its header is not valid JSON") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    header.pop("__metadata__", None)
    end = 0
    for begin, stop, name in sorted(_places(header), key=_BY_PLACE):
        if begin != end:
            raise ValueError(f"tensor {_short(name)!r} does not begin where the one before it ends")
        end = stop
    if end != size - 8 - length:
        raise ValueError(f"its tensors take {end} bytes, and the file has {size - 8 - length} for them")
    return header, 8 + length


def tensor_places(path: Path) -> dict[str, int]:
    """Where in the file each tensor's bytes begin, by name; of a file that `check_header` has passed."""
    with open_file(path) as file:
        entries, data = read_entries(file)
    return {name: data + entry["data_offsets"][0] for name, entry in entries.items()}


def read_entries(file: IO[bytes]) -> tuple[dict[str, Any], int]:
    """What the header says of each tensor, by name, and where the data begin; of a file that passed `check_header`."""
    (length,) = struct.unpack("<Q", file.read(8))
    entries: dict[str, Any] = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    return entries, 8 + length


def read_metadata(file: IO[bytes]) -> dict[str, str]:
    """The text beside the tensors, by name; of a file that passed `check_open_header`, at its beginning."""
    (length,) = struct.unpack("<Q", file.read(8))
    found = json.loads(file.read(length)).get("__metadata__")
    if not isinstance(found, dict):
        return {}
    return {str(name): text for name, text in found.items() if isinstance(text, str)}


def _places(header: dict[str, Any]) -> list[tuple[int, int, str]]:
    """Where each tensor begins and ends, and its name. A state has two for each task: all that is done is done here."""
    places = []
    for name, entry in header.items():
        try:
            dtype, shape, (begin, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"tensor {_short(name)!r} lacks dtype, shape or data_offsets") from None
        if type(dtype) is not str or dtype not in _BYTES:
            raise ValueError(f"tensor {_short(name)!r} has a dtype that is not known")
        size = _BYTES[dtype]
        possible = type(shape) is list and len(shape) <= 64 and type(begin) is type(stop) is int
        for count in shape if possible else ():
            possible = possible and type(count) is int and 0 <= count < _MOST
            size *= count if possible else 0
        if not possible or not (0 <= begin < _MOST and 0 <= stop < _MOST):
            raise ValueError(f"tensor {_short(name)!r} has a shape or offsets that cannot be")
        if stop - begin != size:
            raise ValueError(f"tensor {_short(name)!r} of shape {shape[:8]} cannot have {stop - begin} bytes")
        places.append((begin, stop, name))
    return places


def _short(name: str) -> str:
    return name if len(name) <= 80 else name[:80] + "..."
