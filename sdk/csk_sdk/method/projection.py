"""Sparse orthogonal gradient projection: steps that leave the answers to past data unchanged.

CsKO (arXiv 2406.08830), "sparse orthogonal gradient projection". A site remembers past data as the
uncentered second moment `K = sum x_c^T x_c` of its center-sampled input. A change `dC` of the center changes
the site's output by `dC x_c`; kept orthogonal to the leading eigenvectors of `K`, it changes (almost) nothing
for the data that `K` was summed over. Only the selected channels `S` change, so `K[S, S]` is enough.

Shapes as in `csk_sdk.contract.manifest.Site`: a delta is `(rows, k)` with `rows = c_out / groups`, and its column `i`
belongs to input channel `selected[i]`, feeding the output channels of that channel's group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import number
from csk_sdk.errors import ConfigError, StateError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Indices = NDArray[np.int64]

# A moment leaves the memory graph as float32: eigenvalues below this share of the largest are rounding.
_RANK_TOLERANCE = float(np.finfo(np.float32).eps)
FROZEN = number("projection", "frozen")


def frozen_moment(groups: int, channels: int) -> Float32:
    """The second moment `(groups, channels, channels)` of data of which nobody knows what it was: it forbids all."""
    return np.broadcast_to(
        np.float32(FROZEN) * np.eye(channels, dtype=np.float32), (groups, channels, channels)
    ).copy()


def is_frozen(moment: NDArray[Any]) -> bool:
    """Whether `moment` `(groups, n, n)` leaves no direction to train in, ever."""
    return bool((np.einsum("gii->gi", moment) >= 0.5 * FROZEN).all())


def restrict(moment: NDArray[Any], selected: Indices) -> Float64:
    """`K[S, S]`, the moment of the selected channels: `(k, k)` float64.

    `moment` is `(groups, c_in / groups, c_in / groups)`, one block per group; `selected` `(k,)` holds channel
    numbers in 0..c_in-1. No kernel sees channels of two groups together, so their entries are zero.
    """
    group, channel = np.divmod(selected, moment.shape[1])
    together = group[:, None] == group[None, :]
    entries = moment[group[:, None], channel[:, None], channel[None, :]]
    return np.where(together, entries, 0.0).astype(np.float64)


def threshold(energy: float, taps: int) -> float:
    """The share of variance to keep where `taps` positions of a kernel are trained, `energy` being that of a center.

    Neighbouring positions see nearly the same, so that few directions have most of the variance of whole patches: at
    0.8 of it, digits forgot a tenth of what they kept with centers (docs/decisions/0040). 0 and 1 stay.
    """
    return float(energy ** (1.0 / taps))


def basis(moment: Float64, energy: float) -> Float32:
    """Orthonormal directions to keep clear of: the leading eigenvectors of `moment`, `(k, r)` float32.

    `moment` is `restrict`'s `(k, k)`, symmetric positive semi-definite. `r` is the smallest number of
    eigenvectors whose eigenvalues reach the fraction `energy` of the trace. Energy 0, or a moment of zero (no
    past data), gives `r = 0`; energy 1 gives every direction with an eigenvalue above rounding. Of a `frozen_moment`
    all are kept, whatever was added to it.
    Raises ConfigError for an energy outside [0, 1], StateError for a moment that is not finite.
    """
    if not 0.0 <= energy <= 1.0:
        raise ConfigError(f"energy is {energy}, but it must lie between 0 (projection off) and 1.")
    if not np.isfinite(moment).all():
        raise StateError(
            "the memory of past data holds NaN or infinity, so it cannot protect them: "
            "roll back to an earlier task with `csk-sdk rollback`."
        )
    values, vectors = _eigen(moment)
    if energy == 0.0 or not values.size or values[0] <= 0.0:
        return np.zeros((len(moment), 0), np.float32)
    rank = int(np.count_nonzero(values > _RANK_TOLERANCE * values[0]))
    if float(np.min(np.diag(moment))) >= 0.5 * FROZEN:
        rank = len(moment)
    elif energy < 1.0:
        cumulated = np.cumsum(np.maximum(values, 0.0))
        rank = min(rank, int(np.searchsorted(cumulated, energy * cumulated[-1])) + 1)
    return np.ascontiguousarray(vectors[:, :rank], dtype=np.float32)


@dataclass(frozen=True)
class Projector:
    """Removes from steps `(rows, k)` what lies along a basis `B` `(k, r)`: `U <- U - (U B) B^T`.

    Where more directions are protected than free, the same from the other side, `U <- (U F) F^T`, is less work.
    Float32 leaves a residue of about 1e-7 of the *unprojected* step along the basis; applied once more, to the
    accumulated delta, it removes that too. Its buffers are allocated once, so it is not for two threads at a time.
    """

    directions: Float32
    outside: bool
    along: Float32
    product: Float32

    @classmethod
    def of(cls, rows: int, basis: Float32) -> Projector:
        """For steps of so many rows, with buffers of its own."""
        return projectors({"": rows}, {"": basis})[""]

    def project(self, step: Float32) -> None:
        """Project `step` `(rows, k)` float32 in place; nothing is allocated."""
        if not self.directions.size:
            # Nothing is protected; or every direction, and what a product would leave is rounding.
            if not self.outside:
                step.fill(0.0)
            return
        np.matmul(step, self.directions, out=self.along)
        if self.outside:
            np.matmul(self.along, self.directions.T, out=self.product)
            np.subtract(step, self.product, out=step)
        else:
            np.matmul(self.along, self.directions.T, out=step)


def projectors(rows: Mapping[str, int], bases: Mapping[str, Float32]) -> dict[str, Projector]:
    """One for each of several bases, by name, with buffers in the same memory: for sites that are projected in turn."""
    sides = {name: _smaller_side(basis) for name, basis in bases.items()}
    shapes = {
        name: ((rows[name], side.shape[1]), (rows[name], len(side)) if outside else (0, 0))
        for name, (side, outside) in sides.items()
    }
    along, product = (
        np.empty(max((a[position][0] * a[position][1] for a in shapes.values()), default=0), np.float32)
        for position in (0, 1)
    )
    return {
        name: Projector(*sides[name], along[: a[0] * a[1]].reshape(a), product[: p[0] * p[1]].reshape(p))
        for name, (a, p) in shapes.items()
    }


def _smaller_side(basis: Float32) -> tuple[Float32, bool]:
    """The basis itself and True, or the directions `(k, k - r)` that it leaves free and False, whichever are fewer."""
    k, r = basis.shape
    if 2 * r <= k:
        return basis, True
    complete, _ = np.linalg.qr(basis.astype(np.float64), mode="complete")
    return np.ascontiguousarray(complete[:, r:], dtype=np.float32), False


def project(step: Float32, basis: Float32) -> None:
    """Project `step` `(rows, k)` float32 in place, once: `Projector`."""
    Projector.of(len(step), basis).project(step)


def leak(delta: Float32, basis: Float32) -> float:
    """The share of `delta` `(rows, k)` along `basis` `(k, r)`: `||dC B|| / ||dC||`, 0 for a delta of zero.

    The method's invariant: at most 1e-5 after a task. Computed in float64, so that it measures the delta's
    rounding and not its own.
    """
    exact = delta.astype(np.float64)
    norm = float(np.linalg.norm(exact))
    return float(np.linalg.norm(exact @ basis.astype(np.float64))) / norm if norm > 0.0 else 0.0


def add_to_centers(weight: Float32, delta: Float32, selected: Indices, groups: int) -> None:
    """Add a `(rows, k)` delta to the center element of every kernel of `weight`, in place.

    `weight` is `(c_out, c_in / groups, *kernel)`, writable. Entry `(r, i)` of the delta, of channel `j = selected[i]`
    in group `q = j // (c_in / groups)`, goes to row `q * rows + r`, column `j % (c_in / groups)`. Every other element,
    and every channel that is not in `selected` (distinct), keeps its bits.
    """
    rows = weight.shape[0] // groups
    if delta.shape != (rows, len(selected)):
        raise ValueError(f"a delta of shape {delta.shape} does not fit {rows} rows, {len(selected)} channels")
    centers = weight[(..., *(size // 2 for size in weight.shape[2:]))]
    centers[_positions(rows, selected, weight.shape[1])] += delta


def gather(centers: Float32, selected: Indices, groups: int) -> Float32:
    """The columns of `selected` channels, `(rows, k)`, of centers `(c_out, c_in / groups, *ones)`: a new array.

    The inverse of `add_to_centers` on zeros: what a dense gradient says of the selected channels.
    """
    dense = centers.reshape(len(centers), -1)
    picked: Float32 = dense[_positions(len(dense) // groups, selected, dense.shape[1])]
    return picked


def _positions(rows: int, selected: Indices, group_channels: int) -> tuple[Indices, Indices]:
    """Row and column in the center matrix of each entry of a delta: two index arrays that broadcast."""
    group, channel = np.divmod(selected, group_channels)
    return group[None, :] * rows + np.arange(rows)[:, None], channel[None, :]


def _eigen(moment: Float64) -> tuple[Float64, Float64]:
    """Eigenvalues `(k,)`, descending, and eigenvectors `(k, k)`, each within one group's channels.

    Blocks are solved one by one: it is less work, and where two groups have equal eigenvalues no eigenvector
    may be a mixture, which LAPACK avoids in practice but does not promise (a step orthogonal to a mixture is
    orthogonal to neither group's own direction).
    """
    values = np.zeros(len(moment))
    vectors = np.zeros_like(moment)
    start = 0
    for end in _block_ends(moment):
        block = slice(start, end)
        values[block], vectors[block, block] = np.linalg.eigh(moment[block, block])
        start = end
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[:, order]


def _block_ends(moment: Float64) -> list[int]:
    """Where the diagonal blocks of a symmetric matrix end; a full matrix is one block."""
    linked = moment != 0.0
    np.fill_diagonal(linked, True)
    last = len(moment) - 1 - np.argmax(linked[:, ::-1], axis=1) if len(moment) else np.zeros(0, np.int64)
    reach = np.maximum.accumulate(last)
    return [int(i) + 1 for i in np.flatnonzero(reach <= np.arange(len(moment)))]
