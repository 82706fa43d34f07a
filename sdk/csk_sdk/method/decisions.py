"""What the decision over all classes makes of a lesson: how often it is right, and what it takes from old classes.

Of the task's own images each is left out of the statistics that judge it, so that nothing is lost for learning and
nothing is judged by itself. Of old classes there are no images: they are made up, around the class's mean with the
covariance that all classes share, as wide as `method.forgetting` makes them; wider where that covariance is of few
images, since it fits these too closely (`1 / (1 - g)`, g the share of its degrees of freedom that the discriminant
uses). And a mean of n images lies closer to them than to others of the class, by `t / n` of squared distance, which
the class's logit is reduced by. Not of the base's classes, whose images the network was trained on, and for whose
width was measured what others need. Of a learned class, its lesson found by images left out how often it is right:
where those that are made up are right more often, what a new one takes of them is less by as much.

A new class is the *twin* of an old one where the two cannot be told apart: the share of the old one's images that look
more like the new one, and of the new one's that look more like the old one, are together about one, as they are when
both show the same thing. A class that can be told apart, and would take much of an old one all the same, is its
*rival*. docs/decisions/0033-honest-report.md has both measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.forgetting import WIDTH, Spread
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.left_out import ALL, AT_ONCE, JudgedImages, LeftOut, Rows

Float64 = NDArray[np.float64]
_CONFUSED, _NOISE = number("twins", "confused"), number("twins", "noise")
_LEAST, _TAKEN = integer("twins", "least_images"), number("twins", "taken")
_MADE_UP, _OF_CLASS = integer("twins", "made_up"), integer("twins", "of_class")
_MOST_USED, _EVEN = number("twins", "most_used"), number("twins", "even")


@dataclass(frozen=True)
class Expected:
    """How often a class of the task will be recognised, shares of 0 to 1.

    `all_classes` is that of the decision over all classes and `task` that among the task's own; `confused` is the class
    that most of the others are taken for, "" for none, and `share` how many.
    """

    all_classes: float
    task: float
    confused: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class Twin:
    """A new class that takes from `old`: `taken` of the old one's images would be called the new one.

    `back` is the share of the new one's images that look more like the old one.
    """

    old: str
    taken: float
    back: float


@dataclass(frozen=True)
class Judgement:
    """By class of the task what is `expected` of it; its `twins` and `rivals`; and what the old classes lose to it.

    `lost` is the share of old classes' images, all of these alike, that are named right without the new classes and not
    with them; None without any old ones, or any new ones.
    `alike` are pairs of the task's new classes that cannot be told from each other.
    """

    expected: dict[str, Expected]
    twins: dict[str, Twin]
    lost: float | None = None
    rivals: dict[str, Twin] = field(default_factory=dict)
    alike: tuple[tuple[str, str], ...] = ()

    def without(self, apart: Collection[str], then: Judgement | None) -> Judgement:
        """With the twins that are `apart`, which decisions over all classes leave out; `then` is of what is left."""
        expected = {
            name: replace(one, all_classes=0.0, confused=self.twins[name].old, share=self.twins[name].back)
            if name in apart
            else (then.expected.get(name, one) if then is not None else one)
            for name, one in self.expected.items()
        }
        if then is None:
            return Judgement(expected, self.twins, None if self.lost is None else 0.0, alike=self.alike)
        return Judgement(expected, self.twins, then.lost, then.rivals, self.alike)

    def to_json(self) -> dict[str, Any]:
        """Plain values: shares of 0 to 1 with four digits, and what old classes lose in percentage points.

        Not how often they are right: the base's statistics are of images that the network was trained on, and say more
        than is true of others.
        """
        rounded = {
            name: {
                key: round(value, 4) if isinstance(value, float) else value
                for key, value in asdict(one).items()
            }
            for name, one in self.expected.items()
        }
        old: dict[str, Any] = {}
        if self.lost is not None:
            old = {"old": {"lost": round(100.0 * self.lost, 2)}}
        return {"classes": rounded, **old}


def expected_of(recorded: Mapping[str, Any], names: Mapping[str, str | None]) -> dict[str, Any]:
    """`Judgement.to_json` as a record has it, with other names for classes; None for those that are to be left out."""
    classes = {}
    for name, one in recorded.get("classes", {}).items():
        new = names.get(name, name)
        if new is not None and isinstance(one, dict):
            confused = names.get(one.get("confused", ""), one.get("confused", ""))
            if confused == new:
                # What was taken for the other class of a merged one is right.
                right = sum(_share(one, key) or 0.0 for key in ("all_classes", "share"))
                one = {**one, "all_classes": round(min(1.0, right), 4)}
            classes[new] = (
                {**one, "confused": "", "share": 0.0}
                if confused is None or confused == new
                else {**one, "confused": confused}
            )
    return {**recorded, "classes": classes} if recorded else {}


class Recognised(Mapping[str, float]):
    """By learned class, how often it was expected to be right over all classes: of what tasks `expected`, in order.

    Looked up where it is asked for, which is of few classes.
    """

    def __init__(self, expected: Iterable[Mapping[str, Any]]) -> None:
        self._expected = list(expected)

    def __getitem__(self, name: str) -> float:
        for one in reversed(self._expected):
            classes = one.get("classes")
            said = classes.get(name) if isinstance(classes, dict) else None
            share = _share(said, "all_classes") if isinstance(said, dict) else None
            if share is not None:
                return share
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        known = (one.get("classes") for one in self._expected)
        names = dict.fromkeys(name for classes in known if isinstance(classes, dict) for name in classes)
        return (name for name in names if self.get(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _share(said: Mapping[str, Any], key: str) -> float | None:
    """A share that a record tells of a class; None where it tells none, as nobody has checked."""
    value = said.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0:
        return float(value)
    return None


def judge(
    statistics: ClassStatistics,
    images: JudgedImages,
    classes: Sequence[str],
    known: Sequence[str],
    base: Collection[str],
    rng: np.random.Generator,
    right: Mapping[str, float] | None = None,
) -> Judgement:
    """Of a task's images, judged by the discriminant of `statistics`, which `classes` are part of.

    `known` are those of `classes` that were known before, `base` the classes that the network was trained on, and
    `right` how often learned ones are, as `Recognised` has it.
    """
    place = {name: row for row, name in enumerate(statistics.classes)}
    own = np.array([place[name] for name in classes])
    old = np.array([row for name, row in place.items() if name not in classes or name in known], np.int64)
    expected: dict[str, Expected] = {}
    twins: dict[str, Twin] = {}
    rivals: dict[str, Twin] = {}
    made_up = _MadeUp(statistics, images.discriminant, base, rng) if len(old) else None
    for index, name in enumerate(classes):
        mine = images.logits[images.labels == index]
        if not len(mine):
            continue
        expected[name] = _expected(mine, own, index, statistics.classes)
        if name not in known and made_up is not None and len(mine) >= _LEAST:
            found = _rival(mine, int(own[index]), old, made_up, statistics.classes, right)
            if found is not None:
                one, alike = found
                (twins if alike else rivals)[name] = one
    same = _alike(images, own, [index for index, name in enumerate(classes) if name not in known])
    pairs = tuple((classes[one], classes[other]) for one, other in same)
    if made_up is None:
        return Judgement(expected, twins, alike=pairs)
    # What they lose to more images of known classes would be asked of these images alone, and is not told.
    lost = made_up.lost(old) if len(old) < len(place) else None
    return Judgement(expected, twins, lost, rivals, pairs)


def _alike(images: JudgedImages, own: NDArray[np.int64], new: Sequence[int]) -> NDArray[np.int64]:
    """Pairs `(p, 2)` of the task's classes `new` that are to each other what a twin is to an old class."""
    counts = np.zeros(len(own))
    looks = np.zeros((len(own), len(own)))
    for index in new:
        mine = images.logits[images.labels == index][:, own]
        if len(mine):
            counts[index] = len(mine)
            looks[index] = (mine + _EVEN > mine[:, index, None]).mean(axis=0)
    with np.errstate(divide="ignore"):
        limit = _CONFUSED + _NOISE / np.sqrt(np.minimum.outer(counts, counts))
    return np.argwhere(np.triu(looks + looks.T > limit, 1))


def _rival(
    logits: Float64,
    own: int,
    old: NDArray[np.int64],
    made_up: _MadeUp,
    names: Sequence[str],
    recognised: Mapping[str, float] | None,
) -> tuple[Twin, bool] | None:
    """The old class that a new one, `own`, with these logits of its images takes much from; whether it is a twin."""
    back = (logits[:, old] > logits[:, own, None]).mean(axis=0)
    nearest = int(back.argmax())
    row = int(old[nearest])
    # Of most classes the two scores say enough, and not all of them are made.
    normals = made_up.normals(_OF_CLASS)
    pair = made_up.of_class(row, normals, np.array([own, row]))
    lost = float(np.mean(pair[:, 0] + _EVEN > pair[:, 1]))
    alike = lost + float(back[nearest]) > _CONFUSED + _NOISE / np.sqrt(len(logits))
    if not alike and lost <= _TAKEN:
        return None
    made = made_up.of_class(row, normals)
    made[:, own] += _EVEN
    right = made[:, old].argmax(axis=1) == nearest
    taken = float(np.mean(right & (made.argmax(axis=1) == own)))
    if taken <= _TAKEN:
        return None
    # More of what is made up is right than of images, and what is wrong already is not taken.
    less = min(1.0, (1.0 if recognised is None else recognised.get(names[row], 1.0)) / float(right.mean()))
    return Twin(names[row], less * taken, float(back[nearest])), bool(alike)


def lost_to_others(
    statistics: ClassStatistics,
    discriminant: LeftOut,
    old: Collection[str],
    base: Collection[str],
    rng: np.random.Generator,
) -> float:
    """Points of accuracy that the classes `old`, all alike, lose to all others, estimated without their images.

    `discriminant` is that of `statistics`; `base` are the classes that the network was trained on.
    """
    rows = np.array([row for row, name in enumerate(statistics.classes) if name in old], np.int64)
    return 100.0 * _MadeUp(statistics, discriminant, base, rng).lost(rows)


def _expected(logits: Float64, own: NDArray[np.int64], index: int, names: Sequence[str]) -> Expected:
    # Where another is as likely, to within rounding, it is not named for sure.
    logits = logits.copy()
    logits[:, own[index]] -= _EVEN
    said = logits.argmax(axis=1)
    shares = np.bincount(said, minlength=len(names)) / len(said)
    right = float(shares[own[index]])
    among = float(np.mean(logits[:, own].argmax(axis=1) == index))
    shares[own[index]] = 0.0
    most = int(shares.argmax())
    share = float(shares[most])
    return Expected(right, among, names[most] if share else "", share)


class _MadeUp:
    """Images of old classes that look as others of theirs would, to the discriminant."""

    def __init__(
        self,
        statistics: ClassStatistics,
        discriminant: LeftOut,
        base: Collection[str],
        rng: np.random.Generator,
    ) -> None:
        self._discriminant, self._rng = discriminant, rng
        # What is given back is a quarter of `t / n`.
        noise = 4.0 * discriminant.given
        used = min(float((noise * statistics.counts).max() / statistics.freedom), _MOST_USED)
        spread, wide = Spread(statistics), WIDTH / (1.0 - used)
        # What is drawn meets the weights: white, where that makes fewer products.
        if discriminant.whiten is None or len(statistics.classes) <= statistics.features:
            self._draws = wide * spread.of(discriminant.weights())
        else:
            self._draws = wide * (discriminant.means @ discriminant.whiten(spread.factor.T).T)
        known = frozenset(base)
        learned = np.array([name not in known for name in statistics.classes])
        self._closer = np.where(learned, noise / (1.0 - used), 0.0)

    def lost(self, old: NDArray[np.int64]) -> float:
        """The share of images of the classes `old` that are named right among these alone, and not among all.

        Of most images it is enough that none of the other classes stands above their own.
        """
        others = np.delete(np.arange(len(self._discriminant.means)), old)
        if not len(others):
            return 0.0
        rows = old[np.resize(self._rng.permutation(len(old)), _MADE_UP)]
        there, place = _distinct(rows)
        own_draws, other_draws = self._draws[there], self._draws[others]
        own_at_mean = self._discriminant.at_own_mean - self._closer
        doubtful: list[NDArray[np.int64]] = []
        drawn: list[Float64] = []
        for start in range(0, len(rows), AT_ONCE):
            some, part = rows[start : start + AT_ONCE], place[start : start + AT_ONCE]
            normals = self.normals(len(some))
            own = own_at_mean[some] + np.einsum("nf,nf->n", normals, own_draws[part])
            most = self._discriminant.at_means(some, others)
            most += normals @ other_draws.T
            below = most.max(axis=1) > own
            doubtful.append(some[below])
            drawn.append(normals[below])
        asked = np.concatenate(doubtful)
        logits = self._logits(asked, np.concatenate(drawn))
        logits[:, others] = -np.inf
        return float(np.count_nonzero(logits.argmax(axis=1) == asked)) / len(rows)

    def normals(self, count: int) -> Float64:
        """What makes images' logits differ from those at their class's mean, `(count, k)`."""
        return self._rng.normal(size=(count, self._draws.shape[1]))

    def of_class(self, row: int, normals: Float64, among: Rows = ALL) -> Float64:
        """The logits of images of class `row` for the classes `among`, `(len(normals), len(among))`."""
        return self._logits(np.full(len(normals), row), normals, among)

    def _logits(self, rows: NDArray[np.int64], normals: Float64, among: Rows = ALL) -> Float64:
        """Those `(n, len(among))` of an image of each class in `rows`, by its `normals` `(n, k)`."""
        there, place = _distinct(rows)
        logits = self._discriminant.at_means(there, among)[place]
        logits += normals @ self._draws[among].T
        logits -= np.where(rows[:, None] == np.arange(len(self._closer))[among], self._closer[among], 0.0)
        return logits


def _distinct(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which there are, in order, and where each of them is among these."""
    counts = np.bincount(rows)
    return np.flatnonzero(counts), (np.cumsum(counts > 0) - 1)[rows]
