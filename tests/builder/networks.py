"""Small classifiers of the families that the field uses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from small_network import Network, norm, normalised

RESNET = Network(
    "resnet",
    "\n".join(
        [
            "[stem] s = Conv <pads=[1,1,1,1]> (x, stem_w)",
            normalised("sn", "stem", "s"),
            "r0 = Relu(sn)",
            "[first] a = Conv <pads=[1,1,1,1], strides=[2,2]> (r0, first_w)",
            normalised("an", "first", "a"),
            "r1 = Relu(an)",
            "[second] b = Conv <pads=[1,1,1,1]> (r1, second_w, second_b)",
            normalised("bn", "second", "b"),
            "[short] c = Conv <strides=[2,2]> (r0, short_w)",
            normalised("cn", "short", "c"),
            "sum = Add(bn, cn)",
            "r2 = Relu(sum)",
            "pool = GlobalAveragePool(r2)",
            "f = Flatten(pool)",
            "y = Gemm <transB=1> (f, head_w, head_b)",
        ]
    ),
    {
        "stem_w": (4, 3, 3, 3),
        "first_w": (6, 4, 3, 3),
        "second_w": (6, 6, 3, 3),
        "second_b": (6,),
        "short_w": (6, 4, 1, 1),
        "head_w": (3, 6),
        "head_b": (3,),
        **norm("stem", 4),
        **norm("first", 6),
        **norm("second", 6),
        **norm("short", 6),
    },
    kinks={"sn": ("stem_beta", (0.0,)), "an": ("first_beta", (0.0,)), "sum": ("second_beta", (0.0,))},
)

VGG = Network(
    "vgg",
    """
    [c1] a = Conv <pads=[1,1,1,1]> (x, c1_w, c1_b)
    r1 = Relu(a)
    [c2] b = Conv <pads=[1,1,1,1]> (r1, c2_w, c2_b)
    r2 = Relu(b)
    p1 = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r2)
    [c3] c = Conv <pads=[1,1,1,1]> (p1, c3_w, c3_b)
    r3 = LeakyRelu <alpha=0.1> (c)
    p2 = MaxPool <kernel_shape=[3,3], strides=[1,1]> (r3)
    f = Flatten(p2)
    h = Gemm <transB=1> (f, fc_w, fc_b)
    r4 = Relu(h)
    d = Dropout(r4)
    m = MatMul(d, head_w)
    y = Add(m, head_b)
    """,
    {
        "c1_w": (3, 3, 3, 3),
        "c1_b": (3,),
        "c2_w": (4, 3, 3, 3),
        "c2_b": (4,),
        "c3_w": (5, 4, 3, 3),
        "c3_b": (5,),
        "fc_w": (7, 20),
        "fc_b": np.linspace(0.0, 3.0, 7),
        "head_w": (7, 3),
        "head_b": (3,),
    },
    kinks={
        "a": ("c1_b", (0.0,)),
        "b": ("c2_b", (0.0,)),
        "c": ("c3_b", (0.0,)),
        "h": ("fc_b", (0.0,)),
    },
    pooled=(("r2", 2, 2), ("r3", 3, 1)),
)

MOBILENET = Network(
    "mobilenet",
    "\n".join(
        [
            "[stem] s = Conv <pads=[1,1,1,1], strides=[2,2]> (x, stem_w)",
            normalised("sn", "stem", "s"),
            "s6 = Clip(sn, zero, six)",
            "[expand] e = Conv (s6, expand_w)",
            normalised("en", "expand", "e"),
            "e6 = Clip(en, zero, six)",
            "[depth] d = Conv <pads=[1,1,1,1], group=6> (e6, depth_w)",
            normalised("dn", "depth", "d"),
            "d6 = Clip(dn, zero, six)",
            "[project] p = Conv (d6, project_w)",
            normalised("pn", "project", "p"),
            "sum = Add(pn, s6)",
            "[down] q = Conv <pads=[0,0,1,1], strides=[2,2], group=4> (sum, down_w)",
            normalised("qn", "down", "q"),
            "q6 = Clip(qn, zero, six)",
            "[last] l = Conv (q6, last_w)",
            normalised("ln", "last", "l"),
            "l6 = Clip(ln, zero, six)",
            "f = ReduceMean <axes=[2,3], keepdims=0> (l6)",
            "y = Gemm <transB=1> (f, head_w, head_b)",
        ]
    ),
    {
        "zero": np.array(0.0),
        "six": np.array(6.0),
        "stem_w": (4, 3, 3, 3),
        "expand_w": (6, 4, 1, 1),
        "depth_w": (6, 1, 3, 3),
        "project_w": (4, 6, 1, 1),
        "down_w": (8, 1, 3, 3),
        "last_w": (5, 8, 1, 1),
        "head_w": (3, 5),
        "head_b": (3,),
        **norm("stem", 4, gain=3.0),
        **norm("expand", 6, gain=2.0),
        **norm("depth", 6, gain=2.0),
        **norm("project", 4),
        **norm("down", 8, gain=2.0),
        **norm("last", 5, gain=2.0),
    },
    kinks={
        value: (f"{name}_beta", (0.0, 6.0))
        for value, name in (("sn", "stem"), ("en", "expand"), ("dn", "depth"), ("qn", "down"), ("ln", "last"))
    },
)

# Squeeze and excitation, dense connections, and the activations of MobileNet-V3.
MOBILENET_V3 = Network(
    "mobilenet-v3",
    """
    [stem] s = Conv <pads=[1,1,1,1], strides=[2,2]> (x, stem_w, stem_b)
    h = HardSwish(s)
    [depth] d = Conv <pads=[2,2,2,2], group=4> (h, depth_w, depth_b)
    pool = GlobalAveragePool(d)
    [squeeze] q = Conv (pool, squeeze_w, squeeze_b)
    qa = Tanh(q)
    [excite] e = Conv (qa, excite_w, excite_b)
    gate = HardSigmoid <alpha=0.16666667, beta=0.5> (e)
    scaled = Mul(d, gate)
    dense = Concat <axis=1> (h, scaled)
    average = AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (dense)
    [last] l = Conv <pads=[1,1,1,1]> (average, last_w)
    la = HardSwish(l)
    m = ReduceMean <axes=[2,3]> (la)
    sq = Squeeze (m, axes)
    y = Gemm <transB=1> (sq, head_w, head_b)
    """,
    {
        "axes": np.array([2, 3]),
        "stem_w": (4, 3, 3, 3),
        "stem_b": (4,),
        "depth_w": (4, 1, 5, 5),
        "depth_b": (4,),
        "squeeze_w": (2, 4, 1, 1),
        "squeeze_b": (2,),
        "excite_w": (4, 2, 1, 1),
        "excite_b": (4,),
        "last_w": (5, 8, 3, 3),
        "head_w": (3, 5),
        "head_b": (3,),
    },
    kinks={"s": ("stem_b", (-3.0, 3.0)), "e": ("excite_b", (-3.0, 3.0))},
)

# Layer norm over the channels, Gelu written out, one attention head, and features of length 1, as torch exports them.
CONVNEXT = Network(
    "convnext",
    """
    [stem] s = Conv <pads=[1,1,1,1], strides=[2,2]> (x, stem_w, stem_b)
    [depth] d = Conv <pads=[1,1,1,1], group=4> (s, depth_w, depth_b)
    channels_last = Transpose <perm=[0,2,3,1]> (d)
    l = LayerNormalization (channels_last, norm_scale, norm_bias)
    wide = MatMul(l, up_w)
    u = Add(wide, up_b)
    scaled = Div(u, root)
    bell = Erf(scaled)
    above = Add(bell, one)
    twice = Mul(u, above)
    gelu = Mul(twice, half)
    narrow = MatMul(gelu, down_w)
    block = Mul(narrow, gamma)
    channels_first = Transpose <perm=[0,3,1,2]> (block)
    sum = Add(s, channels_first)
    [last] c = Conv <pads=[1,1,1,1]> (sum, last_w, last_b)
    pixels = Reshape(c, flat)
    tokens = Transpose <perm=[0,2,1]> (pixels)
    qkv = MatMul(tokens, qkv_w)
    q, k, v = Split <axis=-1> (qkv, parts)
    kt = Transpose <perm=[0,2,1]> (k)
    scores = MatMul(q, kt)
    attention = Softmax <axis=-1> (scores)
    seen = MatMul(attention, v)
    m = ReduceMean <axes=[1], keepdims=0> (seen)
    length = ReduceL2 <axes=[1], keepdims=1> (m)
    safe = Clip(length, tiny)
    shape = Shape(m)
    lengths = Expand(safe, shape)
    f = Div(m, lengths)
    z = MatMul(f, head_w)
    y = Add(z, head_b)
    """,
    {
        "stem_w": (4, 3, 3, 3),
        "stem_b": (4,),
        "depth_w": (4, 1, 3, 3),
        "depth_b": (4,),
        "norm_scale": (4,),
        "norm_bias": (4,),
        "up_w": (4, 8),
        "up_b": (8,),
        "root": np.array(np.sqrt(2)),
        "one": np.array(1.0),
        "half": np.array(0.5),
        "down_w": (8, 4),
        "gamma": (4,),
        "last_w": (6, 4, 3, 3),
        "last_b": (6,),
        "flat": np.array([0, 6, 25]),
        "qkv_w": (6, 9),
        "parts": np.array([3, 3, 3]),
        "tiny": np.array(1e-12),
        "head_w": (3, 3),
        "head_b": (3,),
    },
)

# Channel split and shuffle, space to depth, up again in two ways, and GeM pooling.
SHUFFLE = Network(
    "shuffle",
    """
    [stem] s = Conv <pads=[1,1,1,1]> (x, stem_w, stem_b)
    i = InstanceNormalization (s, norm_scale, norm_bias)
    e = Elu(i)
    kept, other = Split <axis=1> (e, parts)
    [branch] b = Conv <pads=[1,1,1,1]> (other, branch_w, branch_b)
    soft = Softplus(b)
    joined = Concat <axis=1> (kept, soft)
    shuffled = Gather <axis=1> (joined, order)
    even = Slice (shuffled, from, to, axes)
    deep = SpaceToDepth <blocksize=2> (even)
    [mid] m = Conv <pads=[1,1,1,1], strides=[2,2]> (deep, mid_w, mid_b)
    copied = Resize <coordinate_transformation_mode="asymmetric", nearest_mode="floor"> (m, , scales)
    learned = ConvTranspose <strides=[2,2]> (m, up_w)
    sum = Sum(copied, learned)
    bounded = Softsign(sum)
    [last] l = Conv <pads=[1,1,1,1]> (bounded, last_w, last_b)
    positive = Sigmoid(l)
    cubes = Pow(positive, three)
    g = GlobalAveragePool(cubes)
    mean = Pow(g, third)
    f = Flatten(mean)
    y = Gemm <transB=1> (f, head_w, head_b)
    """,
    {
        "stem_w": (4, 3, 3, 3),
        "stem_b": (4,),
        "norm_scale": (4,),
        "norm_bias": (4,),
        "parts": np.array([2, 2]),
        "branch_w": (2, 2, 3, 3),
        "branch_b": (2,),
        "order": np.array([0, 2, 1, 3]),
        "from": np.array([0, 0]),
        "to": np.array([8, 8]),
        "axes": np.array([2, 3]),
        "mid_w": (5, 16, 3, 3),
        "mid_b": (5,),
        "scales": np.array([1.0, 1, 2, 2]),
        "up_w": (5, 5, 2, 2),
        "last_w": (5, 5, 3, 3),
        "last_b": (5,),
        "three": np.array(3.0),
        "third": np.array(1 / 3),
        "head_w": (3, 5),
        "head_b": (3,),
    },
)


def chain(
    name: str, activation: str, *layers: tuple[tuple[int, ...], str], image: tuple[int, ...] = (3, 9, 9)
) -> Network:
    """Convolutions `(weight shape, attributes)` one behind the other, with smooth activations in between."""
    nodes, tensors, previous = [], {}, "x"
    for number, (weight, attributes) in enumerate(layers, 1):
        nodes.append(f"[c{number}] v{number} = Conv {attributes} ({previous}, c{number}_w, c{number}_b)")
        nodes.append(f"a{number} = {activation}(v{number})")
        tensors[f"c{number}_w"], tensors[f"c{number}_b"] = weight, weight[:1]
        previous = f"a{number}"
    nodes += [
        f"g = GlobalAveragePool({previous})",
        "f = Flatten(g)",
        "y = Gemm <transB=1> (f, head_w, head_b)",
    ]
    features = layers[-1][0][0]
    for (before, _), (after, attributes) in pairwise(layers):
        assert "group" in attributes or before[0] == after[1]
    head = {"head_w": (3, features), "head_b": (3,)}
    return Network(name, "\n".join(nodes), {**tensors, **head}, image=image)


PLAIN = "<pads=[1,1,1,1]>"
GEOMETRIES = chain(
    "geometries",
    "Tanh",
    ((4, 3, 5, 5), "<pads=[2,2,2,2]>"),
    ((6, 4, 3, 3), "<pads=[2,2,2,2], dilations=[2,2]>"),
    ((6, 6, 3, 3), "<pads=[1,0,0,1], strides=[2,2]>"),
    ((4, 6, 3, 3), "<pads=[2,3,3,2]>"),
    ((4, 4, 1, 3), "<pads=[0,1,0,1]>"),
    ((4, 4, 3, 3), "<pads=[1,1,1,1], strides=[2,2]>"),
)
GROUPS = chain(
    "groups",
    "Sigmoid",
    ((4, 3, 3, 3), PLAIN),
    ((6, 2, 3, 3), "<pads=[1,1,1,1], group=2>"),
    ((6, 2, 5, 5), "<pads=[2,2,2,2], strides=[2,2], group=3>"),
    ((12, 1, 3, 3), "<pads=[2,2,2,2], dilations=[2,2], group=6>"),
    ((4, 12, 3, 1), "<pads=[1,0,1,0], strides=[2,1]>"),
)
NO_PADDING = chain(
    "no-padding",
    "HardSwish",
    ((4, 3, 3, 3), ""),
    ((4, 4, 3, 3), "<strides=[2,2]>"),
    ((4, 4, 3, 3), "<pads=[3,3,3,3], strides=[3,3]>"),
)
# Centers several strides into the kernel; one axis padded too wide while the other is not padded at all.
STRIDES = chain(
    "strides",
    "Tanh",
    ((3, 3, 3, 3), PLAIN),
    ((4, 3, 5, 5), "<pads=[2,2,2,2], strides=[2,2]>"),
    ((4, 4, 3, 3), "<pads=[0,3,0,2]>"),
    ((4, 4, 7, 5), "<pads=[3,1,3,2], strides=[2,2]>"),
    image=(3, 15, 13),
)
THIN = chain(
    "thin",
    "Tanh",
    ((4, 3, 1, 5), "<pads=[0,2,0,2]>"),
    ((4, 4, 1, 3), "<strides=[1,2]>"),
    image=(3, 1, 12),
)

# Signals: raw audio, strided and pooled, with a batch norm that no convolution can take up.
AUDIO = Network(
    "audio",
    "\n".join(
        [
            "[stem] s = Conv <pads=[4,4], strides=[2]> (x, stem_w)",
            normalised("sn", "stem", "s"),
            "r0 = Relu(sn)",
            "p = MaxPool <kernel_shape=[3], strides=[2], pads=[0,0]> (r0)",
            normalised("pn", "pool", "p"),
            "[first] a = Conv <pads=[1,2], strides=[2]> (pn, first_w)",
            normalised("an", "first", "a"),
            "r1 = Relu(an)",
            "[second] b = Conv <pads=[2,2], dilations=[2]> (r1, second_w, second_b)",
            normalised("bn", "second", "b"),
            "[short] c = Conv <strides=[2]> (pn, short_w)",
            "d = Conv <pads=[0,1]> (c, even_w)",
            "sum = Add(bn, d)",
            "r2 = LeakyRelu <alpha=0.1> (sum)",
            "pool = GlobalAveragePool(r2)",
            "f = Flatten(pool)",
            "y = Gemm <transB=1> (f, head_w, head_b)",
        ]
    ),
    {
        "stem_w": (4, 2, 9),
        "first_w": (6, 4, 5),
        "second_w": (6, 6, 3),
        "second_b": (6,),
        "short_w": (6, 4, 1),
        "even_w": (6, 6, 2),
        "head_w": (3, 6),
        "head_b": (3,),
        **norm("stem", 4),
        **norm("pool", 4),
        **norm("first", 6),
        **norm("second", 6),
    },
    image=(2, 41),
    kinks={"sn": ("stem_beta", (0.0,)), "an": ("first_beta", (0.0,)), "sum": ("second_beta", (0.0,))},
    pooled=(("r0", 3, 2),),
)

# Signals of several sensors: depthwise and grouped, normalised by themselves, pooled, and stretched in two ways.
SENSORS = Network(
    "sensors",
    """
    [mix] m = Conv <pads=[1,1]> (x, mix_w, mix_b)
    mt = Tanh(m)
    [depth] d = Conv <pads=[4,4], group=6, dilations=[4]> (mt, depth_w, depth_b)
    n = InstanceNormalization (d, norm_scale, norm_bias)
    s = Sigmoid(n)
    swish = Mul(n, s)
    [down] w = Conv <pads=[2,1], strides=[3], group=2> (swish, down_w, down_b)
    average = AveragePool <kernel_shape=[3], strides=[2], pads=[1,1]> (w)
    copied = Resize <coordinate_transformation_mode="asymmetric", nearest_mode="floor"> (average, , scales)
    learned = ConvTranspose <strides=[2]> (average, up_w)
    joined = Concat <axis=1> (copied, learned)
    [last] l = Conv <pads=[3,3]> (joined, last_w, last_b)
    lt = Tanh(l)
    cut = Slice (lt, from, to, axes)
    f = ReduceMean <axes=[2], keepdims=0> (cut)
    z = MatMul(f, head_w)
    y = Add(z, head_b)
    """,
    {
        "mix_w": (6, 5, 3),
        "mix_b": (6,),
        "depth_w": (6, 1, 3),
        "depth_b": (6,),
        "norm_scale": (6,),
        "norm_bias": (6,),
        "down_w": (4, 3, 5),
        "down_b": (4,),
        "scales": np.array([1.0, 1, 2]),
        "up_w": (4, 4, 2),
        "last_w": (5, 8, 7),
        "last_b": (5,),
        "from": np.array([1]),
        "to": np.array([7]),
        "axes": np.array([2]),
        "head_w": (5, 3),
        "head_b": (3,),
    },
    image=(5, 24),
)

NETWORKS = (
    *(AUDIO, SENSORS),
    *(RESNET, VGG, MOBILENET, MOBILENET_V3, CONVNEXT, SHUFFLE),
    *(GEOMETRIES, GROUPS, NO_PADDING, STRIDES, THIN),
)
