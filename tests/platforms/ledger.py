"""The kinds of conformance cases that are the ledger's (docs/conformance.md), each asked of csk_sdk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.method.contributions import Contribution, ContributionSum, Lesson, derived
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.known_classes import contradicted
from csk_sdk.objectives.classification import PRIOR_PICTURES

Tensors = dict[str, NDArray[Any]]
Settings = Mapping[str, Any]


def _contributions(
    features: NDArray[Any], labels: NDArray[Any], classes: Sequence[Any], at_once: int = 16
) -> dict[Any, Contribution]:
    sums = [ContributionSum(features.shape[1]) for _ in classes]
    for start in range(0, len(labels), at_once):
        part = slice(start, start + at_once)
        for label, one in enumerate(sums):
            one.add(features[part][labels[part] == label])
    return {name: one.total() for name, one in zip(classes, sums, strict=True)}


def _contribution(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    found = list(
        _contributions(
            given["features"], given["labels"], range(settings["classes"]), settings["at_once"]
        ).values()
    )
    factors = [one.factor.astype(np.float64) for one in found]
    return {
        "counts": np.array([one.count for one in found]),
        "means": np.stack([one.mean for one in found]),
        "spreads": np.stack([(factor**2).sum(axis=0) for factor in factors]),
        "scatter": np.sum([factor.T @ factor for factor in factors], axis=0),
    }


def _ledger(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    """As it is kept: led back by all maps so far; then derived without the forgotten, and mapped."""
    matrix = np.eye(len(given["gram"]))
    lessons = []
    for task, classes in enumerate(settings["tasks"]):
        found = _contributions(given[f"features/{task}"], given[f"labels/{task}"], classes)
        lesson = Lesson(tuple(classes), found)
        if settings["moved"]:
            matrix = given[f"forward/{task}"] @ matrix
            lesson = lesson.led_back(matrix)
        left = tuple(name for name in classes if name not in settings["forgotten"])
        lessons.append(Lesson(left, {name: lesson.contributions[name] for name in left}))
    base = ClassStatistics(tuple(settings["base"]), given["gram"], given["sums"], given["counts"])
    known = derived(base, lessons)
    return {"gram": matrix @ known.gram @ matrix.T, "sums": known.sums @ matrix.T, "counts": known.counts}


def _contradiction(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    old, classes = settings["old"], settings["classes"]
    known = ClassStatistics(tuple(old), given["gram"], given["sums"], given["counts"])
    found = contradicted(known, PRIOR_PICTURES, given["features"], given["labels"], classes)
    pairs = [found.get(name, ("", 0.0)) for name in classes]
    others = [old.index(other) if other else -1 for other, _ in pairs]
    return {"others": np.array(others, np.int64), "shares": np.array([share for _, share in pairs])}


LEDGER: dict[str, Callable[[Settings, Tensors, Path], Tensors]] = {
    "contribution": _contribution,
    "ledger": _ledger,
    "contradiction": _contradiction,
}
