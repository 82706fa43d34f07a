"""What knowledge must become in another network's features, in float64: plain sums over what it says of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from guard_oracle import threshold
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


def carried_head(settings: Mapping[str, Any], given: Tensors, world: Any) -> Tensors:
    """Images are made up that have the classes' means and spread; what the old head says of them is fitted.

    By least squares with an intercept, to what the map makes of each image, with what it leaves on either side.
    """
    before, after = settings["before"], settings["after"]
    counts = given["counts"]
    scatter = given["scatter"]
    freedom = counts.sum() - np.count_nonzero(counts)
    covariance = scatter / freedom
    share = settings["prior_images"] / (freedom + settings["prior_images"])
    covariance = (1 - share) * covariance + share * np.diag(np.diag(covariance))
    names = np.array(settings["classes"])
    seen = counts[np.isin(names, settings["task"])]
    chosen = (np.isin(names, settings["task"]) if seen.all() else True) & (counts > 0)
    spread = np.sqrt(before) * np.linalg.cholesky(covariance).T
    means = given["sums"][chosen] / counts[chosen][:, None]
    old = np.concatenate([mean + sign * spread for mean in means for sign in (1, -1)])
    mapped = given["forward"].size > 0
    forward, offset = np.zeros((after, before)), np.zeros(after)
    forward[np.arange(after), np.maximum(given["columns"], 0)] = 1.0
    if mapped:
        forward, offset = given["forward"].astype(np.float64), given["offset"].astype(np.float64)
    left = given["unexplained"].astype(np.float64) * np.sqrt(len(given["unexplained"]))
    noise = np.concatenate([left, -left]) if mapped else np.zeros((1, after))
    new = ((old @ forward.T + offset)[:, None] + noise).reshape(-1, after)
    weight, bias = (given[key].astype(np.float64) for key in ("weight", "bias"))
    logits = np.repeat(old @ weight.T + bias, len(noise), axis=0)
    around = (np.repeat(means, 2 * before, axis=0) @ forward.T + offset)[:, None]
    variance_within = np.mean((new.reshape(len(old), -1, after) - around) ** 2, axis=(0, 1))
    # What the map's images do not show, as images of its own kind: a feature off by so much that no logit follows.
    unseen = threshold("upgrade", "unseen") if mapped else 0.0
    shaken = np.column_stack([np.diag(np.sqrt(len(new) * unseen * variance_within)), np.zeros(after)])
    seen = np.column_stack([new, np.ones(len(new))])
    wanted = np.concatenate([logits, np.zeros((after, logits.shape[1]))])
    found = np.linalg.lstsq(np.concatenate([seen, shaken]), wanted, rcond=None)[0]
    behind = (new @ given["backward"].T.astype(np.float64) + given["back_offset"]) @ weight.T + bias
    lost = logits - behind

    def variance(one: NDArray[Any]) -> float:
        """Of what a softmax sees of logits."""
        return float((one - one.mean(axis=1, keepdims=True)).var(axis=0).sum())

    told = 1 - variance(lost) / variance(logits)
    return {"weight": found[:-1].T, "bias": found[-1], "share": np.array([told])}


KINDS = {"feature_map": feature_map, "carried_head": carried_head}
