"""Do devices agree on what they call by one name? What one of them sends must not spoil what all of them know.

Of each class that several devices hold, their means are compared, in units of each feature's usual spread. A device
whose mean lies far from those of most others, and of two at least, has shown something else under that name: labels
were exchanged, or sums scaled. How far is far is told by what lies between different classes. Means say nothing of a
class that fewer than three hold; a spread or a number of images that is out of all measure is seen in any.
docs/decisions/0034-fleet.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.heads import ClassStatistics, noise_of_means, shrunk_covariance

Float64 = NDArray[np.float64]
HOLDERS = integer("fleet", "holders")
_FAR, _WIDE, _MANY = number("fleet", "far"), number("fleet", "wide"), number("fleet", "many")
_ALIKE = number("fleet", "alike")
# Pairs of means at once.
_BLOCK = 512
_LEAST_VARIANCE = 1e-6


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


def doubted(parts: Sequence[Part]) -> dict[str, Doubt]:
    """The devices that are to be set aside, and why, of contributions in any order; the first reason by class."""
    if not parts:
        return {}
    parts = sorted(parts, key=lambda one: (one.name, one.device))
    usual = _usual_variance(parts)
    found: dict[str, Doubt] = {}
    many = _MANY * float(np.median([one.count for one in parts]))
    for one in parts:
        wide = float(np.mean(one.variance / usual))
        if wide > _WIDE:
            found.setdefault(one.device, Doubt(one.name, f"spreads {wide:.0f} times as far as usual"))
        elif one.count > many:
            found.setdefault(one.device, Doubt(one.name, f"claims {one.count:.0f} images"))
    for one, doubt in _apart(parts, usual):
        found.setdefault(one.device, doubt)
    return found


def unconfirmed(parts: Sequence[Part]) -> tuple[str, ...]:
    """The classes that fewer than three devices hold: nobody can tell whether they are what they are called."""
    holders: dict[str, set[str]] = {}
    for one in parts:
        holders.setdefault(one.name, set()).add(one.device)
    return tuple(sorted(name for name, devices in holders.items() if len(devices) < HOLDERS))


def _usual_variance(parts: Sequence[Part]) -> Float64:
    told = [one.variance for one in parts if one.count > 1.0]
    if not told:
        return np.ones(len(parts[0].mean))
    usual = np.median(np.stack(told), axis=0).astype(np.float64)
    floor = _LEAST_VARIANCE * float(usual.mean())
    return np.maximum(usual, floor if floor > 0.0 else 1.0)


def _apart(parts: Sequence[Part], usual: Float64) -> list[tuple[Part, Doubt]]:
    """The parts that lie far from most others of their class."""
    classes = sorted({one.name for one in parts})
    own = {name: _by_device(one for one in parts if one.name == name) for name in classes}
    scaled = {
        name: np.stack([one.mean / np.sqrt(usual) for one in held]).astype(np.float64)
        for name, held in own.items()
    }
    middles = np.stack([np.median(one, axis=0) for one in scaled.values()])
    limit = _FAR * _between(middles)
    found = []
    for name, held in own.items():
        if len(held) < HOLDERS:
            continue
        noise = np.array([1.0 / one.count for one in held])
        for row, far in enumerate(_far_from(scaled[name], noise, limit)):
            if far >= 2 and 2 * far > len(held) - 1:
                distances = _squares(middles, scaled[name][row][None])[:, 0]
                nearest = classes[int(distances.argmin())]
                like = f", and looks like '{nearest}'" if nearest != name else ""
                found.append(
                    (held[row], Doubt(name, f"lies apart from that of {far} of {len(held) - 1} others{like}"))
                )
    return found


def _by_device(parts: Iterable[Part]) -> list[Part]:
    """One part for each device: of several lessons, their mean."""
    held: dict[str, list[Part]] = {}
    for one in parts:
        held.setdefault(one.device, []).append(one)
    return [_together(some) for _, some in sorted(held.items())]


def _together(some: Sequence[Part]) -> Part:
    if len(some) == 1:
        return some[0]
    count = sum(one.count for one in some)
    mean = np.sum([one.count / count * one.mean.astype(np.float64) for one in some], axis=0)
    return Part(some[0].device, some[0].name, count, mean.astype(np.float32), some[0].variance)


def _between(middles: Float64) -> float:
    """The squared distance that lies between two classes, as a rule; with one class, that of its images' spread."""
    if len(middles) < 2:
        return 1.0
    squares = _squares(middles, middles)
    return float(np.median(squares[np.triu_indices(len(middles), 1)]))


def _far_from(means: Float64, noise: Float64, limit: float) -> list[int]:
    """From how many others each mean lies farther than it may, beyond what few images make of it."""
    counts = []
    for start in range(0, len(means), _BLOCK):
        some = slice(start, start + _BLOCK)
        squares = _squares(means[some], means) - noise[some, None] - noise[None]
        far = squares > limit
        far[np.arange(len(far)), np.arange(start, start + len(far))] = False
        counts += far.sum(axis=1).tolist()
    return counts


def _squares(one: Float64, other: Float64) -> Float64:
    """Mean squared differences of features, `(n, m)`."""
    norms = np.einsum("nf,nf->n", one, one)[:, None] + np.einsum("nf,nf->n", other, other)[None]
    squares: Float64 = np.maximum(norms - 2.0 * one @ other.T, 0.0) / one.shape[1]
    return squares


def alike(statistics: ClassStatistics, prior_pictures: float) -> dict[tuple[str, str], float]:
    """Pairs of classes of two names that look like one thing, and what share of either would be called the other.

    As `decisions.judge` finds a twin, of Gaussian images with the covariance that all classes share: of two classes
    whose means are `d` standard deviations apart, a share of Phi(-d / 2) each looks more like the other.
    """
    seen = [row for row, count in enumerate(statistics.counts) if count > 1.0]
    shrunk = shrunk_covariance(statistics, prior_pictures) if len(seen) > 1 else None
    if shrunk is None:
        return {}
    inverse = np.linalg.inv(shrunk[0])
    noise = noise_of_means(inverse, *shrunk[1:])
    counts = statistics.counts[seen]
    means = statistics.sums[seen] / counts[:, None]
    found: dict[tuple[str, str], float] = {}
    products = means @ inverse @ means.T
    own = np.diag(products)
    squares = own[:, None] + own[None] - 2.0 * products - noise * (1.0 / counts[:, None] + 1.0 / counts[None])
    for a, b in zip(*np.triu_indices(len(seen), 1), strict=True):
        share = 0.5 * math.erfc(math.sqrt(max(float(squares[a, b]), 0.0) / 8.0))
        if share > _ALIKE:
            found[statistics.classes[seen[a]], statistics.classes[seen[b]]] = share
    return found


def renamed(same: Mapping[str, str]) -> dict[str, str]:
    """Where each class of `same` ends, along chains of names. Raises ValueError, naming one, for a circle."""
    found = {}
    for name in same:
        seen, at = {name}, same[name]
        while at in same:
            if at in seen:
                raise ValueError(name)
            seen.add(at)
            at = same[at]
        if at == name:
            raise ValueError(name)
        found[name] = at
    return found
