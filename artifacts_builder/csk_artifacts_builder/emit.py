"""Writing standard ONNX ops into an onnx-ir graph: the one door for everything the builder adds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


class Emitter:
    """Adds nodes to `graph`: at its end, or right behind (or before) a given node.

    The place matters: ONNX Runtime's priority-based order follows it, and a small tensor saved right behind
    the layer that makes it lets the large one be freed.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._behind: ir.Node | None = None
        self._before: ir.Node | None = None
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    @property
    def opset(self) -> int:
        """The opset that the graph is written in."""
        opsets = self.graph.opset_imports
        return int(opsets[""] if "" in opsets else opsets["ai.onnx"])

    @contextmanager
    def behind(self, node: ir.Node | None) -> Iterator[None]:
        """Within the block, add nodes in order right behind `node`; None leaves the place as it is."""
        previous = self._before, self._behind
        if node is not None:
            self._before, self._behind = None, node
        try:
            yield
        finally:
            self._before, self._behind = previous

    @contextmanager
    def before(self, node: ir.Node) -> Iterator[None]:
        """Within the block, add nodes in order right before `node`."""
        previous, self._before = self._before, node
        try:
            yield
        finally:
            self._before = previous

    def op(
        self, op_type: str, *inputs: ir.Value | None, name: str | None = None, **attributes: Any
    ) -> ir.Value:
        """Add one node with one output and return that output."""
        return self.ops(op_type, *inputs, outputs=1, names=[name] if name else None, **attributes)[0]

    def ops(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: int,
        names: Sequence[str] | None = None,
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """Add one node with several outputs and return them."""
        node = ir.node(op_type, list(inputs), attributes or None, num_outputs=outputs)
        for value, name in zip(node.outputs, names or (), strict=False):
            value.name = name
        if self._before is not None:
            self._before.prepend(node)
        elif self._behind is not None:
            self._behind.append(node)
            self._behind = node
        else:
            self.graph.append(node)
        return node.outputs

    def pad(self, x: ir.Value, pads: Sequence[int], value: float = 0.0) -> ir.Value:
        """Pad `x` with a number, in the form that the graph's opset has: before 11 pads are attributes."""
        if self.opset < 11:
            return self.op("Pad", x, pads=list(pads), value=value)
        return self.op("Pad", x, self.ints(*pads), *([self.scalar(value)] if value else []))

    def constant(self, array: Any, dtype: Any, name: str = "constant") -> ir.Value:
        """An initializer; equal constants are shared."""
        data: NDArray[Any] = np.asarray(array, dtype=dtype)
        key = (data.dtype.str, data.shape, data.tobytes())
        if key not in self._constants:
            number = len(self._constants)
            # An emitter that worked on this graph before has left constants of its own.
            while f"csk.{name}.{number}" in self.graph.initializers:
                number += 1
            self._constants[key] = self.initializer(data, f"csk.{name}.{number}")
        return self._constants[key]

    def ints(self, *values: int) -> ir.Value:
        """A 1-d int64 constant: axes, shapes, starts, ends."""
        return self.constant(values, np.int64, "ints")

    def scalar(self, value: float) -> ir.Value:
        """A float32 scalar constant."""
        return self.constant(value, np.float32, "scalar")

    def initializer(self, array: NDArray[Any], name: str) -> ir.Value:
        """A named initializer of the graph."""
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.shape = ir.Shape(array.shape)
        assert value.const_value is not None
        value.dtype = value.const_value.dtype
        self.graph.initializers[name] = value
        return value

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """A new graph input."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self.graph.inputs.append(value)
        return value

    def default_input(self, name: str, default: NDArray[Any], shape: Sequence[int | str]) -> ir.Value:
        """A new graph input that need not be fed: an initializer of the same name is its value then (ONNX IR 4)."""
        value = self.initializer(default, name)
        value.shape = ir.Shape(shape)
        self.graph.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, shape: Sequence[int | str]) -> ir.Value:
        """Make `value` a float32 graph output called `name`."""
        if value.is_graph_output() or value.is_graph_input() or value.is_initializer():
            value = self.op("Identity", value)
        value.name = name
        value.shape = ir.Shape(shape)
        value.dtype = ir.DataType.FLOAT
        self.graph.outputs.append(value)
        return value


def constant_array(value: ir.Value | None) -> NDArray[Any] | None:
    """The content of an initializer or Constant node's output, or None where it is computed at run time."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def static_shape(value: ir.Value) -> tuple[int | str, ...]:
    """The shape with symbolic dimensions as strings.

    Raises ValueError where shape inference found nothing.
    """
    if value.shape is None:
        raise ValueError(f"no shape is known for '{value.name}'")
    return tuple(dim if isinstance(dim, int) else str(dim) for dim in value.shape)


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The Python value of a node's attribute, or the default."""
    found = node.attributes.get(name)
    if found is None:
        return default
    value = found.value
    return list(value) if isinstance(value, tuple | list) else value


def nodes_above(values: Iterable[ir.Value]) -> set[ir.Node]:
    """All nodes that these values are computed by."""
    found: set[ir.Node] = set()
    waiting = [value.producer() for value in values]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [value.producer() for value in node.inputs if value is not None]
    return found


def called(node: ir.Node) -> str:
    """What messages call a node: its name, or where the file gives it none its output's."""
    return str(node.name or node.outputs[0].name)
