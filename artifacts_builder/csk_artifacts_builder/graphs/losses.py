"""The losses of a training graph: each one's mean over the batch, and its gradient by the logits.

    cross-entropy          one class per image        ONNX SoftmaxCrossEntropyLoss, torch CrossEntropyLoss
    binary-cross-entropy   any number of labels each    torch BCEWithLogitsLoss
    mse                    numbers, not classes         torch MSELoss

All with `reduction="mean"`, as torch takes it: over the images for the first, over images and outputs for the
others. A loss is a function that adds its own graph inputs and its nodes, and returns `(loss, g)`: the loss, a
float32 scalar, and `g = dloss / dlogits`, `(N, classes)`. No exponential of a positive number is taken, so neither
overflows, however large the logits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter
from csk_sdk.contract.manifest import (
    BINARY_CROSS_ENTROPY,
    CLASS_MASK,
    CROSS_ENTROPY,
    LABEL,
    LABEL_SMOOTHING,
    MSE,
)
from csk_sdk.errors import ConfigError

Loss = Callable[[Emitter, ir.Value], tuple[ir.Value, ir.Value]]

# The logit of a class that is masked out: its exponential is exactly 0, and times a target of 0 it is still 0,
# which minus infinity would not be.
_MASKED_OUT = -1e30


def cross_entropy(emit: Emitter, logits: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Softmax cross-entropy, label smoothing (Szegedy et al., arXiv 1512.00567, section 7), masked classes.

    In: label int64 `(N,)`; label_smoothing `a`, float32 scalar, 0 by default; class_mask bool `(classes,)`, or
    `(1,)` for all alike, true by default. With `p = softmax(logits)` over the `K` classes that the mask lets
    through and `t = (1 - a) * one_hot(label) + a / K`, the loss is `-mean_n sum_c t log p`, and
    `g = (p - t) / N`. A masked class has exactly `p = t = g = 0`; a label must not be one.
    """
    label = emit.input(LABEL, ir.DataType.INT64, ["N"])
    smoothing = emit.default_input(LABEL_SMOOTHING, np.zeros((), np.float32), [])
    mask = emit.default_input(CLASS_MASK, np.ones(1, np.bool_), ["mask"])
    classes = emit.op("Gather", emit.op("Shape", logits), emit.ints(1))
    allowed = emit.op("Expand", mask, classes)
    log_p = emit.op("LogSoftmax", emit.op("Where", allowed, logits, emit.scalar(_MASKED_OUT)), axis=-1)
    target = _smoothed(emit, _one_hot(emit, label, classes), allowed, smoothing)
    per_image = emit.op("ReduceSum", emit.op("Mul", log_p, target), emit.ints(1), keepdims=0)
    loss = emit.op("Neg", emit.op("ReduceMean", per_image, keepdims=0))
    g = emit.op("Div", emit.op("Sub", emit.op("Exp", log_p), target), _batch_size(emit, logits))
    return loss, g


def binary_cross_entropy(emit: Emitter, logits: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Binary cross-entropy of each label on its own, from logits `z`.

    In: label `y` float32 `(N, classes)`, from 0 to 1. The loss is the mean over images and classes of
    `max(z, 0) - z y + log(1 + exp(-|z|))`, and `g = (sigmoid(z) - y) / (N classes)`.
    """
    label = _table(emit)
    linear = emit.op("Sub", emit.op("Relu", logits), emit.op("Mul", logits, label))
    correction = emit.op("Softplus", emit.op("Neg", emit.op("Abs", logits)))
    loss = emit.op("ReduceMean", emit.op("Add", linear, correction), keepdims=0)
    g = emit.op("Div", emit.op("Sub", emit.op("Sigmoid", logits), label), _elements(emit, logits))
    return loss, g


def mean_squared_error(emit: Emitter, logits: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The mean over images and targets of `(z - y)^2`, and `g = 2 (z - y) / (N targets)`.

    In: label `y` float32 `(N, targets)`.
    """
    error = emit.op("Sub", logits, _table(emit))
    loss = emit.op("ReduceMean", emit.op("Mul", error, error), keepdims=0)
    g = emit.op("Div", emit.op("Add", error, error), _elements(emit, logits))
    return loss, g


LOSSES: dict[str, Loss] = {
    CROSS_ENTROPY: cross_entropy,
    BINARY_CROSS_ENTROPY: binary_cross_entropy,
    MSE: mean_squared_error,
}


# What a model may end in behind its logits, for its loss to be the one that it was trained for.
_ENDINGS: dict[str, tuple[str | None, ...]] = {
    CROSS_ENTROPY: (None, "Softmax", "LogSoftmax"),
    BINARY_CROSS_ENTROPY: (None, "Sigmoid"),
    MSE: (None,),
}


def require_loss(loss: str, activation: str | None, where: str) -> None:
    """Raise ConfigError for an unknown loss, or one that contradicts the op behind the model's logits."""
    if loss not in LOSSES:
        raise ConfigError(f"--loss is '{loss}'; it must be {', '.join(LOSSES)}.")
    if activation not in _ENDINGS[loss]:
        fitting = [name for name, endings in _ENDINGS.items() if activation in endings]
        raise ConfigError(
            f"{where} ends in {activation}, which does not go with --loss {loss}. Pass --loss {fitting[0]}, or "
            f"export the model without {activation}."
        )


def _smoothed(emit: Emitter, one_hot: ir.Value, allowed: ir.Value, smoothing: ir.Value) -> ir.Value:
    """`(1 - a) * one_hot + a / K` on the allowed classes; exactly `one_hot` where `a` is 0."""
    weight = emit.op("Cast", allowed, to=ir.DataType.FLOAT)
    share = emit.op("Div", smoothing, emit.op("ReduceSum", weight, keepdims=1))
    kept = emit.op("Mul", one_hot, emit.op("Sub", emit.scalar(1.0), smoothing))
    return emit.op("Add", kept, emit.op("Mul", weight, share))


def _one_hot(emit: Emitter, label: ir.Value, classes: ir.Value) -> ir.Value:
    return emit.op("OneHot", label, classes, emit.constant([0.0, 1.0], np.float32, "off_on"), axis=-1)


def _table(emit: Emitter) -> ir.Value:
    return emit.input(LABEL, ir.DataType.FLOAT, ["N", "classes"])


def _batch_size(emit: Emitter, logits: ir.Value) -> ir.Value:
    count = emit.op("Gather", emit.op("Shape", logits), emit.constant(0, np.int64, "zero"))
    return emit.op("Cast", count, to=ir.DataType.FLOAT)


def _elements(emit: Emitter, logits: ir.Value) -> ir.Value:
    return emit.op("Cast", emit.op("Size", logits), to=ir.DataType.FLOAT)
