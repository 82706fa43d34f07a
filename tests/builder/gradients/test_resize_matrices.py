"""The matrix of a Resize is the one that the runtime multiplies with, wherever float32 decides between two pixels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from gradient_check import gradient_model, run_ort
from onnx_text import model

from csk_artifacts_builder.gradients.resizing import interpolation_matrix

SCALES = (0.3, 0.35, 0.6, 0.7, 1.1, 1.3, 1.7, 2.5)


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("transform", ["asymmetric", "half_pixel", "align_corners"])
def test_nearest_pixels_are_those_of_the_runtime(transform: str, rounding: str) -> None:
    call = (
        f'<mode="nearest", nearest_mode="{rounding}", coordinate_transformation_mode="{transform}">(x, , s)'
    )
    wrong = []
    for size in range(4, 13):
        for scale in SCALES:
            text = f"(float[1,1,{size},{size}] x) => (float[1,1,{size},M] y) {{ y = Resize{call} }}"
            proto = model(text, s=np.array([1.0, 1.0, 1.0, scale]))
            (y,) = run_ort(proto, {"x": np.eye(size, dtype=np.float32)[None, None]}).values()
            node = ir.from_proto(proto).graph.node(0)
            matrix = interpolation_matrix(node, size, y.shape[3], float(np.float32(scale)))
            assert matrix is not None
            if y.shape[3] != size and not np.array_equal(matrix.T, y[0, 0]):
                wrong.append((size, scale))
    assert wrong == []


def test_a_picture_that_keeps_its_size_is_copied_by_the_runtime_and_so_is_its_gradient() -> None:
    call = '<mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric">(x, , s)'
    proto = model(
        f"(float[N,1,5,5] x) => (float[N,1,5,5] y) {{ y = Resize{call} }}", s=np.array([1, 1, 1.1, 1.1])
    )
    x, g = np.random.default_rng(0).normal(size=(2, 2, 1, 5, 5)).astype(np.float32)
    (y,) = run_ort(proto, {"x": x}).values()
    np.testing.assert_array_equal(y, x)
    (dx,) = run_ort(gradient_model(proto), {"x": x, "g": g}).values()
    np.testing.assert_array_equal(dx, g)
