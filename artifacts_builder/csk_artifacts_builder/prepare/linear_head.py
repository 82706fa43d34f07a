"""Convolutional classifiers, written as the linear layer on a feature vector that the method trains.

A fully convolutional network ends in a convolution with one channel for each class, and a mean over the image. With
x the convolution's input, W its kernel, and mean the mean over the image:

1. Kernel as large as the image (1x1 behind a global pool, as MobileNetV3's and Keras's): Flatten(Conv(x)) is a linear
   layer on Flatten(x).
2. 1x1 kernel in front of the mean: mean(W x + b) = W mean(x) + b is a linear layer on mean(x).
3. An activation between them (SqueezeNet's Relu), or a wider kernel: the logits are no linear function of any pooled
   features. The base's logits become features themselves, beside mean(x); the base's classifier is `[identity, 0]`, so
   its predictions stay exactly what they were, and new classes are told apart by both
   (docs/decisions/0011-convolutional-heads.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, attribute, constant_array, static_shape
from csk_artifacts_builder.prepare.fold_batch_norm import foldable_convolution

_BEHIND_LOGITS = {"Softmax", "LogSoftmax", "Sigmoid"}
_MOVES = {"Flatten", "Reshape", "Squeeze", "Transpose"}
_SCALES = {"Mul", "Div"}
_BENDS = {"Relu", "LeakyRelu", "Clip", "HardSwish", "Elu"}


@dataclass
class _Tail:
    """The network from its last convolution on; `logits` are in front of `behind`, in any shape."""

    convolution: ir.Node
    logits: ir.Value
    behind: list[ir.Node]
    pooled: bool
    bent: bool


def to_linear_head(model: ir.Model) -> bool:
    """Rewrite a convolutional classifier as above, in place; True when there was one."""
    output = model.graph.outputs[0]
    tail = _tail(output) if len(model.graph.outputs) == 1 else None
    if tail is None:
        return False
    emit = Emitter(model.graph)
    logits = _as_product(emit, tail) or _beside_features(emit, tail)
    if logits is None:
        return False
    for node in tail.behind:
        if node.op_type in _SCALES:
            logits = emit.op(node.op_type, logits, node.inputs[1])
            continue
        attributes: dict[str, Any] = {} if node.op_type == "Sigmoid" else {"axis": -1}
        logits = emit.op(node.op_type, logits, **attributes)
    # Not by replacing all uses: the old output may be what the new layer reads.
    logits.shape, logits.type = output.shape, output.type
    logits.name, output.name = output.name, None
    model.graph.outputs[0] = logits
    return True


def _as_product(emit: Emitter, tail: _Tail) -> ir.Value | None:
    """Cases 1 and 2, or None."""
    node = tail.convolution
    x, weight = node.inputs[0], constant_array(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if tail.bent or x is None or weight is None or (bias is not None and constant_array(bias) is None):
        return None
    kernel, picture = weight.shape[2:], static_shape(x)[2:]
    plain = attribute(node, "group", 1) == 1 and not any(attribute(node, "pads", [0]))
    whole = kernel == picture and set(attribute(node, "dilations", [1])) == {1}
    pointwise = tail.pooled and set(kernel) == {1} and set(attribute(node, "strides", [1])) == {1}
    if not plain or not (whole or pointwise):
        return None
    features = emit.op("Flatten", x if whole else emit.op("GlobalAveragePool", x), axis=1)
    logits = _linear(emit, features, weight.reshape(len(weight), -1), str(_name(node)), bias)
    # Its user knows the classifier by its name.
    layer = logits.producer()
    assert layer is not None
    layer.name, node.name = node.name, None
    return logits


def _name(node: ir.Node) -> str | None:
    """The kernel's own name, for the layer that takes its place, if nobody else reads it."""
    weight = node.inputs[1]
    assert weight is not None
    return weight.name if len(weight.uses()) == 1 else f"{weight.name}.{node.outputs[0].name}"


def _linear(
    emit: Emitter, features: ir.Value, matrix: NDArray[np.float32], name: str, bias: ir.Value | None
) -> ir.Value:
    emit.graph.initializers.pop(name, None)
    weight = emit.initializer(np.ascontiguousarray(matrix), name)
    return emit.op("Gemm", features, weight, *([bias] if bias is not None else []), transB=1)


def _beside_features(emit: Emitter, tail: _Tail) -> ir.Value | None:
    """Case 3, or None where the image's size is not known."""
    x = tail.convolution.inputs[0]
    if x is None or not all(isinstance(size, int) for size in static_shape(x)[1:]):
        return None
    classes, width = _per_image(tail.logits), int(static_shape(x)[1])
    means = emit.op("Flatten", emit.op("GlobalAveragePool", x), axis=1)
    base = emit.op("Flatten", tail.logits, axis=1)
    matrix = np.concatenate([np.eye(classes), np.zeros((classes, width))], axis=1).astype(np.float32)
    features = emit.op("Concat", base, means, axis=1)
    return _linear(emit, features, matrix, f"{tail.logits.name}.identity", None)


def _tail(output: ir.Value) -> _Tail | None:
    """Walk back from the output to the convolution; None where something else is on the way."""
    if output.shape is None or len(output.shape) != 2:
        return None
    logits: ir.Value | None = None
    behind: list[ir.Node] = []
    pooled = bent = False
    value = output
    while True:
        node = value.producer()
        if node is None or not node.inputs or node.inputs[0] is None or _is_open(node.inputs[0]):
            return None
        if len(value.uses()) != (0 if value is output else 1):
            return None
        if (node.op_type in _BEHIND_LOGITS and logits is None and _over_classes(node)) or (
            _is_scale(node) and logits is None
        ):
            behind.insert(0, node)
        elif _is_mean(node) and not pooled:
            pooled, logits = True, logits or value
        elif node.op_type == "Add" and (folded := _with_bias(node)) is not None:
            value = folded
            continue
        elif node.op_type in _BENDS:
            bent, logits = True, logits or value
        elif node.op_type == "Conv" and (pooled or _per_image(value) == _classes(output)):
            return _Tail(node, logits or value, behind, pooled, bent)
        elif node.op_type not in _MOVES or _per_image(value) != _classes(output):
            return None
        value = node.inputs[0]


def _with_bias(node: ir.Node) -> ir.Value | None:
    """Fold an Add of a number for each channel into the convolution in front of it, in place.

    What the convolution gives then; None where that is not what it is. `quantize_dynamic` writes biases so.
    """
    x, added = node.inputs[0], constant_array(node.inputs[1])
    if added is None:
        x, added = node.inputs[1], constant_array(node.inputs[0])
    convolution = foldable_convolution(x)
    if convolution is None or x is None or added is None:
        return None
    bias, shape = (
        constant_array(convolution.inputs[2] if len(convolution.inputs) > 2 else None),
        static_shape(x),
    )
    if added.ndim != len(shape) or not added.size == added.shape[1] == shape[1]:
        return None
    total = added.reshape(-1) if bias is None else added.reshape(-1) + bias
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    convolution.resize_inputs(3)
    own = Emitter(graph).initializer(total.astype(np.float32), f"{node.outputs[0].name}.bias")
    convolution.replace_input_with(2, own)
    node.outputs[0].replace_all_uses_with(x, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return x


def _is_open(value: ir.Value) -> bool:
    return value.shape is None or not all(isinstance(size, int) for size in list(value.shape)[1:])


def _classes(output: ir.Value) -> int:
    return int(static_shape(output)[1])


def _per_image(value: ir.Value) -> int:
    return prod(int(size) for size in static_shape(value)[1:])


def _over_classes(node: ir.Node) -> bool:
    """Whether a Softmax goes over the one axis that the classes are on."""
    if node.op_type == "Sigmoid":
        return True
    axis = int(attribute(node, "axis", -1))
    return _per_image(node.outputs[0]) == static_shape(node.outputs[0])[axis]


def _is_probability(node: ir.Node) -> bool:
    return node.op_type in _BEHIND_LOGITS and _over_classes(node)


def _is_scale(node: ir.Node) -> bool:
    """A temperature: by one number."""
    constant = constant_array(node.inputs[1]) if node.op_type in _SCALES else None
    return constant is not None and constant.size == 1


def _is_mean(node: ir.Node) -> bool:
    """A mean over the whole image, `(N, C, h, w)`."""
    x = node.inputs[0]
    assert x is not None
    picture = list(static_shape(x))[2:]
    if node.op_type == "ReduceMean":
        rank = len(picture) + 2
        axes = sorted(axis % rank for axis in attribute(node, "axes", []))
        return axes == list(range(2, rank))
    if node.op_type == "AveragePool":
        return bool(attribute(node, "kernel_shape") == picture) and not any(attribute(node, "pads", [0]))
    return node.op_type == "GlobalAveragePool"
