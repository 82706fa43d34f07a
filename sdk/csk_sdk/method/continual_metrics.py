"""Continual learning's measures, computed from the accuracy matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


class AccuracyMatrix:
    """Accuracies `R[i, j]` in percent: on task `j` after learning task `i`; NaN where not measured.

    Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017 (arXiv 1706.08840).
    A measure is the mean over the tasks for which its accuracies were measured, NaN when there are none.
    """

    def __init__(self, rows: Sequence[Sequence[float | None]] | Float64, lowest: float = 0.0) -> None:
        """Take one row per learned task, in the order of learning; None and NaN are "not measured".

        Rows may be ragged (a lower triangle) and are padded with NaN. Columns past the number of rows are
        tasks that are not learned yet. Another measure than accuracy may have another `lowest` value.
        Raises ValueError for an accuracy outside `lowest`..100.
        """
        width = max([len(rows), *(len(row) for row in rows)])
        self.values: Float64 = np.full((len(rows), width), np.nan)
        for index, row in enumerate(rows):
            self.values[index, : len(row)] = [np.nan if value is None else value for value in row]
        if np.any((self.values < lowest) | (self.values > 100.0)):
            raise ValueError(f"accuracies are in percent and must lie between {lowest:g} and 100")

    @property
    def acc(self) -> float:
        """ACC: mean accuracy over the learned tasks after the last one (Lopez-Paz & Ranzato, eq. 2)."""
        return _mean(self._last())

    @property
    def bwt(self) -> float:
        """BWT: mean over earlier tasks of `R[T, j] - R[j, j]` (Lopez-Paz & Ranzato, eq. 3).

        Negative is forgetting, positive means that later tasks helped earlier ones.
        """
        return _mean((self._last() - np.diagonal(self.values))[:-1])

    @property
    def forgetting(self) -> float:
        """Mean over earlier tasks of `max over i < T of R[i, j], minus R[T, j]`; lower is better.

        Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018 (arXiv 1801.10112), section 3.
        """
        tasks = max(len(self.values) - 1, 0)
        earlier = self.values[:tasks, :tasks]
        best = np.where(np.isnan(earlier), -np.inf, earlier).max(axis=0, initial=-np.inf)
        return _mean(np.where(np.isinf(best), np.nan, best) - self._last()[:tasks])

    def fwt(self, untrained: Sequence[float]) -> float:
        """FWT: mean over tasks `j > 0` of `R[j-1, j] - untrained[j]` (Lopez-Paz & Ranzato, eq. 4).

        `untrained[j]` is the accuracy in percent on task `j` before anything was learned.
        """
        ahead = np.diagonal(self.values, offset=1)
        return _mean(ahead - np.asarray(untrained, np.float64)[1 : 1 + len(ahead)])

    def to_json(self) -> dict[str, Any]:
        """`accuracy_matrix`, `acc`, `bwt`, `forgetting` for JSON, which has no NaN: not measured is None."""
        return {
            "accuracy_matrix": [[_number(value) for value in row] for row in self.values.tolist()],
            "acc": _number(self.acc),
            "bwt": _number(self.bwt),
            "forgetting": _number(self.forgetting),
        }

    def _last(self) -> Float64:
        """The last row, over the tasks learned by then; empty when nothing was learned."""
        return self.values[-1, : len(self.values)] if len(self.values) else np.zeros(0)


def _mean(values: Float64) -> float:
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if measured.size else float("nan")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
