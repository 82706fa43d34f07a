"""A classifier of two classes that says one number, as one that says two: only so can a third be told from both.

With `z = w x + b` and the probability `sigmoid(z)` of the second class, the logits `(-z / 2, z / 2)` decide the same,
and their softmax is `(1 - sigmoid(z), sigmoid(z))`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.graphs.head import SplitHead, split_head
from csk_artifacts_builder.prepare.model import SourceModel
from csk_sdk.contract.manifest import CROSS_ENTROPY

_SAID = (
    "{where} has one output, taken for the {what} of the second of two classes: bundle and exports give one number for "
    "each class. If it is a number to predict, build with --loss mse; if a label among several, with "
    "--loss binary-cross-entropy."
)


def as_two_classes(source: SourceModel, loss: str) -> SourceModel:
    """The source with two outputs, where it has one, and the loss tells classes apart; else as it is.

    Raises ModelError as `split_head` does.
    """
    where = source.path.name
    head = split_head(source.model, where)
    if loss != CROSS_ENTROPY or len(head.weight) != 1 or head.activation not in (None, "Sigmoid"):
        return source
    model = _doubled(source.model, where)
    what = "probability" if head.activation else "logit"
    return replace(
        source,
        model=model,
        interface=replace(source.interface, steps=()),
        warnings=(*source.warnings, _SAID.format(where=where, what=what)),
        binary=True,
    )


def _doubled(prepared: ir.Model, where: str) -> ir.Model:
    model = prepared.clone()
    head = split_head(model, where)
    emit = Emitter(model.graph)
    halves = np.array([[-0.5], [0.5]], np.float32)
    weight = emit.initializer(halves * head.weight, f"{head.weight_name}.two")
    bias = emit.initializer((halves * head.bias)[:, 0], f"{head.bias_name}.two")
    old = model.graph.outputs[0]
    logits = _layer(emit, head, weight, bias)
    logits.shape = ir.Shape([(old.shape or ["N"])[0], 2])
    logits.type = ir.TensorType(ir.DataType.FLOAT)
    logits.name, old.name = head.output_name, None
    model.graph.outputs[0] = logits
    passes.RemoveUnusedNodesPass()(model)
    return model


def _layer(emit: Emitter, head: SplitHead, weight: ir.Value, bias: ir.Value) -> ir.Value:
    """The new layer under the old one's name, with the softmax that is the old sigmoid."""
    logits = emit.op("Gemm", head.features, weight, bias, transB=1)
    producer = logits.producer()
    assert producer is not None
    producer.name, head.node.name = head.node.name, None
    return emit.op("Softmax", logits, axis=-1) if head.activation else logits
