"""Ops that onnxruntime-training 1.19.2 has no right gradient for, in ops that it has one for.

Only where both are the same function: the artifacts' loss is checked against the model's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnx_ir.convenience as convenience
import onnx_ir.passes.common as passes

from csk_artifacts_builder.emit import Emitter, attribute, constant_array, static_shape


def speak_ort(model: ir.Model) -> ir.Model:
    """The same model, rewritten in place; its nodes and values are named, and stay so.

    After every other pass: one of them would drop outputs that only the gradient reads.
    """
    emit = Emitter(model.graph)
    for node in list(model.graph):
        rewrite = _REWRITES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rewrite is not None:
            with emit.before(node):
                outputs = rewrite(emit, node)
            convenience.replace_nodes_and_values(
                model.graph, node, [node], [], list(node.outputs), outputs[: len(node.outputs)]
            )
    passes.NameFixPass()(model)
    return model


def _hard_sigmoid(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`clip(alpha x + beta, 0, 1)`"""
    return [_ramp(emit, node, float(attribute(node, "alpha", 0.2)), float(attribute(node, "beta", 0.5)))]


def _hard_swish(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`x clip(x / 6 + 1 / 2, 0, 1)`"""
    return [_like(node, emit.op("Mul", node.inputs[0], _ramp(emit, node, 1 / 6, 0.5)))]


def _layer_normalization(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """The same with its optional outputs, which the gradient reads: mean and 1 / standard deviation.

    And with a scale and a bias of its own: the package derives their gradients even where they are frozen, and
    stumbles over a second gradient of the same tensor.
    """
    attributes = {name: value.value for name, value in node.attributes.items()}
    inputs = [node.inputs[0], *(_own(emit, node, value) for value in node.inputs[1:])]
    outputs = list(emit.ops("LayerNormalization", *inputs, outputs=3, **attributes))
    for value in outputs:
        value.dtype = ir.DataType.FLOAT
    return [_like(node, outputs[0]), *outputs[1:]]


def _own(emit: Emitter, node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """A copy of a constant that other nodes read too."""
    array = constant_array(value)
    if value is None or array is None or len(value.uses()) == 1:
        return value
    return emit.initializer(array, f"{value.name}.of.{node.name}")


def _average_pool(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """A sum by a depthwise convolution with ones, divided by how many pixels each sum has.

    AveragePoolGrad of 1.19.2 gives an empty gradient where the batch is free.
    """
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    channels, *sizes = (int(dim) for dim in static_shape(x)[1:])
    counts = np.ones(())
    kernel = list(attribute(node, "kernel_shape"))
    rank = len(kernel)
    strides, given = attribute(node, "strides", [1] * rank), attribute(node, "pads", [0] * 2 * rank)
    begins, ends = given[:rank], []
    for axis, (size, out) in enumerate(zip(sizes, static_shape(y)[2:], strict=True)):
        first = np.arange(int(out))[:, None] * strides[axis] - begins[axis]
        taps = first + np.arange(kernel[axis])
        # Pixels that only rounding up has added are never counted.
        padded = (begins[axis], given[rank + axis]) if attribute(node, "count_include_pad", 0) else (0, 0)
        counts = np.multiply.outer(counts, ((taps >= -padded[0]) & (taps < size + padded[1])).sum(axis=1))
        ends.append(max(0, int(taps.max()) + 1 - size))
    ones = emit.constant(np.ones((channels, 1, *kernel)), np.float32, "ones")
    summed = emit.op(
        "Conv", x, ones, kernel_shape=kernel, strides=list(strides), pads=[*begins, *ends], group=channels
    )
    return [
        _like(node, emit.op("Mul", _like(node, summed), emit.constant(1.0 / counts, np.float32, "shares")))
    ]


def _ramp(emit: Emitter, node: ir.Node, slope: float, offset: float) -> ir.Value:
    line = emit.op("Add", emit.op("Mul", node.inputs[0], emit.scalar(slope)), emit.scalar(offset))
    return _like(node, emit.op("Clip", line, emit.scalar(0.0), emit.scalar(1.0)))


def _like(node: ir.Node, value: ir.Value) -> ir.Value:
    value.shape, value.dtype = node.outputs[0].shape, ir.DataType.FLOAT
    return value


_REWRITES: dict[str, Callable[[Emitter, ir.Node], list[ir.Value]]] = {
    "AveragePool": _average_pool,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LayerNormalization": _layer_normalization,
}
