"""Do devices agree on what they call by one name? What one of them sends must not spoil what all of them know.

Of each class that several devices hold, their means are compared, where the covariance within classes is that of one
image, and noise of few images is taken off. A device whose mean lies far from those of most others, and of two at
least, has shown something else under that name: labels were exchanged, or sums scaled. How far is far is told by what
lies between two classes as a rule. Means say nothing of a class that fewer than three hold; a spread or a number of
images that is out of all measure is seen in any. docs/decisions/0034-fleet.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.heads import ClassStatistics, Shrunk
from csk_sdk.method.known_classes import share_used

Float64 = NDArray[np.float64]
HOLDERS = integer("fleet", "holders")
_FAR, _WIDE, _MANY = number("fleet", "far"), number("fleet", "wide"), number("fleet", "many")
_ALIKE = number("fleet", "alike")
_BLOCK, _LEAST_VARIANCE = integer("fleet", "means_at_once"), number("fleet", "least_variance")


@dataclass(frozen=True, eq=False)
class Part:
    """What a device holds of a class: `count` images, their mean and each feature's variance, `(f,)` float32."""

    device: str
    name: str
    count: float
    mean: NDArray[np.float32]
    variance: NDArray[np.float32]


@dataclass(frozen=True)
class Doubt:
    """Why a device is set aside: what of `name` is wrong, as the end of a sentence about the device."""

    name: str
    why: str


class Space:
    """Where classes are told apart: features, such that the covariance within classes is that of independent ones.

    The covariance is that of `statistics`. It fits the images that it is made of too closely, so others lie farther
    apart than it says (method/known_classes.py): distances between means are by so much too large.
    """

    def __init__(self, root: Float64, noise: float) -> None:
        self._root, self._noise = root, noise

    @classmethod
    def of(cls, statistics: ClassStatistics, prior_pictures: float) -> Space | None:
        """None where no class has any spread."""
        shrunk = Shrunk.of(statistics, prior_pictures)
        if shrunk is None:
            return None
        inverse = shrunk.solve(np.eye(statistics.features))
        used = share_used(shrunk.noise, shrunk.shrinkage, statistics.freedom)
        root: Float64 = np.linalg.cholesky((inverse + inverse.T) / 2.0).astype(np.float64, copy=False)
        return cls((1.0 - used) * root, shrunk.noise * (1.0 - used) ** 2)

    def points(self, means: Sequence[NDArray[np.float32]] | Float64) -> Float64:
        """Where means `(n, f)` lie."""
        points: Float64 = np.asarray(means, np.float64) @ self._root
        return points

    def noise(self, counts: Sequence[float]) -> Float64:
        """By how much the squared distance of a mean of so many images is too large, `(n,)`."""
        return self._noise / np.array(counts, np.float64)


def out_of_measure(parts: Sequence[Part]) -> dict[str, Doubt]:
    """The devices with a spread or a number of images that no other has, and why, of parts in any order."""
    if not parts:
        return {}
    usual = _usual_variance(parts)
    many = _MANY * float(np.median([one.count for one in parts]))
    found: dict[str, Doubt] = {}
    for one in _in_order(parts):
        wide = float(np.median(one.variance / usual))
        if wide > _WIDE:
            found.setdefault(one.device, Doubt(one.name, f"spreads {wide:.0f} times as far as usual"))
        elif one.count > many:
            found.setdefault(one.device, Doubt(one.name, f"claims {one.count:.0f} images"))
    return found


def apart(parts: Sequence[Part], space: Space) -> dict[str, Doubt]:
    """The devices whose mean of a class lies far from those of most others, and why, of parts in any order."""
    held: dict[str, list[Part]] = {}
    for one in _in_order(parts):
        held.setdefault(one.name, []).append(one)
    classes = {name: _by_device(some) for name, some in held.items()}
    points = {name: space.points([one.mean for one in some]) for name, some in classes.items()}
    names = list(points)
    middles = np.stack([np.median(points[name], axis=0) for name in names]) if names else np.zeros((0, 0))
    limit = _FAR * _between(middles)
    found: dict[str, Doubt] = {}
    for name, some in classes.items():
        if len(some) < HOLDERS:
            continue
        noise = space.noise([one.count for one in some])
        for row, far in enumerate(_far_from(points[name], noise, limit)):
            if far >= 2 and 2 * far > len(some) - 1:
                nearest = names[int(_squares(middles, points[name][row][None])[:, 0].argmin())]
                like = f", and looks like '{nearest}'" if nearest != name else ""
                why = f"lies apart from that of {far} of {len(some) - 1} others{like}"
                found.setdefault(some[row].device, Doubt(name, why))
    return found


def unconfirmed(parts: Sequence[Part]) -> tuple[str, ...]:
    """The classes that fewer than three devices hold: nobody can tell whether they are what they are called."""
    holders: dict[str, set[str]] = {}
    for one in parts:
        holders.setdefault(one.name, set()).add(one.device)
    return tuple(sorted(name for name, devices in holders.items() if len(devices) < HOLDERS))


def alike(statistics: ClassStatistics, prior_pictures: float) -> dict[tuple[str, str], float]:
    """Pairs of classes of two names that look like one thing, and how far apart they lie, by what is usual.

    Squared distances of their means, over the median of all pairs'.
    """
    seen = [row for row, count in enumerate(statistics.counts) if count > 1.0]
    space = Space.of(statistics, prior_pictures) if len(seen) > 2 else None
    if space is None:
        return {}
    counts = statistics.counts[seen]
    points = space.points(statistics.means_of(np.array(seen)))
    noise, usual = space.noise(counts.tolist()), _between(points)
    ratios = (_squares(points, points) - noise[:, None] - noise[None]) / (usual or 1.0)
    pairs = zip(*np.nonzero(np.triu(ratios < _ALIKE, 1)), strict=True)
    return {
        (statistics.classes[seen[a]], statistics.classes[seen[b]]): max(float(ratios[a, b]), 0.0)
        for a, b in pairs
    }


def renamed(same: Mapping[str, str]) -> dict[str, str]:
    """Where each class of `same` ends, along chains of names. Raises ValueError, naming one, for a circle."""
    found = {}
    for name in same:
        seen, at = {name}, same[name]
        while at in same and at not in seen:
            seen.add(at)
            at = same[at]
        if at in seen:
            raise ValueError(name)
        found[name] = at
    return found


def _in_order(parts: Iterable[Part]) -> list[Part]:
    return sorted(parts, key=lambda one: (one.name, one.device))


def _usual_variance(parts: Sequence[Part]) -> Float64:
    """Of each feature, the median of what it varies by; never nothing."""
    told = [one.variance for one in parts if one.count > 1.0]
    usual = np.median(np.stack(told), axis=0).astype(np.float64) if told else np.ones(len(parts[0].mean))
    floor = _LEAST_VARIANCE * float(usual.mean())
    return np.maximum(usual, floor if floor > 0.0 else 1.0)


def _by_device(parts: Iterable[Part]) -> list[Part]:
    """One part for each device: of several lessons, their mean."""
    held: dict[str, list[Part]] = {}
    for one in parts:
        held.setdefault(one.device, []).append(one)
    return [_together(some) for some in held.values()]


def _together(some: Sequence[Part]) -> Part:
    if len(some) == 1:
        return some[0]
    # In one order for all: rounding must not depend on whose file came first.
    some = sorted(some, key=lambda one: (one.count, one.mean.tobytes()))
    count = sum(one.count for one in some)
    mean = np.sum([one.count / count * one.mean.astype(np.float64) for one in some], axis=0)
    return Part(some[0].device, some[0].name, count, mean.astype(np.float32), some[0].variance)


def _between(middles: Float64) -> float:
    """The squared distance that lies between two classes, as a rule; with one class, no distance is too far."""
    if len(middles) < 2:
        return float("inf")
    return float(np.median(_squares(middles, middles)[np.triu_indices(len(middles), 1)]))


def _far_from(points: Float64, noise: Float64, limit: float) -> list[int]:
    """From how many others each point lies farther than it may, beyond what few images make of it."""
    counts = []
    for start in range(0, len(points), _BLOCK):
        some = slice(start, start + _BLOCK)
        far = _squares(points[some], points) - noise[some, None] - noise[None] > limit
        counts += far.sum(axis=1).tolist()
    return counts


def _squares(one: Float64, other: Float64) -> Float64:
    """Squared distances, `(n, m)`."""
    norms = np.einsum("nf,nf->n", one, one)[:, None] + np.einsum("nf,nf->n", other, other)[None]
    squares: Float64 = np.maximum(norms - 2.0 * one @ other.T, 0.0)
    return squares
