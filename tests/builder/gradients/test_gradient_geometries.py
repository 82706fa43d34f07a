"""Slices, resizes and convolutions of any geometry against their definitions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from gradient_check import adjoint, gradient_model, run_ort
from gradient_row import BATCH
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_text import model

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.gradients.convolution import input_gradient
from csk_artifacts_builder.sites import Geometry
from csk_sdk.errors import UnsupportedOpError

PLACES = st.integers(-9, 9) | st.sampled_from([2**62, -(2**62)])


@given(PLACES, PLACES, st.sampled_from([-3, -2, -1, 1, 2, 3]), st.integers(1, 7))
@example(-1, -(2**62), -1, 5)
@example(2, -8, -1, 7)
@settings(max_examples=60, deadline=None)
def test_gradient_of_any_slice(start: int, end: int, step: int, size: int) -> None:
    places = dict(zip(("b", "e", "a", "s"), (start, end, 1, step), strict=True))
    tensors = {name: np.array([value]) for name, value in places.items()}
    forward = model(f"(float[N,{size}] x) => (float[N,M] y) {{ y = Slice(x, b, e, a, s) }}", **tensors)
    taken = slice(start, end, step)
    expected = np.zeros((BATCH, size), np.float32)
    g = np.random.default_rng(0).normal(size=expected[:, taken].shape).astype(np.float32)
    if not g.size:
        with pytest.raises(UnsupportedOpError, match="'Slice' that takes nothing"):
            gradient_model(forward)
        return
    expected[:, taken] = g
    got = run_ort(gradient_model(forward), {"x": expected, "g": g})["x"]
    np.testing.assert_array_equal(got, expected)


TRANSFORMS = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@given(
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from(TRANSFORMS),
    st.sampled_from(NEAREST),
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=2),
    st.booleans(),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_gradient_of_any_resize_is_its_adjoint(
    mode: str, transform: str, nearest: str, axes: list[tuple[int, int]], by_scale: bool
) -> None:
    """`<g, y(x)> = <dx(g), x>` for random x and g, with y as ONNX Runtime computes it."""
    if mode == "cubic" and len(axes) == 1:
        axes = [(3, 3), *axes]  # ONNX Runtime has no 1-d cubic resize
    before, after = zip(*axes, strict=True)
    attributes = f'mode="{mode}", coordinate_transformation_mode="{transform}", nearest_mode="{nearest}"'
    # A scale a little above the exact one gives the same size, but other places. (ONNX Runtime copies an image whose
    # size stays the same, whatever the scale says.)
    scales = [1.0, 1.0, *((out + 0.25 * (out != size)) / size for size, out in axes)]
    chosen = np.array(scales) if by_scale else np.array([BATCH, 2, *after])
    into = "s" if by_scale else ", s"
    forward = model(
        f"(float[{BATCH},2,{','.join(map(str, before))}] x) => (float[{BATCH},2,{','.join(map(str, after))}] y) "
        f"{{ y = Resize<{attributes}>(x, , {into}) }}",
        s=chosen,
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, 2, *before)).astype(np.float32)
    y = run_ort(forward, {"x": x})["y"]
    g = rng.normal(size=y.shape).astype(np.float32)
    dx = run_ort(gradient_model(forward), {"x": x, "g": g})["x"]
    assert float(np.sum(g * y)) == pytest.approx(float(np.sum(dx * x)), rel=1e-3, abs=1e-3)


# --- convolutions of any geometry


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Geometry, int]:
    """A convolution's geometry and its number of output channels."""
    rank = draw(st.sampled_from([2, 2, 2, 1]))
    each = {"min_size": rank, "max_size": rank}
    kernel = draw(st.lists(st.integers(1, 5), **each))
    stride = (
        [draw(st.integers(1, 3))] * rank if draw(st.booleans()) else draw(st.lists(st.integers(1, 3), **each))
    )
    dilation = draw(st.sampled_from([[1] * rank, [1] * rank, [2] * rank, [1, 2][:rank]]))
    pads = draw(st.lists(st.integers(0, 3), min_size=2 * rank, max_size=2 * rank))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_group, rows = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    smallest = [max(1, span - b - e) for span, b, e in zip(spans, pads[:rank], pads[rank:], strict=True)]
    size = [least + draw(st.integers(0, 6)) for least in smallest]
    out = [
        (n + b + e - span) // s + 1
        for n, b, e, span, s in zip(size, pads[:rank], pads[rank:], spans, stride, strict=True)
    ]
    shape = Geometry(
        tuple(kernel),
        tuple(stride),
        tuple(dilation),
        tuple(pads),
        groups,
        per_group * groups,
        tuple(size),
        tuple(out),
    )
    return shape, rows * groups


# The center tap of the last position reads beyond the padded end of a one pixel wide image.
BEYOND = Geometry((1, 4), (1, 1), (1, 1), (0, 0, 0, 3), 1, 1, (1, 1), (1, 1))


@given(geometries(), st.booleans(), st.integers(0, 2**16))
@example((BEYOND, 1), True, 0)
@example((Geometry((5, 5), (2, 2), (1, 1), (2, 2, 2, 2), 1, 2, (9, 8), (5, 4)), 3), True, 1)
@example((Geometry((7, 5), (3, 3), (1, 1), (3, 0, 2, 1), 1, 2, (10, 9), (3, 2)), 3), True, 2)
@settings(max_examples=100, deadline=None)
def test_input_gradient_of_any_geometry(drawn: tuple[Geometry, int], with_center: bool, seed: int) -> None:
    shape, rows = drawn
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(rows, shape.channels // shape.groups, *shape.kernel)).astype(np.float32)
    center = rng.normal(size=weight.shape[:2]).astype(np.float32)
    g = rng.normal(size=(BATCH, rows, *shape.out_size)).astype(np.float32)

    emit = Emitter(ir.Graph([], [], nodes=[], opset_imports={"": 17}, name="gradient"))
    inputs = [emit.input("g", ir.DataType.FLOAT, ["N", *g.shape[1:]])]
    through = _through(g, center, shape)
    inputs += [emit.input("through", ir.DataType.FLOAT, ["N", *through.shape[1:]])] if with_center else []
    dx = input_gradient(emit, inputs[0], emit.initializer(weight, "w"), shape, *inputs[1:])
    emit.output(dx, "dx", ["N", shape.channels, *shape.in_size])
    proto = ir.to_proto(ir.Model(emit.graph, ir_version=8))
    got = run_ort(proto, {"g": g, "through": through} if with_center else {"g": g})["dx"]

    kernel = weight.astype(np.float64)
    if with_center:
        kernel[(..., *(k // 2 for k in shape.kernel))] += center
    np.testing.assert_allclose(got, adjoint(g.astype(np.float64), kernel, shape), rtol=1e-4, atol=1e-4)


def _through(g: NDArray, center: NDArray, shape: Geometry) -> NDArray:
    """What a change of the center `(c_out, c_in / groups)` sends back to what the center tap has read."""
    parts = zip(np.split(g, shape.groups, axis=1), np.split(center, shape.groups), strict=True)
    return np.concatenate(
        [np.einsum("no...,oc->nc...", of_group, change) for of_group, change in parts], axis=1
    )
