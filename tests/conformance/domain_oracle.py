"""What domains must give, in float64: densities by SciPy, moments, and the source network changed on the way.

Nothing of the bundle's graphs for domains is believed; mean and deviation of base images are the bundle's, as data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from guard_oracle import threshold
from network import ChangedNetwork
from numpy.typing import NDArray
from scipy.spatial.distance import mahalanobis
from scipy.stats import multivariate_normal

Tensors = dict[str, NDArray]
Settings = Mapping[str, Any]
# What a score must keep clear of, so that float32 cannot decide otherwise.
CLEAR = 1e-2


def telling(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """The logarithm of how much likelier images are by one Gaussian than by another, of densities at points."""
    found = _told(given["gram"], given["sums"], given["counts"], given["features"].astype(np.float64))
    size = len(given["gram"])
    if found is None:
        return {"told": np.array([0]), **_line(np.zeros(size), 0.0, 0.0)}
    direction, offset, deviations = found
    if settings["gap"] != (deviations > 0):
        raise ValueError(f"the images are {deviations:.2g} deviations apart; choose others")
    scores = given["tested"].astype(np.float64) @ direction - offset
    return {"told": np.array([1]), **_line(*found), "scores": scores}


def _line(direction: NDArray, offset: float, deviations: float) -> Tensors:
    return {"direction": direction, "offset": np.array([offset]), "deviations": np.array([deviations])}


def _told(gram: NDArray, sums: NDArray, counts: NDArray, x: NDArray) -> tuple[NDArray, float, float] | None:
    """Direction, offset, and how many deviations lie between; None where no spread is known."""
    images, size = counts.sum(), len(gram)
    if not images:
        return None
    mean, freedom = sums.sum(axis=0) / images, max(images - 1, 1)
    within = (gram - images * np.outer(mean, mean)) / freedom
    rounding = max(
        threshold("covariance", "roundings") * np.finfo(np.float64).eps * np.trace(gram) / freedom,
        np.finfo(np.float64).tiny,
    )
    if np.trace(within) / size <= rounding:
        return None
    # Whatever varies less among all that is known than it should, by what the images say of it, varies so much.
    least = threshold("domains", "least_variance") * np.mean((x - x.mean(axis=0)) ** 2, axis=0)
    np.fill_diagonal(within, np.maximum(np.diag(within), least))
    prior = threshold("discriminant", "prior_images")
    kept = freedom / (freedom + prior)
    both = kept * within + np.diag((1 - kept) * np.diag(within) + rounding)
    step = x.mean(axis=0) - mean
    far = mahalanobis(x.mean(axis=0), mean, np.linalg.inv(both))
    by_chance = np.trace(np.linalg.solve(both, within)) / len(x)
    share = 1 - by_chance / far**2 if far else 0.0
    if share <= 0.0:
        return np.zeros(size), 0.0, 0.0

    def likelier(point: NDArray) -> float:
        there, here = (
            multivariate_normal.logpdf(point, at, both, allow_singular=True)
            for at in (mean + share * step, mean)
        )
        return float(there - here)

    # It is affine: its values at the mean and one deviation away along each feature say all of it.
    start, widths = likelier(mean), np.sqrt(np.diag(both))
    points = mean + np.diag(widths)
    direction = np.array([likelier(point) - start for point in points]) / widths
    return direction, float(direction @ mean - start), float(share * far)


def channel_affine(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """By the law of total variance, a channel at a time."""
    return _affine(
        [(given["means"][i], given["variances"][i], n) for i, n in enumerate(given["images"].tolist())],
        given["mean"].astype(np.float64),
        given["deviation"].astype(np.float64),
    )


def _affine(batches: Sequence[tuple[NDArray, NDArray, int]], mean: NDArray, deviation: NDArray) -> Tensors:
    weights = np.array([images for *_, images in batches]) / sum(images for *_, images in batches)
    scales, shifts = [], []
    for channel, (wanted, spread) in enumerate(zip(mean, deviation, strict=True)):
        means = np.array([float(one[channel]) for one, *_ in batches])
        within = weights @ np.array([float(one[channel]) for _, one, _ in batches])
        between = weights @ (means - weights @ means) ** 2
        own = np.sqrt(within + between)
        most = threshold("domains", "most_scale")
        scale = min(spread / own, most) if own else (most if spread else 0.0)
        scales.append(scale)
        shifts.append(wanted - scale * (weights @ means))
    return {"scale": np.array(scales), "shift": np.array(shifts)}


def domain(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """A domain learned from images, and what is then seen in some of it and some of none."""
    images, tested = (world.normalized(given[name]) for name in ("pictures", "tested"))
    network = ChangedNetwork(world.bundle.with_suffix(".onnx"), world.manifest)
    base = world.read("domain_channels.safetensors")
    size = world.manifest.batch_size
    batches = [images[at : at + size] for at in range(0, len(images), size)]
    moments = [(*_normalised(network, batch, base), len(batch)) for batch in batches]
    affine = _affine(moments, base["mean"].astype(np.float64), base["deviation"].astype(np.float64))
    found = _told(*world.known(), network.features(images))
    assert found is not None
    direction, offset, deviations = found
    plain = network.features(tested)
    scores = plain @ direction - offset
    if np.abs(scores).min() < CLEAR * max(1.0, abs(offset)):
        raise ValueError("an image is too close to call; choose others")
    network.change(affine["scale"], affine["shift"])
    seen = network.features(tested)
    network.change(np.ones(network.channels), np.zeros(network.channels))
    told = (scores > 0).astype(np.int64)
    return {
        **affine,
        **_line(direction, offset, deviations),
        "told": told,
        "features": np.where(told[:, None], seen, plain),
    }


def _normalised(network: ChangedNetwork, batch: NDArray, base: Tensors) -> tuple[NDArray, NDArray]:
    """Means and variances of all channels, each convolution's behind those that give what they should."""
    scale, shift = np.ones(network.channels), np.zeros(network.channels)
    means, variances = [], []
    for part in network.parts:
        network.change(scale, shift)
        y = network.convolved(batch)[len(means)]
        axes = (0, *range(2, y.ndim))
        means.append(y.mean(axis=axes))
        variances.append(y.var(axis=axes))
        wanted = base["deviation"][part] / np.sqrt(variances[-1])
        scale[part] = np.minimum(wanted, threshold("domains", "most_scale"))
        shift[part] = base["mean"][part] - scale[part] * means[-1]
    network.change(np.ones(network.channels), np.zeros(network.channels))
    return np.concatenate(means), np.concatenate(variances)


KINDS: dict[str, Callable[[Settings, Tensors, Any], Tensors]] = {
    "telling": telling,
    "channel_affine": channel_affine,
    "domain": domain,
}
