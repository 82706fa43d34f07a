"""What was learned on one network's features, as another network's features would have had it.

A workstation sees the base images through both networks, and ships how the features of one follow from those of the
other (csk_artifacts_builder/measure/feature_map.py). Where each new feature is one of the old ones, columns are picked
and nothing is lost. Else `new = forward old + offset`, and what this leaves of classes that the fit has not seen is
`unexplained`: a carried class gets it as spread, for without it the discriminant would believe that the map is right.
docs/decisions/0032-upgrade.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import BundleError
from csk_sdk.method.contributions import DIRECTIONS, MIXTURES, Contribution
from csk_sdk.method.heads import HeadArrays

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """From `old` features to `new` ones, `(f_new,)` of `(f_old,)`, and back.

    - `columns` `(f_new,)` int64: which old feature each new one is, -1 where it is none
    - `forward` `(f_new, f_old)`, `offset` `(f_new,)`, and `unexplained` `(rows, f_new)`, with
      `unexplained.T @ unexplained` the covariance of what they leave: empty where `columns` say it all
    - `backward` `(f_old, f_new)`, `back_offset` `(f_old,)`: the old features of the new ones, for heads; empty where
      all features stay

    All but the columns float32.
    """

    columns: NDArray[np.int64]
    forward: Float32
    offset: Float32
    unexplained: Float32
    backward: Float32
    back_offset: Float32

    @property
    def exact(self) -> bool:
        """Whether each new feature is one of the old ones."""
        return not self.forward.size

    @property
    def same(self) -> bool:
        """Whether features are what they were, in their order."""
        return self.exact and not self.backward.size

    def contribution(self, one: Contribution, seed: int) -> Contribution:
        """What the same images of a class contribute in the new features.

        `seed` draws how what is unexplained is mixed into the factor: another one for each class, so that over many
        classes the errors of mixing cancel out.
        """
        if self.exact:
            return Contribution(
                one.count, one.mean[self.columns], np.ascontiguousarray(one.factor[:, self.columns])
            )
        rng = np.random.default_rng(seed)
        mean = self.forward.astype(np.float64) @ one.mean + self.offset
        signs = rng.integers(0, 2, (MIXTURES, len(self.unexplained))) * 2.0 - 1.0
        mixed = _with_squares(signs @ self.unexplained, one.count * _squares(self.unexplained))
        rows = np.vstack([one.factor.astype(np.float64) @ self.forward.T.astype(np.float64), mixed])
        return Contribution(one.count, mean.astype(np.float32), shortened(rows, rng).astype(np.float32))

    def through(self, rows: Float64, offset: Float32 | None = None) -> Float64:
        """Rows `(n, f_old)` as they are over the new features, `(n, f_new)`; points, with `offset`."""
        if self.exact:
            return np.ascontiguousarray(rows[:, self.columns])
        moved: Float64 = rows @ self.forward.T.astype(np.float64)
        return moved if offset is None else moved + offset

    def back_through(self, rows: Float64) -> Float64:
        """Weights over the new features `(n, f_new)` as weights over the old ones, `(n, f_old)`."""
        if not self.exact:
            return np.asarray(rows @ self.forward)
        found = np.zeros((len(rows), len(self.back_offset)))
        np.add.at(found.T, self.columns, rows.T)
        return found

    def head(self, weight: Float32, bias: Float32) -> HeadArrays:
        """A head over the old features, `(n, f_old)` and `(n,)`, for the new ones: behind the way back."""
        if self.same:
            return weight, bias
        wide = weight.astype(np.float64)
        return (wide @ self.backward).astype(np.float32), (bias + wide @ self.back_offset).astype(np.float32)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """As arrays for a safetensors file, under their names."""
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], old: int, new: int) -> FeatureMap:
        """Read back what `tensors` gave. Raises BundleError where that is no map from so many features to so many."""
        found = {name: np.asarray(tensors[name]) for name in _NAMES if name in tensors}
        if len(found) != len(_NAMES):
            raise BundleError("what carries knowledge over to this bundle is not all there")
        mapped = found["forward"].size > 0
        back = found["backward"].size > 0
        shapes = {
            "columns": (new,),
            "forward": (new, old) if mapped else (0, 0),
            "offset": (new,) if mapped else (0,),
            "backward": (old, new) if back else (0, 0),
            "back_offset": (old,) if back else (0,),
        }
        columns, rows = found["columns"], found["unexplained"]
        fits: bool = all(found[name].shape == shape for name, shape in shapes.items())
        fits = fits and rows.ndim == 2 and (rows.shape[1] == new if mapped else rows.size == 0)
        fits = fits and columns.dtype == np.int64 and bool(((columns >= -1) & (columns < old)).all())
        fits = fits and (mapped or bool((columns >= 0).all())) and (back or (not mapped and old == new))
        if not fits or not all(np.isfinite(one).all() for one in found.values()):
            raise BundleError(f"what carries knowledge over is no map of {old} features to {new}")
        return cls(columns, *(found[name].astype(np.float32) for name in _NAMES if name != "columns"))


_NAMES = ("columns", "forward", "offset", "unexplained", "backward", "back_offset")


def shortened(rows: Float64, rng: np.random.Generator) -> Float64:
    """Fewer rows with nearly the same `rows.T @ rows`: the largest directions, and mixtures of what they leave.

    Each feature's own spread stays exact (method/contributions.py).
    """
    if len(rows) <= DIRECTIONS + MIXTURES:
        return rows
    _, vectors = np.linalg.eigh(rows @ rows.T)
    vectors = vectors[:, len(rows) - DIRECTIONS :]
    largest: Float64 = vectors.T @ rows
    rest = rows - vectors @ largest
    signs = rng.integers(0, 2, (MIXTURES, len(rows))) * 2.0 - 1.0
    left = np.maximum(_squares(rows) - _squares(largest), 0.0)
    return np.vstack([largest, _with_squares(signs @ rest, left)])


def _with_squares(rows: Float64, wanted: Float64) -> Float64:
    """`rows` with each feature scaled so that its squares sum up to `wanted` `(f,)`."""
    found = _squares(rows)
    scaled: Float64 = rows * np.sqrt(np.divide(wanted, found, out=np.zeros_like(found), where=found > 0))
    return scaled


def _squares(rows: NDArray[Any]) -> Float64:
    wide = rows.astype(np.float64)
    total: Float64 = np.einsum("nf,nf->f", wide, wide)
    return total
