"""What a fleet's files must give: number by number, and distances by SciPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from guard_oracle import threshold
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

Tensors = dict[str, NDArray]
Settings = Mapping[str, Any]
CLEAR = 1e-3


def packing(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """Rows over each feature's spread, in steps of the row's largest; then each feature's spread as it was."""
    factor, most = given["factor"].astype(np.float64), 2 ** (settings["bits"] - 1) - 1
    rows, features = factor.shape
    spread = [math.sqrt(math.fsum(value * value for value in column)) for column in factor.T.tolist()]
    alike = [[value / (spread[j] or 1.0) for j, value in enumerate(row)] for row in factor.tolist()]
    steps = [float(np.float32(max(map(abs, row)) / most)) for row in alike]
    exact = np.array(
        [[value / (step or 1.0) for value in row] for row, step in zip(alike, steps, strict=True)]
    ).reshape(rows, features)
    _clear(np.abs(exact - np.floor(exact)) - 0.5, "a step")
    levels = np.array([[round(value) for value in row] for row in exact.tolist()], np.int64).reshape(
        rows, features
    )
    kept = levels * np.array(steps).reshape(-1, 1)
    found = [math.sqrt(math.fsum(value * value for value in column)) for column in kept.T.tolist()]
    scales = np.array([one / other if other else 0.0 for one, other in zip(spread, found, strict=True)])
    return {
        "levels": levels,
        "of_row": np.array(steps),
        "of_feature": scales,
        "mean": given["mean"].astype(np.float64),
        "count": given["count"],
        "read": kept * scales,
    }


def together(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """Means and scatters of all images, by the law of total covariance."""
    counts = given["counts"]
    parts = range(len(counts))
    means = np.stack([given[f"mean/{one}"].astype(np.float64) for one in parts])
    mean = np.average(means, axis=0, weights=counts)
    scatter = np.zeros((len(mean), len(mean)))
    for one in parts:
        for row in given[f"factor/{one}"].astype(np.float64):
            scatter += np.outer(row, row)
        scatter += counts[one] * np.outer(means[one] - mean, means[one] - mean)
    return {"count": counts.sum(keepdims=True), "mean": mean, "spreads": np.diag(scatter), "scatter": scatter}


def consensus(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """Mahalanobis distances between all pairs; medians where the covariance's inverse is one's own square."""
    inverse, noise = _inverse(given)
    devices, classes = range(settings["devices"]), range(len(settings["classes"]))
    device, label, images = given["device"], given["class"], given["images"]
    means = given["means"].astype(np.float64)
    points = means @ np.linalg.cholesky(inverse)
    middles = np.stack([np.median(points[label == one], axis=0) for one in classes])
    limit = threshold("fleet", "far") * np.median(pdist(middles, "sqeuclidean"))
    apart = np.zeros(len(devices), np.int64)
    for one in classes:
        own = np.flatnonzero(label == one)
        squares = cdist(means[own], means[own], "mahalanobis", VI=inverse) ** 2
        beyond = squares - noise / images[own][:, None] - noise / images[own][None] - limit
        np.fill_diagonal(beyond, -limit)
        _clear(beyond / limit, "how far a device lies")
        for row, far in enumerate((beyond > 0).sum(axis=1)):
            if far >= max(2, threshold("fleet", "holders") - 1) and far > (len(own) - 1) / 2:
                apart[device[own[row]]] = 1
    return {"apart": apart, "out": _out(given, len(devices)), "alike": _alike(given, inverse, noise)}


def _inverse(given: Tensors) -> tuple[NDArray, float]:
    """Of the covariance within classes as the discriminant shrinks it, by as much smaller as others lie farther."""
    counts, sums = given["counts"], given["sums"]
    freedom = counts.sum() - len(counts)
    within = (given["gram"] - (sums / counts[:, None]).T @ sums) / freedom
    prior = threshold("discriminant", "prior_images")
    share = prior / (freedom + prior)
    inverse = np.linalg.inv((1.0 - share) * within + share * np.diag(np.diag(within)))
    noise = float(np.trace(inverse @ within))
    used = min((1.0 - share) * noise / freedom, threshold("known_classes", "most_used"))
    return inverse * (1.0 - used) ** 2, noise * (1.0 - used) ** 2


def _out(given: Tensors, devices: int) -> NDArray:
    """Devices whose spread is many times the usual one, or that claim many times the usual images."""
    variances = given["variances"].astype(np.float64)
    usual = np.median(variances, axis=0)
    usual = np.maximum(usual, threshold("fleet", "least_variance") * usual.mean())
    wide = np.median(variances / usual, axis=1) / threshold("fleet", "wide")
    many = given["images"] / (threshold("fleet", "many") * np.median(given["images"]))
    _clear(np.concatenate([wide, many]) - 1.0, "a spread")
    out = np.zeros(devices, np.int64)
    out[given["device"][(wide > 1.0) | (many > 1.0)]] = 1
    return out


def _alike(given: Tensors, inverse: NDArray, noise: float) -> NDArray:
    """By pair of classes, whether their means lie as close as one thing's."""
    means = given["sums"] / given["counts"][:, None]
    squares = cdist(means, means, "mahalanobis", VI=inverse) ** 2
    usual = np.median(squares[np.triu_indices(len(means), 1)])
    each = noise / given["counts"]
    beyond = (squares - each[:, None] - each[None]) / usual - threshold("fleet", "alike")
    _clear(beyond[np.triu_indices(len(means), 1)], "how alike two classes are")
    return np.triu(beyond < 0.0, 1).astype(np.int64)


def _clear(values: NDArray, what: str) -> None:
    if np.abs(values).min(initial=np.inf) < CLEAR:
        raise ValueError(f"{what} is too close to call; choose other numbers")


KINDS = {"packing": packing, "together": together, "consensus": consensus}
