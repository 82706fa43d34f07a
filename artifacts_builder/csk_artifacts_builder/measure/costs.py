"""What a training step costs, counted on the graphs themselves, per image.

    parameters         float32 weights and biases of the network, batch norm folded
    forward            FLOPs of one inference
    step_full          FLOPs of a full fine-tuning step
    step_centers       FLOPs of the bundle's own training step
    kept_full          bytes that full fine-tuning keeps from the forward for the backward pass
    kept_centers       bytes that the bundle's training graph keeps

A FLOP is one multiplication or addition of a convolution or matrix product, so a multiply-add counts 2.
Elementwise ops, pooling, the optimizer and the projection are not counted.

Full fine-tuning is the forward pass, as much again for every weight gradient, and as much again for every
input gradient behind the first layer. It keeps each layer's input and each activation's output once, in
float32.

The bundle's step is counted node by node on its training graph, with `channel_ratio` of the channels selected
and as many classes as the base has. It keeps what its backward nodes read of its forward nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import attribute, nodes_above
from csk_artifacts_builder.measure.fixed_sizes import sized
from csk_sdk.contract.manifest import LABEL, Site
from csk_sdk.method.selection import channel_count

# A batch no layer's size is likely to equal, so that a dimension can be told to be the batch.
_BATCH = 7919
_LOGITS = "logits"
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_ACTIVATIONS = {
    *("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish"),
    *("Elu", "Selu", "Celu", "Softplus", "Softsign", "Erf", "Softmax", "LogSoftmax"),
}
# Ops that hand on the same elements: what they read is what is kept.
_MOVES = {"Transpose", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity"}
# And these in the backward pass, which reads a part of what is kept: where a whole kernel's positions look.
_PARTS = {"Pad", "Slice"}
_FLOAT_BYTES = 4


def measure_costs(
    prepared: ir.Model, training: ir.Model | None, sites: Sequence[Site], classes: int, channel_ratio: float
) -> dict[str, int]:
    """The table above; empty where a size is not known before run time, and without `*_centers` for no graph."""
    sizes = {f"{site.name}.k": channel_count(site.columns, channel_ratio) for site in sites}
    sizes.update(N=_BATCH, classes=classes)
    try:
        return {
            "parameters": _parameters(prepared),
            **_full_fine_tuning(sized(prepared, sizes)),
            **(_centers(sized(training, sizes)) if training is not None else {}),
        }
    except _UnknownSizeError:
        return {}


def flops_by_node(prepared: ir.Model) -> dict[str, int]:
    """FLOPs of one inference by node name, of nodes that have any; 0 where a size is not known before run time."""
    counted = {}
    for node in sized(prepared, {"N": _BATCH}).graph:
        if node.op_type in _PRODUCTS:
            try:
                counted[str(node.name)] = _flops(node)
            except _UnknownSizeError:
                counted[str(node.name)] = 0
    return counted


class _UnknownSizeError(Exception):
    """Shape inference left a dimension open."""


def _parameters(prepared: ir.Model) -> int:
    used = (value.const_value for value in prepared.graph.initializers.values() if value.uses())
    return sum(
        int(tensor.size)
        for tensor in used
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape)
    )


def _full_fine_tuning(model: ir.Model) -> dict[str, int]:
    """Every layer with constant weights is trained; all but the first hand a gradient on to their input."""
    forward = step = 0
    trained: set[ir.Value] = set()
    kept: set[ir.Value] = set()
    for node in model.graph:
        is_layer = node.op_type in _PRODUCTS and any(
            x is not None and x.const_value is not None for x in node.inputs[1:2]
        )
        behind_first = any(value in trained for value in node.inputs)
        if node.op_type in _PRODUCTS:
            flops = _flops(node)
            forward += flops
            step += flops * (1 + is_layer + behind_first)
        if is_layer and node.inputs[0] is not None:
            kept.add(_source(node.inputs[0]))
        if node.op_type in _ACTIVATIONS:
            kept.add(node.outputs[0])
        if is_layer or behind_first:
            trained.update(node.outputs)
    bytes_kept = sum(_per_image(value) * _FLOAT_BYTES for value in kept)
    return {"forward": forward, "step_full": step, "kept_full": bytes_kept}


def _centers(model: ir.Model) -> dict[str, int]:
    label = next(value for value in model.graph.inputs if value.name == LABEL)
    backward: set[ir.Value] = {label}
    step = 0
    kept: set[ir.Value] = set()
    forward = nodes_above(value for value in model.graph.outputs if value.name == _LOGITS)
    for node in model.graph:
        if node.op_type in _PRODUCTS:
            step += _flops(node)
        if any(value in backward for value in node.inputs):
            kept.update(_saved(node.inputs, backward, forward))
            backward.update(node.outputs)
    return {"step_centers": step, "kept_centers": sum(_per_image(value) * _bytes(value) for value in kept)}


def _saved(
    inputs: Sequence[ir.Value | None], backward: set[ir.Value], forward: set[ir.Node]
) -> Iterator[ir.Value]:
    """The forward activations among a backward node's inputs."""
    for value in inputs:
        if value is None or value in backward:
            continue
        source = _source(value, forward)
        if source.shape is not None and len(source.shape) and source.shape[0] == _BATCH:
            yield source


def _source(value: ir.Value, forward: Collection[ir.Node] | None = None) -> ir.Value:
    """What is kept where `value` is read; `forward` are the nodes of the forward pass, all when None."""
    producer = value.producer()
    while producer is not None and producer.inputs[0] is not None:
        again = forward is not None and producer not in forward and producer.op_type in _PARTS
        if not again and not _hands_on(producer):
            break
        value = producer.inputs[0]
        producer = value.producer()
    return value


def _hands_on(node: ir.Node) -> bool:
    """Whether it is made again of what it read; truth values become numbers where they are multiplied with."""
    x = node.inputs[0]
    return node.op_type in _MOVES or (
        node.op_type == "Cast" and x is not None and x.dtype == ir.DataType.BOOL
    )


def _flops(node: ir.Node) -> int:
    """2 x multiply-adds for one image, as executed (padding included)."""
    x, weight = node.inputs[0], node.inputs[1]
    shape, kernel = _shape(x), _shape(weight)
    out = int(np.prod(_shape(node.outputs[0]), dtype=object))
    if node.op_type == "Conv":
        depth = int(np.prod(kernel[1:]))
    elif node.op_type == "ConvTranspose":
        # Each input element is multiplied with the kernel's slice for its channel.
        out, depth = int(np.prod(shape, dtype=object)), int(np.prod(kernel[1:]))
    elif node.op_type == "Gemm":
        depth = shape[0] if attribute(node, "transA", 0) else shape[1]
    else:
        depth = shape[-1]
    return _of_one_image(2 * out * depth)


def _of_one_image(count: int) -> int:
    # What does not grow with the batch, such as a product of weights, is nothing per image.
    return count // _BATCH if count % _BATCH == 0 else 0


def _per_image(value: ir.Value) -> int:
    return _of_one_image(int(np.prod(_shape(value), dtype=object)))


def _bytes(value: ir.Value) -> int:
    return int(value.dtype.itemsize) if value.dtype is not None else _FLOAT_BYTES


def _shape(value: ir.Value | None) -> list[int]:
    if value is None or value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
        raise _UnknownSizeError
    return [int(dim) for dim in value.shape]  # type: ignore[arg-type]
