"""A task's own head, fitted exactly: logistic regression on features, over classes or for each on its own.

A few epochs of stochastic steps leave a head two points short of its optimum, and the optimum costs a second
(docs/decisions/0005-heads.md), so the head is not left to the optimizer that trains the centers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.heads import Shrunk
from csk_sdk.method.left_out import AT_ONCE

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
HeadArrays = tuple[Float32, Float32]
DECAY, TOLERANCE = number("head", "weight_decay"), number("head", "tolerance")
KNOWN_DECAY, KNOWN_SHARE = number("head", "known_decay"), number("head", "known_share")
ITERATIONS = integer("head", "iterations")
LEAST_DEVIATION = number("head", "least_deviation")
MEMORY, OVERSHOOT = integer("head", "memory"), number("head", "overshoot")


def logistic_head(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    weight_decay: float = DECAY,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
) -> HeadArrays:
    """Minimise mean cross-entropy + `weight_decay / 2 * |W|^2` over standardised features.

    features `(n, f)` float32, labels `(n,)` into `classes`; the result is a head on the raw features: weight
    `(classes, f)`, bias `(classes,)`, float32. The bias is not decayed. Stops when the gradient's norm has fallen to
    `tolerance` of its first value, or after so many `iterations`.

    Limited-memory BFGS (Nocedal & Wright, "Numerical Optimization", algorithm 7.4). Its first step is the best along
    the gradient under the bound of Bohning ("Multinomial logistic regression algorithm", 1992), `H <= 1/2 X^T X / n`;
    others are halved until they fulfil the approximate Wolfe condition of Hager & Zhang (SIAM J. Optim. 16, 2005),
    which needs gradients only.
    """
    x, mean, scale = standardized(features)
    return _raw(
        _multinomial(x, labels, classes, weight_decay, tolerance, iterations), mean, lambda w: w / scale
    )


def known_head(
    head: HeadArrays,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    shrunk: Shrunk,
    white: Float64 | None = None,
) -> HeadArrays:
    """A mean of two heads over the same classes: `head`, of `logistic_head`, and one in the metric of what is known.

    That one is `logistic_head` on features `(n, f)` float32 under which the covariance within known classes, `shrunk`,
    is the identity. A decay of single features knows nothing of how they go together, which the images of one
    task are too few to tell; the discriminant knows, and hardly looks at where the task's classes meet. The logits'
    mean errs less than either (docs/decisions/0005). `labels` `(n,)` into the head's classes. `white` are the
    features under that metric, where somebody has asked for them already. Raises nothing.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    x = np.ones((len(features), features.shape[1] + 1), np.float32)
    if white is not None:
        np.subtract(white, white.mean(axis=0), out=x[:, :-1], casting="same_kind")
    else:
        # In float64 features take twice the room.
        for start in range(0, len(x), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            x[part, :-1] = shrunk.whiten(features[part] - mean)
    fitted = _multinomial(x, labels, len(head[1]), KNOWN_DECAY, TOLERANCE, ITERATIONS)
    weight, bias = _raw(fitted, mean, shrunk.unwhiten)
    share = np.float32(KNOWN_SHARE)
    return head[0] + share * (weight - head[0]), head[1] + share * (bias - head[1])


def _multinomial(
    x: Float32,
    labels: NDArray[np.int64],
    classes: int,
    weight_decay: float,
    tolerance: float,
    iterations: int,
) -> NDArray[np.float64]:
    rows = np.arange(len(x))

    def residuals(logits: Float32) -> Float32:
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        logits[rows, labels] -= 1.0
        return logits

    return _fit(x, classes, residuals, 0.5, weight_decay, tolerance, iterations)


def log_likelihoods(logits: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each image, the logarithm of its label's softmax, in nats, `(n,)`: logits `(n, classes)` and labels `(n,)`."""
    shifted: NDArray[np.float64] = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    of_label = shifted[np.arange(len(labels)), labels]
    found: NDArray[np.float64] = of_label - np.log(np.exp(shifted).sum(axis=1))
    return found


def cross_entropy(logits: Float32, labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy in nats of logits `(n, classes)` and labels `(n,)`."""
    return -float(np.mean(log_likelihoods(logits, labels)))


def binary_logistic_heads(
    features: NDArray[np.float32],
    labels: NDArray[np.float32],
    weight_decay: float = DECAY,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
) -> HeadArrays:
    """Of each class on its own, minimise mean binary cross-entropy + `weight_decay / 2 * |w|^2`.

    features `(n, f)` float32, labels `(n, classes)` of 0 and 1. All else is as in `logistic_head`; the bound of the
    Hessian is `1/4 X^T X / n` here, since `p (1 - p) <= 1/4`.
    """

    def residuals(logits: Float32) -> Float32:
        # The sigmoid, in a form that cannot overflow.
        logits *= 0.5
        np.tanh(logits, out=logits)
        logits += 1.0
        logits *= 0.5
        logits -= labels
        return logits

    x, mean, scale = standardized(features)
    fitted = _fit(x, labels.shape[1], residuals, 0.25, weight_decay, tolerance, iterations)
    return _raw(fitted, mean, lambda w: w / scale)


def standardized(features: Float32) -> tuple[Float32, NDArray[np.float64], NDArray[np.float64]]:
    """Features `(n, f)` with mean 0 and deviation 1 and a last column of ones, and that mean and deviation `(f,)`.

    A feature that never fires on this task carries nothing, nor does one that differs between images by what float32
    rounds: its deviation is infinite, so it becomes 0 and keeps weight 0.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    least = np.maximum(np.abs(mean), max(float(deviation.max()), 1e-30))
    scale = np.where(deviation > LEAST_DEVIATION * least, deviation, np.inf)
    x = np.ones((len(features), features.shape[1] + 1), np.float32)
    np.subtract(features, mean.astype(np.float32), out=x[:, :-1])
    x[:, :-1] /= scale.astype(np.float32)
    return x, mean, scale


def _raw(
    fitted: NDArray[np.float64],
    mean: NDArray[np.float64],
    back: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> HeadArrays:
    """Of features, what was `fitted` `(classes, f + 1)` on others, less their `mean`; `back` leads weights there."""
    raw = back(fitted[:, :-1])
    return raw.astype(np.float32), (fitted[:, -1] - raw @ mean).astype(np.float32)


def _fit(
    x: Float32,
    classes: int,
    residuals: Callable[[Float32], Float32],
    curvature: float,
    weight_decay: float,
    tolerance: float,
    iterations: int,
) -> Float64:
    """The minimum of a loss whose gradient by the logits `(n, classes)` is `residuals / n`, at most `curvature` steep.

    `x` `(n, f + 1)` ends with a column of ones, whose weights are not decayed: `(classes, f + 1)`. `residuals` may
    overwrite its argument.
    """
    space: _Space = _OfImages(x, weight_decay) if len(x) < x.shape[1] else _OfFeatures(x, weight_decay)

    def gradient(point: Float64) -> Float64:
        return space.gradient(point, residuals(space.logits(point)))

    weight = space.origin(classes)
    slope = gradient(weight)
    along, steep = space.logits(slope), space.dot(slope, slope)
    bound = curvature * float(np.vdot(along, along)) / len(x) + space.decayed(slope)
    least, left = tolerance**2 * steep, iterations - 1
    approximation = _InverseHessian(steep / bound if bound > 0.0 else 0.0, space.dot)
    while left > 0 and space.dot(slope, slope) > least:
        direction = approximation.times(slope)
        descent, step = space.dot(slope, direction), 1.0
        while True:
            left -= 1
            moved = weight - step * direction
            following = gradient(moved)
            if -space.dot(following, direction) <= OVERSHOOT * descent or left <= 0:
                break
            step *= 0.5
        approximation.learn(moved - weight, following - slope)
        weight, slope = moved, following
    return space.weights(weight)


class _Space(Protocol):
    """Weights `(classes, f + 1)` as points that can be added up, for some design `x` `(n, f + 1)` and a decay."""

    def origin(self, classes: int) -> Float64:
        """Weights of 0."""

    def logits(self, point: Float64) -> Float32:
        """`x @ weights.T`, `(n, classes)`."""

    def gradient(self, point: Float64, residuals: Float32) -> Float64:
        """`residuals.T @ x / n` and the decay of a point's weights, which but for the last are decayed."""

    def dot(self, one: NDArray[Any], other: NDArray[Any]) -> float:
        """The product of their weights."""

    def decayed(self, point: Float64) -> float:
        """What decays of the product of a point with itself."""

    def weights(self, point: Float64) -> Float64:
        """`(classes, f + 1)`."""


class _OfFeatures:
    """Points are the weights themselves."""

    def __init__(self, x: Float32, weight_decay: float) -> None:
        self._x, self._decay = x, np.full(x.shape[1], weight_decay)
        self._decay[-1] = 0.0

    def origin(self, classes: int) -> Float64:
        return np.zeros((classes, self._x.shape[1]))

    def logits(self, point: Float64) -> Float32:
        return np.asarray(self._x @ point.T.astype(np.float32))

    def gradient(self, point: Float64, residuals: Float32) -> Float64:
        return np.asarray((residuals.T @ self._x).astype(np.float64) / len(self._x) + point * self._decay)

    def dot(self, one: NDArray[Any], other: NDArray[Any]) -> float:
        return float(np.vdot(one, other))

    def decayed(self, point: Float64) -> float:
        return self.dot(point, point * self._decay)

    def weights(self, point: Float64) -> Float64:
        return point


class _OfImages:
    """Of fewer images than features, in which the gradient moves no weights but along the images.

    So a point is how much of each image there is in the weights, and behind that the last weight, the same in both
    parts of it; the other part is these times the images' products with one another: `(2, classes, n + 1)`. A gradient
    is one product with these `(n, n)` then, in the place of two with `x`.
    """

    def __init__(self, x: Float32, weight_decay: float) -> None:
        self._x, self._decay = x[:, :-1], weight_decay
        self._products = self._x @ self._x.T

    def origin(self, classes: int) -> Float64:
        return np.zeros((2, classes, len(self._x) + 1))

    def logits(self, point: Float64) -> Float32:
        return np.asarray((point[1, :, :-1] + point[1, :, -1:]).T, np.float32)

    def gradient(self, point: Float64, residuals: Float32) -> Float64:
        found = np.empty_like(point)
        found[0, :, :-1] = residuals.T
        found[1, :, :-1] = residuals.T @ self._products
        found[..., -1] = residuals.sum(axis=0, dtype=np.float64)
        found /= len(self._x)
        found[..., :-1] += self._decay * point[..., :-1]
        return found

    def dot(self, one: NDArray[Any], other: NDArray[Any]) -> float:
        return float(np.vdot(one[0], other[1]))

    def decayed(self, point: Float64) -> float:
        return self._decay * float(np.vdot(point[0, :, :-1], point[1, :, :-1]))

    def weights(self, point: Float64) -> Float64:
        found = np.zeros((point.shape[1], self._x.shape[1] + 1))
        found[:, -1] = point[0, :, -1]
        for start in range(0, len(self._x), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            found[:, :-1] += point[0, :, :-1][:, part] @ self._x[part].astype(np.float64)
        return found


class _InverseHessian:
    """The inverse of a Hessian, as the last steps and the changes of the gradient along them tell.

    Both are kept as float32: of many classes they would be most of what a lesson takes, and what they tell is rough.
    """

    def __init__(self, scale: float, dot: Callable[[NDArray[Any], NDArray[Any]], float]) -> None:
        self._scale, self._dot = scale, dot
        self._pairs: list[tuple[Float32, Float32, float]] = []

    def learn(self, step: Float64, change: Float64) -> None:
        curvature, size = self._dot(step, change), self._dot(change, change)
        # Of images that are all the same either may be nothing but rounding.
        if curvature > 0.0 and size > 0.0:
            self._scale = curvature / size
            self._pairs = self._pairs[1 - MEMORY :]
            self._pairs.append((step.astype(np.float32), change.astype(np.float32), 1.0 / curvature))

    def times(self, slope: Float64) -> Float64:
        product, shares = slope.copy(), []
        for step, change, inverse in reversed(self._pairs):
            shares.append(inverse * self._dot(step, product))
            product -= shares[-1] * change
        product *= self._scale
        for (step, change, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            product += step * (share - inverse * self._dot(change, product))
        return product
