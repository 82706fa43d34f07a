"""The cases of domains: which images are of one, and what channels are brought to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray]
Row = tuple[str, str, str, dict[str, Any], Tensors]
# By name: what for, known images, those of the domain, and how far these lie off along every feature, in deviations.
TELLINGS = {
    "apart": ("images of another domain, and of none", 90, 40, 0.8),
    "few-known": ("fewer known images than features", 8, 40, 1.5),
    "no-gap": ("images that lie off by no more than chance", 90, 40, 0.0),
    "narrow": (
        "a feature that no known image shows, one that hardly any does, and one that nobody does",
        90,
        40,
        0.8,
    ),
    "nothing-known": ("no image of any class was counted", 0, 40, 0.8),
    "no-spread": ("one image is known: of no spread nothing can be told", 1, 40, 0.8),
}


def draws() -> Iterator[Callable[[int], Row]]:
    """What draws each case."""
    for number, name in enumerate(TELLINGS):
        yield partial(_telling, name, 1000 + number)
    yield _channel_affine


def _telling(name: str, seed: int, attempt: int) -> Row:
    about, known, images, off = TELLINGS[name]
    size, classes = (24 if name == "few-known" else 7), 3
    rng = np.random.default_rng((seed, attempt))
    mixing = np.eye(size) + 0.4 * rng.normal(size=(size, size))
    centers = 2 * rng.normal(size=(classes, size))
    scale = 10.0 ** (np.arange(size) % 4 - 2)

    def seen(count: int) -> NDArray:
        labels = np.arange(count) % classes
        drawn = 1.0 + rng.normal(size=(count, size)) + centers[labels]
        return np.asarray((drawn @ mixing) * scale, np.float32)

    x, features, tested = seen(known), seen(images), seen(8)
    widths = np.maximum(np.std(x, axis=0), 1e-3) if known > 1 else scale
    moved = (off * rng.choice([-1.0, 1.0], size) * widths).astype(np.float32)
    features += moved
    tested[::2] += moved
    if name == "narrow":
        x[:, 2], x[:, 4], x[:, 6] = 0.0, 0.0, 0.0
        x[3, 4] = 0.01
        for shown in (features, tested):
            shown[:, 2], shown[:, 4] = np.arange(len(shown)) % 3 == 0, np.arange(len(shown)) % 4 == 0
            shown[:, 6] = 0.0
    exact = x.astype(np.float64)
    one_hot = np.eye(classes)[np.arange(known) % classes] if known else np.zeros((0, classes))
    given = {"gram": exact.T @ exact, "sums": one_hot.T @ exact, "counts": one_hot.sum(axis=0)}
    settings = {"gap": name != "no-gap"}
    return f"telling-{name}", "telling", about, settings, {**given, "features": features, "tested": tested}


def _channel_affine(attempt: int) -> Row:
    """The first channel says nothing among base images, the second nothing in the domain, the third in neither.

    The fourth hardly varies in the domain.
    """
    rng = np.random.default_rng((1010, attempt))
    images, channels = np.array([16, 16, 5]), 9
    means = rng.normal(2.0, 1.0, (len(images), channels)).astype(np.float32)
    variances = rng.uniform(0.1, 2.0, (len(images), channels)).astype(np.float32)
    deviation = rng.uniform(0.3, 2.0, channels).astype(np.float32)
    means[:, 1:4], variances[:, 1:3] = means[0, 1:4], 0.0
    variances[:, 3] = 1e-4
    deviation[[0, 2]] = 0.0
    given = {
        **{"images": images, "means": means, "variances": variances},
        **{"mean": rng.normal(size=channels).astype(np.float32), "deviation": deviation},
    }
    about = "channels of batches brought to other means and deviations; some say nothing"
    return "channel-affine", "channel_affine", about, {}, given
