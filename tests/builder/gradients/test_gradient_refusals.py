"""What a gradient rule refuses, it refuses in a sentence; and what carries no gradient carries none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from gradient_check import gradient_model, run_ort, tensor
from onnx_text import model

from csk_artifacts_builder.gradients import vjp
from csk_sdk.errors import UnsupportedOpError


@pytest.mark.parametrize(
    ("text", "tensors", "fragment"),
    [
        (
            "(float[N,2,4,4] x, float[3,2,3,3] x2) => (float[N,3,2,2] y) { y = Conv(x, x2) }",
            {},
            "no gradient rule for 'Conv' with a computed weight or bias",
        ),
        (
            "(float[N,3] x) => (float[N] y) { [dot] y = MatMul(x, v) }",
            {"v": (3,)},
            "no gradient rule for 'MatMul' with a vector (node 'dot')",
        ),
        (
            "(float[N,3] x, float[M,3] x2) => (float[K,3] y) { y = Concat<axis=0>(x, x2) }",
            {},
            "no gradient rule for 'Concat' along a dynamic axis",
        ),
        (
            '(float[N,2,4] x) => (float[N,2,6] y) { y = Pad<mode="reflect">(x, p) }',
            {"p": np.array([0, 0, 1, 0, 0, 1])},
            "no gradient rule for 'Pad' with mode 'reflect'",
        ),
        (
            "(float[N,2,4] x) => (float[2,4] y) { y = ReduceMean<axes=[0], keepdims=0>(x) }",
            {},
            "no gradient rule for 'ReduceMean' over a dynamic axis",
        ),
        (
            "(float[N,2,4,4] x) => (float[N,2,2,2] y) "
            "{ y = MaxPool<kernel_shape=[2,2], strides=[2,2], storage_order=1>(x) }",
            {},
            "no gradient rule for column-major 'MaxPool'",
        ),
        (
            "(float[N,2,H,W] x) => (float[N,2,1,1] y) { y = GlobalAveragePool(x) }",
            {},
            "no gradient rule for 'GlobalAveragePool' on an image of unknown size",
        ),
        (
            "(float[N,2] x) => (float[N,2] y) { [soft] y = ThresholdedRelu(x) }",
            {},
            "no gradient rule for 'ThresholdedRelu' (node 'soft' of the model",
        ),
        (
            "(float[N,3] x, float[N,3] x2) => (float[N,3] y) { [power] y = Pow(x, x2) }",
            {},
            "no gradient rule for 'Pow' with a computed exponent (node 'power')",
        ),
        (
            "(float[N,4] x) => (float[N,1] y) { a, y = LayerNormalization(x, s) }",
            {"s": (4,)},
            "no gradient rule for 'LayerNormalization'",
        ),
        (
            "(float[N,4] x, float[4] x2) => (float[N,4] y) { [norm] y = LayerNormalization(x, x2) }",
            {},
            "no gradient rule for 'LayerNormalization' with a computed scale or bias (node 'norm')",
        ),
        (
            "(float[N,2,4] x, float[2] x2) => (float[N,2,4] y) { y = InstanceNormalization(x, s, x2) }",
            {"s": (2,)},
            "no gradient rule for 'InstanceNormalization' with a computed scale or bias",
        ),
        (
            "(float[N,4] x, int64[1] a) => (float y) { [sum] y = ReduceSum(x, a) }",
            {},
            "no gradient rule for 'ReduceSum' with computed axes (node 'sum')",
        ),
        (
            "(float[N,4] x, int64[1] b) => (float[N,M] y) { [cut] y = Slice(x, b, e, a) }",
            {"e": np.array([3]), "a": np.array([1])},
            "no gradient rule for 'Slice' with computed places (node 'cut')",
        ),
        (
            "(float[N,4] x) => (float[M,4] y) { [cut] y = Slice(x, b, e) }",
            {"b": np.array([0]), "e": np.array([1])},
            "no gradient rule for 'Slice' along a dynamic axis (node 'cut')",
        ),
        (
            "(float[N,4] x, int64[2] i) => (float[N,2] y) { [pick] y = Gather<axis=1>(x, i) }",
            {},
            "no gradient rule for 'Gather' with computed indices (node 'pick')",
        ),
        (
            "(float[N,4] x, int64[2] r) => (float[M,K] y) { y = Tile(x, r) }",
            {},
            "no gradient rule for 'Tile' with computed repeats",
        ),
        (
            "(float[N,2,4,4] x, float[4] s) => (float[N,2,8,8] y) { [up] y = Resize(x, , s) }",
            {},
            "no gradient rule for 'Resize' (node 'up') with 'half_pixel' coordinates, computed sizes, or other than",
        ),
        (
            "(float[N,2,4,4] x) => (float[N,4,4,4] y) { [up] y = Resize(x, , s) }",
            {"s": np.array([1.0, 2, 1, 1])},
            "other than along the one or two axes of an image. Train only later layers",
        ),
        (
            '(float[N,2,3,4,4] x) => (float[N,2,6,8,8] y) { [up] y = Resize<mode="linear">(x, , s) }',
            {"s": np.array([1.0, 1, 2, 2, 2])},
            "other than along the one or two axes of an image. Train only later layers",
        ),
        (
            "(float[N,2,4,4] x) => (float[N,2,8,8] y) "
            '{ y = Resize<coordinate_transformation_mode="tf_crop_and_resize">(x, r, s) }',
            {"s": np.array([1.0, 1, 2, 2]), "r": np.array([0.0, 0, 0, 0, 1, 1, 1, 1])},
            "with 'tf_crop_and_resize' coordinates",
        ),
        (
            "(float[N,2,H,W] x) => (float[N,2,K,L] y) { y = Resize(x, , s) }",
            {"s": np.array([1.0, 1, 2, 2])},
            "no gradient rule for 'Resize' on an image of unknown size",
        ),
        (
            "(float[N,3] x, float[N,4] x2) => (float[N,4] y) { [pick] i = ArgMax<axis=1>(x) \n"
            "c = Cast<to=1>(i) \n y = Mul(x2, c) }",
            {},
            "'x' of the model reaches the loss only through op 'ArgMax' (node 'pick'), which has no gradient. "
            "Train only later layers with --trainable from:NODE.",
        ),
        (
            "(float[N,3] x, float[N,4] x2) => (float[N,4] y) { y = Exp(x2) }",
            {},
            "'x' of the model does not reach the loss. Train only later layers with --trainable from:NODE.",
        ),
        (
            "(float[N,2,4,4] x, float[2,3,3,3] x2) => (float[N,3,6,6] y) { y = ConvTranspose(x, x2) }",
            {},
            "no gradient rule for 'ConvTranspose' with a computed weight or bias",
        ),
        (
            "(float[N,2,4,4] x) => (float[N,3,8,8] y) { y = ConvTranspose<output_shape=[8,8], strides=[2,2]>(x, w) }",
            {"w": (2, 3, 3, 3)},
            "no gradient rule for 'ConvTranspose' with auto_pad, output_shape or",
        ),
        (
            "(float[N,2,H,W] x) => (float[N,3,K,L] y) { y = ConvTranspose(x, w) }",
            {"w": (2, 3, 3, 3)},
            "no gradient rule for 'ConvTranspose' on an image of unknown size",
        ),
        (
            '(float[N,4,H,W] x) => (float[N,1,K,L] y) { y = DepthToSpace<blocksize=2, mode="CRD">(x) }',
            {},
            "no gradient rule for 'DepthToSpace' on an image of unknown size",
        ),
    ],
)
def test_refuses_what_it_cannot_differentiate(
    text: str, tensors: Mapping[str, object], fragment: str
) -> None:
    rng = np.random.default_rng(0)
    forward = model(text, **{name: tensor(rng, spec) for name, spec in tensors.items()})  # type: ignore[arg-type]
    with pytest.raises(UnsupportedOpError) as caught:
        gradient_model(forward)
    assert fragment in str(caught.value)


def test_registering_a_rule_twice_fails():
    with pytest.raises(ValueError, match="'Relu' exists already"):
        vjp("Relu")(lambda emit, node, g: [g])


def test_no_gradient_flows_through_truth_values_and_shapes():
    forward = model(
        "(float[N,3] x) => (float[N,3] y) { s = Shape(x) \n e = Expand(c, s) \n y = Mul(x, e) }",
        c=np.array([1.0, 2.0, 3.0]),
    )
    gradient = gradient_model(forward)
    g = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(run_ort(gradient, {"x": g, "g": g})["x"], [[1, 2, 3], [1, 2, 3]])
