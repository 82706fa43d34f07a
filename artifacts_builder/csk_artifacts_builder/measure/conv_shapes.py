"""The sizes of convolutions, written into a graph for who rewrites it when it is opened."""

from __future__ import annotations

import onnx_ir as ir

from csk_artifacts_builder.measure.fixed_sizes import sized


def write_conv_shapes(model: ir.Model) -> None:
    """Give the image and the kernel of every `Conv` their shape where it is not written yet, in place.

    A source model mostly brings the shapes of its own convolutions; those of their input gradients are inferred here.
    The number of images stays open, and what cannot be inferred is left out. The JavaScript runner needs the sizes
    (docs/javascript.md).
    """
    unknown = [
        value
        for node in model.graph
        if node.op_type == "Conv"
        for value in node.inputs[:2]
        if value is not None and value.shape is None
    ]
    if not unknown:
        return
    inferred = {value.name: value for node in sized(model, {}).graph for value in node.outputs}
    for value in unknown:
        found = inferred.get(value.name)
        if found is None or found.shape is None:
            continue
        if all(isinstance(size, int) for size in found.shape[1:]):
            value.shape, value.type = ir.Shape(found.shape), found.type
