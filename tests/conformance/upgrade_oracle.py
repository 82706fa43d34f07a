"""What knowledge must become in another network's features, in float64: plain sums over what it says of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray]


def feature_map(settings: Mapping[str, Any], given: Tensors, world: Any) -> Tensors:
    """Images are made up that have a class's mean and scatter; each is mapped, and what the map leaves added.

    Of `mean + row` and `mean - row` for each row of the factor, half the squares around the mean are the scatter.
    """
    mapped = given["forward"].size > 0
    picks = np.zeros((settings["after"], settings["before"]))
    picks[np.arange(settings["after"]), np.maximum(given["columns"], 0)] = 1.0
    forward = given["forward"].astype(np.float64) if mapped else picks
    offset = given["offset"].astype(np.float64) if mapped else np.zeros(settings["after"])
    means, spreads = [], []
    for index, count in enumerate(given["counts"]):
        mean, factor = (given[f"{part}/{index}"].astype(np.float64) for part in ("mean", "factor"))
        images = np.concatenate([mean + factor, mean - factor]) if len(factor) else mean[None]
        moved = images @ forward.T + offset
        means.append(moved.mean(axis=0))
        spread = ((moved - moved.mean(axis=0)) ** 2).sum(axis=0) / (2 if len(factor) else 1)
        left = given["unexplained"].astype(np.float64)
        spreads.append(spread + (count * (left**2).sum(axis=0) if left.size else 0.0))
    # A head sees the old features that follow from the new ones: its logits of points say what it is.
    points = np.concatenate([np.zeros((1, settings["after"])), np.eye(settings["after"])])
    backward = given["backward"].astype(np.float64)
    old = points @ backward.T + given["back_offset"] if backward.size else points
    logits = old @ given["weight"].astype(np.float64).T + given["bias"]
    return {
        "means": np.stack(means),
        "spreads": np.stack(spreads),
        "weight": (logits[1:] - logits[0]).T,
        "bias": logits[0],
    }


KINDS = {"feature_map": feature_map}
