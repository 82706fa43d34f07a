"""Ops of older and of converted networks in ops that have a gradient rule, in both backends.

1. LRN (AlexNet, GoogLeNet): a mean over neighbouring channels is one over windows of an image of channels x pixels.
2. LpPool and GlobalLpPool: roots of means of powers.
3. Einsum of one or two tensors: transposed, added up, multiplied as stacks of matrices.

Other forms stay as they are: in front of the first site nothing needs a rule.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from math import prod

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute

# Below what counts; the root of nothing has no slope, and must not give NaN.
_NOTHING = 1e-30


def einsum_order(node: ir.Node) -> list[int] | None:
    """The order in which an Einsum that is a Transpose puts the axes of its input; None for another."""
    terms = _terms(attribute(node, "equation"))
    if terms is None or len(terms) != 2 or len(terms[0]) != len(terms[1]):
        return None
    return [terms[0].index(axis) for axis in terms[1]]


def write_composites(model: ir.Model) -> bool:
    """Rewrite such nodes as above, in place; True when there was one."""
    emit = Emitter(model.graph)
    modified = False
    for node in list(model.graph):
        write = _WRITE.get(node.op_type)
        if write is None or node.domain not in ("", "ai.onnx"):
            continue
        with emit.before(node):
            value = write(emit, node)
        if value is not None:
            _replace(node, value)
            modified = True
    return modified


def _lrn(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """y = x / (bias + alpha * mean(x^2))^beta, the mean over `size` channels, those that are not there as 0"""
    x = node.inputs[0]
    sizes = _sizes(x)
    if x is None or sizes is None:
        return None
    size = int(attribute(node, "size"))
    before, behind = (size - 1) // 2, size // 2
    rows = emit.op("Reshape", emit.op("Mul", x, x), emit.ints(0, 1, sizes[0], -1))
    mean = emit.op(
        "AveragePool",
        rows,
        kernel_shape=[size, 1],
        pads=[before, 0, behind, 0],
        strides=[1, 1],
        count_include_pad=1,
    )
    scaled = emit.op(
        "Mul", emit.op("Reshape", mean, emit.ints(0, *sizes)), emit.scalar(attribute(node, "alpha", 1e-4))
    )
    scale = emit.op("Add", scaled, emit.scalar(attribute(node, "bias", 1.0)))
    return emit.op("Mul", x, emit.op("Pow", scale, emit.scalar(-float(attribute(node, "beta", 0.75)))))


def _lp_pool(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """y = (k * mean(|x|^p))^(1/p), the mean over the `k` places of each window, padding as 0"""
    x, p = node.inputs[0], int(attribute(node, "p", 2))
    if x is None or attribute(node, "ceil_mode", 0):
        return None
    kernel = attribute(node, "kernel_shape")
    kept = {
        name: attribute(node, name)
        for name in ("auto_pad", "dilations", "pads", "strides")
        if name in node.attributes
    }
    mean = emit.op("AveragePool", _power(emit, x, p), kernel_shape=kernel, count_include_pad=1, **kept)
    mean.shape, mean.type = node.outputs[0].shape, node.outputs[0].type
    return _root(emit, emit.op("Mul", mean, emit.scalar(float(prod(kernel)))), p)


def _global_lp_pool(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """y = sum(|x|^p)^(1/p) over the image"""
    x, p = node.inputs[0], int(attribute(node, "p", 2))
    sizes = _sizes(x)
    if x is None or sizes is None:
        return None
    mean = emit.op("GlobalAveragePool", _power(emit, x, p))
    return _root(emit, emit.op("Mul", mean, emit.scalar(float(prod(sizes[1:])))), p)


def _power(emit: Emitter, x: ir.Value, p: int) -> ir.Value:
    power = emit.op("Mul", x, x) if p == 2 else emit.op("Abs", x)
    if p > 2:
        power = emit.op("Pow", power, emit.scalar(float(p)))
    power.shape, power.type = x.shape, x.type  # windows are written by it
    return power


def _root(emit: Emitter, x: ir.Value, p: int) -> ir.Value:
    if p == 1:
        return x
    x = emit.op("Add", x, emit.scalar(_NOTHING))
    return emit.op("Sqrt", x) if p == 2 else emit.op("Pow", x, emit.scalar(1 / p))


def _einsum(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """Of one tensor a sum and a transposition; of two a product of stacks of matrices."""
    terms = _terms(attribute(node, "equation"))
    values = [value for value in node.inputs if value is not None]
    if terms is None or len(values) not in (1, 2) or len(values) != len(terms) - 1:
        return None
    *read, written = terms
    sizes: dict[str, int | ir.SymbolicDim] = {}
    for value, term in zip(values, read, strict=True):
        if value.shape is None or len(value.shape) != len(term):
            return None
        sizes |= dict(zip(term, value.shape, strict=True))
    others = ["".join(read[:place] + read[place + 1 :]) for place in range(len(read))]
    kept = [
        _summed(emit, value, term, set(written + other))
        for value, term, other in zip(values, read, others, strict=True)
    ]
    if len(kept) == 1:
        return _transposed(emit, *kept[0], written)
    (a, left), (b, right) = kept
    stack = [axis for axis in written if axis in left and axis in right]
    inner = [axis for axis in left if axis in right and axis not in written]
    rows, columns = (
        [axis for axis in written if axis in term and axis not in stack] for term in (left, right)
    )
    for group in (rows, columns, inner):
        if sum(not isinstance(sizes[axis], int) for axis in group) > 1:
            return None
    a = _matrices(emit, _transposed(emit, a, left, [*stack, *rows, *inner]), sizes, stack, rows, inner)
    b = _matrices(emit, _transposed(emit, b, right, [*stack, *inner, *columns]), sizes, stack, inner, columns)
    product = emit.op("MatMul", a, b)
    target = [0] * len(stack) + [_size(sizes[axis]) for axis in (*rows, *columns)]
    if target.count(-1) > 1:
        return None
    apart = (
        emit.op("Reshape", product, emit.ints(*target))
        if target
        else emit.op("Reshape", product, emit.ints())
    )
    return _transposed(emit, apart, [*stack, *rows, *columns], written)


def _terms(equation: str) -> list[str] | None:
    """The axes of the inputs and of the output; None for repeated axes and for an ellipsis."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    read = left.split(",")
    if not arrow:
        every = "".join(read)
        right = "".join(sorted(axis for axis in set(every) if every.count(axis) == 1))
    terms = [*read, right]
    plain = all(len(set(term)) == len(term) and set(term) <= set(string.ascii_letters) for term in terms)
    return terms if plain and set(right) <= set("".join(read)) else None


def _summed(emit: Emitter, x: ir.Value, term: str, needed: set[str]) -> tuple[ir.Value, list[str]]:
    """`x` without the axes that nobody else has, and the axes that are left."""
    alone = [place for place, axis in enumerate(term) if axis not in needed]
    if alone:
        x = emit.op("ReduceSum", x, emit.ints(*alone), keepdims=0)
    return x, [axis for axis in term if axis in needed]


def _transposed(emit: Emitter, x: ir.Value, have: Sequence[str], want: Sequence[str]) -> ir.Value:
    if list(have) == list(want):
        return x
    return emit.op("Transpose", x, perm=[list(have).index(axis) for axis in want])


def _matrices(
    emit: Emitter,
    x: ir.Value,
    sizes: dict[str, int | ir.SymbolicDim],
    stack: Sequence[str],
    rows: Sequence[str],
    columns: Sequence[str],
) -> ir.Value:
    """`(*stack, *rows, *columns)` as `(*stack, all rows, all columns)`."""
    if len(rows) == len(columns) == 1:
        return x
    open_rows = any(not isinstance(sizes[axis], int) for axis in rows)
    known = prod(_size(sizes[axis]) for axis in (columns if open_rows else rows))
    return emit.op("Reshape", x, emit.ints(*[0] * len(stack), *((-1, known) if open_rows else (known, -1))))


def _size(size: int | ir.SymbolicDim) -> int:
    return size if isinstance(size, int) else -1


def _sizes(x: ir.Value | None) -> list[int] | None:
    """Channels and image of `x`; None where they are not known."""
    sizes = list(x.shape)[1:] if x is not None and x.shape is not None else [None]
    known = [size for size in sizes if isinstance(size, int)]
    return known if len(known) == len(sizes) else None


def _replace(node: ir.Node, value: ir.Value) -> None:
    old = node.outputs[0]
    value.shape, value.type = old.shape, old.type
    if old.is_graph_output():
        value.name, old.name = old.name, None
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


_WRITE: dict[str, Callable[[Emitter, ir.Node], ir.Value | None]] = {
    "LRN": _lrn,
    "LpPool": _lp_pool,
    "GlobalLpPool": _global_lp_pool,
    "Einsum": _einsum,
}
