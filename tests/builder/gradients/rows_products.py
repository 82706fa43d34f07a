"""Rows of matrix products and normalizations."""

from __future__ import annotations

from gradient_row import of

ROWS = [
    of("Gemm", "transB=1", "N,5 -> N,3", "<transB=1>(x, w, b)", w=(3, 5), b=(3,)),
    of("Gemm", "transB=0, no bias", "N,5 -> N,3", "(x, w)", w=(5, 3)),
    of("Gemm", "alpha and beta", "N,5 -> N,3", "<transB=1, alpha=0.5, beta=2.0>(x, w, b)", w=(3, 5), b=(3,)),
    of("Gemm", "alpha, transB=0", "N,5 -> N,3", "<alpha=-1.5>(x, w)", w=(5, 3)),
    of("Gemm", "by computed weight", "N,5; 3,5 -> N,3", "<transB=1, alpha=0.5>(x, x2, b)", b=(3,)),
    of("Gemm", "by computed weight, transB=0", "N,5; 5,3 -> N,3", "<alpha=0.5>(x, x2)"),
    of("MatMul", "matrix", "N,5 -> N,3", "(x, w)", w=(5, 3)),
    of("MatMul", "sequence by matrix", "N,4,5 -> N,4,3", "(x, w)", w=(5, 3)),
    of("MatMul", "two matrices", "N,5; 5,3 -> N,3", "(x, x2)"),
    of("MatMul", "two stacks", "N,2,3,5; N,2,5,4 -> N,2,3,4", "(x, x2)"),
    of("MatMul", "a stack by one computed matrix", "N,4,5; 5,3 -> N,4,3", "(x, x2)"),
    of("MatMul", "one matrix by a stack", "3,4; N,4,5 -> N,3,5", "(x, x2)"),
    of("MatMul", "stacks broadcast both ways", "N,1,3,4; 2,4,5 -> N,2,3,5", "(x, x2)"),
    of("MatMul", "with itself", "N,3,3 -> N,3,3", "(x, x)"),
    of("MatMul", "constant stack on the left", "N,4,5 -> N,3,5", "(c, x)", c=(1, 3, 4)),
    of("Gemm", "transA=1", "5,N -> N,3", "<transA=1, alpha=0.5>(x, w)", w=(5, 3)),
    of("Gemm", "transA=1, transB=1, both computed", "5,N; 3,5 -> N,3", "<transA=1, transB=1>(x, x2)"),
    of("Gemm", "transA=1, both computed", "5,N; 5,3 -> N,3", "<transA=1, alpha=0.5>(x, x2)"),
    of("Gemm", "computed bias of a row", "N,5; 3 -> N,3", "<beta=0.5>(x, w, x2)", w=(5, 3)),
    of("Gemm", "computed bias of a column", "N,5; N,1 -> N,3", "(x, w, x2)", w=(5, 3)),
    of("InstanceNormalization", "2-d", "N,3,4,5 -> N,3,4,5", "(x, s, b)", s=(3,), b=(3,)),
    of("InstanceNormalization", "1-d, epsilon", "N,3,5 -> N,3,5", "<epsilon=0.1>(x, s, b)", s=(3,), b=(3,)),
    of("LayerNormalization", "last axis", "N,3,5 -> N,3,5", "(x, s, b)", s=(5,), b=(5,)),
    of("LayerNormalization", "last axis, no bias", "N,3,5 -> N,3,5", "<epsilon=0.1>(x, s)", s=(5,)),
    of(
        "LayerNormalization",
        "all but the batch",
        "N,2,3,4 -> N,2,3,4",
        "<axis=1>(x, s, b)",
        s=(2, 3, 4),
        b=(2, 3, 4),
    ),
]
