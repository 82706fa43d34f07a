"""Reading the arrays of an npz file that came from outside, without believing what it claims about their size.

An npz file is a zip archive of `.npy` files. Nothing is unpacked to disk, so names in the archive cannot lead anywhere,
and nothing is unpickled. Only what NumPy itself writes is read: members that are stored as they are or deflated, which
inflate piece by piece and never past what was asked for. The decoders of other methods hand out all that a piece of the
file unpacks to. What each array claims to need is added up and compared before memory is asked for.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import TaskError
from csk_sdk.formats.opening import RefusedError, open_file

# Deflate cannot shrink anything to less than 1/1032. Images rarely shrink to 1/10; a bomb is near the limit.
_MOST_INFLATION = 200
_HARMLESS = 64 << 20
_LARGEST = 4 << 30
# A task has seven arrays at most; whoever keeps others beside them has no thousands.
_MOST_MEMBERS, _LARGEST_DIRECTORY = 1000, 1 << 20
# What NumPy reads of a header, too; it would first ask for as much memory as the header says, up to 4 GiB.
_LONGEST_HEADER = 10_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_OTHERS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "lzma", 93: "zstd"}
_AGAIN = "write it again with numpy.savez."


def load_arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Those of the arrays `names` that the npz file `path` has; others in the file are left alone.

    Raises TaskError when it is no npz file, is damaged, asks for pickle, is packed as NumPy packs nothing, or claims
    more memory than it may.
    """
    try:
        with open_file(path) as file:
            if not zipfile.is_zipfile(file):
                raise TaskError(f"{path} is not an npz file: {_AGAIN}")
            with zipfile.ZipFile(_Pieces(file, path)) as archive:
                entries = _members(archive, names, path)
                _check_sizes(path, os.fstat(file.fileno()).st_size, entries.values())
                return {name: _read(archive, entry) for name, entry in entries.items()}
    except TaskError:
        raise
    except RefusedError:
        raise TaskError(f"{path} is no ordinary file: put the npz file itself there.") from None
    except MemoryError:
        raise TaskError(
            f"{path} does not fit into this device's memory: split it into smaller tasks, or use a folder."
        ) from None
    except Exception as error:
        # zipfile, zlib and NumPy each have their own errors for a damaged or pickled array.
        words = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        reason = words.splitlines()[0][:200].rstrip(".")
        raise TaskError(f"{path} cannot be read ({reason}): {_AGAIN}") from None


class _Pieces:
    """A file that hands out no more at once than an archive's directory may have, which zipfile reads as a whole."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        # Without a size zipfile asks for the end of the file only, of 64 KiB.
        if size > _LARGEST_DIRECTORY:
            raise _too_many(self._path)
        return self._file.read(size if size >= 0 else _LARGEST_DIRECTORY)


def _members(archive: zipfile.ZipFile, names: Iterable[str], path: Path) -> dict[str, zipfile.ZipInfo]:
    if len(archive.filelist) > _MOST_MEMBERS:
        raise _too_many(path)
    entries = {name: archive.getinfo(f"{name}.npy") for name in names if f"{name}.npy" in archive.NameToInfo}
    for name, entry in entries.items():
        if entry.compress_type not in _METHODS:
            method = _OTHERS.get(entry.compress_type, str(entry.compress_type))
            raise TaskError(
                f"{path}: {name} is compressed by the method {method}, and NumPy writes none but deflate: {_AGAIN}"
            )
    return entries


def _too_many(path: Path) -> TaskError:
    return TaskError(
        f"{path} lists more than {_MOST_MEMBERS} arrays, and a task has seven at most: keep those of the task in it."
    )


def _check_sizes(path: Path, packed: int, entries: Iterable[zipfile.ZipInfo]) -> None:
    claimed = sum(entry.file_size for entry in entries)
    if claimed > _LARGEST:
        raise TaskError(
            f"{path} claims to hold {claimed / 1e9:.1f} GB, and an npz task may hold {_LARGEST / 1e9:.1f} GB: "
            "split it into smaller tasks, or use a folder."
        )
    if claimed > max(_HARMLESS, _MOST_INFLATION * packed):
        raise TaskError(
            f"{path} claims to hold {claimed / 1e6:.0f} MB in {packed / 1e6:.1f} MB, which no images do: "
            f"it is damaged, or a decompression bomb. Do not use it; {_AGAIN}"
        )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """One array, after its header was compared with the bytes that there are."""
    with archive.open(entry) as file:
        read_header(file, entry.file_size, entry.filename)
    with archive.open(entry) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def read_header(file: IO[bytes], size: int, name: str = "") -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an npy file of `size` bytes, `file` being at its beginning.

    Raises ValueError for what is none, or where its array has not just the bytes that its shape and dtype ask for,
    and for an array of objects, which would be unpickled.
    """
    start = file.read(12)
    version = np.lib.format.read_magic(io.BytesIO(start))
    (length,) = struct.unpack("<H", start[8:10]) if version == (1, 0) else struct.unpack("<I", start[8:12])
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes, and NumPy reads {_LONGEST_HEADER} at most")
    header = start + file.read(length)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(io.BytesIO(header[8:]))
    if dtype.hasobject:
        which = name or "the array"
        raise ValueError(
            f"Object arrays cannot be loaded: save {which} as numpy.array(..., dtype=str), or a number's dtype"
        )
    needed, left = math.prod(shape) * dtype.itemsize, size - length - (10 if version == (1, 0) else 12)
    if any(count < 0 for count in shape) or needed != left:
        what = f"array {name}".strip()
        raise ValueError(f"{what} of shape {shape} needs {needed} bytes and has {left}")
    return shape, dtype
