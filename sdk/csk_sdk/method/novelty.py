"""An out-of-distribution score: how far a task's images are from everything known, in the features' own units.

The squared Mahalanobis distance to the nearest known class, with the covariance within classes, over its expectation
for the images that the statistics were made of: about 1 for images like those, whatever their classes. It is what
a network that was never trained for such images makes visible: noise, darkness, a wrong preprocessing. After Lee et
al., arXiv 1807.03888; here on the features before the head only.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.symmetric import Factor

UNFAMILIAR = number("novelty", "unfamiliar")
# Where signals would make the deviation within all known classes so many times as wide, they have another scale.
WIDER = 3.0
_SHRINKAGE, _LEAST_VARIANCE = number("novelty", "shrinkage"), number("novelty", "least_variance")
_IMAGES_PER_FEATURE = integer("novelty", "images_per_feature")
# So many classes at once: as arrays, they are small enough for the C library not to ask the system for each anew.
_AT_ONCE = 64


def novelty(known: ClassStatistics, features: NDArray[np.float32]) -> float | None:
    """The mean distance of features `(n, f)` float32 from the nearest known class; None where too little is known."""
    count = float(known.counts.sum())
    if count < _IMAGES_PER_FEATURE * known.features:
        return None
    within = known.covariance()
    spread = np.diag(within).copy()
    if spread.max() <= 0.0:
        return None
    # Towards no correlation; what never varies (a unit that is always zero) gets a little of the mean.
    within *= 1.0 - _SHRINKAGE
    within.flat[:: known.features + 1] += _SHRINKAGE * spread + _LEAST_VARIANCE * spread.mean()
    try:
        # To features that are spread alike and apart.
        root = Factor(within)
    except np.linalg.LinAlgError:  # regular but for rounding
        return None
    images = root.whiten(features.astype(np.float64))
    nearest = np.full(len(features), np.inf)
    rows = np.flatnonzero(known.counts > 0)
    for start in range(0, len(rows), _AT_ONCE):
        means = root.whiten(known.means_of(rows[start : start + _AT_ONCE]))
        far = np.einsum("cf,cf->c", means, means) - 2.0 * images @ means.T
        np.minimum(nearest, far.min(axis=1), out=nearest)
    nearest += np.einsum("nf,nf->n", images, images)
    return float(nearest.mean()) / known.features


def widening(known: ClassStatistics, features: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """How many times as wide the deviation within classes would be, of all features together, with a task's too.

    features `(n, f)` float32, labels `(n,)`. All classes are told apart by the one spread that they share: where a task
    of another scale makes most of it, those that were known are not told apart any more. 1 where nothing is known.
    """
    before, freedom = float(known.variances().mean()), known.freedom
    if not (known.counts > 0).any() or before <= known.rounding:
        return 1.0
    exact, classes = features.astype(np.float64), np.unique(labels)
    scatter = sum(
        float(np.square(part - part.mean(axis=0)).sum()) for part in (exact[labels == one] for one in classes)
    )
    more = max(len(labels) - len(classes), 0)
    after = (freedom * before + scatter / known.features) / (freedom + more)
    return math.sqrt(after / before)
