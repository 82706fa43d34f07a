"""What the integers of a quantised graph stand for: constants as float32, and activations within their ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, attribute, called, constant_array
from csk_sdk.errors import ModelError
from csk_sdk.runtime.reasons import reason_of
from csk_sdk.runtime.sessions import load_onnxruntime, open_session

MICROSOFT = "com.microsoft"
# The least and the largest number of each type of integers.
LIMITS = {
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT16: (0, 65535),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.INT32: (-(1 << 31), (1 << 31) - 1),
}
# What these give is no larger and no smaller than what they read.
_WITHIN = {
    *("AveragePool", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "ReduceMax"),
    *("ReduceMean", "ReduceMin", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
}  # fmt: skip
_ALWAYS = {"HardSigmoid": (0.0, 1.0), "Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Relu": (0.0, np.inf)}


@dataclass(frozen=True)
class Grid:
    """The numbers that a quantised tensor can hold, `scale * (q - zero)` for every integer q of `dtype`.

    `scale` and `zero` are float32 and int64, `()` or `(n,)` along `axis`.
    """

    scale: NDArray[Any]
    zero: NDArray[np.int64]
    dtype: ir.DataType
    axis: int = 0

    @property
    def ends(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The smallest and the largest of them, of the scale's type and shape."""
        least, most = LIMITS[self.dtype]
        low, high = (self.scale * (q - self.zero).astype(self.scale.dtype) for q in (least, most))
        return np.asarray(low, self.scale.dtype), np.asarray(high, self.scale.dtype)

    def is_like(self, other: Grid) -> bool:
        """Whether both hold the same numbers under the same integers."""
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)


class Values:
    """The float values behind the integers of a graph that is being rewritten, and what was seen on the way.

    - `reals`: of each integer value of the graph the float one, and the grid that it was rounded to
    - `float_reads`: nodes that read such a float value as it is, and not as integers, though it is a key of `reals`
    - `weights`: the grid of each constant that became float32, by its name now
    - `clips`: nodes that hold an activation within its grid
    - `ends`: the grids of activations by the two numbers that they are held between
    - `largest`: the largest integer of any kernel, counted from its zero point
    """

    def __init__(self, model: ir.Model, where: str) -> None:
        self.emit = Emitter(model.graph)
        self.graph = model.graph
        self.where = where
        self.opset = model.graph.opset_imports.get("", 1)
        self.reals: dict[ir.Value, tuple[ir.Value, Grid]] = {}
        self.float_reads: set[tuple[ir.Node, ir.Value]] = set()
        self.weights: dict[str, Grid] = {}
        self.clips: dict[ir.Node, Grid] = {}
        self.ends: dict[tuple[float, float], Grid] = {}
        self.largest = 0
        self._floats: dict[tuple[Any, ...], ir.Value] = {}

    def refuse(self, node: ir.Node, reason: str) -> ModelError:
        """Why a node is not understood, in a sentence."""
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        return ModelError(
            f"{self.where} is quantised, and its op '{name}' (node '{called(node)}') {reason}. Give the float32 model "
            "that it was made from."
        )

    def constant(self, node: ir.Node, value: ir.Value | None, what: str) -> NDArray[Any]:
        """An input that must be a constant.

        Raises ModelError where it is computed.
        """
        array = constant_array(value)
        if array is None:
            raise self.refuse(node, f"computes its {what} from the image")
        return array

    def grid(
        self, node: ir.Node, scale: ir.Value | None, zero: ir.Value | None, dtype: ir.DataType, axis: int = 1
    ) -> Grid:
        """The grid of a scale and a zero point, which may be missing: then it is 0 of `dtype`."""
        scales = self.constant(node, scale, "scale")
        zeros = np.zeros(scales.shape, np.int64) if zero is None else self.constant(node, zero, "zero point")
        dtype = dtype if zero is None or zero.dtype is None else zero.dtype
        if dtype not in LIMITS:
            raise self.refuse(node, f"rounds to {dtype}, which csk-sdk does not know")
        if scales.size == 1:
            scales, zeros = scales.reshape(()), zeros.reshape(())
        return Grid(scales, np.asarray(zeros).astype(np.int64), dtype, axis)

    def real(
        self,
        node: ir.Node,
        value: ir.Value | None,
        scale: ir.Value | None,
        zero: ir.Value | None,
        axis: int = 1,
    ) -> ir.Value:
        """The float value that the integers `value` stand for.

        Raises ModelError where that is not known.
        """
        assert value is not None
        grid = self.grid(node, scale, zero, value.dtype or ir.DataType.UINT8, axis)
        if value in self.reals:
            real, written = self.reals[value]
            if not grid.is_like(written):
                raise self.refuse(node, "reads integers with another scale than they were written with")
            return real
        if constant_array(value) is not None:
            return self.dequantised(node, value, scale, zero, grid)
        if value.is_graph_input():
            with self.emit.before(node):
                return self._from_integers(value, grid)
        raise self.refuse(node, "reads integers that csk-sdk does not know the scale of")

    def _from_integers(self, image: ir.Value, grid: Grid) -> ir.Value:
        """An input of integers, as float."""
        x = self.emit.op("Cast", image, to=ir.DataType.FLOAT)
        if grid.zero.any():
            x = self.emit.op("Sub", x, self.emit.constant(grid.zero, np.float32, "scalar"))
        return self.emit.op("Mul", x, self.emit.constant(grid.scale, np.float32, "scalar"))

    def dequantised(
        self,
        node: ir.Node,
        value: ir.Value,
        scale: ir.Value | None,
        zero: ir.Value | None,
        grid: Grid,
        block_size: int = 0,
    ) -> ir.Value:
        """A float initializer with what constant integers stand for, as ONNX Runtime computes it."""
        key = (value, scale, zero, grid.axis)
        if key not in self._floats:
            given: dict[str, Any] = {"axis": grid.axis} if grid.scale.ndim else {}
            given |= {"block_size": block_size} if block_size else {}
            array = self.computed(node, "DequantizeLinear", (value, scale, zero), **given)
            self._floats[key] = self.initializer(value, array)
            self.weights[str(self._floats[key].name)] = grid
            if grid.dtype != ir.DataType.INT32 and not block_size:
                self._count(array, grid)
        return self._floats[key]

    def _count(self, array: NDArray[Any], grid: Grid) -> None:
        shape = [-1 if place == grid.axis % array.ndim else 1 for place in range(array.ndim)]
        steps = array / (grid.scale.reshape(shape) if grid.scale.ndim else grid.scale)
        self.largest = max(self.largest, int(np.abs(np.rint(steps)).max(initial=0)))

    def biased(self, value: ir.Value | None, scale: NDArray[Any]) -> ir.Value | None:
        """A bias of int32 in units of `scale`, as float; None where there is none."""
        array = constant_array(value)
        if value is None or array is None:
            return None
        return self.initializer(value, np.asarray(array.astype(np.float32) * scale, np.float32).reshape(-1))

    def initializer(self, value: ir.Value, array: NDArray[Any]) -> ir.Value:
        """A float initializer in the place of an integer one, under the name that it had before it was quantised."""
        name = str(value.name)
        for suffix in ("_quantized", "_q4", "_Q4"):
            name = name.removesuffix(suffix)
        while name in self.graph.initializers or any(
            given.name == name for given in (*self.graph.inputs, *self.graph.outputs)
        ):
            name += ".float"
        return self.emit.initializer(np.ascontiguousarray(array), name)

    def computed(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        domain: str = "",
        **attributes: Any,
    ) -> NDArray[Any]:
        """What an op makes of constants, by ONNX Runtime.

        Raises ModelError, naming `node`, where that does not run it.
        """
        tensors = {str(value.name): value.const_value for value in inputs if value is not None}
        names = ["" if value is None else str(value.name) for value in inputs]
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node(op_type, names, ["result"], domain=domain, **attributes)],
            "constant",
            [],
            [onnx.ValueInfoProto(name="result")],
            [_named(tensor, name) for name, tensor in tensors.items() if tensor is not None],
        )
        opsets = [onnx.helper.make_opsetid("", self.opset), onnx.helper.make_opsetid(MICROSOFT, 1)]
        single = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = load_onnxruntime().SessionOptions()
        options.log_severity_level = 4
        try:
            return np.asarray(open_session(single.SerializeToString(), options).run(None, {})[0])
        except Exception as error:
            version = load_onnxruntime().__version__
            raise self.refuse(
                node, f"is not computed by ONNX Runtime {version} ({reason_of(error)})"
            ) from None

    def rounded(self, node: ir.Node, result: ir.Value, scale: ir.Value | None, zero: ir.Value | None) -> None:
        """Note that the integer output of `node` is `result` on a grid."""
        grid = self.grid(node, scale, zero, node.outputs[0].dtype or ir.DataType.UINT8)
        result.shape, result.dtype = node.outputs[0].shape, ir.DataType.FLOAT
        with self.emit.before(node):
            self.reals[node.outputs[0]] = self.held(result, grid), grid

    def held(self, x: ir.Value, grid: Grid) -> ir.Value:
        """`x` within its grid's ends; `x` itself where it cannot lie outside."""
        low, high = grid.ends
        known = _range(x)
        if known is not None and float(low.max()) <= known[0] and known[1] <= float(high.min()):
            return x
        if low.ndim:
            return self._held_by_channel(x, low, high, grid.axis)
        relu = x.producer()
        if relu is not None and relu.op_type == "Relu" and len(x.uses()) <= 1 and not x.is_graph_output():
            low, source = np.maximum(low, 0), relu.inputs[0]
        else:
            relu, source = None, x
        y = self.emit.op(
            "Clip", source, *(self.emit.constant(end, grid.scale.dtype, "end") for end in (low, high))
        )
        y.shape, y.type = x.shape, x.type
        self.ends[float(low), float(high)] = grid
        if relu is None:
            producer = y.producer()
            assert producer is not None
            self.clips[producer] = grid
        return y

    def _held_by_channel(self, x: ir.Value, low: NDArray[Any], high: NDArray[Any], axis: int) -> ir.Value:
        rank = len(x.shape) if x.shape is not None else 4
        shape = [-1 if place == axis % rank else 1 for place in range(rank)]
        least, most = (self.emit.constant(end.reshape(shape), end.dtype, "end") for end in (low, high))
        y = self.emit.op("Max", self.emit.op("Min", x, most), least)
        y.shape, y.type = x.shape, x.type
        return y


def _named(tensor: Any, name: str) -> onnx.TensorProto:
    proto: onnx.TensorProto = ir.to_proto(tensor)
    proto.name = name
    return proto


def _range(x: ir.Value) -> tuple[float, float] | None:
    """Between what numbers all of `x` lie, where its graph says so."""
    array = constant_array(x)
    if array is not None:
        return (float(array.min()), float(array.max())) if array.size else None
    node = x.producer()
    if node is None:
        return None
    if node.op_type == "Clip":
        ends = [constant_array(value) for value in node.inputs[1:3]]
        if len(ends) == 2 and all(end is not None for end in ends):
            return float(ends[0]), float(ends[1])  # type: ignore[arg-type]
        return None
    if node.op_type in _ALWAYS:
        return _ALWAYS[node.op_type]
    if node.op_type == "Concat":
        parts = [_range(value) for value in node.inputs if value is not None]
        known = [part for part in parts if part is not None]
        return (
            (min(low for low, _ in known), max(high for _, high in known))
            if len(known) == len(parts)
            else None
        )
    if node.op_type in _WITHIN and node.inputs[0] is not None:
        found = _range(node.inputs[0])
        pads = node.op_type == "AveragePool" and attribute(node, "count_include_pad", 0)
        return (min(found[0], 0.0), max(found[1], 0.0)) if found is not None and pads else found
    return None
