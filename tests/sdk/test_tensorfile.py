"""Every safetensors file is written through `packed`, and holds the numbers that it was given, in any layout.

safetensors 0.8.0 stores the bytes at an array's address: of a transposed array, other numbers under the right shape.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import REPOSITORY
from csk_sdk.state.tensorfile import decode, encode, packed

LAYOUTS: dict[str, Callable[[NDArray], NDArray]] = {
    "plain": lambda x: x,
    "transposed": lambda x: x.T,
    "Fortran": np.asfortranarray,
    "axes moved": lambda x: np.moveaxis(x, 0, 1),
    "every second": lambda x: x[::2, 1::2],
    "backwards": lambda x: x[::-1],
    "one column": lambda x: x[:, 2],
    "one column, kept": lambda x: x[:, 2:3],
    "one row, turned": lambda x: x[2:3].T,
    "a corner": lambda x: x[1:3, 1:3],
    "repeated by broadcasting": lambda x: np.broadcast_to(x[0], (3, x.shape[1], x.shape[2])),
    "of no elements": lambda x: x[:0].T,
    "one number": lambda x: x[1, 2, 3],
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()).T,
    "read only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape).T,
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_numbers_of_any_layout_are_stored(layout: str, dtype: str, tmp_path: Path) -> None:
    whole = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(dtype)
    array = np.asarray(LAYOUTS[layout](whole))
    content = encode({"a": array, "b": whole})
    (length,) = struct.unpack("<Q", content[:8])
    entry = json.loads(content[8 : 8 + length])["a"]
    begin, end = (8 + length + offset for offset in entry["data_offsets"])
    stored = np.frombuffer(content[begin:end], np.dtype(dtype).newbyteorder("<")).reshape(entry["shape"])
    assert stored.tolist() == array.tolist()
    assert stored.shape == array.shape
    (tmp_path / "t.safetensors").write_bytes(content)
    read, _ = decode(tmp_path / "t.safetensors")
    assert read["a"].tolist() == array.tolist()


def test_other_dtypes_are_stored_too() -> None:
    array = np.arange(12, dtype=np.float16).reshape(3, 4).T
    content = packed({"half": array})
    assert content.endswith(np.array(array, order="C").tobytes())


WRITES = re.compile(
    r"from\s+safetensors(\.\w+)?\s+import\s+(\([^)]*|[^\n]*)\b(save|save_file|save_model|serialize|serialize_file)\b"
    r"|safetensors(\.\w+)*\.(save|save_file|save_model|serialize|serialize_file)\b"
    r"|import\s+safetensors\b"
)
THE_DOOR = "sdk/csk_sdk/state/tensorfile.py"


def writers() -> set[str]:
    """The files that could write with safetensors itself: code, tools, fixtures, programs in strings, pages."""
    folders = ("sdk", "artifacts_builder", "device_runners", "tests", "benchmarks", "examples", "docs")
    found = set()
    for path in (path for folder in folders for path in (REPOSITORY / folder).rglob("*")):
        code = path.suffix in (".py", ".ts", ".tsx", ".js", ".mjs", ".sh", ".md") and path.is_file()
        if not code or not {"node_modules", "dist", "out"}.isdisjoint(path.parts):
            continue
        if path != Path(__file__) and WRITES.search(path.read_text(encoding="utf-8")):
            found.add(path.relative_to(REPOSITORY).as_posix())
    return found


def test_nothing_else_writes_with_safetensors() -> None:
    """What is not in `packed` has no guard: write with `path.write_bytes(packed(tensors))`."""
    assert writers() == {THE_DOOR}


@pytest.mark.parametrize(
    "text",
    [
        "from safetensors.numpy import save_file",
        "from safetensors.numpy import load_file, save",
        "from safetensors.numpy import (\n    load_file,\n    save_file,\n)",
        "from safetensors import safe_open, serialize_file",
        "import safetensors.numpy",
        "import safetensors as st",
        "safetensors.numpy.save_file(tensors, path)",
        "from safetensors.torch import save_file as write",
    ],
)
def test_what_writes_is_noticed(text: str) -> None:
    assert WRITES.search(text)


@pytest.mark.parametrize(
    "text", ["from safetensors.numpy import load_file", "from safetensors import safe_open"]
)
def test_what_reads_is_not(text: str) -> None:
    assert not WRITES.search(text)
