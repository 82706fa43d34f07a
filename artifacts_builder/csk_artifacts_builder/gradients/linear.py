"""Gradient rules of matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute
from csk_artifacts_builder.gradients.arithmetic import elementwise
from csk_artifacts_builder.gradients.registry import needed, vjp
from csk_sdk.errors import UnsupportedOpError

Gradients = Sequence[ir.Value | None]


@vjp("Gemm")
def gemm(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = alpha A B + beta c: dA = alpha g B^T, dB = alpha A^T g, dc = beta g; A = a or a^T, B = b or b^T"""
    a, b = node.inputs[0], node.inputs[1]
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    a_turned, b_turned = attribute(node, "transA", 0), attribute(node, "transB", 0)
    da = db = dc = None
    if needed(node, 0) and a_turned:
        da = emit.op("Gemm", b, g, alpha=alpha, transA=b_turned, transB=1)
    elif needed(node, 0):
        da = emit.op("Gemm", g, b, alpha=alpha, transB=1 - b_turned)
    if needed(node, 1) and b_turned:
        db = emit.op("Gemm", g, a, alpha=alpha, transA=1, transB=a_turned)
    elif needed(node, 1):
        db = emit.op("Gemm", a, g, alpha=alpha, transA=1 - a_turned)
    if needed(node, 2):
        dc = elementwise(emit, node, "Mul", g, emit.scalar(beta))
    return [da, db, dc]


@vjp("MatMul")
def matmul(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = a b, matrices or stacks of them: da = g b^T, db = a^T g, summed over axes that were broadcast"""
    a, b = node.inputs
    if a is None or b is None or any(x.shape is None or len(x.shape) < 2 for x in (a, b)):
        raise UnsupportedOpError(
            f"no gradient rule for 'MatMul' with a vector (node '{node.name}'). "
            "Train only later layers with --trainable from:NODE."
        )
    da = emit.op("MatMul", g, _turned(emit, b)) if needed(node, 0) else None
    db = emit.op("MatMul", _turned(emit, a), g) if needed(node, 1) else None
    return [_stacked(node, da, a), _stacked(node, db, b)]


def _turned(emit: Emitter, x: ir.Value) -> ir.Value:
    assert x.shape is not None
    rank = len(x.shape)
    return emit.op("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _stacked(node: ir.Node, dx: ir.Value | None, x: ir.Value) -> ir.Value | None:
    """`dx` under its own shape, the output's stack of x's matrices, by which the driver undoes broadcasting."""
    y = node.outputs[0]
    if dx is not None and x.shape is not None and y.shape is not None:
        dx.shape = ir.Shape([*list(y.shape)[:-2], *list(x.shape)[-2:]])
        dx.dtype = ir.DataType.FLOAT
    return dx
