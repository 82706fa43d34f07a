"""Which images of a task are worth a step: those that the gradient of its loss comes from (docs/decisions/0039).

What an image sends back begins with the gradient of its loss by the logits, whose norm bounds it in every layer up to
the same factor (Katharopoulos and Fleuret, arXiv 1803.00942). Images that a head already tells with certainty send
next to none, and cost as much as any other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gradient_norms(residuals: NDArray[np.floating]) -> NDArray[np.float64]:
    """Norm of each row of the gradients by logits `(n, outputs)`: `(n,)` float64, 0 or more."""
    wide = residuals.astype(np.float64)
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", wide, wide)))


def carrying(norms: NDArray[np.float64], share: float, least: int = 1) -> NDArray[np.int64]:
    """The fewest images whose `norms` `(n,)`, 0 or more, come to `share` of all together, ascending `(k,)` int64.

    They are at least `least`, or all. `share` is above 0 and at most 1, which is all images. Of equal ones the lower
    index wins, so that the choice is the same on every platform.
    """
    if share >= 1.0:
        return np.arange(len(norms))
    order = np.argsort(-norms, kind="stable")
    sums = np.cumsum(norms[order])
    count = 1 + int(np.searchsorted(sums, share * sums[-1])) if len(norms) else 0
    return np.sort(order[: max(count, least)])
