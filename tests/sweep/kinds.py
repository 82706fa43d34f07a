"""What the sweep draws: for each op with a gradient rule a function that adds it to a network in a random form.

Each takes a network and the name of a 4-d tensor `(n, c, h, w)`, and returns the name of what the op made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kinds_elements import (
    binary,
    clip,
    divided,
    gemm,
    many,
    matmul,
    of_positive,
    power,
    prelu,
    reduced,
    sloped,
    softmax,
    unary,
    where,
)
from kinds_layout import (
    depth_to_space,
    expanded,
    flattened,
    gathered,
    joined,
    parted,
    reshaped,
    sliced,
    space_to_depth,
    squeezed,
    tiled,
    transposition,
    unsqueezed,
)
from kinds_pictures import (
    average_pool,
    batch_norm,
    convolution,
    group_norm,
    instance_norm,
    layer_norm,
    max_pool,
    pad,
    resized,
    transposed,
)
from nodes import Network

Kind = Callable[[Network, str], str]

KINDS: dict[str, Kind] = {
    **{
        op: partial(unary, op)
        for op in (
            "Sigmoid",
            "Tanh",
            "Softplus",
            "Erf",
            "Exp",
            "Neg",
            "Identity",
            "Dropout",
            "Relu",
            "Abs",
            "Softsign",
        )
    },
    **{op: partial(unary, op) for op in ("GlobalAveragePool", "GlobalMaxPool", "HardSwish", "Mish")},
    **{op: partial(of_positive, op) for op in ("Log", "Sqrt", "Reciprocal")},
    "LeakyRelu": partial(sloped, "LeakyRelu", alpha=(0.01, 0.5)),
    "Elu": partial(sloped, "Elu", alpha=(0.3, 1.5)),
    "Celu": partial(sloped, "Celu", alpha=(0.3, 1.5)),
    "Selu": partial(sloped, "Selu", alpha=(0.5, 1.7), gamma=(0.5, 1.2)),
    "HardSigmoid": partial(sloped, "HardSigmoid", alpha=(0.15, 0.4), beta=(0.3, 0.6)),
    "Gelu": lambda net, x: net.add("Gelu", x, approximate=net.one_of(None, "none", "tanh")),
    "Clip": clip,
    "PRelu": prelu,
    **{op: partial(binary, op) for op in ("Add", "Sub", "Mul")},
    "Div": divided,
    "Pow": power,
    **{op: partial(many, op) for op in ("Max", "Min", "Sum")},
    "Where": where,
    **{op: partial(softmax, op) for op in ("Softmax", "LogSoftmax")},
    "Conv": convolution,
    "ConvTranspose": transposed,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "Pad": pad,
    "Resize": resized,
    **{
        op: partial(reduced, op)
        for op in (
            "ReduceMean",
            "ReduceSum",
            "ReduceMax",
            "ReduceMin",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
        )
    },
    "Gemm": gemm,
    "MatMul": matmul,
    "Reshape": reshaped,
    "Flatten": flattened,
    "Transpose": transposition,
    "Squeeze": squeezed,
    "Unsqueeze": unsqueezed,
    "Concat": joined,
    "Split": parted,
    "Slice": sliced,
    "Gather": gathered,
    "Tile": tiled,
    "Expand": expanded,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
}
# The first opset that has them.
SINCE = {
    "HardSwish": 14,
    "Mish": 18,
    "Celu": 12,
    "Gelu": 20,
    "LayerNormalization": 17,
    "GroupNormalization": 21,
}
# Drawn more often: they have the most attributes.
OFTEN = {
    "MaxPool": 6,
    "AveragePool": 6,
    "Pad": 4,
    "Resize": 8,
    "Conv": 4,
    "ConvTranspose": 4,
    "Slice": 2,
    "MatMul": 2,
}
# What stands in front of the op, or behind it: runtimes fuse such pairs.
NEIGHBOURS = (
    "Relu",
    "Clip",
    "Add",
    "Mul",
    "Pad",
    "MaxPool",
    "AveragePool",
    "Conv",
    "Transpose",
    "Sigmoid",
    "Concat",
)
