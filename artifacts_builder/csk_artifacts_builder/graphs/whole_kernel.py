"""A site whose whole kernel is trainable: its change in the graph, the gradient, and the second moment of its patches.

One convolution runs with the changed kernel, so that a step costs what training that layer costs anywhere. Columns of
the change are numbered as a kernel lies in memory: channel by channel, all positions of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.gradients import Segment
from csk_artifacts_builder.gradients.convolution import input_gradient
from csk_artifacts_builder.graphs.center import channels_first, dense_change, grouped_gradient
from csk_artifacts_builder.sites import Geometry, geometry
from csk_sdk.contract.manifest import Site


def add_to_kernel(emit: Emitter, node: ir.Node, site: Site, delta: ir.Value, indices: ir.Value) -> Segment:
    """Let convolution `node` run with its kernel and the change, and return it as one differentiable segment.

    delta `(c_out // groups, k)` float32 and indices `(k,)` int64 as described by `Site`.
    """
    shape = geometry(node)
    x, y, weight = node.inputs[0], node.outputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    before = set(emit.graph)
    with emit.before(node):
        change = emit.op("Reshape", dense_change(emit, site, delta, indices), emit.ints(*site.shape))
        kernel = emit.op("Add", weight, change)
    kernel.shape, kernel.dtype = weight.shape, ir.DataType.FLOAT
    node.replace_input_with(1, kernel)
    nodes = frozenset({node, *(set(emit.graph) - before)})

    def rule(emit: Emitter, g: ir.Value, needed: Sequence[bool]) -> Sequence[ir.Value | None]:
        dx = input_gradient(emit, g, kernel, shape) if needed[0] else None
        return [dx, _delta_gradient(emit, node, site, g, indices) if needed[1] else None]

    return Segment(nodes, (x, delta), y, rule, site.node)


def _delta_gradient(emit: Emitter, node: ir.Node, site: Site, g: ir.Value, indices: ir.Value) -> ir.Value:
    """The selected columns of dL/dW, `(c_out // groups, k)`."""
    dense = kernel_gradient(emit, node, site, g)
    by_group = emit.op("Reshape", dense, emit.ints(site.groups, site.rows, site.width))
    columns_first = emit.op("Transpose", by_group, perm=[0, 2, 1])
    by_column = emit.op("Reshape", columns_first, emit.ints(site.columns, site.rows))
    return emit.op("Transpose", emit.op("Gather", by_column, indices, axis=0), perm=[1, 0])


def kernel_gradient(emit: Emitter, node: ir.Node, site: Site, g: ir.Value) -> ir.Value:
    """dL/dW of a site's whole kernel, `(c_out, c_in / groups, *kernel)`: every position as the center, one by one.

    g `(n, c_out, *out)` is the gradient at the convolution's output.
    """
    seen = _every_tap(emit, node.inputs[0], geometry(node))
    if site.groups == 1:
        rows = channels_first(emit, g, site)
        matrices = [emit.op("Gemm", rows, channels_first(emit, x, site), transB=1) for x in seen]
    else:
        by_group = [grouped_gradient(emit, g, x, site) for x in seen]
        matrices = [
            emit.op("Reshape", emit.op("Transpose", each, perm=[0, 2, 1]), emit.ints(*site.shape[:2]))
            for each in by_group
        ]
    taps = [emit.op("Unsqueeze", matrix, emit.ints(2)) for matrix in matrices]
    return emit.op("Reshape", emit.op("Concat", *taps, axis=2), emit.ints(*site.shape))


def patch_moment(emit: Emitter, node: ir.Node, site: Site) -> ir.Value:
    """K = x_p^T x_p of what the whole kernel sees, over the batch and all positions, `(groups, width, width)`."""
    taps = list(_every_tap(emit, node.inputs[0], geometry(node)))
    if site.groups == 1:
        rows = [emit.op("Unsqueeze", channels_first(emit, seen, site), emit.ints(1)) for seen in taps]
        patches = emit.op("Reshape", emit.op("Concat", *rows, axis=1), emit.ints(site.width, -1))
        return emit.op("Unsqueeze", emit.op("Gemm", patches, patches, transB=1), emit.ints(0))
    pixels = int(np.prod(site.output_size))
    apart = emit.ints(-1, site.groups, site.shape[1], 1, pixels)
    patches = emit.op("Concat", *(emit.op("Reshape", seen, apart) for seen in taps), axis=3)
    grouped = emit.op("Reshape", patches, emit.ints(-1, site.groups, site.width, pixels))
    per_image = emit.op("MatMul", grouped, emit.op("Transpose", grouped, perm=[0, 1, 3, 2]))
    return emit.op("ReduceSum", per_image, emit.ints(0), keepdims=0)


def _every_tap(emit: Emitter, x: ir.Value | None, shape: Geometry) -> Iterator[ir.Value]:
    """What each position of the kernel sees of `x` `(n, channels, *in)`, row-major: `(n, channels, *out)` each."""
    assert x is not None
    if any(shape.pads):
        first, last = shape.pads[: shape.rank], shape.pads[shape.rank :]
        x = emit.op("Pad", x, emit.ints(0, 0, *first, 0, 0, *last))
    reach = [s * (n - 1) + 1 for s, n in zip(shape.stride, shape.out_size, strict=True)]
    axes = emit.ints(*range(2, 2 + shape.rank))
    for tap in np.ndindex(*shape.kernel):
        starts = [d * t for d, t in zip(shape.dilation, tap, strict=True)]
        ends = [start + r for start, r in zip(starts, reach, strict=True)]
        yield emit.op("Slice", x, emit.ints(*starts), emit.ints(*ends), axes, emit.ints(*shape.stride))
