"""Tensors to and from safetensors files: arrays and text, never code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from csk_sdk.errors import StateError
from csk_sdk.formats.opening import RefusedError
from csk_sdk.formats.tensor_header import check_header
from csk_sdk.state.atomic import unreadable

DTYPES = ("float32", "float64", "int64", "uint8")
_USUAL = frozenset(np.dtype(name) for name in DTYPES)

# What a file that is not, or no longer, safetensors can make the reader raise.
_DAMAGED = (SafetensorError, ValueError, TypeError, KeyError)


def encode(tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """The safetensors file that holds `tensors` (any shapes; dtypes in DTYPES) and text `metadata`.

    Raises StateError when a tensor has another dtype.
    """
    check_dtypes(tensors)
    return packed(tensors, metadata)


def check_dtypes(tensors: Mapping[str, np.ndarray]) -> None:
    """Raise StateError where a tensor has a dtype that is not in DTYPES."""
    for name, tensor in tensors.items():
        _check_dtype(name, tensor)


def packed(tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """The same for arrays of any dtype that safetensors knows, in any layout and byte order.

    The only place that calls safetensors to write: 0.8.0 stores the bytes at an array's address, so a transposed or
    sliced one would hold other numbers, without an error.
    """
    return bytes(save({name: _dense(tensor) for name, tensor in tensors.items()}, metadata=metadata))


def decode(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read all tensors and the text metadata of `path`.

    Raises StateError, naming the file, when it is missing, damaged, or holds another dtype; UnreadableError where the
    disk does not give it back.
    """
    try:
        check_header(path)
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            metadata = dict(file.metadata() or {})
    except (FileNotFoundError, RefusedError, *_DAMAGED) as error:
        raise StateError(f"{path} cannot be read ({error}).") from error
    except OSError as error:
        raise unreadable(path, error) from error
    check_dtypes(tensors)
    return tensors, metadata


def checksum(tensors: Mapping[str, np.ndarray], text: str) -> str:
    """sha256 over names, dtypes, shapes and values of `tensors`, and over `text`; order does not matter.

    Raises StateError when a tensor has a dtype that is not in DTYPES.
    """
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        _check_dtype(name, tensors[name])
        tensor = _dense(tensors[name])
        digest.update(repr((name, tensor.dtype.name, tensor.shape)).encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _dense(tensor: np.ndarray) -> np.ndarray:
    # np.ascontiguousarray would turn 0-d into 1-d.
    return np.asarray(tensor, dtype=tensor.dtype.newbyteorder("="), order="C")


def _check_dtype(name: str, tensor: Any) -> None:
    # A name is put together each time that it is asked for: a state has hundreds of tensors.
    if isinstance(tensor, np.ndarray) and tensor.dtype in _USUAL:
        return
    kind = tensor.dtype.name if isinstance(tensor, np.ndarray) else type(tensor).__name__
    if kind not in DTYPES:
        raise StateError(f"Tensor {name!r} is {kind}; a state holds arrays of {', '.join(DTYPES)}.")
