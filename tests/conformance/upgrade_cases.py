"""The cases of upgrades: contributions and heads as the next network's features would have had them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray]
Row = tuple[str, str, str, dict[str, Any], Tensors]
# By name: what for, old and new features, rows of each contribution's factor, and of what the map leaves.
MAPS = {
    "same": ("all features stay", 9, 9, (5, 3), None),
    "picked": ("each new feature is one of the old ones", 9, 6, (5, 0, 12), None),
    "mapped": ("a linear map, and what it leaves", 9, 12, (5, 1, 20), 7),
    "kept-and-mapped": (
        "some features stay, the others follow by a map that leaves nothing of some",
        9,
        12,
        (5, 20),
        4,
    ),
}


# By name: what for, the map that it goes by, and how many of three classes of the task were counted.
HEADS = {
    "picked": ("each new feature is one of the old ones", "picked", 3),
    "mapped": ("a linear map, and what it leaves", "mapped", 3),
    "kept-and-mapped": ("some features stay", "kept-and-mapped", 3),
    "uncounted": ("a class of the task was never counted: by all that is known", "picked", 2),
}


def draws() -> Iterator[Callable[[int], Row]]:
    """What draws each case."""
    for number, name in enumerate(MAPS):
        yield partial(_feature_map, name, 940 + number)
    for number, name in enumerate(HEADS):
        yield partial(_carried_head, name, 960 + number)


def _feature_map(name: str, seed: int, attempt: int) -> Row:
    about, before, after, rows, left = MAPS[name]
    rng = np.random.default_rng((seed, attempt))
    empty = np.zeros((0, 0), np.float32)
    columns = np.arange(after) if name == "same" else rng.permutation(before)[:after]
    given: Tensors = {
        "columns": columns.astype(np.int64),
        **dict.fromkeys(("forward", "unexplained", "backward"), empty),
        **dict.fromkeys(("offset", "back_offset"), np.zeros(0, np.float32)),
    }
    if name != "same":
        given["backward"] = rng.normal(size=(before, after)).astype(np.float32)
        given["back_offset"] = rng.normal(size=before).astype(np.float32)
    if left is not None:
        forward = rng.normal(size=(after, before))
        unexplained = rng.normal(size=(left, after))
        columns = np.full(after, -1)
        if name == "kept-and-mapped":
            columns[:4] = rng.permutation(before)[:4]
            forward[:4] = np.eye(before)[columns[:4]]
            unexplained[:, :4] = 0.0
        given |= {
            "columns": columns.astype(np.int64),
            "forward": forward.astype(np.float32),
            "offset": np.where(columns < 0, rng.normal(size=after), 0.0).astype(np.float32),
            "unexplained": unexplained.astype(np.float32),
        }
    for index, count in enumerate(rows):
        given[f"mean/{index}"] = rng.normal(size=before).astype(np.float32)
        given[f"factor/{index}"] = rng.normal(size=(count, before)).astype(np.float32)
    given["counts"] = np.array([float(3 * count + 2) for count in rows])
    given["weight"] = rng.normal(size=(4, before)).astype(np.float32)
    given["bias"] = rng.normal(size=4).astype(np.float32)
    return f"feature-map-{name}", "feature_map", about, {"before": before, "after": after}, given


def _carried_head(name: str, seed: int, attempt: int) -> Row:
    about, by, counted = HEADS[name]
    _, _, _, settings, given = _feature_map(by, seed, attempt)
    rng = np.random.default_rng((seed, attempt, 1))
    features, classes = settings["before"], 5
    counts = np.array([7.0, 4.0, 9.0, 12.0, 3.0])
    counts[3:] = counts[3:] if counted == 3 else (12.0, 0.0)
    means = rng.normal(size=(classes, features))
    means[counts == 0] = 0.0
    rows = rng.normal(size=(int(counts.sum()), features)) * rng.uniform(0.5, 2.0, features)
    chosen = {
        key: given[key] for key in ("columns", "forward", "offset", "unexplained", "backward", "back_offset")
    }
    chosen |= {"counts": counts, "sums": means * counts[:, None], "scatter": rows.T @ rows}
    chosen |= {"weight": given["weight"][:3], "bias": given["bias"][:3]}
    names = [f"class {index}" for index in range(classes)]
    more = {"classes": names, "task": names[2:], "prior_images": 10}
    return f"carried-head-{name}", "carried_head", about, {**settings, **more}, chosen
