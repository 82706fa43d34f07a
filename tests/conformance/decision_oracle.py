"""What a judgement must say, in float64: the statistics made again without each image, and no shortcut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from guard_oracle import threshold
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve

Tensors = dict[str, NDArray]
Settings = Mapping[str, Any]
CLEAR = 1e-6


class _Known:
    """Class statistics as they are, and their discriminant without one image."""

    def __init__(self, given: Tensors) -> None:
        self.counts = given["counts"]
        self.means = given["sums"] / self.counts[:, None]
        self.freedom = self.counts.sum() - len(self.counts)
        self.scatter = given["gram"] - (self.means * self.counts[:, None]).T @ self.means
        self.within = self.scatter / self.freedom
        prior = threshold("discriminant", "prior_images")
        self.share = prior / (self.freedom + prior)
        trace = np.trace(given["gram"])
        self.floor = max(
            threshold("covariance", "roundings") * np.finfo(np.float64).eps * trace / self.freedom,
            np.finfo(np.float64).tiny,
        )
        self.ridge = np.diag(self.share * np.diag(self.within) + self.floor)
        self.noise = float(np.trace(solve(self.shrunk(self.within), self.within)))

    def shrunk(self, within: NDArray) -> NDArray:
        return (1.0 - self.share) * within + self.ridge

    def logits(self, x: NDArray, left_out: int | None = None) -> NDArray:
        """Those of one image, which is left out of its class."""
        means, within = self.means.copy(), self.within
        if left_out is not None:
            n, apart = self.counts[left_out], x - self.means[left_out]
            means[left_out] -= apart / (n - 1.0)
            within = (self.scatter - n / (n - 1.0) * np.outer(apart, apart)) / self.freedom
        ahead = solve(self.shrunk(within), means.T).T
        found: NDArray = ahead @ x - 0.5 * np.sum(ahead * means, axis=1) + self.noise / (4.0 * self.counts)
        return found


class _MadeUp:
    """Images of old classes, one by one, from the numbers that the case gives."""

    def __init__(self, known: _Known, settings: Settings, given: Tensors) -> None:
        self._known, self._normals = known, list(given["normals"].astype(np.float64))
        variances = threshold("forgetting", "more_variance") * np.diag(known.within) + known.floor
        around = known.within + np.diag(variances)
        used = min(known.noise / known.freedom, threshold("twins", "most_used"))
        width = threshold("forgetting", "width") / (1.0 - used)
        ahead = solve(known.shrunk(known.within), known.means.T).T
        if 2 * len(ahead) <= len(around):
            # Of few classes, what is drawn are the logits themselves.
            self._added = width * cholesky(ahead @ around @ ahead.T, lower=True).T
        else:
            self._added = width * cholesky(around, lower=False) @ ahead.T
        self._closer = [
            0.0 if name in settings["base"] else known.noise / known.counts[row] / (1.0 - used)
            for row, name in enumerate(settings["all"])
        ]

    def logits(self, row: int) -> NDArray:
        found = self._known.logits(self._known.means[row]) + self._normals.pop(0) @ self._added
        found[row] -= self._closer[row]
        return found

    @property
    def left(self) -> int:
        return len(self._normals)


def judgement(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """Image by image."""
    names, classes = settings["all"], settings["classes"]
    known, labels = _Known(given), given["labels"]
    own = [names.index(name) for name in classes]
    old = [row for row, name in enumerate(names) if name not in classes or name in settings["known"]]
    made = _MadeUp(known, settings, given)
    rows = {"told": [], "all_classes": [], "task": [], "share": [], "confused": []}
    rows |= {"twins": [], "taken": [], "back": []}
    judged = []
    for index, name in enumerate(classes):
        features = given["features"][labels == index].astype(np.float64)
        told = known.counts[own[index]] > 1
        logits = [known.logits(x, own[index]) for x in features] if told else []
        judged.append([] if name in settings["known"] else logits)
        _add(rows, _expected(logits, own, index))
        asked = told and old and name not in settings["known"]
        asked = asked and len(features) >= threshold("twins", "least_images")
        right = {names.index(learned): share for learned, share in settings.get("right", {}).items()}
        twin = _twin(logits, own[index], old, made, right) if asked else (-1, 0.0, 0.0)
        _add(rows, dict(zip(("twins", "taken", "back"), twin, strict=True)))
    lost = _lost(old, given["permutation"], made) if old else 0.0
    assert not made.left, "all that was drawn is used"
    rows["alike"] = _alike(judged, own)
    whole = {"told", "confused", "twins", "alike"}
    found = {key: np.array(row, np.int64 if key in whole else np.float64) for key, row in rows.items()}
    return {**found, "lost": np.array([lost])}


def _add(rows: dict[str, list[Any]], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        rows[key].append(value)


def _expected(logits: Sequence[NDArray], own: Sequence[int], index: int) -> dict[str, Any]:
    if not logits:
        return {"told": 0, "all_classes": 0.0, "task": 0.0, "share": 0.0, "confused": -1}
    # What is no likelier than another is not named for sure.
    logits = [
        np.array(row) - threshold("twins", "even") * (np.arange(len(row)) == own[index]) for row in logits
    ]
    said = [_best(row, range(len(row))) for row in logits]
    among = [_best(row, own) for row in logits]
    others = [said.count(row) if row != own[index] else 0 for row in range(len(logits[0]))]
    most = max(range(len(others)), key=lambda row: (others[row], -row))
    return {
        "told": 1,
        "all_classes": said.count(own[index]) / len(said),
        "task": among.count(own[index]) / len(said),
        "share": others[most] / len(said),
        "confused": most if others[most] else -1,
    }


def _alike(judged: Sequence[Sequence[NDArray]], own: Sequence[int]) -> list[list[int]]:
    """Which classes of the task look like which others of it: image by image, and pair by pair."""

    def taken(one: int, other: int) -> float:
        even = threshold("twins", "even")
        return sum(_above(row[own[other]] + even, row[own[one]]) for row in judged[one]) / len(judged[one])

    def same(one: int, other: int) -> bool:
        least = min(len(judged[one]), len(judged[other]))
        if one == other or not least:
            return False
        limit = threshold("twins", "confused") + threshold("twins", "noise") / least**0.5
        return _above(taken(one, other) + taken(other, one), limit)

    return [[int(same(one, other)) for other in range(len(own))] for one in range(len(own))]


def _twin(
    logits: Sequence[NDArray], own: int, old: Sequence[int], made: _MadeUp, right: Mapping[int, float]
) -> tuple[int, float, float]:
    shares = {row: float(np.mean([_above(one[row], one[own]) for one in logits])) for row in old}
    nearest = max(old, key=lambda row: (shares[row], -row))
    lost, taken, named = 0, 0, 0
    for _ in range(threshold("twins", "of_class")):
        one = made.logits(nearest)
        one[own] += threshold("twins", "even")
        lost += _above(one[own], one[nearest])
        named += _best(one, old) == nearest
        taken += _best(one, old) == nearest and _best(one, range(len(one))) == own
    lost_share, taken_share = lost / threshold("twins", "of_class"), taken / threshold("twins", "of_class")
    limit = threshold("twins", "confused") + threshold("twins", "noise") / len(logits) ** 0.5
    _clear(lost_share + shares[nearest] - limit)
    if lost_share + shares[nearest] <= limit:
        return -1, 0.0, 0.0
    if taken_share <= threshold("twins", "taken"):
        return -1, 0.0, 0.0
    # So many of its images were right as the class was learned, and `named` of those that are made up are.
    named_share = named / threshold("twins", "of_class")
    if right.get(nearest, 1.0) < named_share:
        taken_share = right[nearest] * taken / named
    return nearest, taken_share, shares[nearest]


def _lost(old: Sequence[int], permutation: NDArray, made: _MadeUp) -> float:
    count = threshold("twins", "made_up")
    before, after = 0, 0
    for sample in range(count):
        row = old[int(permutation[sample % len(old)])]
        one = made.logits(row)
        before += _best(one, old) == row
        after += _best(one, range(len(one))) == row
    return (before - after) / count


def _best(values: NDArray, places: Sequence[int]) -> int:
    order = sorted(places, key=lambda place: -values[place])
    if len(order) > 1:
        _clear(values[order[0]] - values[order[1]])
    return order[0]


def _above(one: float, other: float) -> bool:
    _clear(one - other)
    return bool(one > other)


def _clear(margin: float) -> None:
    if abs(margin) < CLEAR:
        raise ValueError("an answer is too close to call; choose other numbers")


KINDS = {"judgement": judgement}
