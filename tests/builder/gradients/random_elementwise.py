"""Random rows of elementwise ops and of softmax."""

from __future__ import annotations

from functools import partial

import numpy as np
from gradient_row import Row
from hypothesis import strategies as st
from random_row import Draw, Shapes, batch, known, row, sizes


def unary(op: str, draw: Draw, away: tuple[float, ...] = (), low: float = -2.0, high: float = 2.3) -> Row:
    return row(op, [batch(draw)], "(x)", {}, away=away, low=low, high=high)


def sloped(op: str, draw: Draw, **attributes: tuple[float, float]) -> Row:
    chosen = {
        name: draw(st.floats(*bounds).map(lambda v: round(v, 2))) for name, bounds in attributes.items()
    }
    kinks = (0.0,)
    if op == "HardSigmoid":
        alpha, beta = chosen["alpha"], chosen["beta"]
        kinks = (-beta / alpha, (1 - beta) / alpha)
    written = ", ".join(f"{name}={value}" for name, value in chosen.items())
    return row(op, [batch(draw)], f"<{written}>(x)", {}, away=kinks)


def clip(draw: Draw) -> Row:
    low, high = round(draw(st.floats(-1.5, 0.0)), 2), round(draw(st.floats(0.5, 1.5)), 2)
    return row(
        "Clip", [batch(draw)], "(x, a, b)", {"a": np.array(low), "b": np.array(high)}, away=(low, high)
    )


def prelu(draw: Draw) -> Row:
    shape = batch(draw, 2, 3)
    slope = tuple(size if draw(st.booleans()) else 1 for size in shape[1:])
    return row("PRelu", [shape], "(x, s)", {"s": slope}, away=(0.0,))


def broadcast(draw: Draw) -> list[tuple[int, ...]]:
    """Two shapes that broadcast, one of them perhaps shorter."""
    full = known(batch(draw, 1, 3))
    shapes = [tuple(size if draw(st.booleans()) else 1 for size in full) for _ in range(2)]
    cut = draw(st.integers(0, len(full) - 1))
    shapes[1] = shapes[1][cut:]
    return shapes if draw(st.booleans()) else shapes[::-1]


def binary(op: str, draw: Draw, low: float = -2.0) -> Row:
    return row(op, broadcast(draw), "(x, x2)", {}, low=low)


def extremum(op: str, draw: Draw) -> Row:
    shapes = broadcast(draw)
    typed = ", ".join(
        f"float[{','.join(map(str, one))}] {name}" for one, name in zip(shapes, ("x", "x2"), strict=True)
    )
    # Both inputs hold the same values: one is moved by less than their distance.
    text = f"({typed}) => (float[] y) {{ s = Add(x2, shift) \n y = {op}(x, s) }}"
    return Row(op, "random", text, {"shift": np.array(0.0037)})


def power(draw: Draw) -> Row:
    exponent = draw(st.sampled_from([0.5, 1.5, 2.0, 3.0, -1.0]))
    return row("Pow", [batch(draw)], "(x, p)", {"p": np.array(exponent)}, low=0.4)


def where(draw: Draw) -> Row:
    shapes = broadcast(draw)
    mask = np.broadcast_shapes(*shapes)
    typed = ", ".join(
        f"float[{','.join(map(str, one))}] {name}" for one, name in zip(shapes, ("x", "x2"), strict=True)
    )
    # At least one element from either side, where there are two.
    condition = np.arange(int(np.prod(mask))).reshape(mask) % 2 - 0.5
    text = f"({typed}) => (float[] y) {{ m = Greater(c, z) \n a = Where(m, x, x2) \n b = Where(m, x2, x) \n"
    text += "h = Mul(b, half) \n y = Add(a, h) }"
    return Row("Where", "random", text, {"c": condition, "z": np.array(0.0), "half": np.array(0.3)})


def softmax(op: str, draw: Draw) -> Row:
    shape = (0, *sizes(draw, 1, 3, 3), 3)
    axis = draw(st.integers(1, len(shape) - 1)) - len(shape) * draw(st.integers(0, 1))
    return row(op, [shape], f"<axis={axis}>(x)", {})


def summed(draw: Draw) -> Row:
    a, b = broadcast(draw)
    return row("Sum", [a, b], "(x, x2, c)", {"c": known(b)})


SHAPES: Shapes = {
    **{
        op: partial(unary, op)
        for op in ("Sigmoid", "Tanh", "Softplus", "Erf", "Exp", "Neg", "Identity", "Dropout")
    },
    **{op: partial(unary, op, away=(0.0,)) for op in ("Relu", "Abs", "Softsign")},
    **{op: partial(unary, op, low=0.4) for op in ("Log", "Sqrt", "Reciprocal")},
    "HardSwish": partial(unary, "HardSwish", away=(-3.0, 3.0), low=-5, high=5),
    "LeakyRelu": partial(sloped, "LeakyRelu", alpha=(0.01, 0.5)),
    "Elu": partial(sloped, "Elu", alpha=(0.3, 1.5)),
    "Celu": partial(sloped, "Celu", alpha=(0.3, 1.5)),
    "Selu": partial(sloped, "Selu", alpha=(0.5, 1.7), gamma=(0.5, 1.2)),
    "HardSigmoid": partial(sloped, "HardSigmoid", alpha=(0.15, 0.3), beta=(0.3, 0.6)),
    "Clip": clip,
    "PRelu": prelu,
    **{op: partial(binary, op) for op in ("Add", "Sub", "Mul")},
    "Div": partial(binary, "Div", low=0.5),
    **{op: partial(extremum, op) for op in ("Max", "Min")},
    "Pow": power,
    "Where": where,
    "Sum": summed,
    **{op: partial(softmax, op) for op in ("Softmax", "LogSoftmax")},
}
