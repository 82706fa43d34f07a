"""The gradient rule of Resize: linear in its input, so its gradient is multiplication with the transposed matrix.

Sizes are static, so along each axis of the image a resize is a constant matrix `M (out, in)`, `y = M_h x M_w^T` for an
image, and `dx = M_h^T g M_w`. The matrices follow the op specification (Resize-13).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, attribute, constant_array, static_shape
from csk_artifacts_builder.gradients.registry import vjp
from csk_sdk.errors import UnsupportedOpError

Matrix = NDArray[np.float64]

_ROUNDINGS: dict[str, Callable[[Matrix], Matrix]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda place: np.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: np.floor(place + 0.5),
}


@vjp("Resize")
def resize(emit: Emitter, node: ir.Node, g: ir.Value) -> Sequence[ir.Value | None]:
    """y = M_h x M_w^T: dx = M_h^T g M_w; blocks of equal pixels are summed without a matrix"""
    rest = [None] * (len(node.inputs) - 1)
    matrices = interpolation_matrices(node)
    factors = [_copies(matrix) for matrix in matrices]
    if all(factors):
        # Scaled first: a Pad in front of a pool, which g may come from, is not safe with every runtime (pools.py).
        scaled = emit.op("Mul", g, emit.scalar(float(np.prod(factors))))
        return [emit.op("AveragePool", scaled, kernel_shape=factors, strides=factors), *rest]
    *rows, columns = matrices
    g = emit.op("MatMul", g, emit.constant(columns, np.float32, "interpolation"))
    if rows:
        g = emit.op("MatMul", emit.constant(rows[0].T, np.float32, "interpolation"), g)
    return [g, *rest]


def interpolation_matrix(node: ir.Node, size: int, out: int, scale: float) -> Matrix | None:
    """`M (out, size)` float64, so that `M @ x` resizes along one axis; None for a form that no exporter writes."""
    place = _places(attribute(node, "coordinate_transformation_mode", "half_pixel"), size, out, scale)
    if place is None:
        return None
    mode = attribute(node, "mode", "nearest")
    if mode == "nearest":
        rounding = _ROUNDINGS[attribute(node, "nearest_mode", "round_prefer_floor")]
        return _gathered(rounding(place)[:, None], np.ones((out, 1)), size)
    first = np.floor(place)
    t = place - first
    if mode == "linear":
        return _gathered(first[:, None] + [0, 1], np.stack([1 - t, t], axis=1), size)
    taps = first[:, None] + [-1, 0, 1, 2]
    weights = _cubic(t, attribute(node, "cubic_coeff_a", -0.75))
    if attribute(node, "exclude_outside", 0):
        weights *= (taps >= 0) & (taps < size)
        weights /= weights.sum(axis=1, keepdims=True)
    return _gathered(taps, weights, size)


def _places(transform: str, size: int, out: int, scale: float) -> Matrix | None:
    """Where in the input each output position lies, `(out,)`.

    In float32, as runtimes compute it: where 3 / 0.6 is 5 and not a little less, which decides between two pixels.
    """
    i, by = np.arange(out, dtype=np.float32), np.float32(scale)
    half = np.float32(0.5)
    if transform == "asymmetric":
        return (i / by).astype(np.float64)
    if transform == "align_corners":
        return (
            (i * np.float32(size - 1) / np.float32(out - 1)).astype(np.float64) if out > 1 else np.zeros(out)
        )
    if transform == "half_pixel" or (transform == "pytorch_half_pixel" and out > 1):
        return ((i + half) / by - half).astype(np.float64)
    return np.zeros(out) if transform == "pytorch_half_pixel" else None


def _cubic(t: Matrix, a: float) -> Matrix:
    """Weights of the four neighbours, `(out, 4)` (Keys, 1981)."""

    def near(d: Matrix) -> Matrix:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1

    def far(d: Matrix) -> Matrix:
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a

    return np.stack([far(1 + t), near(t), near(1 - t), far(2 - t)], axis=1)


def _gathered(taps: NDArray[np.float64], weights: Matrix, size: int) -> Matrix:
    """The matrix of weighted taps, `(out, taps)` both; what lies outside is the pixel at the border."""
    matrix = np.zeros((len(taps), size))
    inside = np.clip(taps, 0, size - 1).astype(np.int64)
    np.add.at(matrix, (np.arange(len(taps))[:, None], inside), weights)
    return matrix


def interpolation_matrices(node: ir.Node) -> list[Matrix]:
    """One for each axis of the image.

    Raises UnsupportedOpError for what this rule does not cover.
    """
    x = node.inputs[0]
    assert x is not None
    before, after = static_shape(x), static_shape(node.outputs[0])
    scales, sizes = (constant_array(value) for value in (*node.inputs[2:4], None, None)[:2])
    if not all(isinstance(size, int) for size in (*before[2:], *after[2:])):
        raise UnsupportedOpError(
            f"no gradient rule for 'Resize' on an image of unknown size (node '{node.name}'). "
            "Export the model with a fixed image size."
        )
    matrices: list[Matrix | None] = []
    for axis in range(2, len(before)):
        size, out = int(before[axis]), int(after[axis])
        given = float(scales[axis]) if scales is not None and scales.size else out / size
        if before[2:] == after[2:]:
            # Whatever the scale says (1.1 of five pixels), ONNX Runtime copies an image that keeps its size.
            matrices.append(np.eye(size))
            continue
        matrices.append(interpolation_matrix(node, size, out, given))
    known = [matrix for matrix in matrices if matrix is not None]
    constant = any(array is not None and array.size for array in (scales, sizes))
    if before[1] != after[1] or len(known) < len(before) - 2 or len(known) not in (1, 2) or not constant:
        transform = attribute(node, "coordinate_transformation_mode", "half_pixel")
        raise UnsupportedOpError(
            f"no gradient rule for 'Resize' (node '{node.name}') with '{transform}' coordinates, computed sizes, or "
            "other than along the one or two axes of an image. Train only later layers with --trainable from:NODE."
        )
    return known


def _copies(matrix: Matrix) -> int:
    """The whole factor k of `y[i] = x[i // k]`, or 0 where the matrix is not that."""
    out, size = matrix.shape
    factor = out // size
    return factor if np.array_equal(matrix, np.repeat(np.eye(size), factor, axis=0)) else 0
