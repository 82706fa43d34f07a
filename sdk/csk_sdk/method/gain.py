"""Does training pay? Images that the steps have not seen, judged on the network as it was and on the one in training.

A discriminant made of the images that were trained on is asked for those that were not: once on the features as they
were, once on those that training has made of both. Of each held-out image the two log-likelihoods are compared, so that
what is hard about it cancels. docs/decisions/0035-train.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import number
from csk_sdk.method.calibration import temperature
from csk_sdk.method.heads import ClassStatistics, lda_head
from csk_sdk.method.logistic import log_likelihoods

Float64 = NDArray[np.float64]
SURE, WORTH = number("gain", "sure"), number("gain", "worth")


@dataclass(frozen=True)
class Gain:
    """What `images` held out say of training.

    `heads` and `centers` are the shares of them, 0 to 1, that are named right on the network as it was and on the one
    in training. `likelihood` is the mean gain in log-likelihood, in nats, and `sure` how many standard errors it is
    above 0. `lost` is how many percentage points of accuracy the old task that loses most has lost by then. All of it
    is of the share `done` of training: of the learning rates, summed over all steps.
    """

    images: int
    heads: float = 0.0
    centers: float = 0.0
    likelihood: float = 0.0
    sure: float = 0.0
    lost: float = 0.0
    done: float = 1.0

    @property
    def clear(self) -> bool:
        """Whether there is a gain that is no chance, and is worth something by the end; whatever it costs."""
        return self.sure >= SURE and self.likelihood / self.done >= WORTH

    def pays(self, max_forgetting: float) -> bool:
        """Whether it is clear, and no old task is about to lose more percentage points than that."""
        return self.clear and self.lost / self.done <= max_forgetting


@dataclass(frozen=True, eq=False)
class Judged:
    """Of held-out images, `log_likelihoods` `(n,)` of their classes, and whether they are named `right` `(n,)`."""

    log_likelihoods: Float64
    right: NDArray[np.bool_]

    @classmethod
    def by(
        cls,
        statistics: ClassStatistics,
        features: NDArray[np.float32],
        labels: NDArray[np.int64],
        classes: Sequence[str],
        prior_pictures: float,
    ) -> Judged:
        """By the discriminant of `statistics`, features `(n, f)` and labels `(n,)` into `classes`.

        Images of classes that the statistics have none of are left out. The discriminant is calibrated on what it
        judges: one number, as well for one network as for the other.
        """
        counts = dict(zip(statistics.classes, statistics.counts, strict=True))
        known = np.array([counts.get(name, 0.0) > 0.0 for name in classes], np.bool_)
        kept = known[labels]
        if known.sum() < 2 or not kept.any():
            return cls(np.zeros(0), np.zeros(0, np.bool_))
        own = (np.cumsum(known) - 1)[labels[kept]]
        names = [name for name, there in zip(classes, known, strict=True) if there]
        weight, bias = lda_head(statistics, prior_pictures, names)
        logits = features[kept].astype(np.float64) @ weight.T + bias
        right = logits.argmax(axis=1) == own
        return cls(log_likelihoods(logits / temperature(logits, own), own), right)


def gain_of(before: Judged, after: Judged, done: float = 1.0) -> Gain:
    """The gain from `before` to `after`, of the same images, by the share `done` of training."""
    images = len(before.right)
    if not images:
        return Gain(0)
    more = after.log_likelihoods - before.log_likelihoods
    error = float(more.std(ddof=1)) / math.sqrt(images) if images > 1 else 0.0
    likelihood = float(more.mean())
    return Gain(
        images,
        float(before.right.mean()),
        float(after.right.mean()),
        likelihood,
        likelihood / error if error > 0.0 else 0.0,
        done=done,
    )
