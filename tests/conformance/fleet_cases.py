"""The cases of a fleet: contributions as few bytes, put together, and devices that do not agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray]
Row = tuple[str, str, str, dict[str, Any], Tensors]
# By name, rows and features of a contribution, and bits of a number.
PACKED = {
    "8-bits": ("a number a byte, features in very different units", 9, 7, 8),
    "4-bits": ("two numbers a byte, of an odd number of features", 9, 7, 4),
    "one-image": ("one image has a mean and no rows", 0, 5, 8),
}
# By name, rows of each contribution to one class, and features.
TOGETHER = {
    "few": ("few rows: all of their scatter is kept", (5, 9, 1), 12),
    "many": (
        "more rows than are kept: each feature's own spread is exact, and the rest near",
        (40, 60, 50),
        90,
    ),
}
# By name, what one device of six does with the classes that all of them hold.
DEVICES, CLASSES, FEATURES = 6, 4, 7
CONSENSUS = {
    "honest": "devices that agree",
    "exchanged": "one has exchanged two classes' names",
    "scaled": "one has all numbers three times as large",
    "crowd": "one claims hundreds of times the images",
    "names": "two names for one thing",
}


def draws() -> Iterator[Callable[[int], Row]]:
    """What draws each case."""
    for number, name in enumerate(PACKED):
        yield partial(_packing, name, 960 + number)
    for number, name in enumerate(TOGETHER):
        yield partial(_together, name, 970 + number)
    for number, name in enumerate(CONSENSUS):
        yield partial(_consensus, name, 980 + number)


def _packing(name: str, seed: int, attempt: int) -> Row:
    about, rows, features, bits = PACKED[name]
    rng = np.random.default_rng((seed, attempt))
    units = np.geomspace(1e-3, 1e3, features)
    factor = rng.normal(size=(rows, features)) * units * np.linspace(2.0, 0.1, rows)[:, None]
    if rows:
        # A unit that is always zero, and a row that is.
        factor[:, 2], factor[-1] = 0.0, 0.0
    given = {
        "count": np.array([max(3.0 * rows, 1.0)]),
        "mean": (rng.normal(size=features) * units).astype(np.float32),
        "factor": factor.astype(np.float32),
    }
    return f"packing-{name}", "packing", about, {"bits": bits}, given


def _together(name: str, seed: int, attempt: int) -> Row:
    about, sizes, features = TOGETHER[name]
    rng = np.random.default_rng((seed, attempt))
    given: Tensors = {"counts": np.array([2.0 * size + 20.0 for size in sizes])}
    shape = rng.normal(size=(features, features)) * np.linspace(0.1, 2, features)
    for number, size in enumerate(sizes):
        given[f"mean/{number}"] = rng.normal(size=features).astype(np.float32)
        given[f"factor/{number}"] = (rng.normal(size=(size, features)) @ shape).astype(np.float32)
    return f"together-{name}", "together", about, {}, given


def _consensus(name: str, seed: int, attempt: int) -> Row:
    rng = np.random.default_rng((seed, attempt))
    shape = rng.normal(size=(FEATURES, FEATURES)) / 2.0 + np.eye(FEATURES)
    places = 1.5 * rng.normal(size=(CLASSES, FEATURES)) @ shape
    if name == "names":
        places[3] = places[2]
    parts, pictures = [], []
    for device in range(DEVICES):
        for label in range(CLASSES):
            shown = label
            if name == "exchanged" and device == 4 and label < 2:
                shown = 1 - label
            x = places[shown] + rng.normal(size=(40, FEATURES)) @ shape
            if name == "scaled" and device == 2:
                x *= 3.0
            count = 20000.0 if name == "crowd" and device == 1 else 40.0
            parts.append((device, label, count, x.mean(axis=0), x.var(axis=0, ddof=1)))
            pictures.append((label, x))
    labels = np.repeat([label for label, _ in pictures], 40)
    x, one_hot = np.concatenate([some for _, some in pictures]), np.eye(CLASSES)[labels]
    devices, classes, counts, means, variances = map(np.array, zip(*parts, strict=True))
    given = {
        **{"gram": x.T @ x, "sums": one_hot.T @ x, "counts": one_hot.sum(axis=0)},
        **{"device": devices, "class": classes, "images": counts},
        **{"means": means.astype(np.float32), "variances": variances.astype(np.float32)},
    }
    settings = {"classes": [f"class {label}" for label in range(CLASSES)], "devices": DEVICES}
    return f"consensus-{name}", "consensus", CONSENSUS[name], settings, given
