"""Ops that a model left in their form for training, as what they are when it answers.

Dropout in training mode draws random numbers, and BatchNormalization in training mode takes the statistics of its
batch: an image's answer would depend on chance, or on the images beside it. Whoever holds only the file cannot
export it again, so it is built as for inference, and its user is told.
"""

from __future__ import annotations

import onnx_ir as ir

from csk_artifacts_builder.emit import attribute, called, constant_array


def to_inference(model: ir.Model) -> tuple[str, ...]:
    """Write such nodes in their form for inference, in place; one sentence for each."""
    said = []
    for node in model.graph:
        if node.op_type == "Dropout" and _trains(node):
            node.resize_inputs(1)
            said.append(
                f"dropout '{called(node)}' is in training mode, so the model draws random numbers: it is built, and "
                "will be exported, as for inference."
            )
        elif node.op_type == "BatchNormalization" and _is_training_norm(node):
            node.attributes.pop("training_mode", None)
            node.resize_outputs(1)
            said.append(
                f"batch norm '{called(node)}' is in training mode, so an answer depends on the other images of its "
                "batch: it is built, and will be exported, with its running mean and variance, as for inference."
            )
    return tuple(said)


def _trains(node: ir.Node) -> bool:
    training = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    return training is not None and bool(training.item())


def _is_training_norm(node: ir.Node) -> bool:
    """By its attribute, or below opset 14 by outputs beyond the first; none of those is read."""
    trains = bool(attribute(node, "training_mode", 0)) or sum(bool(value.name) for value in node.outputs) > 1
    return trains and not any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
