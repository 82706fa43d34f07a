"""An ONNX model in torch's float64, as the operator specification says for its opset: the sweep's reference.

Nothing of the builder, of ONNX Runtime or of onnx.reference (which has errors) is used; gradients are torch's. Each op
is one small function of `(node, *inputs)`; test_reference.py holds them against the ONNX project's own node vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Node:
    """What a function sees of its node: the op, the opset, attributes, and how many outputs are wanted."""

    op: str
    opset: int
    attributes: Mapping[str, Any]
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


Op = Callable[..., Tensor | Sequence[Tensor]]
OPS: dict[str, Op] = {}


def op(*names: str) -> Callable[[Op], Op]:
    """Register a function for these ops."""

    def register(function: Op) -> Op:
        OPS.update(dict.fromkeys(names, function))
        return function

    return register


def evaluate(model: onnx.ModelProto, feeds: Mapping[str, Tensor]) -> Tensors:
    """Every tensor of the model by name; `feeds` may also stand in for initializers."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    found = {tensor.name: as_tensor(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    found.update(feeds)
    for proto in model.graph.node:
        attributes = {one.name: _attribute(one) for one in proto.attribute}
        node = Node(proto.op_type, opset, attributes, len(proto.output))
        if proto.op_type not in OPS:
            raise NotImplementedError(f"the reference has no op '{proto.op_type}'")
        made = OPS[proto.op_type](node, *(found[name] if name else None for name in proto.input))
        made = (made,) if isinstance(made, Tensor) else made
        found.update(zip(proto.output, made, strict=False))
    return found


def as_tensor(array: Any) -> Tensor:
    """Floats in float64, everything else as it is."""
    array = np.asarray(array)
    return torch.from_numpy(np.array(array.astype(np.float64) if array.dtype.kind == "f" else array))


def _attribute(proto: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode()
    return as_tensor(numpy_helper.to_array(value)) if isinstance(value, onnx.TensorProto) else value


def ints(value: Tensor | None) -> list[int] | None:
    return None if value is None else [int(one) for one in value.reshape(-1)]


def _simple(function: Callable[..., Tensor]) -> Op:
    return lambda node, *inputs: function(*inputs)


for _name, _function in {
    "Abs": torch.abs,
    "Add": torch.add,
    "Div": torch.div,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Greater": torch.gt,
    "HardSwish": lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1),
    "Identity": lambda x: x,
    "Less": torch.lt,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(x))),
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "Softsign": lambda x: x / (1 + torch.abs(x)),
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Sum": lambda *xs: sum(xs[1:], xs[0]),
    "Tanh": torch.tanh,
    "Where": torch.where,
}.items():
    OPS[_name] = _simple(_function)


@op("Dropout")
def dropout(node: Node, x: Tensor, *_: Tensor) -> Tensor:
    return x


@op("Max", "Min")
def extremum(node: Node, *xs: Tensor) -> Tensor:
    best = torch.maximum if node.op == "Max" else torch.minimum
    result = xs[0]
    for x in xs[1:]:
        result = best(result, x)
    return result


@op("LeakyRelu")
def leaky_relu(node: Node, x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, node.get("alpha", 0.01) * x)


@op("PRelu")
def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, slope * x)


@op("Elu", "Celu")
def elu(node: Node, x: Tensor) -> Tensor:
    alpha = node.get("alpha", 1.0)
    width = alpha if node.op == "Celu" else 1.0
    return torch.where(x >= 0, x, alpha * torch.expm1(torch.clamp(x, max=0) / width))


@op("Selu")
def selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0)))


@op("HardSigmoid")
def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return torch.clamp(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0, 1)


@op("Gelu")
def gelu(node: Node, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=node.get("approximate", "none"))


@op("Clip")
def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


@op("Softmax", "LogSoftmax")
def softmax(node: Node, x: Tensor) -> Tensor:
    """Below opset 13 over all axes from `axis` on."""
    function = torch.softmax if node.op == "Softmax" else torch.log_softmax
    if node.opset >= 13:
        return function(x, node.get("axis", -1))
    axis = node.get("axis", 1) % x.ndim
    flat = x.reshape(math.prod(x.shape[:axis]), -1)
    return function(flat, 1).reshape(x.shape)


@op("Gemm")
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    product = node.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + node.get("beta", 1.0) * c


@op("Cast")
def cast(node: Node, x: Tensor) -> Tensor:
    kinds = {1: torch.float64, 11: torch.float64, 6: torch.int32, 7: torch.int64, 9: torch.bool}
    return x.to(kinds[node.get("to")])


@op("Constant")
def constant(node: Node) -> Tensor:
    (value,) = node.attributes.values()
    return value if isinstance(value, Tensor) else as_tensor(value)


@op("Shape")
def shape(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[node.get("start", 0) : node.get("end")])


@op("Reshape")
def reshape(node: Node, x: Tensor, target: Tensor) -> Tensor:
    """A 0 keeps the input's size, unless `allowzero`."""
    sizes = ints(target) or []
    if not node.get("allowzero", 0):
        sizes = [x.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    return x.reshape(sizes)


@op("Flatten")
def flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


@op("Transpose")
def transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm", list(range(x.ndim))[::-1]))


@op("Squeeze")
def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = node.get("axes") if axes is None else ints(axes)
    chosen = [place for place, size in enumerate(x.shape) if size == 1] if chosen is None else chosen
    chosen = {axis % x.ndim for axis in chosen}
    return x.reshape([size for place, size in enumerate(x.shape) if place not in chosen])


@op("Unsqueeze")
def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = node.get("axes") if axes is None else ints(axes)
    rank = x.ndim + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


@op("Concat")
def concat(node: Node, *xs: Tensor) -> Tensor:
    return torch.cat(xs, node.get("axis"))


@op("Split")
def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> Sequence[Tensor]:
    axis = node.get("axis", 0)
    given = ints(sizes) or node.get("split")
    if given is None:
        part = -(-x.shape[axis] // node.get("num_outputs", node.outputs))
        return torch.split(x, part, axis)
    return torch.split(x, list(given), axis)


@op("Slice")
def slice_(
    node: Node,
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    begin, end = ints(starts) or [], ints(ends) or []
    along = ints(axes) or list(range(len(begin)))
    by = ints(steps) or [1] * len(begin)
    for b, e, axis, step in zip(begin, end, along, by, strict=True):
        places = range(x.shape[axis])[_slice(b, e, step, x.shape[axis])]
        x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return x


def _slice(begin: int, end: int, step: int, size: int) -> slice:
    """As Python's, but that an end far below zero is one, too, where the step is negative."""
    return slice(begin, None if step < 0 and end < -size else end, step)


@op("Gather")
def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.ndim
    places = indices.reshape(-1) % x.shape[axis]
    picked = x.index_select(axis, places)
    return picked.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


@op("Tile")
def tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(ints(repeats))


@op("Expand")
def expand(node: Node, x: Tensor, target: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(ints(target) or [])))


@op("DepthToSpace")
def depth_to_space(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        moved = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        moved = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return moved.reshape(n, c // b**2, h * b, w * b)


@op("SpaceToDepth")
def space_to_depth(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    return (
        x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)
    )


_ELEMENTS = {"ReduceL1": torch.abs, "ReduceL2": torch.square, "ReduceSumSquare": torch.square}


@op("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare")
def reduce(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """With `noop_with_empty_axes` and no axes nothing is reduced: each element is an axis' sum of one."""
    chosen = node.get("axes") if axes is None else ints(axes)
    x = _ELEMENTS.get(node.op, lambda same: same)(x)
    if not chosen and node.get("noop_with_empty_axes", 0):
        return torch.sqrt(x) if node.op == "ReduceL2" else x
    chosen = list(range(x.ndim)) if not chosen else [axis % x.ndim for axis in chosen]
    keep = bool(node.get("keepdims", 1))
    if node.op in ("ReduceMax", "ReduceMin"):
        return (torch.amax if node.op == "ReduceMax" else torch.amin)(x, chosen, keep)
    if node.op == "ReduceMean":
        return x.mean(chosen, keep)
    total = x.sum(chosen, keep)
    return torch.sqrt(total) if node.op == "ReduceL2" else total


import reference_pictures  # noqa: E402, F401 - the other half of the table
