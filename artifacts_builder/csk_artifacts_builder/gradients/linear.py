"""Gradient rules of matrix products with a constant second factor, as in fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute
from csk_artifacts_builder.gradients.registry import needed, vjp
from csk_sdk.errors import UnsupportedOpError

Gradients = Sequence[ir.Value | None]


@vjp("Gemm")
def gemm(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = alpha a B + beta c: da = alpha g B^T, dB = alpha a^T g, dc = beta sum(g)"""
    a, b = node.inputs[0], node.inputs[1]
    if attribute(node, "transA", 0) or (len(node.inputs) > 2 and needed(node, 2)):
        raise UnsupportedOpError(
            f"no gradient rule for 'Gemm' with a transposed first input or a computed bias (node '{node.name}')."
        )
    alpha, transposed = attribute(node, "alpha", 1.0), attribute(node, "transB", 0)
    da = emit.op("Gemm", g, b, alpha=alpha, transB=0 if transposed else 1) if needed(node, 0) else None
    db = None
    if needed(node, 1):
        left, right = (g, a) if transposed else (a, g)
        db = emit.op("Gemm", left, right, alpha=alpha, transA=1)
    return [da, db, None]


@vjp("MatMul")
def matmul(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = a B with a matrix B: da = g B^T, dB = a^T g"""
    b = node.inputs[1]
    if b is None or b.shape is None or len(b.shape) != 2 or needed(node, 1):
        raise UnsupportedOpError(
            f"no gradient rule for 'MatMul' of two computed tensors (node '{node.name}'). "
            "Train only later layers with --trainable from:NODE."
        )
    return [emit.op("MatMul", g, emit.op("Transpose", b, perm=[1, 0])), None]
