"""Domains: images that another camera, light or weather has made, seen as the base's are.

A domain's images give convolutions other means and deviations than the base images did. Bringing these to what they
were, channel by channel, is adaptive batch normalisation (Li et al., "Revisiting batch normalization for practical
domain adaptation", 2016, arXiv 1603.04779). It takes no labels. Which domain an image is of is told by a linear
discriminant between all that is known and the domain's images. Measured in docs/decisions/0038-domains.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.heads import ClassStatistics, Shrunk

Float64 = NDArray[np.float64]
LEAST_IMAGES, MOST_IMAGES = integer("domains", "least_images"), integer("domains", "most_images")
MOST_SCALE, LEAST_DEVIATION = number("domains", "most_scale"), number("domains", "least_deviation")
TOLD, NEARER, UNLIKE = number("domains", "told"), number("domains", "nearer"), number("domains", "unlike")
STRANGE, MOST_DOMAINS = number("domains", "strange"), integer("domains", "most")
LEAST_VARIANCE = number("domains", "least_variance")


def looked_at(images: int) -> NDArray[np.int64]:
    """Which of so many images a domain is measured on: all, or as many as count, spread over them."""
    return np.linspace(0, images - 1, min(images, MOST_IMAGES)).astype(np.int64)


class ChannelSum:
    """Mean and deviation of channels over all images, from those of batches."""

    def __init__(self) -> None:
        self._images = 0
        self._means: Float64 | float = 0.0
        self._squares: Float64 | float = 0.0

    def add(self, mean: NDArray[np.float32], variance: NDArray[np.float32], images: int) -> None:
        """Those of a batch of so many images, `(channels,)`."""
        exact = mean.astype(np.float64)
        self._images += images
        self._means = self._means + images * exact
        self._squares = self._squares + images * (variance.astype(np.float64) + exact * exact)

    @property
    def mean(self) -> Float64:
        """`(channels,)`."""
        return np.asarray(self._means / self._images)

    @property
    def deviation(self) -> Float64:
        """`(channels,)`, of all images together."""
        variance = self._squares / self._images - self.mean**2
        return np.sqrt(np.maximum(variance, 0.0))


def affine(
    domain: ChannelSum, mean: NDArray[np.float32], deviation: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and shift `(channels,)` that bring a domain's channels to `mean` and `deviation`."""
    scale = np.minimum(deviation / (domain.deviation + LEAST_DEVIATION), MOST_SCALE)
    shift = mean - domain.mean * scale
    return scale.astype(np.float32), shift.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Telling:
    """Whether an image is of a domain: `features @ direction - offset` is the logarithm of how much likelier it is.

    `direction` `(f,)` and `offset` are of features without the domain's affine. `apart` is how many deviations along
    the direction lie between what is known and the domain.
    """

    direction: NDArray[np.float32]
    offset: float
    apart: float


def telling(known: ClassStatistics, features: NDArray[np.float32], prior_images: float) -> Telling | None:
    """What tells images with `features` `(n, f)` from all that is known; None where their spread is not known.

    Both have the covariance of all images together that are known (Fisher's discriminant), shrunk as the one within
    classes is, and of each feature half its variance among the images at least. The mean of few images lies off by
    chance in each of many directions, which looks like a distance; what is to be expected of that is taken off.
    """
    count = float(known.counts.sum())
    if not count > 0:
        return None
    together = ClassStatistics(("",), known.gram, known.sums.sum(axis=0)[None], np.array([count]))
    shrunk = Shrunk.of(_as_wide(together, features), prior_images)
    if shrunk is None:
        return None
    mean = together.sums[0] / count
    step = features.astype(np.float64).mean(axis=0) - mean
    along = shrunk.solve(step[None])[0]
    squared = float(along @ step)
    gap = squared - shrunk.noise / len(features)
    if not gap > 0.0:
        return Telling(np.zeros(len(mean), np.float32), 0.0, 0.0)
    along *= gap / squared
    offset = float(along @ mean) + 0.5 * gap * gap / squared
    return Telling(along.astype(np.float32), offset, float(gap / np.sqrt(squared)))


def _as_wide(together: ClassStatistics, features: NDArray[np.float32]) -> ClassStatistics:
    """With no variance far below that of `features` `(n, f)`.

    A feature that no known image shows, or hardly any, would else tell alone: images of the domain without it would be
    taken for known ones.
    """
    own = together.variances()
    if own.mean() <= together.rounding:
        return together
    more = np.maximum(LEAST_VARIANCE * features.astype(np.float64).var(axis=0) - own, 0.0)
    gram = together.gram + np.diag(together.freedom * more)
    return ClassStatistics(together.classes, gram, together.sums, together.counts)


def domain_of(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of scores `(n, domains)`, by `Telling`: the number of each image's domain, -1 for none."""
    best = scores.argmax(axis=1)
    found: NDArray[np.int64] = np.where(scores.max(axis=1) > 0.0, best, -1)
    return found


def brings_nothing(
    before: float, after: float, unknown: float, another: tuple[float, float] | None = None
) -> bool:
    """Whether a domain is to be refused, by the median distances of its images from all that is known.

    As they are seen now, and as it shows them; `unknown` is the share that is unlike all that is known then. Where most
    of them are told to be of a domain that is known already, `another` are both distances of these alone: of the
    others, none is seen through it. Images that a poor look makes alike lie near to something, so that their distance
    tells little alone.
    """
    strange = not after < before and unknown > STRANGE
    return strange or (another is not None and not another[1] < NEARER * another[0])
