"""What a task costs the tasks before it, estimated without any of their images.

Class statistics say where an old class's features were: around its mean, with the covariance that all classes share.
Made-up features of that kind are moved as the task's own images were seen to move, by the linear drift and by what
of single images it does not explain; the old heads are asked before, and the heads as they would be committed after.
docs/decisions/0016-max-forgetting.md has how well that agrees with the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.drift import Drift
from csk_sdk.method.heads import ClassStatistics, HeadArrays
from csk_sdk.method.symmetric import Factor

Float64 = NDArray[np.float64]
WIDTH = number("forgetting", "width")
_SAMPLES, _AT_ONCE = integer("forgetting", "samples"), integer("forgetting", "at_once")
_MORE, _SEEN = number("forgetting", "more_variance"), number("forgetting", "more_of_scores")
_ATTEMPTS = integer("forgetting", "attempts")


def estimated_forgetting(
    statistics: ClassStatistics,
    classes: Mapping[str, tuple[str, ...]],
    before: Mapping[str, HeadArrays],
    after: Mapping[str, HeadArrays],
    drift: Drift,
    rng: np.random.Generator,
) -> dict[str, float]:
    """By old task, the percentage points of accuracy that it is about to lose; below 0 where it gains.

    `statistics` are those before the task, `classes` and heads are by old task. Tasks of which a class has no
    statistics are left out.
    """
    counts = dict(zip(statistics.classes, statistics.counts, strict=True))
    known = {
        task: names
        for task, names in classes.items()
        if names and all(counts.get(one, 0.0) > 0 for one in names)
    }
    if not known:
        return {}
    spread = Spread(statistics)
    row = {name: index for index, name in enumerate(statistics.classes)}
    lost = {}
    for task, names in known.items():
        rows = np.array([row[name] for name in names])
        means = statistics.means_of(rows)
        labels = np.resize(rng.permutation(len(names)), _SAMPLES)
        # What is drawn goes to the scores of both heads at once: features would be as many as the draws.
        (weight, bias), (new_weight, new_bias) = before[task], after[task]
        both = np.concatenate([weight.astype(np.float64), drift.led_back(new_weight)])
        biases = np.concatenate([bias, new_bias])
        at_means, draws, unexplained = (
            means @ both.T,
            WIDTH * spread.of(both),
            drift.unexplained @ new_weight.T,
        )
        fewer = 0
        for start in range(0, _SAMPLES, _AT_ONCE):
            own = labels[start : start + _AT_ONCE]
            scores = at_means[own] + rng.normal(size=(len(own), draws.shape[1])) @ draws.T + biases
            old, new = scores[:, : len(names)], scores[:, len(names) :]
            new = new + unexplained[rng.integers(len(unexplained), size=len(own))]
            fewer += int(np.sum(old.argmax(axis=1) == own)) - int(np.sum(new.argmax(axis=1) == own))
        lost[task] = 100.0 * fewer / _SAMPLES
    return lost


class Spread:
    """How features are spread within classes, to be drawn as a head's scores see them."""

    def __init__(self, statistics: ClassStatistics) -> None:
        self._scatter, self._freedom = statistics.scatter(), statistics.freedom
        # Of fewer images than features, or a feature that never fires, their covariance is singular. A millionth more
        # of each feature's own variance is nothing to see.
        self._more = _MORE * statistics.variances() + statistics.rounding

    def of(self, weights: Float64) -> Float64:
        """`(m, k)`: by standard normal numbers `(k,)`, the scores that `weights` `(m, f)` give are spread as they are.

        Of few weights by the scores' own covariance: so many numbers are drawn, and the features' has no factor made.
        """
        if 2 * len(weights) > len(self._more):
            return np.asarray(weights @ self.factor)
        covariance = weights @ self._scatter @ weights.T / self._freedom
        covariance += (weights * self._more) @ weights.T
        return _factor(covariance, _SEEN * np.diag(covariance))

    @cached_property
    def factor(self) -> Float64:
        """`(f, f)`: Cholesky's, of the features' covariance."""
        return _factor(self._scatter / self._freedom, self._more)


def _factor(covariance: Float64, more: Float64) -> Float64:
    """Cholesky's lower factor, with `more` on the diagonal; ten times that where rounding has left more to mend."""
    own = np.einsum("ii->i", covariance)
    for _ in range(_ATTEMPTS):
        own += more
        try:
            return Factor(covariance).lower
        except np.linalg.LinAlgError:
            more = 10.0 * more
    return np.diag(np.sqrt(own))
