"""By which power of two each activation of a network is to be divided: its exponent. What is known of each op:

1. A product with a constant (Conv, ConvTranspose, Gemm, MatMul, Mul, Div) is free: from x of exponent a to y of b its
   constant is multiplied by `2^(a - b)`, a bias divided by `2^b`. A kernel that two layers share stays: then a = b.
2. Relu, pools, means, sums, and ops that only move numbers have one exponent for what they read and give. Constants
   that are added, compared with or padded with are divided by `2^b`.
3. A product of a layer and a smaller one (squeeze and excitation) has the larger one's exponent, and the smaller 0.
4. Everything else, the input and the output are borders: their exponent is 0.

Where nothing lies beyond `LARGEST` nothing is done. Else every exponent is the least that brings activations to
`_USUAL`, so that a kernel becomes smaller by what its layer magnifies, and a step of training moves it as it moves the
kernels of a network that magnifies nothing. Behind a border that is larger, activations become smaller by half from one
layer to the next at most: at once, the first kernel would become as small as that is large.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import frexp, prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import attribute, constant_array, static_shape

# A quarter of what float16 holds: other images reach further than those that were measured.
LARGEST = float(np.finfo(np.float16).max) / 4
# The largest activations of networks that are trained to be steady: gradients and steps are what settings are made for.
_USUAL = 16.0
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_KERNELS = {"Conv", "ConvTranspose"}
_FACTORS = {"Mul", "Div"}
ADDED = {"Add", "Sub", "Sum", "Mean", "Max", "Min", "Concat"}
# By the place of what they read, and the places of constants of the same kind of number.
MOVED: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Relu", "LeakyRelu", "Neg", "Abs", "Identity"), ()),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), ()),
    **dict.fromkeys(
        ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather"), ()
    ),
    **dict.fromkeys(
        ("Expand", "Tile", "DepthToSpace", "SpaceToDepth", "ReduceMean", "ReduceSum", "ReduceMax"), ()
    ),
    "Clip": (1, 2),
    "Pad": (2,),
}
# What they say of numbers does not depend on how large these are.
_UNCONCERNED = {"Shape", "Size"}


def exponents_of(model: ir.Model, largest: Mapping[str, float], border: set[ir.Value]) -> dict[ir.Value, int]:
    """Of every value that has one; nothing where they would bring none of those that lie beyond within."""
    groups = _Groups()
    groups.bind(*model.graph.inputs, *model.graph.outputs, *border)
    for node in model.graph:
        if node.op_type not in _UNCONCERNED:
            _relate(groups, node)
    kernels = [(groups.of(x), groups.of(y)) for node in model.graph for x, y in _convolved(node)]
    members = groups.members()
    reached = {one: max(largest.get(str(value.name), 0.0) for value in members[one]) for one in members}
    found = {
        one: frexp(reached[one] / _USUAL)[1]
        for one in members
        if not groups.is_border(one) and _USUAL < reached[one] < np.inf
    }
    while capped := _capped(found, reached, kernels):
        found |= capped
    if not any(LARGEST < reached[one] <= LARGEST * 2.0 ** found[one] for one in found):
        return {}
    return {value: exponent for one, exponent in found.items() if exponent for value in members[one]}


def may_grow(node: ir.Node) -> list[ir.Value]:
    """What a node computes of layers that may be larger than what it reads; only moved numbers are not."""
    moves = node.op_type in MOVED.keys() - {"ReduceSum"} or node.op_type in _UNCONCERNED
    return [] if moves or not _read(node) else [value for value in _given(node) if value.dtype is not None]


class _Groups:
    """Values that have one exponent; those of a border's group have 0."""

    def __init__(self) -> None:
        self._parent: dict[ir.Value, ir.Value] = {}
        self._at_border: set[ir.Value] = set()

    def of(self, value: ir.Value) -> ir.Value:
        """What stands for the group of a value, which it becomes part of the table with."""
        root = value
        while (parent := self._parent.setdefault(root, root)) is not root:
            root = parent
        self._parent[value] = root
        return root

    def join(self, *values: ir.Value) -> None:
        """Make one group of those of all values; of sizes and places there are none."""
        if not values:
            return
        roots = {self.of(value) for value in values}
        first = self.of(values[0])
        self._parent |= dict.fromkeys(roots, first)
        if roots & self._at_border:
            self._at_border.add(first)

    def bind(self, *values: ir.Value) -> None:
        """Put the groups of all values at the border."""
        self._at_border |= {self.of(value) for value in values}

    def is_border(self, root: ir.Value) -> bool:
        """Whether the group that `root` stands for is at the border."""
        return root in self._at_border

    def members(self) -> dict[ir.Value, list[ir.Value]]:
        """Every group, by what stands for it."""
        found: dict[ir.Value, list[ir.Value]] = {}
        for value in list(self._parent):
            found.setdefault(self.of(value), []).append(value)
        return found


def _convolved(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """What a convolution reads and gives, where its kernel is divided."""
    if node.op_type in _KERNELS and factor_place(node) is not None and node.inputs[0] is not None:
        yield node.inputs[0], node.outputs[0]


def _capped(
    found: Mapping[ir.Value, int],
    reached: Mapping[ir.Value, float],
    kernels: Sequence[tuple[ir.Value, ir.Value]],
) -> dict[ir.Value, int]:
    """Exponents that are too large: with them a layer gives less than half of what it reads, and that is not usual."""
    capped: dict[ir.Value, int] = {}
    for x, y in kernels:
        a = found.get(x, 0)
        if y in found and reached[x] > _USUAL * 2.0**a:
            most = max(a + frexp(reached[y] / reached[x])[1], 0)
            if most < capped.get(y, found[y]):
                capped[y] = most
    return capped


def _relate(groups: _Groups, node: ir.Node) -> None:
    """Which values of a node have one exponent, and which have none."""
    read, given = _read(node), _given(node)
    place = factor_place(node)
    if place is not None:
        kernel = node.inputs[place]
        assert kernel is not None
        added = [value for value in node.inputs[2:] if value in read]
        groups.join(*given, *added)
        if node.op_type in _KERNELS and len(kernel.uses()) > 1:
            groups.join(*given, *read)
    elif is_homogeneous(node):
        groups.join(*given, *read)
    elif (gate := _gate(node)) is not None:
        groups.join(*given, *(value for value in read if value is not gate))
        groups.bind(gate)
    else:
        groups.bind(*given, *read)


def _real(values: Sequence[ir.Value | None]) -> list[ir.Value]:
    """Those that hold real numbers, or may."""
    return [value for value in values if value is not None and value.dtype in (None, ir.DataType.FLOAT)]


def _given(node: ir.Node) -> list[ir.Value]:
    return _real(node.outputs)


def _read(node: ir.Node) -> list[ir.Value]:
    """What a node reads that is no constant."""
    return _real([value for place, value in enumerate(node.inputs) if constant_of(node, place) is None])


def constant_of(node: ir.Node, place: int) -> NDArray[np.float32] | None:
    """The numbers of a constant input; of one that is filled with a number, that number. None where it is computed."""
    value = node.inputs[place] if place < len(node.inputs) else None
    maker = value.producer() if value is not None else None
    if (
        value is not None
        and maker is not None
        and maker.op_type == "ConstantOfShape"
        and len(value.uses()) == 1
    ):
        filled = attribute(maker, "value")
        array = np.zeros(1, np.float32) if filled is None else np.asarray(filled.numpy())
    else:
        found = constant_array(value)
        if found is None:
            return None
        array = found
    return array if array.dtype == np.float32 else None


def factor_place(node: ir.Node) -> int | None:
    """The place of the constant that a node multiplies by, or divides by; None for other nodes."""
    if node.op_type not in _LAYERS | _FACTORS or len(node.inputs) < 2:
        return None
    constant = [place for place in (0, 1) if constant_of(node, place) is not None]
    usual = node.op_type in ("MatMul", "Mul") or constant == [1]
    return constant[0] if len(constant) == 1 and usual else None


def is_homogeneous(node: ir.Node) -> bool:
    """Whether a node gives half of what it gives where it reads half, and its constants of numbers are halved."""
    if node.op_type in ADDED:
        return True
    if node.op_type == "Resize":
        plain = attribute(node, "coordinate_transformation_mode") != "tf_crop_and_resize"
        return plain and _read(node) == [node.inputs[0]]
    known = (0, *MOVED.get(node.op_type, ()))
    return node.op_type in MOVED and all(
        value not in _read(node) for place, value in enumerate(node.inputs) if place not in known
    )


def _gate(node: ir.Node) -> ir.Value | None:
    """The smaller factor of two layers, None where there is none."""
    read = _read(node)
    if node.op_type != "Mul" or len(read) != 2 or any(value.shape is None for value in read):
        return None
    sizes = [prod(size for size in static_shape(value) if isinstance(size, int)) for value in read]
    return None if sizes[0] == sizes[1] else read[sizes.index(min(sizes))]
