"""The four graphs of a bundle, each made from the prepared model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.gradients import Segment, differentiate
from csk_artifacts_builder.gradients.convolution import input_gradient
from csk_artifacts_builder.graphs.center import add_center_branch, second_moment, site_node
from csk_artifacts_builder.graphs.head import SplitHead, split_head
from csk_artifacts_builder.graphs.losses import LOSSES
from csk_artifacts_builder.graphs.whole_kernel import add_to_kernel, kernel_gradient, patch_moment
from csk_artifacts_builder.prepare.interface import Interface, restore_input
from csk_artifacts_builder.prepare.layer_norm import center_layer_norms
from csk_artifacts_builder.sites import geometry
from csk_sdk.contract.manifest import CROSS_ENTROPY, Head, Site

IMAGE = "image"
LOSS = "loss"
LOGITS = "logits"
FEATURES = "features"
HALF_MAX = float(np.finfo(np.float16).max)


@dataclass
class Working:
    """A private copy of the prepared graph, opened up at the head and at every site."""

    model: ir.Model
    emit: Emitter
    split: SplitHead
    segments: list[Segment]
    deltas: list[ir.Value]


def training_model(
    prepared: ir.Model, sites: Sequence[Site], head: Head, where: str, loss: str = CROSS_ENTROPY
) -> ir.Model:
    """In: image, label, head, per site delta and indices; out: loss, logits, gradients of deltas and head.

    `loss` is one of `losses.LOSSES`; what else that loss can be told has a default.
    """
    work = open_up(prepared, sites, where)
    emit, features = work.emit, work.split.features
    weight, bias = _head_inputs(emit, head)
    logits = _logits(emit, features, weight, bias)
    value, g = LOSSES[loss](emit, logits)
    emit.output(value, LOSS, [])
    emit.output(logits, LOGITS, ["N", "classes"])
    weight_gradient = emit.op("Gemm", g, features, transA=1)
    bias_gradient = emit.op("ReduceSum", g, emit.ints(0), keepdims=0)
    seed = emit.op("MatMul", g, weight)
    gradients = differentiate(emit, {features: seed}, work.deltas, work.segments, where)
    emit.output(weight_gradient, head.weight_gradient, ["classes", head.features])
    emit.output(bias_gradient, head.bias_gradient, ["classes"])
    for site, delta in zip(sites, work.deltas, strict=True):
        emit.output(gradients[delta], site.gradient, [site.rows, f"{site.name}.k"])
    return finish(work.model, "csk_training")


def eval_model(prepared: ir.Model, sites: Sequence[Site], head: Head, where: str) -> ir.Model:
    """In: image, head, per site delta and indices; out: logits, features."""
    work = open_up(prepared, sites, where)
    weight, bias = _head_inputs(work.emit, head)
    logits = _logits(work.emit, work.split.features, weight, bias)
    work.emit.output(logits, LOGITS, ["N", "classes"])
    work.emit.output(work.split.features, FEATURES, ["N", head.features])
    return finish(work.model, "csk_eval")


def memory_model(prepared: ir.Model, sites: Sequence[Site], head: Head, where: str) -> ir.Model:
    """In: image, per site delta and indices; out: features, per site the second moment of the center-sampled input.

    Features are here too, so that one pass over the data gives all that consolidation needs.
    """
    work = open_up(prepared, sites, where)
    work.emit.output(work.split.features, FEATURES, ["N", head.features])
    for site in sites:
        moment = _moment(work.emit, site_node(work.model, site), site)
        work.emit.output(moment, site.moment, [site.groups, site.width, site.width])
    return finish(work.model, "csk_memory")


def _moment(emit: Emitter, node: ir.Node, site: Site) -> ir.Value:
    return (patch_moment if site.whole else second_moment)(emit, node, site)


def kernel_model(prepared: ir.Model, sites: Sequence[Site], head: Head, where: str) -> ir.Model:
    """In: image, label, head, per site its kernel; out: features, loss, logits, per site the kernel's gradient.

    No part of a bundle: what `csk_artifacts_builder.analysis.intensity` measures with. The loss is cross-entropy. A
    site's kernel is the input called `site.weight`, and its gradient `(c_out, c_in / groups, *kernel)` the output
    called `site.gradient`.
    """
    work = open_up(prepared, (), where)
    emit, features = work.emit, work.split.features
    weight, bias = _head_inputs(emit, head)
    kernels = [_kernel_input(emit, site) for site in sites]
    segments = [
        _kernel_segment(site_node(work.model, site), site, kernel)
        for site, kernel in zip(sites, kernels, strict=True)
    ]
    logits = _logits(emit, features, weight, bias)
    loss, g = LOSSES[CROSS_ENTROPY](emit, logits)
    emit.output(features, FEATURES, ["N", head.features])
    emit.output(loss, LOSS, [])
    emit.output(logits, LOGITS, ["N", "classes"])
    seed = emit.op("MatMul", g, weight)
    gradients = differentiate(emit, {features: seed}, kernels, segments, where)
    for site, kernel in zip(sites, kernels, strict=True):
        emit.output(gradients[kernel], site.gradient, site.shape)
    return finish(work.model, "csk_kernel")


def _kernel_input(emit: Emitter, site: Site) -> ir.Value:
    """Turn the initializer of a site's kernel into a graph input."""
    kernel = emit.graph.initializers.pop(site.weight)
    kernel.const_value = None
    emit.graph.inputs.append(kernel)
    return kernel


def _kernel_segment(node: ir.Node, site: Site, kernel: ir.Value) -> Segment:
    """A convolution whose whole kernel has a gradient."""
    x = node.inputs[0]
    assert x is not None

    def rule(emit: Emitter, g: ir.Value, needed: Sequence[bool]) -> Sequence[ir.Value | None]:
        dx = input_gradient(emit, g, kernel, geometry(node)) if needed[0] else None
        return [dx, kernel_gradient(emit, node, site, g)]

    return Segment(frozenset({node}), (x, kernel), node.outputs[0], rule)


def export_template(
    prepared: ir.Model, head: Head, where: str, interface: Interface, loss: str = CROSS_ENTROPY
) -> ir.Model:
    """The inference model with the head's tensors left undefined.

    In: the source model's own input; out: its own output, with the number of classes left open. A device
    completes it by appending tensors, which needs no ONNX library.
    """
    model = prepared.clone()
    split = split_head(model, where)
    model.graph.outputs.clear()
    emit = Emitter(model.graph)
    weight, bias = (
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT)) for name in (head.weight, head.bias)
    )
    output = _logits(emit, split.features, weight, bias)
    if split.activation is not None:
        attributes: dict[str, Any] = {} if split.activation == "Sigmoid" else {"axis": -1}
        output = emit.op(split.activation, output, **attributes)
    elif interface.output_type == ir.DataType.FLOAT16:
        output = _within_half(emit, output, loss == CROSS_ENTROPY)
    restore_input(model, interface)
    if interface.output_type != ir.DataType.FLOAT:
        output = emit.op("Cast", output, to=interface.output_type)
    _end(emit, output, split.output_name, interface)
    return finish(model, "csk_inference")


def _within_half(emit: Emitter, logits: ir.Value, exclusive: bool) -> ir.Value:
    """Logits that float16 holds: a discriminant's may be larger, and infinite ones decide nothing.

    Of `exclusive` classes one number less for all of an image's says the same, so the largest stays what can be held.
    """
    if exclusive:
        largest = emit.op("ReduceMax", logits, axes=[-1], keepdims=1)
        over = emit.op("Relu", emit.op("Sub", largest, emit.scalar(HALF_MAX)))
        logits = emit.op("Sub", logits, over)
    return emit.op("Clip", logits, emit.scalar(-HALF_MAX), emit.scalar(HALF_MAX))


def _end(emit: Emitter, scores: ir.Value, name: str, interface: Interface) -> None:
    """The outputs, by what the source model does with its scores."""
    if not interface.steps:
        emit.output(scores, name, ["N", "classes"]).dtype = interface.output_type
        return
    values: Sequence[ir.Value] = [scores]
    taken = 0
    for step in interface.steps:
        values, taken = step.put(emit, values[taken]), step.taken
    for value, output in zip(values, interface.steps[-1].outputs, strict=True):
        if output is not None:
            emit.output(value, output.name, output.shape).dtype = output.dtype


def open_up(prepared: ir.Model, sites: Sequence[Site], where: str) -> Working:
    """A private copy of the prepared graph without its classifier, every site open to its change."""
    model = prepared.clone()
    emit = Emitter(model.graph)
    split = split_head(model, where)
    model.graph.outputs.clear()
    model.graph.inputs[0].name = IMAGE
    segments, deltas = [], []
    for site in sites:
        delta = emit.input(site.delta, ir.DataType.FLOAT, [site.rows, f"{site.name}.k"])
        indices = emit.input(site.indices, ir.DataType.INT64, [f"{site.name}.k"])
        add = add_to_kernel if site.whole else add_center_branch
        segments.append(add(emit, site_node(model, site), site, delta, indices))
        deltas.append(delta)
    return Working(model, emit, split, segments, deltas)


def _head_inputs(emit: Emitter, head: Head) -> tuple[ir.Value, ir.Value]:
    return (
        emit.input(head.weight, ir.DataType.FLOAT, ["classes", head.features]),
        emit.input(head.bias, ir.DataType.FLOAT, ["classes"]),
    )


def _logits(emit: Emitter, features: ir.Value, weight: ir.Value, bias: ir.Value) -> ir.Value:
    return emit.op("Gemm", features, weight, bias, transB=1)


def finish(model: ir.Model, name: str) -> ir.Model:
    """Name the graph, center its layer norms, drop what no output needs, and sort what is left."""
    model.graph.name = name
    center_layer_norms(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.TopologicalSortPass()(model)
    passes.NameFixPass()(model)
    for node in model.graph:
        node.meta.clear()
    return model
