"""Random rows of ops that move, take, repeat or join elements."""

from __future__ import annotations

from functools import partial

import numpy as np
from gradient_row import Row
from hypothesis import strategies as st
from random_row import Draw, Shapes, batch, ints, picture, row, sizes, written


def reshaped(draw: Draw) -> Row:
    shape = batch(draw, 2, 3)
    target = draw(st.permutations(shape[1:]))
    cut = draw(st.integers(0, len(target) - 1))
    merged = [*target[:cut], int(np.prod(target[cut:]))]
    return row("Reshape", [shape], "(x, s)", {"s": ints([-1, *merged])})


def flattened(draw: Draw) -> Row:
    shape = batch(draw, 2, 3)
    return row("Flatten", [shape], f"<axis={draw(st.integers(1, len(shape) - 1))}>(x)", {})


def squeezed(draw: Draw) -> Row:
    shape, axes = [0], []
    for size in sizes(draw, 1, 3):
        if not axes or draw(st.booleans()):
            axes.append(len(shape))
            shape.append(1)
        shape.append(size)
    return row("Squeeze", [tuple(shape)], "(x, a)", {"a": ints(axes)})


def unsqueezed(draw: Draw) -> Row:
    shape = batch(draw, 1, 2)
    most = len(shape)
    axes = draw(
        st.lists(st.integers(-most, most), min_size=1, max_size=2, unique_by=lambda a: a % (most + 1))
    )
    axes = axes if len({axis % (most + len(axes)) for axis in axes}) == len(axes) else axes[:1]
    return row("Unsqueeze", [shape], "(x, a)", {"a": ints(axes)})


def transpose(draw: Draw) -> Row:
    shape = batch(draw, 1, 3)
    return row(
        "Transpose", [shape], f"<{written({'perm': draw(st.permutations(range(len(shape))))})}>(x)", {}
    )


def concat(draw: Draw) -> Row:
    shape = list(batch(draw, 1, 3))
    axis = draw(st.integers(1, len(shape) - 1))
    other = [*shape]
    other[axis] = draw(st.integers(1, 4))
    counted = axis - len(shape) * draw(st.integers(0, 1))
    return row("Concat", [tuple(shape), tuple(other)], f"<axis={counted}>(x2, x, x2)", {})


def padded(draw: Draw) -> Row:
    shape = batch(draw, 1, 3)
    least = [-1 if size > 2 else 0 for size in shape]  # cuts one off
    each = [draw(st.integers(low, 2)) for low in (*least, *least)]
    each[0] = each[len(shape)] = 0
    return row("Pad", [shape], "(x, p, v)", {"p": ints(each), "v": np.array(0.5)})


def split(draw: Draw) -> Row:
    parts = list(sizes(draw, 2, 2))
    behind = sizes(draw, 0, 2)
    typed = ",".join(map(str, ("N", sum(parts), *behind)))
    used = draw(st.sampled_from(["y, b", "b, y"]))
    text = f"(float[{typed}] x) => (float[] y) {{ {used} = Split<axis=1>(x, s) }}"
    return Row("Split", "random", text, {"s": ints(parts)})


def sliced(draw: Draw) -> Row:
    shape = batch(draw, 1, 3)
    axis = draw(st.integers(1, len(shape) - 1))
    start = draw(st.integers(0, shape[axis] - 1))
    end, step = draw(st.integers(start + 1, shape[axis] + 2)), draw(st.integers(1, 2))
    if draw(st.booleans()):
        start, end, step = shape[axis] - 1, -(2**62), -step
    return row(
        "Slice",
        [shape],
        "(x, b, e, a, s)",
        {k: ints([v]) for k, v in zip("beas", (start, end, axis, step), strict=True)},
    )


def gathered(draw: Draw) -> Row:
    shape = batch(draw, 1, 3)
    axis = draw(st.integers(1, len(shape) - 1))
    count = draw(st.integers(1, 4))
    indices = [draw(st.integers(-shape[axis], shape[axis] - 1)) for _ in range(count)]
    chosen = np.int64(indices[0]) if draw(st.booleans()) else ints(indices)
    return row("Gather", [shape], f"<axis={axis}>(x, i)", {"i": np.asarray(chosen)})


def expanded(draw: Draw) -> Row:
    wide = sizes(draw, 1, 3)
    narrow = tuple(size if draw(st.booleans()) else 1 for size in wide)
    return row("Expand", [narrow[draw(st.integers(0, len(narrow) - 1)) :]], "(x, s)", {"s": ints(wide)})


def tiled(draw: Draw) -> Row:
    shape = batch(draw, 1, 2)
    return row("Tile", [shape], "(x, r)", {"r": ints([1, *(draw(st.integers(1, 3)) for _ in shape[1:])])})


def blocks(op: str, draw: Draw) -> Row:
    block, channels = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    height, width = picture(draw, 2, 1, 2)
    if op == "SpaceToDepth":
        return row(op, [(0, channels, height * block, width * block)], f"<blocksize={block}>(x)", {})
    mode = draw(st.sampled_from(["DCR", "CRD"]))
    return row(op, [(0, channels * block**2, height, width)], f'<blocksize={block}, mode="{mode}">(x)', {})


SHAPES: Shapes = {
    "Reshape": reshaped,
    "Flatten": flattened,
    "Squeeze": squeezed,
    "Unsqueeze": unsqueezed,
    "Transpose": transpose,
    "Concat": concat,
    "Pad": padded,
    "Split": split,
    "Slice": sliced,
    "Gather": gathered,
    "Expand": expanded,
    "Tile": tiled,
    **{op: partial(blocks, op) for op in ("DepthToSpace", "SpaceToDepth")},
}
