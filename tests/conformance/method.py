"""The method in float64, from its formulas and by other algorithms than csk_sdk's: the oracle between the steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

# What the choice of the vectors must keep clear of, so that rounding cannot decide otherwise.
CLEAR = 1e-3


def head(features: NDArray, labels: NDArray, classes: int, decay: float = 0.01) -> tuple[NDArray, NDArray]:
    """The exact minimum of mean cross-entropy + decay / 2 |W|^2 over standardised features, by Newton's method.

    csk_sdk stops at 1e-4 of the first gradient; this goes on to rounding.
    """
    x = features.astype(np.float64)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    kept = deviation > 1e-6 * deviation.max()
    scale = np.where(kept, deviation, np.inf)
    weight, bias = _minimum((x - mean) / scale, labels, classes, decay)
    return weight / scale, bias - weight / scale @ mean


def known_head(
    features: NDArray, labels: NDArray, classes: int, known: tuple[NDArray, NDArray, NDArray]
) -> tuple[NDArray, NDArray]:
    """A third of `head`, two thirds of the minimum where what is `known` (gram, sums, counts) spreads by the identity.

    Decayed by 0.1 there. The root of what is known is by eigenvalues: any other turns features only.
    """
    shrunk, _, alive = _shrunk(*known)
    values, vectors = np.linalg.eigh(shrunk[np.ix_(alive, alive)])
    root = vectors / np.sqrt(values)
    mean = features.mean(axis=0, dtype=np.float64)
    narrow, bias = _minimum((features - mean)[:, alive] @ root, labels, classes, 0.1)
    weight = np.zeros((classes, features.shape[1]))
    weight[:, alive] = narrow @ root.T
    own = head(features, labels, classes)
    return (2 * weight + own[0]) / 3, (2 * (bias - weight @ mean) + own[1]) / 3


def _minimum(x: NDArray, labels: NDArray, classes: int, decay: float) -> tuple[NDArray, NDArray]:
    pull = np.tile(np.append(np.full(x.shape[1], decay), 0.0), classes)
    x = np.hstack([x, np.ones((len(x), 1))])
    weight = np.zeros(classes * x.shape[1])
    one_hot, first = np.eye(classes)[labels], 0.0

    def value(weight: NDArray) -> float:
        logits = x @ weight.reshape(classes, -1).T
        told = np.sum(logits * one_hot, axis=1) - np.logaddexp.reduce(logits, axis=1)
        return float(np.sum(pull * weight**2) / 2 - told.mean())

    for _ in range(100):
        logits = x @ weight.reshape(classes, -1).T
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        slope = ((p - one_hot).T @ x / len(x)).ravel() + pull * weight
        # As far as numbers of this size tell.
        first = first or np.abs(slope).max()
        if np.abs(slope).max() < 1e-12 * first:
            break
        spread = np.einsum("nc,cd->ncd", p, np.eye(classes)) - np.einsum("nc,nd->ncd", p, p)
        curvature = np.einsum("ncd,ni,nj->cidj", spread, x, x).reshape(len(weight), -1) / len(x)
        # All biases may rise together: the shortest step does not use that.
        step = np.linalg.pinv(curvature + np.diag(pull)) @ slope
        # Far from the minimum a whole step may lead away from it.
        while value(weight - step) > value(weight) + 1e-12:
            step /= 2
        weight -= step
    else:
        raise ValueError("the head did not converge")
    table = weight.reshape(classes, -1)
    return table[:, :-1], table[:, -1]


def sensitivity(gradients: Sequence[NDArray]) -> NDArray:
    """`s_j = sum over batches of |dL/dC[:, j]|^2`."""
    return np.sum([(gradient.astype(np.float64) ** 2).sum(axis=0) for gradient in gradients], axis=0)


def count(channels: int, ratio: float) -> int:
    """`max(1, round(ratio * channels))`, halves to the even number."""
    exact = ratio * channels
    whole = int(np.floor(exact))
    up = exact - whole > 0.5 or (exact - whole == 0.5 and whole % 2 == 1)
    return max(1, whole + up)


def selected(values: NDArray, ratio: float, tied: bool = False) -> NDArray:
    """The most sensitive channels in ascending order; of equal ones the lower index."""
    ranked = sorted(range(len(values)), key=lambda channel: (-values[channel], channel))
    kept = count(len(values), ratio)
    if not tied and kept < len(values):
        last, first_out = values[ranked[kept - 1]], values[ranked[kept]]
        if last - first_out <= 10 * CLEAR * last:
            raise ValueError(f"channels {ranked[kept - 1]} and {ranked[kept]} are too close to tell apart")
    return np.array(sorted(ranked[:kept]), np.int64)


def basis(moment: NDArray, chosen: NDArray, energy: float) -> NDArray:
    """Leading directions `(k, r)` of `K[S, S]` that hold `energy` of its trace, by singular values."""
    size = moment.shape[1]
    square = np.zeros((len(chosen), len(chosen)))
    for i, one in enumerate(chosen):
        for j, other in enumerate(chosen):
            if one // size == other // size:
                square[i, j] = moment[one // size, one % size, other % size]
    directions, values, _ = np.linalg.svd(square)
    if energy == 0.0 or values[0] == 0.0:
        return np.zeros((len(chosen), 0))
    if energy == 1.0:
        rank = int(np.sum(values > np.finfo(np.float32).eps * values[0]))
    else:
        shares = np.cumsum(values) / values.sum()
        if np.abs(shares - energy).min() < CLEAR:
            raise ValueError(f"energies {shares} are too close to {energy}")
        rank = int(np.argmax(shares >= energy)) + 1
    if rank < len(values) and values[rank - 1] - values[rank] < CLEAR * values[0]:
        raise ValueError(f"eigenvalues {values} are too close at {rank}")
    return directions[:, :rank]


def projected(step: NDArray, directions: NDArray) -> NDArray:
    """`U (I - B B^T)`; exactly zero where nothing is left free."""
    if directions.shape[0] == directions.shape[1]:
        return np.zeros_like(step)
    return step @ (np.eye(len(directions)) - directions @ directions.T)


def schedule(step: int, total: int, warmup: int) -> float:
    """Up in a line, down along half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return float(0.5 * (1 + np.cos(np.pi * (step - warmup) / (total - warmup))))


class Optimizer:
    """SGD with momentum, AdamW, or Lion, as published: updates to be subtracted, after projection."""

    def __init__(self, name: str, momentum: float = 0.9, decay: float = 0.0) -> None:
        self.name, self.momentum, self.decay = name, momentum, decay
        self._gradients: dict[str, list[NDArray]] = {}
        self._velocity: dict[str, NDArray] = {}

    def update(self, key: str, gradient: NDArray, parameter: NDArray, rate: float) -> NDArray:
        """The update of the parameter `key`; Adam's moments are summed up from all gradients so far."""
        past = self._gradients.setdefault(key, [])
        past.append(gradient.astype(np.float64))
        if self.name == "sgd":
            velocity = self._velocity.get(key, np.zeros_like(past[-1]))
            self._velocity[key] = self.momentum * velocity + past[-1] + self.decay * parameter
            return rate * self._velocity[key]
        if self.name == "lion":
            return rate * (self._direction(past) + self.decay * parameter)
        steps = len(past)
        ages = np.arange(steps)[::-1]
        first = sum(0.1 * 0.9**age * g for age, g in zip(ages, past, strict=True)) / (1 - 0.9**steps)
        second = sum(0.001 * 0.999**age * g**2 for age, g in zip(ages, past, strict=True)) / (
            1 - 0.999**steps
        )
        return rate * (first / (np.sqrt(second) + 1e-8) + self.decay * parameter)

    @staticmethod
    def _direction(past: Sequence[NDArray]) -> NDArray:
        """Signs of Lion's interpolation, the mean summed up from all gradients so far (Chen et al., 2023)."""
        earlier = past[:-1]
        mean = sum((0.01 * 0.99 ** (len(earlier) - 1 - i) * g for i, g in enumerate(earlier)), 0.0 * past[-1])
        mixed = 0.9 * mean + 0.1 * past[-1]
        if np.abs(mixed[mixed != 0]).min(initial=np.inf) < 1e-5:
            raise ValueError("a sign is too close to call")
        return np.sign(mixed)


def drift(before: NDArray, after: NDArray, ridge: float = 0.01) -> NDArray:
    """`M` of the least `sum |after - M before|^2 + a |M - I|^2`, `a = ridge * sum |before|^2 / f`, by one lstsq."""
    old, new = before.astype(np.float64), after.astype(np.float64)
    size = old.shape[1]
    pull = np.sqrt(ridge * np.sum(old**2) / size)
    rows = np.vstack([old, pull * np.eye(size)])
    targets = np.vstack([new, pull * np.eye(size)])
    return np.linalg.lstsq(rows, targets, rcond=None)[0].T


def discriminant(
    gram: NDArray, sums: NDArray, counts: NDArray, prior: float = 100.0
) -> tuple[NDArray, NDArray]:
    """Linear discriminant analysis with equal priors from sums over features, the noise of means half made up for."""
    means = sums / counts[:, None]
    shrunk, within, alive = _shrunk(gram, sums, counts, prior)
    inverse = np.linalg.inv(shrunk[np.ix_(alive, alive)])
    weight = np.zeros_like(means)
    weight[:, alive] = means[:, alive] @ inverse
    # How much further everything lies from a mean of one image than from the true mean.
    excess = np.trace(inverse @ within[np.ix_(alive, alive)])
    return weight, -0.5 * np.sum(weight * means, axis=1) + 0.25 * excess / counts


def _shrunk(
    gram: NDArray, sums: NDArray, counts: NDArray, prior: float = 100.0
) -> tuple[NDArray, NDArray, NDArray]:
    """The covariance within classes, shrunk and as it is, and which features have any."""
    means = sums / counts[:, None]
    within = gram - np.einsum("c,cf,cg->fg", counts, means, means)
    freedom = counts.sum() - len(counts)
    # An inverse Wishart prior worth so many images without correlation.
    uncorrelated = prior * np.diag(np.diag(within)) / freedom
    # A unit that is always the same says nothing, and of sums over it rounding is left.
    alive = np.diag(within) > 1e-20 * np.diag(gram).max()
    return (within + uncorrelated) / (freedom + prior), within / freedom, alive


def sketch(features: NDArray, labels: NDArray, classes: int, prior: float = 100.0) -> tuple[NDArray, NDArray]:
    """Quantiles of margins and oddness of each class's images: a discriminant, mean and variance for every image.

    How much is shrunk, the diagonal towards which, and the noise given back are those of all images.
    """
    total, one_hot = len(labels), np.eye(classes)[labels]
    counts = one_hot.sum(axis=0)
    all_means = one_hot.T @ features / counts[:, None]
    residuals = features - all_means[labels]
    whole = residuals.T @ residuals
    freedom = total - classes
    own_part = prior / (freedom + prior) * np.diag(np.diag(whole)) / freedom
    excess = np.trace(np.linalg.inv(whole / (freedom + prior) + own_part) @ whole / freedom)

    def margin(x: NDArray, means: NDArray, scatter: NDArray) -> float:
        inverse = np.linalg.inv(scatter / (freedom + prior) + own_part)
        logits = [x @ inverse @ mu - mu @ inverse @ mu / 2 for mu in means] + 0.25 * excess / counts
        return float(np.max(logits) - np.mean(logits))

    def odd(square: NDArray, means: NDArray, scatter: NDArray) -> float:
        variance = np.diag(scatter) / freedom + means.var(axis=0)
        return float(np.minimum(square / variance, 4.0).mean())

    margins, oddness = np.zeros(total), np.zeros(total)
    for index, x in enumerate(features):
        kept = np.arange(total) != index
        means = np.stack([features[kept & (labels == c)].mean(axis=0) for c in range(classes)])
        rest = features[kept] - means[labels[kept]]
        own = labels[index]
        typical = np.diag(whole) / freedom + (all_means[own] - all_means.mean(axis=0)) ** 2
        margins[index] = margin(x, means, rest.T @ rest) / margin(all_means[own], all_means, whole)
        oddness[index] = odd((x - means.mean(axis=0)) ** 2, means, rest.T @ rest) / odd(
            typical, all_means, whole
        )
    levels = (np.arange(32) + 0.5) / 32
    return tuple(
        np.stack([np.quantile(values[labels == c], levels) for c in range(classes)])
        for values in (margins, oddness)
    )  # type: ignore[return-value]


def distances(
    features: NDArray,
    labels: NDArray,
    classes: int,
    tables: tuple[NDArray, NDArray],
    tested: NDArray,
    share: float,
) -> tuple[NDArray, float]:
    """Of `tested` `(n, f)` from what `features` show, and the one that `share` of known images exceeds."""
    one_hot = np.eye(classes)[labels]
    counts = one_hot.sum(axis=0)
    means = one_hot.T @ features / counts[:, None]
    weight, bias = discriminant(features.T @ features, one_hot.T @ features, counts)

    def margins(x: NDArray) -> NDArray:
        logits = x @ weight.T + bias
        return np.asarray(logits.max(axis=1) - logits.mean(axis=1))

    residuals = features - means[labels]
    within = (residuals**2).sum(axis=0) / (len(labels) - classes)
    middle, variance = means.mean(axis=0), within + means.var(axis=0)
    at_means, (near, odd) = margins(means), tables
    odd = odd * np.minimum((within + (means - middle) ** 2) / variance, 4.0).mean(axis=1)[:, None]
    usual = np.quantile(odd, 0.94)

    def penalty(oddness: NDArray) -> NDArray:
        return np.asarray(np.exp(4.5 * np.maximum(oddness / usual - 1.0, 0.0)))

    known = [
        a * at_means[c] / at_means.mean() / penalty(b)
        for c in range(classes)
        for a in near[c]
        for b in odd[c]
    ]
    oddness = np.minimum((tested - middle) ** 2 / variance, 4.0).mean(axis=1)
    return penalty(oddness) / (margins(tested) / at_means.mean()), float(1.0 / np.quantile(known, share))


def temperature(features: NDArray, labels: NDArray, classes: int) -> float:
    """The T that suits best where, in order of class, each image is judged by those of the other four fifths.

    Every class must be in all of these.
    """
    ordered = [index for c in range(classes) for index in np.flatnonzero(labels == c)]
    logits = np.zeros((len(labels), classes))
    for fold in range(5):
        made = [index for place, index in enumerate(ordered) if place % 5 != fold]
        one_hot = np.eye(classes)[labels[made]]
        x = features[made]
        weight, bias = discriminant(x.T @ x, one_hot.T @ x, one_hot.sum(axis=0))
        logits[ordered[fold::5]] = features[ordered[fold::5]] @ weight.T + bias

    def cross_entropy(exponent: float) -> float:
        scores = logits / np.exp(exponent)
        return float(np.mean(logsumexp(scores, axis=1) - scores[np.arange(len(labels)), labels]))

    found = minimize_scalar(
        cross_entropy, bounds=(0.0, np.log(100.0)), method="bounded", options={"xatol": 1e-9}
    )
    return float(np.exp(found.x))


def reflected(index: int, size: int) -> int:
    """Walk from 0 to `index`, turning at both ends."""
    while not 0 <= index < size:
        index = -index if index < 0 else 2 * (size - 1) - index
    return index


def augmented(pictures: NDArray, down: NDArray, right: NDArray, flipped: NDArray) -> NDArray:
    """Pixel by pixel: `out[y, x] = in[y + down, x' + right]`, `x'` counted from the right where flipped."""
    out = np.empty_like(pictures)
    _, height, width, _ = pictures.shape
    for n, y, x in np.ndindex(pictures.shape[:3]):
        from_x = width - 1 - x if flipped[n] else x
        out[n, y, x] = pictures[
            n, reflected(y + int(down[n]), height), reflected(from_x + int(right[n]), width)
        ]
    return out


def resized(picture: NDArray, height: int, width: int) -> NDArray:
    """Antialiased bilinear (a triangle as wide as the scale), `(h, w, c)`, not rounded."""
    return np.einsum(
        "yh,hwc,xw->yxc", _triangles(picture.shape[0], height), picture, _triangles(picture.shape[1], width)
    )


def _triangles(size: int, target: int) -> NDArray:
    scale = size / target
    support = max(scale, 1.0)
    centers = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(size)[None, :] + 0.5 - centers[:, None]) / support
    weights = np.maximum(1 - distance, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)
