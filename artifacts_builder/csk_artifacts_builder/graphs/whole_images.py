"""Which tensors have a row for each image: some layers cut images into windows, and look at those one by one."""

from __future__ import annotations

import onnx_ir as ir

from csk_artifacts_builder.emit import static_shape
from csk_artifacts_builder.prepare.constant_sizes import infer_again


def of_whole_images(prepared: ir.Model) -> set[str | None]:
    """Names of values whose first axis is the batch, as far as shape inference can tell them from windows."""
    one = prepared.clone()
    image = one.graph.inputs[0]
    image.shape = ir.Shape([1, *static_shape(image)[1:]])
    infer_again(one)
    values = [image, *(value for node in one.graph for value in node.outputs)]
    return {value.name for value in values if not _is_cut(value)}


def _is_cut(of_one: ir.Value) -> bool:
    """Whether one image has several rows in it."""
    rows = of_one.shape[0] if of_one.shape else 1
    return isinstance(rows, int) and rows != 1
