"""One site's center branch: forward, gradient and second moment (docs/method.md#the-center).

The frozen convolution keeps its constant kernel; beside it runs a 1x1 convolution over the selected channels of the
center-sampled input, and its weight is the center's change. For a depthwise convolution that is a factor for each
selected channel. For other grouped convolutions the change is scattered into a dense grouped 1x1 kernel first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.gradients import Segment
from csk_artifacts_builder.gradients.convolution import input_gradient, swap_channels
from csk_artifacts_builder.gradients.pooling import place
from csk_artifacts_builder.sites import Geometry, geometry
from csk_sdk.contract.manifest import Site


def site_node(model: ir.Model, site: Site) -> ir.Node:
    """The site's convolution in a graph."""
    return next(node for node in model.graph if node.name == site.node)


def add_center_branch(
    emit: Emitter, node: ir.Node, site: Site, delta: ir.Value, indices: ir.Value
) -> Segment:
    """Insert the branch behind convolution `node` and return it as one differentiable segment.

    delta `(c_out // groups, k)` float32 and indices `(k,)` int64 as described by `Site`.
    """
    shape = geometry(node)
    x, y, weight = node.inputs[0], node.outputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    before = set(emit.graph)
    if _is_depthwise(site):
        with emit.before(node):
            seen = sample_center(emit, emit.op("Gather", x, indices, axis=1), shape)
        with emit.behind(node):
            total = emit.op("Add", y, _scaled(emit, seen, site, delta, indices))
    elif shape.groups == 1:
        with emit.before(node):
            # Right behind the input, so that only the selected channels are kept for the backward pass.
            seen = sample_center(emit, emit.op("Gather", x, indices, axis=1), shape)
        with emit.behind(node):
            kernel = emit.op("Unsqueeze", delta, emit.ints(*range(2, 2 + shape.rank)))
            branch = emit.op("Conv", seen, kernel, kernel_shape=[1] * shape.rank)
            total = emit.op("Add", y, branch)
    else:
        with emit.before(node):
            seen = sample_center(emit, x, shape)
        with emit.behind(node):
            kernel = emit.op(
                "Unsqueeze", dense_change(emit, site, delta, indices), emit.ints(*range(2, 2 + shape.rank))
            )
            branch = emit.op("Conv", seen, kernel, kernel_shape=[1] * shape.rank, group=shape.groups)
            total = emit.op("Add", y, branch)
    _hand_on(y, total)
    nodes = frozenset({node, *(set(emit.graph) - before)})

    def rule(emit: Emitter, g: ir.Value, needed: Sequence[bool]) -> Sequence[ir.Value | None]:
        dx = None
        if needed[0]:
            through_center = _through_center(emit, g, site, shape, delta, indices)
            dx = input_gradient(emit, g, weight, shape, through_center)
        return [dx, _delta_gradient(emit, g, seen, site, indices) if needed[1] else None]

    return Segment(nodes, (x, delta), total, rule, site.node)


def add_whole_center(emit: Emitter, node: ir.Node, center: ir.Value) -> None:
    """Insert a 1x1 convolution with kernel `center` `(c_out, c_in / groups, 1, ...)` beside convolution `node`."""
    shape = geometry(node)
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    with emit.before(node):
        seen = sample_center(emit, x, shape)
    with emit.behind(node):
        branch = emit.op("Conv", seen, center, kernel_shape=[1] * shape.rank, group=shape.groups)
        _hand_on(y, emit.op("Add", y, branch))


def _hand_on(y: ir.Value, total: ir.Value) -> None:
    """Let everything that read `y` read `total`, which is made of it."""
    total.shape, total.dtype = y.shape, ir.DataType.FLOAT
    for user, position in list(y.uses()):
        if user is not total.producer():
            user.replace_input_with(position, total)


def sample_center(emit: Emitter, x: ir.Value, shape: Geometry) -> ir.Value:
    """The center-sampled input x_c `(n, channels, *out)`: what the center tap of the kernel sees (docs/method.md)."""
    offsets = shape.offset
    reach = [o + s * (n - 1) + 1 for o, s, n in zip(offsets, shape.stride, shape.out_size, strict=True)]
    inside = all(offset >= 0 for offset in offsets) and all(
        r <= size for r, size in zip(reach, shape.in_size, strict=True)
    )
    starts, sizes = list(offsets), list(shape.in_size)
    if not inside:
        # The tap reads beyond the image: the first or last positions see padded zeros.
        want = [max(r, size) - min(0, offset) for r, size, offset in zip(reach, sizes, starts, strict=True)]
        x = place(emit, x, sizes, want, [-min(0, offset) for offset in starts])
        reach = [r - min(0, offset) for r, offset in zip(reach, starts, strict=True)]
        starts, sizes = [max(0, offset) for offset in starts], want
    if starts == [0] * shape.rank and reach == sizes and set(shape.stride) == {1}:
        return x
    axes = range(2, 2 + shape.rank)
    return emit.op(
        "Slice", x, emit.ints(*starts), emit.ints(*reach), emit.ints(*axes), emit.ints(*shape.stride)
    )


def dense_change(emit: Emitter, site: Site, delta: ir.Value, indices: ir.Value) -> ir.Value:
    """The change of all that a site can learn, `(c_out, width)`, zero outside the selection."""
    zeros = emit.op("ConstantOfShape", emit.ints(site.columns, site.rows))
    columns = emit.op("Transpose", delta, perm=[1, 0])
    by_channel = emit.op("ScatterND", zeros, emit.op("Unsqueeze", indices, emit.ints(1)), columns)
    if site.groups == 1:
        return emit.op("Transpose", by_channel, perm=[1, 0])
    grouped = emit.op("Reshape", by_channel, emit.ints(site.groups, site.width, site.rows))
    rows_first = emit.op("Transpose", grouped, perm=[0, 2, 1])
    return emit.op("Reshape", rows_first, emit.ints(site.shape[0], site.width))


def _through_center(
    emit: Emitter, g: ir.Value, site: Site, shape: Geometry, delta: ir.Value, indices: ir.Value
) -> ir.Value:
    """What the change of the center sends back to what its tap has read: g through delta^T, `(n, c_in, *out)`."""
    if _is_depthwise(site):
        return _scaled(emit, emit.op("Gather", g, indices, axis=1), site, delta, indices)
    if site.groups > 1:
        spatial = emit.ints(*range(2, 2 + shape.rank))
        kernel = emit.op("Unsqueeze", dense_change(emit, site, delta, indices), spatial)
        return emit.op("Conv", g, swap_channels(emit, kernel, shape), group=site.groups)
    # The selected channels, and one of zeros that stands for all others.
    padded = emit.op("Concat", delta, emit.constant(np.zeros((site.rows, 1)), np.float32, "zeros"), axis=1)
    selected = emit.op("Gemm", padded, channels_first(emit, g, site), transA=1)
    every = _spread(emit, selected, site, indices, axis=0)
    apart = emit.op("Reshape", every, emit.ints(site.columns, -1, *site.output_size))
    return emit.op("Transpose", apart, perm=[1, 0, *range(2, 2 + shape.rank)])


def _is_depthwise(site: Site) -> bool:
    """One kernel for each channel."""
    return site.groups > 1 and site.groups == site.columns == site.shape[0]


def _scaled(emit: Emitter, picked: ir.Value, site: Site, delta: ir.Value, indices: ir.Value) -> ir.Value:
    """A depthwise center's change, `(1, k)`, times the selected channels `(n, k, *size)`: `(n, c, *size)`."""
    rank = len(site.output_size)
    product = emit.op("Mul", picked, emit.op("Unsqueeze", delta, emit.ints(*range(2, 2 + rank))))
    ends = [0] * rank
    # One channel of zeros stands for all others.
    padded = emit.op("Pad", product, emit.ints(0, 0, *ends, 0, 1, *ends))
    return _spread(emit, padded, site, indices)


def _spread(emit: Emitter, selected: ir.Value, site: Site, indices: ir.Value, axis: int = 1) -> ir.Value:
    """The k selected channels along `axis` at their places among all c, and a last one everywhere else.

    `selected` has size k + 1 along `axis`, the result size c.
    """
    count = emit.op("Shape", indices)
    zero, one = (emit.constant(number, np.int64, "number") for number in (0, 1))
    numbers = emit.op("Range", zero, emit.op("Squeeze", count), one)
    others = emit.constant([-1] * site.columns, np.int64, "others")
    return emit.op(
        "Gather", selected, emit.op("ScatterElements", others, indices, numbers, axis=0), axis=axis
    )


def _delta_gradient(emit: Emitter, g: ir.Value, seen: ir.Value, site: Site, indices: ir.Value) -> ir.Value:
    """dL/dC = dY^T x_c on the selected channels, `(c_out // groups, k)`; `seen` is x_c as the branch used it."""
    if site.groups == 1:
        return emit.op("Gemm", channels_first(emit, g, site), channels_first(emit, seen, site), transB=1)
    if _is_depthwise(site):
        product = emit.op("Mul", emit.op("Gather", g, indices, axis=1), seen)
        by_channel = emit.op("ReduceSum", product, _all_but_channels(emit, site), keepdims=0)
        return emit.op("Unsqueeze", by_channel, emit.ints(0))
    by_group = grouped_gradient(emit, g, seen, site)
    by_channel = emit.op("Reshape", by_group, emit.ints(site.columns, site.rows))
    return emit.op("Transpose", emit.op("Gather", by_channel, indices, axis=0), perm=[1, 0])


def grouped_gradient(emit: Emitter, g: ir.Value, seen: ir.Value, site: Site) -> ir.Value:
    """x_t^T dY of every group, summed over the batch, `(groups, c_in / groups, c_out / groups)`."""
    pixels = int(np.prod(site.output_size))
    dy = emit.op("Reshape", g, emit.ints(-1, site.groups, site.rows, pixels))
    x = emit.op("Reshape", seen, emit.ints(-1, site.groups, site.shape[1], pixels))
    per_image = emit.op("MatMul", x, emit.op("Transpose", dy, perm=[0, 1, 3, 2]))
    return emit.op("ReduceSum", per_image, emit.ints(0), keepdims=0)


def second_moment(emit: Emitter, node: ir.Node, site: Site) -> ir.Value:
    """K = x_c^T x_c over the batch and all positions, `(groups, c_in / groups, c_in / groups)`."""
    shape = geometry(node)
    x = node.inputs[0]
    assert x is not None
    seen = sample_center(emit, x, shape)
    if site.groups == 1:
        rows = channels_first(emit, seen, site)
        return emit.op("Unsqueeze", emit.op("Gemm", rows, rows, transB=1), emit.ints(0))
    if site.shape[1] == 1:
        squares = emit.op("ReduceSum", emit.op("Mul", seen, seen), _all_but_channels(emit, site), keepdims=0)
        return emit.op("Unsqueeze", squares, emit.ints(1, 2))
    pixels = int(np.prod(site.output_size))
    grouped = emit.op("Reshape", seen, emit.ints(-1, site.groups, site.shape[1], pixels))
    per_image = emit.op("MatMul", grouped, emit.op("Transpose", grouped, perm=[0, 1, 3, 2]))
    return emit.op("ReduceSum", per_image, emit.ints(0), keepdims=0)


def _all_but_channels(emit: Emitter, site: Site) -> ir.Value:
    """The axes of the batch and of all positions."""
    return emit.ints(0, *range(2, 2 + len(site.output_size)))


def channels_first(emit: Emitter, value: ir.Value, site: Site) -> ir.Value:
    """`(n, c, *out)` -> `(c, n * pixels)`"""
    rank = len(site.output_size)
    return emit.op("Flatten", emit.op("Transpose", value, perm=[1, 0, *range(2, 2 + rank)]), axis=1)
