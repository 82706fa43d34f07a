"""The losses' values and gradients, on ONNX Runtime, against float64 formulas and their finite differences."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.graphs.losses import LOSSES
from csk_sdk.contract.manifest import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, MSE
from csk_sdk.objectives import OBJECTIVES

Float64 = NDArray[np.float64]


@cache
def session(loss: str) -> ort.InferenceSession:
    """logits and what the loss asks for in; loss and g out."""
    logits = ir.Value(name="logits", shape=ir.Shape(["N", "classes"]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([logits], [], nodes=[], opset_imports={"": 17}, name=loss)
    emit = Emitter(graph)
    value, g = LOSSES[loss](emit, logits)
    emit.output(value, "loss", [])
    emit.output(g, "g", ["N", "classes"])
    proto = ir.to_proto(ir.Model(graph, ir_version=8))
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(loss: str, logits: NDArray, label: NDArray, **more: NDArray) -> tuple[float, NDArray[np.float32]]:
    feeds = {"logits": logits.astype(np.float32), "label": label, **more}
    value, g = session(loss).run(["loss", "g"], feeds)
    return float(value), g


def cross_entropy(z: Float64, label: NDArray, smoothing: float = 0.0, mask: NDArray | None = None) -> float:
    """The definition: only the allowed classes exist; targets mix one-hot and uniform."""
    allowed = np.ones(z.shape[1], bool) if mask is None else mask
    place = np.cumsum(allowed) - 1
    log_p = log_softmax(z[:, allowed], axis=1)
    rows = np.arange(len(z))
    hard = -log_p[rows, place[label]]
    return float(np.mean((1 - smoothing) * hard - smoothing * log_p.mean(axis=1)))


def binary_cross_entropy(z: Float64, y: NDArray) -> float:
    return float(np.mean(-y * np.log(expit(z)) - (1 - y) * np.log(expit(-z))))


def mean_squared_error(z: Float64, y: NDArray) -> float:
    return float(np.mean((z - y) ** 2))


def differences(loss: Callable[[Float64], float], z: Float64, step: float = 1e-5) -> Float64:
    """Central differences by every logit."""
    slope = np.zeros_like(z)
    for place in np.ndindex(z.shape):
        moved = [z.copy(), z.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        slope[place] = (loss(moved[0]) - loss(moved[1])) / (2 * step)
    return slope


def draw(n: int, classes: int, seed: int, scale: float = 3.0) -> tuple[np.random.Generator, Float64]:
    rng = np.random.default_rng(seed)
    return rng, rng.normal(scale=scale, size=(n, classes)).astype(np.float32).astype(np.float64)


shapes = given(n=st.integers(1, 6), classes=st.integers(1, 7), seed=st.integers(0, 10**6))


def agree(got: tuple[float, NDArray], value: float, slope: Float64) -> None:
    np.testing.assert_allclose(got[0], value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[1], slope, rtol=1e-4, atol=1e-6)


def test_every_loss_has_a_graph_and_an_objective() -> None:
    assert list(LOSSES) == list(OBJECTIVES) == [CROSS_ENTROPY, BINARY_CROSS_ENTROPY, MSE]


@shapes
@settings(max_examples=40, deadline=None)
def test_cross_entropy(n: int, classes: int, seed: int) -> None:
    rng, z = draw(n, classes, seed)
    label = rng.integers(classes, size=n)
    got = run(CROSS_ENTROPY, z, label)
    agree(got, cross_entropy(z, label), differences(lambda at: cross_entropy(at, label), z))


@shapes
@settings(max_examples=60, deadline=None)
def test_smoothing_and_mask_together(n: int, classes: int, seed: int) -> None:
    rng, z = draw(n, classes, seed)
    mask = rng.random(classes) < 0.6
    assume(mask.any())
    label = rng.choice(np.flatnonzero(mask), n)
    smoothing = rng.choice([0.0, 0.1, 0.9])
    got = run(CROSS_ENTROPY, z, label, label_smoothing=np.array(smoothing, np.float32), class_mask=mask)
    slope = differences(lambda at: cross_entropy(at, label, smoothing, mask), z)
    agree(got, cross_entropy(z, label, smoothing, mask), slope)
    assert np.all(got[1][:, ~mask] == 0.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_neutral_inputs_change_no_bit(smoothing: float) -> None:
    rng, z = draw(16, 10, 0)
    label = rng.integers(10, size=16)
    more = {"label_smoothing": np.array(smoothing, np.float32)} if smoothing else {}
    plain, fed = (
        run(CROSS_ENTROPY, z, label, **more),
        run(CROSS_ENTROPY, z, label, **more, class_mask=np.ones(10, bool)),
    )
    assert plain[0] == fed[0]
    assert plain[1].tobytes() == fed[1].tobytes()
    if not smoothing:
        zero = run(CROSS_ENTROPY, z, label, label_smoothing=np.array(0, np.float32))
        assert zero[0] == plain[0]
        assert zero[1].tobytes() == plain[1].tobytes()


def test_a_masked_class_does_nothing_however_large_its_logit() -> None:
    rng, z = draw(5, 4, 1)
    mask = np.array([True, False, True, True])
    label = rng.choice([0, 2, 3], 5)
    z[:, 1] = 1e20
    value, g = run(CROSS_ENTROPY, z, label, class_mask=mask)
    alone = run(CROSS_ENTROPY, z[:, mask], np.searchsorted([0, 2, 3], label))
    np.testing.assert_allclose(value, alone[0], rtol=1e-6)
    np.testing.assert_allclose(g[:, mask], alone[1], rtol=1e-5, atol=1e-8)
    assert np.all(g[:, 1] == 0.0)


@shapes
@settings(max_examples=40, deadline=None)
def test_binary_cross_entropy(n: int, classes: int, seed: int) -> None:
    rng, z = draw(n, classes, seed)
    y = rng.integers(2, size=(n, classes)).astype(np.float32)
    got = run(BINARY_CROSS_ENTROPY, z, y)
    agree(got, binary_cross_entropy(z, y), differences(lambda at: binary_cross_entropy(at, y), z))


@shapes
@settings(max_examples=40, deadline=None)
def test_mean_squared_error(n: int, classes: int, seed: int) -> None:
    rng, z = draw(n, classes, seed)
    y = rng.normal(scale=10.0, size=(n, classes)).astype(np.float32)
    agree(run(MSE, z, y), mean_squared_error(z, y), differences(lambda at: mean_squared_error(at, y), z))


@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_extreme_logits_neither_overflow_nor_vanish(size: float) -> None:
    """Closed forms: the wrong answer costs its logit, the right one nothing."""
    z = np.array([[size, -size], [-size, size]])
    value, g = run(CROSS_ENTROPY, z, np.array([0, 0]))
    np.testing.assert_allclose(value, size, rtol=1e-6)  # 0 and 2 * size, mean of two
    np.testing.assert_allclose(g, [[0, 0], [-0.5, 0.5]], atol=1e-7)
    value, g = run(BINARY_CROSS_ENTROPY, z, np.array([[1, 0], [1, 0]], np.float32))
    np.testing.assert_allclose(value, size / 2, rtol=1e-6)
    np.testing.assert_allclose(g, [[0, 0], [-0.25, 0.25]], atol=1e-7)
