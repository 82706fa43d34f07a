"""What a task costs the tasks before it, estimated without any of their images.

Class statistics say where an old class's features were: around its mean, with the covariance that all classes share.
Made-up features of that kind are moved as the task's own images were seen to move, by the linear drift and by what
of single images it does not explain; the old heads are asked before, and the heads as they would be committed after.
docs/decisions/0016-max-forgetting.md has how well that agrees with the truth.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.drift import Drift
from csk_sdk.method.heads import ClassStatistics, HeadArrays
from csk_sdk.method.symmetric import Factor

WIDTH = number("forgetting", "width")
_SAMPLES, _AT_ONCE = integer("forgetting", "samples"), integer("forgetting", "at_once")
_MORE, _ATTEMPTS = number("forgetting", "more_variance"), integer("forgetting", "attempts")


def estimated_forgetting(
    statistics: ClassStatistics,
    classes: Mapping[str, tuple[str, ...]],
    before: Mapping[str, HeadArrays],
    after: Mapping[str, HeadArrays],
    drift: Drift,
    rng: np.random.Generator,
    spent: bool = False,
) -> dict[str, float]:
    """By old task, the percentage points of accuracy that it is about to lose; below 0 where it gains.

    `statistics` are those before the task, `classes` and heads are by old task. Tasks of which a class has no
    statistics are left out. `spent` as in `ClassStatistics.covariance`.
    """
    counts = dict(zip(statistics.classes, statistics.counts, strict=True))
    known = {
        task: names
        for task, names in classes.items()
        if names and all(counts.get(one, 0.0) > 0 for one in names)
    }
    if not known:
        return {}
    spread = spread_of(statistics, spent)
    row = {name: index for index, name in enumerate(statistics.classes)}
    lost = {}
    for task, names in known.items():
        rows = np.array([row[name] for name in names])
        means = statistics.means_of(rows)
        labels = np.resize(rng.permutation(len(names)), _SAMPLES)
        # What is drawn goes to the scores of both heads at once: features would be as many as the draws.
        (weight, bias), (new_weight, new_bias) = before[task], after[task]
        both = np.concatenate([weight.T.astype(np.float64), drift.led_back(new_weight).T], axis=1)
        biases = np.concatenate([bias, new_bias])
        at_means, draws, unexplained = means @ both, WIDTH * (spread @ both), drift.unexplained @ new_weight.T
        fewer = 0
        for start in range(0, _SAMPLES, _AT_ONCE):
            own = labels[start : start + _AT_ONCE]
            scores = at_means[own] + rng.normal(size=(len(own), len(spread))) @ draws + biases
            old, new = scores[:, : len(names)], scores[:, len(names) :]
            new = new + unexplained[rng.integers(len(unexplained), size=len(own))]
            fewer += int(np.sum(old.argmax(axis=1) == own)) - int(np.sum(new.argmax(axis=1) == own))
        lost[task] = 100.0 * fewer / _SAMPLES
    return lost


def spread_of(statistics: ClassStatistics, spent: bool = False) -> NDArray[np.float64]:
    """`(f, f)`: standard normal rows times it have the covariance within classes, by Cholesky's factor of it.

    `spent` as in `ClassStatistics.covariance`.
    """
    rounding = statistics.rounding
    covariance = statistics.covariance(spent)
    own = np.einsum("ii->i", covariance)
    # Of fewer images than features, or a feature that never fires, it is singular. A millionth more of each feature's
    # own variance is nothing to see; where rounding has left more to mend, ten times that.
    more = _MORE * np.maximum(own, 0.0) + rounding
    for _ in range(_ATTEMPTS):
        own += more
        try:
            return Factor(covariance).lower.T
        except np.linalg.LinAlgError:
            more *= 10.0
    return np.diag(np.sqrt(own))
