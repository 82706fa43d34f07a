"""Random chains of the blocks of networks, each from `(N, 12, 6, 6)` to the same shape: what fusions make of them."""

from __future__ import annotations

import re

import numpy as np
from gradient_row import Row
from numpy.typing import NDArray

# `{i}` is the block's input, `{o}` its output, `{p}` a prefix of its other values.
_WRITTEN = """
convolution:
    {o} = Conv<pads=[1,1,1,1]>({i}, conv_w, gain)
depthwise:
    {o} = Conv<pads=[1,1,1,1], group=12>({i}, depth_w)
relu:
    {p}a = Sub({i}, tenth)
    {o} = Relu({p}a)
relu6:
    {o} = Clip({i}, low, high)
maximum of itself turned:
    {p}t = Transpose<perm=[0,1,3,2]>({i})
    {p}s = Mul({p}t, half)
    {o} = Max({i}, {p}s)
leaky:
    {o} = LeakyRelu({i})
gelu:
    {p}d = Div({i}, root)
    {p}e = Erf({p}d)
    {p}o = Add({p}e, one)
    {p}m = Mul({i}, {p}o)
    {o} = Mul({p}m, half)
tanh gelu:
    {p}c = Pow({i}, three)
    {p}k = Mul({p}c, coefficient)
    {p}a = Add({i}, {p}k)
    {p}s = Mul({p}a, scale)
    {p}t = Tanh({p}s)
    {p}o = Add({p}t, one)
    {p}m = Mul({i}, {p}o)
    {o} = Mul({p}m, half)
quick gelu:
    {p}s = Mul({i}, quick)
    {p}g = Sigmoid({p}s)
    {o} = Mul({i}, {p}g)
swish:
    {p}s = Sigmoid({i})
    {o} = Mul({p}s, {i})
mish:
    {p}s = Softplus({i})
    {p}t = Tanh({p}s)
    {o} = Mul({i}, {p}t)
hard swish:
    {o} = HardSwish({i})
layer norm:
    {p}t = Transpose<perm=[0,2,3,1]>({i})
    {p}l = LayerNormalization({p}t, gain, shift)
    {o} = Transpose<perm=[0,3,1,2]>({p}l)
layer norm in parts:
    {p}t = Transpose<perm=[0,2,3,1]>({i})
    {p}u = ReduceMean<axes=[-1]>({p}t)
    {p}d = Sub({p}t, {p}u)
    {p}q = Pow({p}d, two)
    {p}v = ReduceMean<axes=[-1]>({p}q)
    {p}e = Add({p}v, epsilon)
    {p}r = Sqrt({p}e)
    {p}n = Div({p}d, {p}r)
    {p}g = Mul({p}n, gain)
    {p}b = Add({p}g, shift)
    {o} = Transpose<perm=[0,3,1,2]>({p}b)
root mean square norm:
    {p}t = Transpose<perm=[0,2,3,1]>({i})
    {p}q = Pow({p}t, two)
    {p}v = ReduceMean<axes=[-1]>({p}q)
    {p}e = Add({p}v, epsilon)
    {p}r = Sqrt({p}e)
    {p}n = Div({p}t, {p}r)
    {p}g = Mul({p}n, gain)
    {o} = Transpose<perm=[0,3,1,2]>({p}g)
group norm:
    {p}r = Reshape({i}, groups)
    {p}n = InstanceNormalization({p}r, pair, pair)
    {o} = Reshape({p}n, whole)
unit length:
    {p}l = ReduceL2<axes=[1]>({i})
    {p}m = Max({p}l, epsilon)
    {o} = Div({i}, {p}m)
channel shuffle:
    {p}r = Reshape({i}, groups)
    {p}t = Transpose<perm=[0,2,1,3,4]>({p}r)
    {o} = Reshape({p}t, whole)
halves:
    {p}a, {p}b = Split<axis=1>({i})
    {p}c = Tanh({p}b)
    {o} = Concat<axis=1>({p}c, {p}a)
one half twice:
    {p}a, {p}b = Split<axis=1>({i})
    {o} = Concat<axis=1>({p}b, {p}b)
gated linear unit:
    {p}d = Concat<axis=1>({i}, {i})
    {p}a, {p}b = Split<axis=1>({p}d)
    {p}s = Sigmoid({p}b)
    {o} = Mul({p}a, {p}s)
slices of all:
    {p}a = Slice({i}, n0, n6, n1)
    {p}b = Slice({i}, n6, n12, n1)
    {p}m = Mul({p}a, {p}b)
    {o} = Concat<axis=1>({p}m, {p}a)
slices, one only compared:
    {p}a = Slice({i}, n0, n6, n1)
    {p}b = Slice({i}, n6, n12, n1)
    {p}c = Greater({p}b, tenth)
    {p}w = Where({p}c, {p}a, tenth)
    {o} = Concat<axis=1>({p}w, {p}a)
patches put together:
    {p}a = Slice({i}, n0, n6, n2, n2)
    {p}b = Slice({i}, n1, n6, n2, n2)
    {p}m = Mul({p}a, {p}b)
    {o} = Concat<axis=2>({p}m, {p}b)
one channel of all:
    {p}g = Gather<axis=1>({i}, first)
    {o} = Mul({p}g, {i})
squeeze and excite:
    {p}g = GlobalAveragePool({i})
    {p}c = Conv({p}g, point_w, gain)
    {p}s = HardSigmoid({p}c)
    {o} = Mul({i}, {p}s)
attention:
    {p}r = Reshape({i}, tokens)
    {p}t = Transpose<perm=[0,2,1]>({p}r)
    {p}q = MatMul({p}t, square)
    {p}k = MatMul({p}q, {p}r)
    {p}s = Softmax<axis=-1>({p}k)
    {p}v = MatMul({p}s, {p}t)
    {p}u = Transpose<perm=[0,2,1]>({p}v)
    {o} = Reshape({p}u, whole)
learned mask:
    {p}g = Greater(pattern, tenth)
    {p}t = ReduceMean<axes=[2,3]>({i})
    {o} = Where({p}g, {i}, {p}t)
mask by a row:
    {p}g = Greater(row, tenth)
    {p}t = ReduceMax<axes=[2]>({i})
    {o} = Where({p}g, {p}t, {i})
average pool:
    {p}p = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>({i})
    {o} = Resize<mode="linear">({p}p, , twice)
max pool:
    {p}p = MaxPool<kernel_shape=[2,2], strides=[2,2]>({i})
    {p}w = Conv({p}p, wide_w)
    {o} = DepthToSpace<blocksize=2>({p}w)
up again:
    {p}p = SpaceToDepth<blocksize=2>({i})
    {p}c = Conv({p}p, narrow_w)
    {o} = ConvTranspose<strides=[2,2]>({p}c, up_w)
padded and cut:
    {p}p = Pad({i}, around)
    {o} = Slice({p}p, n2_2, n8_8, n2_3)
of each image:
    {p}m = ReduceMean<axes=[1,2,3], keepdims=0>({i})
    {p}u = Unsqueeze({p}m, n1_2_3)
    {o} = Sub({i}, {p}u)
expanded mean:
    {p}m = ReduceMean<axes=[2,3]>({i})
    {p}s = Shape({i})
    {p}e = Expand({p}m, {p}s)
    {o} = Mul({i}, {p}e)
means over images' own:
    {p}f = Flatten({i})
    {p}l = LogSoftmax({p}f)
    {o} = Reshape({p}l, whole)
"""
BLOCKS = {
    name: nodes.strip() for name, nodes in re.findall(r"^(\w.*):\n((?: +.*\n)+)", _WRITTEN, re.MULTILINE)
}


def _normal(seed: int, *shape: int) -> NDArray:
    return np.random.default_rng(seed).normal(size=shape) * (2.0 / max(1, np.prod(shape[1:]))) ** 0.5


def _whole(*values: int) -> NDArray:
    return np.array(values, np.int64)


TENSORS: dict[str, NDArray] = {
    **{name: np.array(value) for name, value in (
        ("tenth", 0.1), ("half", 0.5), ("one", 1.0), ("two", 2.0), ("three", 3.0), ("root", 2**0.5),
        ("coefficient", 0.044715), ("scale", (2 / np.pi) ** 0.5), ("quick", 1.702), ("epsilon", 1e-2),
        ("low", -0.35), ("high", 0.85),
    )},
    **{f"n{n}": _whole(n) for n in (0, 1, 2, 6, 12)},
    **{"n2_2": _whole(2, 2), "n8_8": _whole(8, 8), "n2_3": _whole(2, 3), "n1_2_3": _whole(1, 2, 3)},
    "conv_w": _normal(1, 12, 12, 3, 3), "depth_w": _normal(2, 12, 1, 3, 3), "point_w": _normal(3, 12, 12, 1, 1),
    "wide_w": _normal(4, 48, 12, 1, 1), "narrow_w": _normal(5, 12, 48, 1, 1), "up_w": _normal(6, 12, 12, 2, 2),
    "gain": 1 + _normal(10, 12), "shift": _normal(11, 12), "pair": np.array([1.1, 0.8]),
    "square": _normal(7, 12, 12), "pattern": _normal(8, 1, 1, 6, 6), "row": _normal(9, 6), "first": _whole(2),
    "groups": _whole(-1, 2, 6, 6, 6), "whole": _whole(-1, 12, 6, 6), "tokens": _whole(-1, 12, 36),
    "twice": np.array([1.0, 1, 2, 2]), "around": _whole(0, 0, 2, 2, 0, 0, 1, 1),
}  # fmt: skip


def chain(seed: int) -> Row:
    """Two to six blocks one behind the other, of which some have a shortcut around them; the same for the same seed."""
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.choice(list(BLOCKS), rng.integers(2, 7), replace=True)]
    lines, value = [], "x"
    for number, name in enumerate(names):
        out = f"b{number}"
        lines.append(BLOCKS[name].format(i=value, o=out, p=f"{out}_"))
        if rng.random() < 0.4:
            lines.append(f"{out}_sum = Add({value}, {out})")
            out = f"{out}_sum"
        value = out
    lines.append(f"y = Mul({value}, one)")
    text = "(float[N,12,6,6] x) => (float[N,12,6,6] y) {{ {} }}".format(" \n ".join(lines))
    used = {name: array for name, array in TENSORS.items() if _reads(text, name)}
    return Row("chain", " > ".join(names), text, used)


def _reads(text: str, name: str) -> bool:
    return any(f"{before}{name}{after}" in text for before in "( " for after in ",)")
