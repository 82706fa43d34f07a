"""Frozen convolutions in int8: a pass over the finished graphs (docs/decisions/0007).

A frozen kernel is a constant, so its convolution may run in int8, forward and as the input gradient of another.
Centers, their gradients, the head and everything between convolutions stay float32.

The kernels stay float32 in the bundle, and the graph itself says how they are rounded. The runtime does that once, when
it opens the graph, with whatever centers were put in; so a device handles an int8 bundle as any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from csk_artifacts_builder.emit import Emitter, attribute, constant_array
from csk_artifacts_builder.int8.between import channels_first, is_dequantised, read_rounded

# The pair that CPUs are fast at: activations u8, kernels s8 (-127 to 127). Gradients are u8 around 128.
_ACTIVATION_MAX, _KERNEL_MAX = 255, 127
_GRADIENT_ZERO, _GRADIENT_MAX = 128, 127
# A bias is int32, in units of input scale times kernel scale; the kernel scale is kept large enough for it.
_BIAS_MAX = float(1 << 30)
# Below every scale that means something: keeps a gradient, or a kernel, of zeros from dividing by zero.
_TINY = 1e-30


@dataclass(frozen=True)
class Range:
    """Lowest and highest value that a tensor usually has."""

    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """What was seen on base data, by name of the Conv node.

    `inputs` and `outputs` are the ranges of a forward convolution; `growth` is `max |dx| / max |dy|` of a
    convolution that computes an input gradient dx. Those of `in_float` stay in float32.
    `widest` says that ranges are the widest of all batches, and not usual ones.
    """

    inputs: Mapping[str, Range]
    outputs: Mapping[str, Range]
    growth: Mapping[str, float]
    in_float: frozenset[str] = frozenset()
    widest: bool = False


def unmeasured(model: ir.Model, head_weight: str) -> Calibration:
    """Made-up numbers, for what depends on none: which nodes an int8 graph has, and their sizes.

    Each differs, as measured ones do: equal constants would be stored once.
    """
    names = [str(conv.node.name) for conv in frozen_convolutions(model, head_weight)]
    inputs, outputs = (
        {name: Range(-1.0 - number, first + 2.0 * number) for number, name in enumerate(names)}
        for first in (1.0, 1.5)
    )
    return Calibration(inputs, outputs, {name: 1.0 + number for number, name in enumerate(names)})


@dataclass(frozen=True)
class FrozenConv:
    """A convolution with a constant kernel; `backward` where it carries a gradient."""

    node: ir.Node
    backward: bool


def frozen_convolutions(model: ir.Model, head_weight: str) -> list[FrozenConv]:
    """Every convolution whose kernel and bias are made of constants alone, in graph order.

    Gradients come through the head: what depends on the graph input `head_weight` is backward. Backward, grouped
    convolutions are left out: they have so little to multiply that rounding takes longer than int8 saves.
    """
    constants = set(model.graph.initializers.values())
    behind_head = {value for value in model.graph.inputs if value.name == head_weight}
    found = []
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        if all(value in constants for value in inputs):
            constants.update(node.outputs)
        elif node.op_type == "Conv" and all(value in constants for value in inputs[1:]):
            backward = inputs[0] in behind_head
            if not (backward and attribute(node, "group", 1) > 1):
                found.append(FrozenConv(node, backward))
        if any(value in behind_head for value in inputs):
            behind_head.update(node.outputs)
    return found


def quantize(model: ir.Model, calibration: Calibration, head_weight: str) -> None:
    """Put the frozen convolutions of `model` into int8, in place.

    1. A forward convolution reads its input as u8 and writes u8, both with the calibrated ranges.
    2. A Relu, or a Clip from 0, that alone reads its output becomes the rounding's own lower (and upper) end.
    3. A MaxPool behind it works on u8; a convolution behind that reads the u8 as it is.
    4. A backward convolution reads dy as u8 around 128, scaled by its largest absolute value, and writes dx in the
       same way, `growth` times as wide.
    """
    pass_ = _Quantizer(model, calibration)
    for conv in frozen_convolutions(model, head_weight):
        if conv.node.name not in calibration.in_float:
            (pass_.backward if conv.backward else pass_.forward)(conv.node)
    pass_.spread_scalars()
    read_rounded(model.graph)
    passes.RemoveUnusedNodesPass()(model)
    channels_first(model.graph)
    passes.NameFixPass()(model)


def scale_and_zero(emit: Emitter, span: Range) -> tuple[ir.Value, ir.Value]:
    """Scale and zero point of u8 activations that cover `span` and 0, which padding and Relu need exactly."""
    low, high = min(span.low, 0.0), max(span.high, 0.0)
    scale = (high - low or 1.0) / _ACTIVATION_MAX
    return emit.scalar(scale), emit.constant(round(-low / scale), np.uint8, "zero_point")


@dataclass(frozen=True)
class _Rounded:
    """An integer tensor that stands for `scale * (value - zero)`."""

    value: ir.Value
    scale: ir.Value
    zero: ir.Value


class _Quantizer:
    def __init__(self, model: ir.Model, calibration: Calibration) -> None:
        self._emit = Emitter(model.graph)
        self._calibration = calibration
        # Of a float tensor, the u8 one that holds the same.
        self._rounded: dict[ir.Value, _Rounded] = {}
        # How often each kernel, with what is done to it, was rounded.
        self._repeats: Counter[Hashable] = Counter()

    def forward(self, node: ir.Node) -> None:
        span = self._calibration.outputs[str(node.name)]
        x, y = _input(node, 0), node.outputs[0]
        end, limit = _ends_in_relu(y)
        if end is not y:
            span = Range(0.0, min(span.high, limit))
        with self._emit.before(node):
            seen = self._rounded.get(x) or self._round(x, self._calibration.inputs[str(node.name)])
            kernel = self._round_kernel(node, seen.scale)
            made = self._convolve(node, seen, kernel, *scale_and_zero(self._emit, span))
        self._replace(end, made, node)

    def backward(self, node: ir.Node) -> None:
        g = _input(node, 0)
        with self._emit.before(node):
            seen = self._rounded.get(g) or self._round_gradient(g)
            kernel = self._round_kernel(node, seen.scale)
            growth = self._emit.scalar(self._calibration.growth[str(node.name)])
            made = self._convolve(node, seen, kernel, self._emit.op("Mul", seen.scale, growth), seen.zero)
        self._replace(node.outputs[0], made, node)

    def spread_scalars(self) -> None:
        """Give the scalar beside a dequantised value in a Where one axis.

        One optimisation of ONNX Runtime 1.25.0 dies on some int8 graphs with true scalars there, and passes these by.
        """
        for node in [node for node in self._emit.graph if node.op_type == "Where"]:
            if not any(is_dequantised(value) for value in node.inputs[1:]):
                continue
            for position, value in enumerate(node.inputs[1:], start=1):
                array = constant_array(value)
                if array is not None and array.ndim == 0:
                    node.replace_input_with(position, self._emit.constant([array], array.dtype, "scalar"))

    def _round(self, x: ir.Value, span: Range) -> _Rounded:
        scale, zero = scale_and_zero(self._emit, span)
        total = _sum_behind(x)
        if total is not None and all(term in self._rounded for term in total.inputs):
            return self._round_sum(x, scale, zero)
        self._rounded[x] = _Rounded(self._emit.op("QuantizeLinear", x, scale, zero), scale, zero)
        return self._rounded[x]

    def _round_sum(self, x: ir.Value, scale: ir.Value, zero: ir.Value) -> _Rounded:
        """Let all that reads the sum `x` read what is rounded of it: then the runtime adds u8 to u8, in one go."""
        readers = list(x.uses())
        producer = x.producer()
        assert producer is not None
        with self._emit.behind(producer):
            made = _Rounded(self._emit.op("QuantizeLinear", x, scale, zero), scale, zero)
            back = self._emit.op("DequantizeLinear", made.value, scale, zero)
        back.shape, back.dtype = x.shape, ir.DataType.FLOAT
        for user, position in readers:
            user.replace_input_with(position, back)
        self._rounded[x] = self._rounded[back] = made
        return made

    def _round_gradient(self, g: ir.Value) -> _Rounded:
        emit = self._emit
        highest, lowest = (emit.op(op, g, keepdims=0) for op in ("ReduceMax", "ReduceMin"))
        largest = emit.op("Max", highest, emit.op("Neg", lowest))
        scale = emit.op("Max", emit.op("Mul", largest, emit.scalar(1 / _GRADIENT_MAX)), emit.scalar(_TINY))
        zero = emit.constant(_GRADIENT_ZERO, np.uint8, "zero_point")
        self._rounded[g] = _Rounded(emit.op("QuantizeLinear", g, scale, zero), scale, zero)
        return self._rounded[g]

    def _round_kernel(self, node: ir.Node, input_scale: ir.Value) -> _Rounded:
        """One scale for each output channel: its largest element is 127.

        A kernel that is made from another by moving elements is rounded before they are moved: the runtime folds all
        this when it opens the graph, and int8 is a quarter of what it would otherwise hold (decision 0014). For the
        same reason nothing as large as the kernel is made on the way to its largest element.

        Each convolution has a kernel and a zero point of its own, which the runtime does not merge with another's.
        Asked for wide sums, it gives both a copy by their names, and does not open a graph in which two convolutions
        have one of the same name (decision 0010).
        """
        emit, bias = self._emit, _bias(node)
        source, moves = _moved(_input(node, 1))
        axis = sum(move.op_type == "Transpose" for move in moves) % 2
        shape = source.shape
        assert shape is not None
        others = [one for one in range(len(shape)) if one != axis]
        highest = emit.op("ReduceMax", source, axes=others, keepdims=0)
        lowest = emit.op("ReduceMin", source, axes=others, keepdims=0)
        largest = emit.op("Max", highest, emit.op("Neg", lowest))
        # Phases of a kernel are parts of it and differ. Where the very same is rounded again, the smallest scale does.
        key = source, tuple(_identity(move) for move in moves)
        self._repeats[key] += 1
        least = [emit.scalar(_TINY * self._repeats[key])]
        if bias is not None:
            units = emit.op("Mul", input_scale, emit.scalar(_BIAS_MAX))
            least.append(emit.op("Div", emit.op("Abs", bias), units))
        scale = emit.op("Max", emit.op("Mul", largest, emit.scalar(1 / _KERNEL_MAX)), *least)
        zeros = np.zeros(shape.numpy()[axis], np.int8)
        rounded = emit.op(
            "QuantizeLinear", source, scale, emit.constant(zeros, np.int8, "zero_point"), axis=axis
        )
        for move in moves:
            settings = {name: attribute(move, name) for name in move.attributes}
            rounded = emit.op(move.op_type, rounded, *move.inputs[1:], **settings)
        return _Rounded(rounded, scale, emit.initializer(zeros, f"csk.zero_points.{node.name}"))

    def _convolve(
        self, node: ir.Node, x: _Rounded, kernel: _Rounded, scale: ir.Value, zero: ir.Value
    ) -> _Rounded:
        emit, bias = self._emit, _bias(node)
        if bias is not None:
            units = emit.op("Div", bias, emit.op("Mul", kernel.scale, x.scale))
            bias = emit.op("Cast", emit.op("Round", units), to=ir.DataType.INT32)
        y = emit.op(
            "QLinearConv",
            *(x.value, x.scale, x.zero, kernel.value, kernel.scale, kernel.zero, scale, zero, bias),
            **{name: attribute(node, name) for name in node.attributes},
        )
        return _Rounded(y, scale, zero)

    def _replace(self, old: ir.Value, made: _Rounded, node: ir.Node) -> None:
        """Let every reader of `old` read `made`, as u8 where it can, else as float; emitted before `node`."""
        with self._emit.before(node):
            new = self._emit.op("DequantizeLinear", made.value, made.scale, made.zero)
        new.shape, new.dtype = old.shape, ir.DataType.FLOAT
        self._rounded[new] = made
        for user, position in list(old.uses()):
            user.replace_input_with(position, new)
            if user.op_type == "MaxPool" and len(user.outputs) == 1:
                with self._emit.before(user):
                    settings = {name: attribute(user, name) for name in user.attributes}
                    pooled = self._emit.op("MaxPool", made.value, **settings)
                self._replace(user.outputs[0], _Rounded(pooled, made.scale, made.zero), user)


def _ends_in_relu(y: ir.Value) -> tuple[ir.Value, float]:
    """Where the only reader of `y` is a Relu or a Clip from 0: that one's output, and its upper end."""
    uses = list(y.uses())
    if len(uses) != 1 or y.is_graph_output():
        return y, np.inf
    node = uses[0][0]
    if node.op_type == "Relu":
        return node.outputs[0], np.inf
    if node.op_type == "Clip":
        low, high = (constant_array(node.inputs[i]) if len(node.inputs) > i else None for i in (1, 2))
        open_above = len(node.inputs) < 3 or node.inputs[2] is None
        if low is not None and float(low) == 0.0 and (high is not None or open_above):
            return node.outputs[0], np.inf if high is None else float(high)
    return y, np.inf


def _sum_behind(x: ir.Value) -> ir.Node | None:
    """The Add of two tensors that `x` is, or the Relu of, if nothing else reads it on the way."""
    node = x.producer()
    if node is not None and node.op_type == "Relu":
        x = _input(node, 0)
        if len(list(x.uses())) != 1 or x.is_graph_output():
            return None
        node = x.producer()
    return node if node is not None and node.op_type == "Add" else None


def _moved(kernel: ir.Value) -> tuple[ir.Value, list[ir.Node]]:
    """The kernel that `kernel` is made from by swapping its channels and slicing its taps alone, and these nodes."""
    moves: list[ir.Node] = []
    value = kernel
    while (node := value.producer()) is not None:
        if not (_swaps_channels(node) or _picks_taps(node)):
            return kernel, []
        moves.insert(0, node)
        value = _input(node, 0)
    return value, moves


def _swaps_channels(node: ir.Node) -> bool:
    perm = attribute(node, "perm") if node.op_type == "Transpose" else None
    return perm is not None and perm == [1, 0, *range(2, len(perm))]


def _picks_taps(node: ir.Node) -> bool:
    axes = constant_array(node.inputs[3]) if node.op_type == "Slice" and len(node.inputs) > 3 else None
    return axes is not None and bool((axes >= 2).all())


def _identity(move: ir.Node) -> Hashable:
    """What two moves have in common that do the same."""
    constants = [constant_array(value) for value in move.inputs[1:]]
    return (
        move.op_type,
        str(attribute(move, "perm")),
        *(None if one is None else tuple(one.ravel()) for one in constants),
    )


def _input(node: ir.Node, position: int) -> ir.Value:
    value = node.inputs[position]
    assert value is not None
    return value


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None
