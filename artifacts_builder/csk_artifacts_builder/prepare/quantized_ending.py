"""The scores at the end of a quantised graph: they have no range, and come as float."""

from __future__ import annotations

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, constant_array
from csk_artifacts_builder.prepare.quantized_values import Values

# Between the scores and the end of the graph: what makes something else of each score, and means of score maps.
_ENDINGS = {
    *("ArgMax", "Cast", "Flatten", "Identity", "LogSoftmax", "Reshape", "Sigmoid", "Softmax", "Squeeze", "TopK"),
}  # fmt: skip
_SCALES = {"Add", "Div", "Mul", "Sub"}
_MEANS = {"AveragePool", "GlobalAveragePool", "ReduceMean"}
# Where an op on integers says the scale of its result; behind one input and its scale where it is not here.
_RESULT = {
    **{"QGemm": 7, "QLinearWhere": 7, "QLinearConcat": 0, "QuantizeLinear": 1},
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"), 6),
}
_BEHIND_ONE_INPUT = 3


def float_outputs(values: Values) -> None:
    """Scores that the file gives as integers come as what these stand for."""
    graph = values.graph
    for place, value in enumerate(graph.outputs):
        if value in values.reals:
            real = values.reals[value][0]
            if real is value:
                continue
            real = values.emit.op("Identity", real)
            real.shape, real.dtype = value.shape, ir.DataType.FLOAT
            real.name, value.name = value.name, None
            graph.outputs[place] = real


def loosen_ending(values: Values) -> None:
    """Leave out the ranges of the scores and of what is made of them alone.

    The range of maps of scores, in front of a mean, stays where it begins at 0: that is a Relu.
    """
    waiting = [(value, False) for value in values.graph.outputs]
    while waiting:
        value, pooled = waiting.pop()
        node = value.producer()
        x = _made_of(node)
        if node is None or x is None:
            continue
        if node not in values.clips:
            waiting.append((x, pooled or node.op_type in _MEANS))
        elif not pooled or float(values.clips[node].ends[0].min()) < 0:
            _leave_out(values, node, x)
            waiting.append((x, pooled))


def _made_of(node: ir.Node | None) -> ir.Value | None:
    """What a node behind the scores reads; None for any other node."""
    if node is None or not node.inputs:
        return None
    if node.op_type in _SCALES:
        computed = [value for value in node.inputs if constant_array(value) is None]
        return computed[0] if len(computed) == 1 else None
    return node.inputs[0] if node.op_type in _ENDINGS | _MEANS | {"Clip"} else None


def _leave_out(values: Values, node: ir.Node, x: ir.Value) -> None:
    y = node.outputs[0]
    if y.is_graph_output():
        if x.producer() is None or x.is_graph_output():
            with values.emit.before(node):
                x = values.emit.op("Identity", x)
        x.shape, x.type = y.shape, y.type
        x.name, y.name = y.name, None
    y.replace_all_uses_with(x, replace_graph_outputs=True)


def bare_scores(model: ir.Model) -> bool:
    """In a graph as it is deployed, leave out the last rounding of each output, in place; True when there was one."""
    modified = False
    for place, value in enumerate(model.graph.outputs):
        last = value.producer()
        integers = last.inputs[0] if last is not None and last.op_type == "DequantizeLinear" else None
        rounding = integers.producer() if integers is not None else None
        if rounding is not None and rounding.op_type == "QuantizeLinear" and rounding.inputs[0] is not None:
            model.graph.outputs[place] = rounding.inputs[0]
            modified = True
    return modified


def scores_as_float(model: ir.Model) -> bool:
    """In a graph as it is deployed whose output are integers, what these stand for, in place; True where they were."""
    output = model.graph.outputs[0]
    value: ir.Value | None = output
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in _RESULT or node.op_type.startswith("QLinear"):
            place = _RESULT.get(node.op_type, _BEHIND_ONE_INPUT)
            scale, zero = node.inputs[place : place + 2]
            real = Emitter(model.graph).op("DequantizeLinear", output, scale, zero)
            real.name, real.dtype = f"{output.name}.float", ir.DataType.FLOAT
            model.graph.outputs[0] = real
            return True
        if node.op_type not in _ENDINGS:
            return False
        value = node.inputs[0]
    return False
