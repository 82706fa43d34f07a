"""A contribution as few bytes: what leaves a device of one class of one lesson, named by the sha256 of these bytes.

Rows of a factor are whole numbers of eight bits, or of four where a device has a thin line, times a scale for each row
and one for each feature. Features come in different units, so a
row's largest number says nothing of the others; over each feature's own spread they do. The scale of a feature is such
that its spread stays exact. docs/decisions/0034-fleet.md has what else was measured.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.sentences import said
from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import FleetError
from csk_sdk.method.contributions import Contribution
from csk_sdk.method.unknown import QUANTILES

Float32 = NDArray[np.float32]
# Number of images, rows of the factor, features, bits of a number.
_HEAD = struct.Struct("<dIII")
FEW_BITS, MANY_BITS = 4, 8
# Of a class that lessons, or `merge`, have put together.
MOST_ROWS = integer("fleet", "most_rows")
MOST_IMAGES = integer("fleet", "most_images")


def content_id(blob: bytes) -> str:
    """The name of a blob: sha256, hexadecimal."""
    return hashlib.sha256(blob).hexdigest()


def pack(one: Contribution, bits: int = MANY_BITS) -> bytes:
    """`one` in fewer bytes, little-endian: count, rows, features, bits; mean, scales of features, of rows; the rows."""
    zero = 1 << (bits - 1)
    most = zero - 1
    factor = one.factor.astype(np.float64)
    spread = np.sqrt(np.einsum("nf,nf->f", factor, factor))
    alike = factor / np.where(spread > 0.0, spread, 1.0)
    rows = (np.abs(alike).max(axis=1, initial=0.0) / most).astype(np.float32)
    steps = np.where(rows > 0.0, rows, 1.0).astype(np.float64)
    levels = np.clip(np.round(alike / steps[:, None]), -most, most)
    kept = levels * rows[:, None]
    found = np.sqrt(np.einsum("nf,nf->f", kept, kept))
    features = np.divide(spread, found, out=np.zeros_like(spread), where=found > 0.0)
    packed: NDArray[np.uint8] = (levels + zero).astype(np.uint8)
    if bits == FEW_BITS:
        packed = np.pad(packed, ((0, 0), (0, packed.shape[1] % 2)), constant_values=zero)
        packed = packed[:, ::2] | (packed[:, 1::2] << np.uint8(4))
    head: bytes = _HEAD.pack(one.count, *factor.shape, bits)
    parts = [one.mean, features, rows]
    return head + b"".join(part.astype("<f4").tobytes() for part in parts) + packed.tobytes()


def unpack(blob: bytes, features: int) -> Contribution:
    """Read back what `pack` gave, over so many features. Its numbers may be anything: `odd` says what they must be.

    Raises FleetError where the bytes are none of a contribution.
    """
    if len(blob) < _HEAD.size:
        raise FleetError(said("contribution_short", bytes=str(len(blob))))
    count, rows, width, bits = _HEAD.unpack_from(blob)
    fits = width == features and rows <= MOST_ROWS and bits in (FEW_BITS, MANY_BITS)
    if not fits or len(blob) != packed_bytes(rows, features, bits):
        raise FleetError(said("contribution_other", features=str(features)))
    numbers = np.frombuffer(blob, "<f4", 2 * features + rows, _HEAD.size).astype(np.float32)
    mean, of_feature, of_row = np.split(numbers, [features, 2 * features])
    packed = np.frombuffer(blob, np.uint8, offset=_HEAD.size + numbers.nbytes).reshape(
        rows, (features * bits + 7) // 8
    )
    levels = packed.astype(np.float32)
    if bits == FEW_BITS:
        levels = np.stack([packed & 15, packed >> 4], axis=2).reshape(rows, -1).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        factor = (levels[:, :features] - (1 << (bits - 1))) * of_row[:, None] * of_feature
    return Contribution(count, mean, factor)


def packed_bytes(rows: int, features: int, bits: int = MANY_BITS) -> int:
    """How many bytes `pack` makes of so many rows."""
    return _HEAD.size + 4 * (2 * features + rows) + rows * ((features * bits + 7) // 8)


def odd(one: Contribution) -> str | None:
    """What a contribution cannot be, as the end of a sentence about it; None where it can be one."""
    if not (np.isfinite(one.count) and np.isfinite(one.mean).all() and np.isfinite(one.factor).all()):
        return said("contribution_not_finite")
    if not 1.0 <= one.count <= MOST_IMAGES:
        return said("contribution_images", count=f"{one.count:g}")
    if max(np.abs(one.mean).max(initial=0.0), np.abs(one.factor).max(initial=0.0)) > _LARGEST:
        return said("contribution_too_large")
    return None


# Sums of so large squares are still numbers.
_LARGEST = 1e12


def pack_sketch(margins: Float32, oddness: Float32) -> bytes:
    """What is usual for a class's images (method/unknown.py): `(QUANTILES,)` each."""
    return np.concatenate([margins, oddness]).astype("<f4").tobytes()


def unpack_sketch(blob: bytes) -> NDArray[Any] | None:
    """`(2, QUANTILES)` float32; None where it is none, or not above 0."""
    if len(blob) != 8 * QUANTILES:
        return None
    found = np.frombuffer(blob, "<f4").astype(np.float32).reshape(2, QUANTILES)
    return found if np.isfinite(found).all() and (found > 0).all() else None
