"""The cases of the ledger: contributions of classes, and what is known without some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray]
Row = tuple[str, str, str, dict[str, Any], Tensors]
# By name, sizes of the classes, features, and images at once.
CONTRIBUTIONS = {
    "few": ("few images of each class: all of their scatter is kept", (1, 2, 17, 60), 20, 16),
    "many": (
        "more images than rows: each feature's own spread is exact, and the rest near",
        (130, 90, 400),
        100,
        23,
    ),
}
# By name, the tasks' classes, what is forgotten, and whether features moved with each task.
LEDGERS = {
    "frozen": ("a network that stays as it is", [["c", "d"], ["e"]], ["d"], False),
    "known": ("known classes count like those that were there", [["b", "c"], ["c", "a", "d"]], ["d"], False),
    "moved": ("features that moved with each task", [["c", "d"], ["e", "c"]], ["d"], True),
}  # fmt: skip
# Known are 40 images of each of two classes, so far apart; by name, the spread of what is taught of them.
FEATURES, APART = 6, 8.0


def draws() -> Iterator[Callable[[int], Row]]:
    """What draws each case."""
    for number, name in enumerate(CONTRIBUTIONS):
        yield partial(_contribution, name, 900 + number)
    for number, name in enumerate(LEDGERS):
        yield partial(_ledger, name, 910 + number)
    for number, name in enumerate(
        ("exchanged", "same", "elsewhere", "few", "new", "half-known", "half-known-twin")
    ):
        yield partial(_contradiction, name, 920 + number)


def _contribution(name: str, seed: int, attempt: int) -> Row:
    about, sizes, features, at_once = CONTRIBUTIONS[name]
    rng = np.random.default_rng((seed, attempt))
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = rng.normal(size=(len(labels), features)) @ (
        rng.normal(size=(features, features)) * np.linspace(0.1, 2, features)
    )
    x += 3.0 * rng.normal(size=(len(sizes), features))[labels]
    settings = {"classes": len(sizes), "at_once": at_once}
    return (
        f"contribution-{name}",
        "contribution",
        about,
        settings,
        {"features": x.astype(np.float32), "labels": labels},
    )


def _ledger(name: str, seed: int, attempt: int) -> Row:
    about, tasks, forgotten, moved = LEDGERS[name]
    rng = np.random.default_rng((seed, attempt))
    labels = np.arange(120) % 2
    x = rng.normal(size=(120, FEATURES)) + APART * np.eye(FEATURES)[labels]
    one_hot = np.eye(2)[labels]
    given = {"gram": x.T @ x, "sums": one_hot.T @ x, "counts": one_hot.sum(axis=0)}
    for task, names in enumerate(tasks):
        labels = np.arange(9 * len(names) + task) % len(names)
        given[f"labels/{task}"] = labels
        places = rng.normal(size=(len(names), FEATURES))
        given[f"features/{task}"] = (
            rng.normal(size=(len(labels), FEATURES)) + APART * places[labels]
        ).astype(np.float32)
        if moved:
            given[f"forward/{task}"] = np.eye(FEATURES) + 0.1 * rng.normal(size=(FEATURES, FEATURES))
    settings = {"base": ["a", "b"], "tasks": tasks, "forgotten": forgotten, "moved": moved}
    return f"ledger-{name}", "ledger", about, settings, given


def _contradiction(name: str, seed: int, attempt: int) -> Row:
    """Two known classes, `a` and `b`, and a third that nothing is left of."""
    rng = np.random.default_rng((seed, attempt))
    centres = APART * np.eye(FEATURES)
    labels = np.repeat([0, 1], 40)
    x = rng.normal(size=(80, FEATURES)) + centres[labels]
    sums = np.vstack([np.eye(2)[labels].T @ x, np.zeros(FEATURES)])
    given = {"gram": x.T @ x, "sums": sums, "counts": np.array([40.0, 40.0, 0.0])}
    classes, of, count = ["a", "b"], [1, 0], 20
    about = {
        "exchanged": "each class's images are the other's",
        "same": "more images of the same",
        "elsewhere": "images unlike all that is known, nearest to the other class",
        "few": "of few images nothing is said",
        "new": "classes that are not known, or of which nothing is left",
        "half-known": "each class's images are the other's, and one of the two is not known",
        "half-known-twin": "more of a known class, and a new one that looks like it",
    }[name]
    if name == "same":
        of = [0, 1]
    if name == "few":
        count = 4
    if name == "new":
        classes, of = ["gone", "new"], [0, 1]
    if name.startswith("half-known"):
        classes, of = ["a", "new"], [2, 0] if name == "half-known" else [0, 0]
    labels = np.repeat([0, 1], count)
    x = rng.normal(size=(2 * count, FEATURES)) + centres[np.array(of)[labels]]
    if name == "elsewhere":
        x[:, 4] += 30.0
    given |= {"features": x.astype(np.float32), "labels": labels}
    settings = {"old": ["a", "b", "gone"], "classes": classes}
    return f"contradiction-{name}", "contradiction", about, settings, given
