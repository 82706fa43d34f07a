"""More images of classes that are known already: how much they count beside those that came before.

Classes are one by name. New images of a known class are mostly of another kind than the old ones (another season,
another camera), or nobody would have collected them; but ten of them vanish in a mean over five hundred. So all that
a task brings of known classes count as much together as those that were there.
docs/decisions/0017-known-classes.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.heads import ClassStatistics, Shrunk, lda_head

MOST = number("known_classes", "most")
_CONTRADICTION, _LEAST = number("known_classes", "contradiction"), integer("known_classes", "least_images")
_FAMILIAR, _MOST_USED = number("known_classes", "familiar"), number("known_classes", "most_used")


def times_counted(pictures: Mapping[str, float], known: ClassStatistics) -> dict[str, float]:
    """How many times a new image of a class that is `known` counts, by name; `pictures` are the new ones' counts."""
    seen = known_among(tuple(pictures), known.counted)
    count = sum(pictures[name] for name in seen)
    factor = min(MOST, max(1.0, known.count(seen) / count)) if count else 1.0
    return dict.fromkeys(seen, factor)


def known_among(classes: Sequence[str], counted: Mapping[str, float]) -> tuple[str, ...]:
    """Those of `classes` of which images were `counted`."""
    return tuple(name for name in classes if counted.get(name, 0.0) > 0)


def contradicted(
    known: ClassStatistics,
    prior_pictures: float,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: Sequence[str],
) -> dict[str, tuple[str, float]]:
    """Classes of which most new images look like those of another one, which is `known`: that one, and their share.

    Classes that are known themselves; and where the other one is of the task, too, and most of its own images do not
    look like it, new ones as well: names that were exchanged, of which one was not known, or is left out of decisions.

    `features` `(n, f)` and `labels` `(n,)` into `classes` are the task's. An image looks like one of a class where the
    discriminant decides for it, and those of which it does lie no further from its mean than its own do. What is unlike
    everything known, as in another season, has the looks of no class, whichever is nearest.
    """
    seen = tuple(name for name, count in zip(known.classes, known.counts, strict=True) if count > 0)
    if not set(seen).intersection(classes):
        return {}
    weight, bias = lda_head(known, prior_pictures, seen)
    said = (features @ weight.T + bias).argmax(axis=1)
    distance = _Distance.of(known, prior_pictures)
    if distance is None:
        return {}
    looks = {
        name: np.bincount(own, minlength=len(seen)) / len(own)
        for index, name in enumerate(classes)
        if len(own := said[labels == index]) >= _LEAST
    }
    found = {}
    for name, every in looks.items():
        shares = np.where([one == name for one in seen], 0.0, every)
        other = int(shares.argmax())
        itself = looks[seen[other]][other] if seen[other] in looks else 1.0
        if name not in seen and itself >= _CONTRADICTION:
            continue
        theirs = features[(labels == classes.index(name)) & (said == other)]
        if shares[other] > _CONTRADICTION and distance(theirs, seen[other]) < _FAMILIAR:
            found[name] = (seen[other], float(shares[other]))
    return found


class _Distance:
    """How far images are from a class's mean, squared, over what is expected of others of the class.

    The covariance fits the images that it is made of too closely. With `g` the share of its degrees of freedom that the
    discriminant uses, others lie `1 / (1 - g)^2` times as far.
    """

    def __init__(self, known: ClassStatistics, shrunk: Shrunk, expected: float) -> None:
        self._known, self._shrunk, self._expected = known, shrunk, expected

    @classmethod
    def of(cls, known: ClassStatistics, prior_pictures: float) -> _Distance | None:
        """None where no class has any spread."""
        shrunk = Shrunk.of(known, prior_pictures)
        if shrunk is None:
            return None
        used = share_used(shrunk.noise, shrunk.shrinkage, known.freedom)
        return cls(known, shrunk, shrunk.noise / (1.0 - used) ** 2)

    def __call__(self, features: NDArray[np.float32], name: str) -> float:
        row = self._known.classes.index(name)
        apart = features - self._known.means[row]
        return float(np.vdot(apart, self._shrunk.solve(apart))) / len(apart) / self._expected


def share_used(noise: float, shrinkage: float, freedom: float) -> float:
    """`g`, the share of the covariance's degrees of freedom that the discriminant uses; see `Shrunk`."""
    return min((1.0 - shrinkage) * noise / freedom, _MOST_USED)


def with_known_classes(
    known: ClassStatistics, features: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str]
) -> ClassStatistics:
    """`known` and a task's features `(n, f)` and labels `(n,)` into its classes, the known ones in balance."""
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    times = times_counted({name: count for name, count in zip(classes, counts, strict=True) if count}, known)
    learned = ClassStatistics.empty(known.features).add(features[:0], labels[:0], classes)
    for index, name in enumerate(classes):
        own = labels == index
        one = ClassStatistics.empty(known.features).add(
            features[own], np.zeros(int(own.sum()), np.int64), (name,)
        )
        learned = learned.merge(one.scaled(times.get(name, 1.0)))
    return known.merge(learned)
