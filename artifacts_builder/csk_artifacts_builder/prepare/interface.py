"""What goes in and out of a source model, where that differs from the prepared graph.

The bundle's graphs take float32 images with channels first. A source model may take them channels last (TensorFlow,
Keras) or in float16, and the exported model is to replace it without a change in the application: so the export puts
the source's own input and output types back around the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.prepare.ending import Step

_TO_CHANNELS_LAST = (0, 2, 3, 1)
_TO_CHANNELS_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True)
class Interface:
    """The source model's own input and output; `half` says that it computes in float16 somewhere.

    `steps` is what the source does with its scores (ending.py).
    """

    channels_last: bool = False
    input_type: ir.DataType = ir.DataType.FLOAT
    output_type: ir.DataType = ir.DataType.FLOAT
    half: bool = False
    steps: tuple[Step, ...] = ()

    def source_input(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """A batch for the prepared graph, `(n, channels, height, width)` float32, as the source model takes it."""
        shown = x.transpose(_TO_CHANNELS_LAST) if self.channels_last else x
        return np.ascontiguousarray(shown, self.input_type.numpy())


def take_channels_first(model: ir.Model) -> None:
    """Turn the input from `(n, height, width, channels)` to `(n, channels, height, width)`, in place."""
    image = model.graph.inputs[0]
    assert image.shape is not None
    batch, height, width, channels = image.shape
    users = list(image.uses())
    image.shape = ir.Shape([batch, channels, height, width])
    turned = _at_the_start(model, "Transpose", image, perm=list(_TO_CHANNELS_LAST))
    for node, position in users:
        node.replace_input_with(position, turned)


def restore_input(model: ir.Model, interface: Interface) -> None:
    """Give the graph the source's own input back, in place."""
    if not interface.channels_last and interface.input_type == ir.DataType.FLOAT:
        return
    image = model.graph.inputs[0]
    assert image.shape is not None
    shape = list(image.shape)
    order = _TO_CHANNELS_LAST if interface.channels_last else range(len(shape))
    source = ir.Value(
        name=image.name,
        shape=ir.Shape([shape[axis] for axis in order]),
        type=ir.TensorType(interface.input_type),
    )
    users = list(image.uses())
    model.graph.inputs[0] = source
    image.name = None
    value = source
    if interface.channels_last:
        value = _at_the_start(model, "Transpose", value, perm=list(_TO_CHANNELS_FIRST))
    if interface.input_type != ir.DataType.FLOAT:
        value = _at_the_start(model, "Cast", value, to=ir.DataType.FLOAT)
    for node, position in users:
        node.replace_input_with(position, value)


def _at_the_start(model: ir.Model, op_type: str, x: ir.Value, **attributes: Any) -> ir.Value:
    emit = Emitter(model.graph)
    producer = x.producer()
    first = next(iter(model.graph))
    if producer is not None:
        with emit.behind(producer):
            return emit.op(op_type, x, **attributes)
    with emit.before(first):
        return emit.op(op_type, x, **attributes)
