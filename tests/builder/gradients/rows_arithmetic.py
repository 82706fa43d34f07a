"""Rows of elementwise arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from gradient_row import Row, of, unary


def broadcast(op: str, case: str, a: str, b: str, **options: object) -> Row:
    text = f"({_typed(a)} x, {_typed(b)} x2) => (float[N,3,4,5] y) {{ y = {op}(x, x2) }}"
    return Row(op, case, text, **options)  # type: ignore[arg-type]


def extremum(op: str, case: str, a: str, b: str) -> Row:
    """Both inputs are drawn from the same values, so one is moved by less than their distance."""
    call = f"s = Add(x2, shift) \n y = {op}(x, s)"
    text = f"({_typed(a)} x, {_typed(b)} x2) => (float[N,3,4,5] y) {{ {call} }}"
    return Row(op, case, text, {"shift": np.array(0.013)})


def _typed(dims: str) -> str:
    return f"float[{dims}]" if dims else "float"


WIDE, CHANNEL, SCALAR = "N,3,4,5", "3,1,1", "1"
BROADCASTS = {
    "same shape": (WIDE, WIDE),
    "channel on the right": (WIDE, CHANNEL),
    "channel on the left": (CHANNEL, WIDE),
    "scalar on the right": (WIDE, SCALAR),
    "rank 0 on the left": ("", WIDE),
    "rows against an image": ("N,3,4,1", "1,3,1,5"),
}


ROWS = [
    *(broadcast("Add", case, a, b) for case, (a, b) in BROADCASTS.items()),
    *(broadcast("Sub", case, a, b) for case, (a, b) in BROADCASTS.items()),
    *(broadcast("Mul", case, a, b) for case, (a, b) in BROADCASTS.items()),
    *(broadcast("Div", case, a, b, low=0.5) for case, (a, b) in BROADCASTS.items()),
    of("Add", "to itself", "N,3 -> N,3", "(x, x)"),
    of("Mul", "by itself", "N,3 -> N,3", "(x, x)"),
    Row(
        "Div",
        "by itself plus a constant",
        "(float[N,3] x) => (float[N,3] y) { s = Add(x, c) \n y = Div(x, s) }",
        {"c": np.array(4.0)},
    ),
    of("Sub", "constant on the left", "N,3,4 -> N,3,4", "(c, x)", c=(3, 1)),
    of("Mul", "constant wider than x", "N,1,4 -> N,3,4", "(x, c)", c=(3, 4)),
    unary("Neg", "plain"),
    unary("Exp", "both signs"),
    unary("Log", "positive", low=0.3),
    unary("Sqrt", "positive", low=0.3),
    unary("Abs", "both signs", away=(0.0,)),
    unary("Reciprocal", "positive", low=0.4),
    unary("Reciprocal", "negative", low=-3, high=-0.5),
    of("Pow", "square of both signs", "N,3,4 -> N,3,4", "(x, p)", p=np.array(2.0)),
    of("Pow", "cube, integer exponent", "N,3,4 -> N,3,4", "(x, p)", p=np.array(3)),
    replace(of("Pow", "fraction", "N,3,4 -> N,3,4", "(x, p)", p=np.array([1 / 3])), low=0.3),
    replace(of("Pow", "minus one half", "N,3,4 -> N,3,4", "(x, p)", p=np.array(-0.5)), low=0.3),
    of("Pow", "exponents wider than x", "N,1,4 -> N,3,4", "(x, p)", p=np.array([[1.0], [2.0], [0.0]])),
    of("Sum", "three inputs, one constant", "N,3,4; 3,1 -> N,3,4", "(x, c, x2)", c=(4,)),
    of("Sum", "of one", "N,3 -> N,3", "(x)"),
    of("Sum", "to itself", "N,3 -> N,3", "(x, x)"),
    *(extremum(op, case, a, b) for op in ("Max", "Min") for case, (a, b) in BROADCASTS.items()),
    of("Max", "with a constant, as Relu", "N,3,4 -> N,3,4", "(c, x)", c=np.array(0.05)),
    of("Max", "with zeros wider than x", "N,1,4 -> N,3,4", "(x, z)", z=np.zeros((3, 1))),
    *(
        Row(
            op,
            "three inputs of three shapes",
            f"(float[N,3,4] x, float[3,1] x2) => (float[N,3,4] y) {{ s = Add(x2, shift) \n y = {op}(c, x, s) }}",
            {"shift": np.array(0.013), "c": (4,)},
        )
        for op in ("Max", "Min")
    ),
    of("Max", "three inputs", "N,3,4; N,3,4 -> N,3,4", "(x, c, x2)", c=(3, 4)),
    of("Min", "with a constant", "N,3,4 -> N,3,4", "(x, c)", c=np.array(1.03)),
    Row(
        "Where",
        "both branches, broadcast",
        "(float[N,3,4] x, float[3,1] x2) => (float[N,3,4] y) { m = Greater(c, z) \n y = Where(m, x, x2) }",
        {"c": (3, 4), "z": np.array(0.0)},
    ),
    *(
        Row(
            "Where",
            case,
            f"(float[{a}] x, float[{b}] x2) => (float[N,3,4] y) {{ m = Greater(c, z) \n y = Where(m, x, x2) }}",
            {"c": condition, "z": np.array(0.0)},
        )
        for case, a, b, condition in (
            ("narrow condition", "N,3,4", "N,3,4", np.array([1.0, -1.0, 1.0, -1.0])),
            ("three shapes", "N,1,4", "3,4", np.array([[1.0], [-1.0], [1.0]])),
            ("a scalar", "1", "N,3,4", np.array([1.0, -1.0, 1.0, -1.0])),
            ("nothing of the whole shape", "N,1,1", "3,1", np.array([1.0, -1.0, 1.0, -1.0])),
        )
    ),
    Row(
        "Where",
        "condition from the input, constant branch",
        "(float[N,3,4] x) => (float[N,3,4] y) { m = Less(x, z) \n n = Not(m) \n y = Where(n, x, c) }",
        {"c": (4,), "z": np.array(0.55)},
        away=(0.55,),
    ),
]
