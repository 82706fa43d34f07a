"""Reading the arrays of an npz file that came from outside, without believing what it claims about their size.

An npz file is a zip archive of `.npy` files. Nothing is unpacked to disk, so names in the archive cannot lead anywhere,
and nothing is unpickled. What each array claims to need is added up and compared before memory is asked for.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import TaskError

# Deflate cannot shrink anything to less than 1/1032. Pictures rarely shrink to 1/10; a bomb is near the limit.
_MOST_INFLATION = 200
_HARMLESS = 64 << 20
_LARGEST = 4 << 30


def load_arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Those of the arrays `names` that the npz file `path` has; others in the file are left alone.

    Raises TaskError when it is no npz file, is damaged, asks for pickle, or claims more memory than it may.
    """
    try:
        if path.exists() and not path.is_file():
            raise TaskError(f"{path} is no ordinary file: put the npz file itself there.")
        if not zipfile.is_zipfile(path):
            path.stat()  # is_zipfile says no to a missing file, too
            raise TaskError(f"{path} is not an npz file: write it again with numpy.savez.")
        with zipfile.ZipFile(path) as archive:
            entries = {
                name: archive.getinfo(f"{name}.npy") for name in names if f"{name}.npy" in archive.NameToInfo
            }
            _check_sizes(path, list(entries.values()))
            return {name: _read(archive, entry, path) for name, entry in entries.items()}
    except TaskError:
        raise
    except MemoryError:
        raise TaskError(
            f"{path} does not fit into this device's memory: split it into smaller tasks, or use a folder."
        ) from None
    except Exception as error:
        # zipfile, zlib and NumPy each have their own errors for a damaged or pickled array.
        words = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        reason = words.splitlines()[0][:200].rstrip(".")
        raise TaskError(f"{path} cannot be read ({reason}): write it again with numpy.savez.") from None


def _check_sizes(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    claimed, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if claimed > _LARGEST:
        raise TaskError(
            f"{path} claims to hold {claimed / 1e9:.1f} GB, and an npz task may hold {_LARGEST / 1e9:.1f} GB: "
            "split it into smaller tasks, or use a folder."
        )
    if claimed > max(_HARMLESS, _MOST_INFLATION * packed):
        raise TaskError(
            f"{path} claims to hold {claimed / 1e6:.0f} MB in {packed / 1e6:.1f} MB, which no pictures do: "
            "it is damaged, or a decompression bomb. Do not use it; write it again with numpy.savez."
        )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    """One array, after its header was compared with the bytes that there are."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
        needed = math.prod(shape) * dtype.itemsize
        left = entry.file_size - file.tell()
        if not dtype.hasobject and (any(size < 0 for size in shape) or needed != left):
            raise ValueError(f"array {entry.filename} of shape {shape} needs {needed} bytes and has {left}")
    with archive.open(entry) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array
