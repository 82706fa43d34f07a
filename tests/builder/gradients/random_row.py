"""What the drawn rows have in common: rows without an output shape, and random shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from gradient_row import BATCH, Row
from hypothesis import strategies as st
from onnx_text import initializer

Draw = st.DrawFn
Shapes = dict[str, Callable[[Draw], Row]]


def row(
    op: str, inputs: Sequence[tuple[int, ...]], call: str, tensors: dict[str, Any], **options: Any
) -> Row:
    """`inputs` are the shapes of `x`, `x2`, ...; a size of 0 is the batch."""
    typed = ", ".join(
        f"float[{','.join(str(size or 'N') for size in shape)}] {name}"
        for shape, name in zip(inputs, ("x", "x2", "x3"), strict=False)
    )
    attributes, _, names = call.partition("(")
    text = f"({typed}) => (float[] y) {{ y = {op} {attributes}({names} }}"
    return Row(op, "random", text, tensors, **options)


def finished(drawn: Row) -> Row:
    """The row with the shape of `y` written out, as onnx infers it."""
    tensors = {
        name: np.zeros(spec) if isinstance(spec, tuple) else spec for name, spec in drawn.tensors.items()
    }
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {drawn.text}')
    proto.graph.initializer.extend(initializer(name, array) for name, array in tensors.items())
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    (y,) = inferred.graph.output
    dims = ",".join(str(dim.dim_value or dim.dim_param or "?") for dim in y.type.tensor_type.shape.dim)
    return replace(drawn, text=drawn.text.replace("float[] y", f"float[{dims}] y" if dims else "float y"))


def sizes(draw: Draw, least: int, most: int, largest: int = 4) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(1, largest), min_size=least, max_size=most)))


def batch(draw: Draw, least: int = 1, most: int = 3) -> tuple[int, ...]:
    return (0, *sizes(draw, least, most))


def known(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size or BATCH for size in shape)


def ints(values: Sequence[int]) -> np.ndarray:
    return np.array(values, np.int64)


def picture(draw: Draw, rank: int, least: int = 1, most: int = 7) -> tuple[int, ...]:
    return tuple(draw(st.integers(least, most)) for _ in range(rank))


def written(attributes: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}".replace(" ", "") for name, value in attributes.items())
