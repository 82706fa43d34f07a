"""Networks whose gradient onnxruntime-training 1.19.2 computes wrong, without an error, if they are not rewritten."""

from __future__ import annotations

import numpy as np
from small_network import Network

TENSORS = {
    "one_w": (8, 3, 3, 3),
    "one_b": (8,),
    "two_w": (8, 8, 3, 3),
    "two_b": (8,),
    "three_w": (6, 4, 3, 3),
    "three_b": (6,),
    "head_w": (3, 6),
    "head_b": (3,),
}
BEGIN = "[one] a = Conv <pads=[1,1,1,1]> (x, one_w, one_b) \n r = Relu(a) \n"
END = """
[three] c = Conv <pads=[1,1,1,1]> (part, three_w, three_b)
d = Relu(c)
g = GlobalAveragePool(d)
f = Flatten(g)
y = Gemm <transB=1> (f, head_w, head_b)
"""

SPLIT = Network(
    "half of the channels",
    BEGIN
    + """[two] b = Conv <pads=[1,1,1,1]> (r, two_w, two_b)
    s = Relu(b)
    [culprit] part, unused = Split <axis=1> (s)
    """
    + END,
    TENSORS,
)

WHERE = Network(
    "a token of the image in place of some of its pixels",
    BEGIN
    + """[two] b = Conv <pads=[1,1,1,1]> (r, two_w, two_b)
    s = Relu(b)
    token = ReduceMean <axes=[2,3]> (s)
    hidden = Greater(mask, zero)
    [culprit] masked = Where(hidden, token, s)
    part = Slice(masked, from, to, axes)
    """
    + END,
    {
        **TENSORS,
        "mask": np.arange(81.0).reshape(1, 1, 9, 9) % 2,
        "zero": np.array(0.0),
        "from": np.array([0]),
        "to": np.array([4]),
        "axes": np.array([1]),
    },
)

POW = Network(
    "an exponent for each pixel of a mean",
    BEGIN
    + """[two] b = Conv <pads=[1,1,1,1]> (r, two_w, two_b)
    s = Sigmoid(b)
    mean = ReduceMean <axes=[2,3]> (s)
    [culprit] raised = Pow(mean, exponents)
    part = Slice(raised, from, to, axes)
    """
    + END,
    {
        **TENSORS,
        "exponents": np.linspace(1.0, 3.0, 81).reshape(1, 1, 9, 9),
        "from": np.array([0]),
        "to": np.array([4]),
        "axes": np.array([1]),
    },
)

WRONG_THERE = {"Split": SPLIT, "Where": WHERE, "Pow": POW}

SLICES = Network(
    "one half of the channels as a gate of the other",
    BEGIN
    + """[two] b = Conv <pads=[1,1,1,1]> (r, two_w, two_b)
    left = Slice(b, zero, half, axes)
    right = Slice(b, half, all, axes)
    open = Greater(right, level)
    gate = Cast <to=1> (open)
    part = Mul(left, gate)
    """
    + END,
    {
        **TENSORS,
        "zero": np.array([0]),
        "half": np.array([4]),
        "all": np.array([8]),
        "axes": np.array([1]),
        "level": np.array(0.0),
    },
)

AUTO_PAD = Network(
    "padding as TensorFlow writes it",
    """
    [one] a = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, one_w, one_b)
    r = Tanh(a)
    [two] b = Conv <auto_pad="SAME_LOWER"> (r, two_w, two_b)
    s = Tanh(b)
    wide = MaxPool <kernel_shape=[2,2], auto_pad="SAME_UPPER"> (s)
    even = AveragePool <kernel_shape=[2,2], strides=[2,2], auto_pad="SAME_LOWER"> (wide)
    part = Slice(even, zero, half, axes)
    """
    + END,
    {**TENSORS, "zero": np.array([0]), "half": np.array([4]), "axes": np.array([1])},
    image=(3, 10, 9),
)

REWRITTEN = (SPLIT, WHERE, POW, SLICES, AUTO_PAD)
