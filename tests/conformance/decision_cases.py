"""The cases of judgements: what is to be expected of a lesson, and which of its classes is the twin of an old one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from guard_oracle import threshold
from numpy.typing import NDArray

Tensors = dict[str, NDArray]
Row = tuple[str, str, str, dict[str, Any], Tensors]
FEATURES = 4
# By name: what for; of each class known before, its images; and of each class of the task, its images and whose place
# it has: the class's own, or that of the one it is a twin of. "a" and "b" are the base's.
LESSONS = {
    "twins": (
        "a twin of one of the base's classes, one of a learned class, and a class that is neither",
        {"a": 60, "b": 50, "c": 40},
        {"d": (30, "d"), "e": (30, "b"), "f": (30, "c")},
    ),
    "known": (
        "more images of a known class are no twin, and count among the old",
        {"a": 60, "b": 50, "c": 40},
        {"a": (25, "a"), "d": (25, "d")},
    ),
    "few": (
        "of nine images no twin is told, and of one nothing",
        {"a": 60, "b": 50},
        {"d": (9, "a"), "e": (1, "e"), "f": (14, "f")},
    ),
    "first": ("nothing was known before", {}, {"d": (20, "d"), "e": (20, "e"), "f": (20, "f")}),
    "same": (
        "where two new classes have the very same images, none of these is right",
        {"a": 60, "b": 50},
        {"d": (3, "d"), "e": (3, "d"), "f": (14, "f")},
    ),
    "alike": (
        "new classes that show one thing cannot be told from each other, known ones are not asked",
        {"a": 60, "b": 50, "c": 40},
        {"d": (30, "d"), "e": (40, "d"), "c": (30, "d"), "f": (30, "f")},
    ),
    "recognised": (
        "a learned class that was right less often than what is made up loses as much less to its twin",
        {"a": 60, "b": 50, "c": 40},
        {"d": (30, "c"), "e": (30, "e")},
    ),
    "many": (
        "far more old classes than features, of which new ones take from some and not from others",
        dict.fromkeys("abcghijklmnopqrstuvwxyz", 20),
        {"d": (20, "d"), "e": (20, "b"), "f": (20, "f")},
    ),
    "wide": (
        "half as many classes as features: numbers are drawn for the logits of all classes, and not for features",
        {"a": 60, "b": 50, "c": 40},
        {"d": (30, "c"), "e": (9, "e")},
    ),
}
# Features of an image, where they are others.
WIDE = {"wide": 10}
# Of these, the images of two classes are one and the same image.
SAME = {"same": ("d", "e")}
# How often learned classes were right when they were learned.
RIGHT = {"recognised": {"c": 0.5}}
APART = 2.5


def draws() -> Iterator[Callable[[int], Row]]:
    """What draws each case."""
    for number, name in enumerate(LESSONS):
        yield partial(_judgement, name, 930 + number)


def _judgement(name: str, seed: int, attempt: int) -> Row:
    about, before, task = LESSONS[name]
    rng = np.random.default_rng((seed, attempt))
    features = WIDE.get(name, FEATURES)
    place = {one: APART * rng.normal(size=features) for one in sorted({*"abcdef", *before})}
    mixing = np.random.default_rng(features).normal(size=(features, features))

    def images(of: str, count: int) -> NDArray:
        return (place[of] + rng.normal(size=(count, features)) @ mixing).astype(np.float32)

    old = {one: images(one, count) for one, count in before.items()}
    new = [images(of, count) for count, of in task.values()]
    for one in SAME.get(name, ()):
        new[list(task).index(one)][...] = new[0][0]
    names = [*before, *(one for one in task if one not in before)]
    parts = {one: [old[one]] if one in old else [] for one in names}
    for one, x in zip(task, new, strict=True):
        parts[one].append(x)
    whole = [np.concatenate(parts[one]).astype(np.float64) for one in names]
    asked = sum(
        one not in before and count >= threshold("twins", "least_images") for one, (count, _) in task.items()
    )
    drawn = asked * threshold("twins", "of_class") + threshold("twins", "made_up") if before else 0
    given = {
        "gram": sum(x.T @ x for x in whole),
        "sums": np.stack([x.sum(axis=0) for x in whole]),
        "counts": np.array([float(len(x)) for x in whole]),
        "features": np.concatenate(new),
        "labels": np.repeat(np.arange(len(task)), [count for count, _ in task.values()]),
        "normals": rng.normal(size=(drawn, len(names) if name in WIDE else features)).astype(np.float32),
        "permutation": rng.permutation(len(before)),
    }
    settings: dict[str, Any] = {
        "all": names,
        "classes": list(task),
        "known": [one for one in task if one in before],
        "base": [one for one in before if one in "ab"],
    }
    if name in RIGHT:
        settings["right"] = RIGHT[name]
    return f"judgement-{name}", "judgement", about, settings, given
