"""`export --precision int8`: QDQ again, as the model was deployed that the bundle was built from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from quantised_models import EVERY_STYLE, STYLES, quantised, run
from test_quantised import NEW, OLD, SOURCE, agreement, build, pixels

from conftest import Digits, open_learner
from csk_sdk.contract.manifest import QuantisedLayer
from csk_sdk.errors import BundleError, ConfigError
from csk_sdk.network.export_quantised import quantised_tensors


def tensors(path: Path) -> dict[str, NDArray]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def deployed_model(folder: Path, digits: Digits, style: str) -> Path:
    calibration, _ = digits.arrays(OLD, 0, 20)
    return quantised(SOURCE, folder / "model.onnx", pixels(calibration), **STYLES[style])


def optimised_ops(path: Path) -> list[str]:
    """What ONNX Runtime makes of a model."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_suffix(".optimised"))
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


@pytest.mark.parametrize("features", ["last", "layers"])
@pytest.mark.parametrize("style", EVERY_STYLE)
def test_what_was_not_taught_is_the_deployed_file(
    tmp_path: Path, digits: Digits, style: str, features: str
) -> None:
    deployed = deployed_model(tmp_path, digits, style)
    build(deployed, tmp_path / "bundle", features=features)
    learner = open_learner(tmp_path / "bundle", tmp_path / "state")
    learner.export(tmp_path / "int8.onnx", precision="int8")
    onnx.checker.check_model(onnx.load(tmp_path / "int8.onnx"), full_check=True)
    assert agreement(deployed, tmp_path / "int8.onnx", digits) >= 0.995
    x = pixels(digits.arrays(OLD, 40, 175)[0])
    expected, got = run(deployed, x), run(tmp_path / "int8.onnx", x)
    # The deployed file rounds its scores, too.
    assert np.sqrt(np.mean(np.square(got - expected))) < 0.01 * np.ptp(expected)
    theirs, ours = tensors(deployed), tensors(tmp_path / "int8.onnx")
    kernels = [name for name, array in theirs.items() if array.dtype == np.int8 and array.ndim == 4]
    assert len(kernels) == 9
    for name in kernels:
        np.testing.assert_array_equal(ours[name], theirs[name], name)
        assert (
            ours[name.replace("_quantized", "_scale")].shape
            == theirs[name.replace("_quantized", "_scale")].shape
        )
    assert (tmp_path / "int8.onnx").stat().st_size < 0.45 * (tmp_path / "model.folded.onnx").stat().st_size


@pytest.mark.parametrize("style", ["QDQ-QUInt8-tensor", "QOperator-QUInt8-channel"])
def test_it_runs_on_integers(tmp_path: Path, digits: Digits, style: str) -> None:
    deployed = deployed_model(tmp_path, digits, style)
    build(deployed, tmp_path / "bundle", features="last")
    open_learner(tmp_path / "bundle", tmp_path / "state").export(tmp_path / "int8.onnx", precision="int8")
    ops = optimised_ops(tmp_path / "int8.onnx")
    assert "Conv" not in ops
    assert ops.count("QLinearConv") == 9
    assert "QGemm" in ops


@pytest.mark.parametrize("style", EVERY_STYLE)
def test_what_was_taught_is_in_it(tmp_path: Path, digits: Digits, base_data: Path, style: str) -> None:
    build(deployed_model(tmp_path, digits, style), tmp_path / "bundle", base_data)
    learner = open_learner(tmp_path / "bundle", tmp_path / "state")
    learner.learn(digits.task("new", NEW))
    learner.export(tmp_path / "int8.onnx", precision="int8")
    learner.export(tmp_path / "float.onnx")
    images, labels = digits.arrays((*OLD, *NEW), 100, 175)
    decided = run(tmp_path / "int8.onnx", pixels(images)).argmax(axis=1)
    assert (decided == labels).mean() > 0.95
    names = np.array(learner.classes)
    assert (names[decided] == np.array(learner.predict(images)[0])).mean() >= 0.98
    assert set(decided) == set(range(6))
    sites = [site.weight for site in learner.bundle.manifest.sites]
    ours, floats = tensors(tmp_path / "int8.onnx"), tensors(tmp_path / "float.onnx")
    for name in sites:
        scale = ours[f"{name}_scale"]
        along = scale.reshape(-1, 1, 1, 1) if scale.ndim else scale
        assert np.abs(ours[f"{name}_quantized"] * along - floats[name]).max() <= 0.501 * scale.max()


def test_known_and_distance_are_in_it(tmp_path: Path, digits: Digits, base_data: Path) -> None:
    build(
        deployed_model(tmp_path, digits, "QDQ-QUInt8-channel"),
        tmp_path / "bundle",
        base_data,
        features="last",
    )
    learner = open_learner(tmp_path / "bundle", tmp_path / "state")
    learner.export(tmp_path / "int8.onnx", reject=0.05, precision="int8")
    images, _ = digits.arrays(OLD, 100, 175)
    known = run(tmp_path / "int8.onnx", pixels(images), "known")
    assert (known == learner.predict(images, reject=0.05).known).mean() >= 0.95


def test_a_float_model_has_no_such_form(digits_bundle: Path, tmp_path: Path) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state")
    assert learner.bundle.manifest.quantised == ()
    with pytest.raises(ConfigError) as caught:
        learner.export(tmp_path / "int8.onnx", precision="int8")
    assert str(caught.value) == (
        f"--precision int8 is for bundles of quantised models, whose scales the export takes, and {digits_bundle} was "
        "built from a model without them. Export in float32, and quantise that with onnxruntime.quantization."
    )
    assert not (tmp_path / "int8.onnx").exists()
    with pytest.raises(ConfigError, match="--precision is 'int4'; an export's must be exact or int8"):
        learner.export(tmp_path / "int4.onnx", precision="int4")


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("largest", [64, 127])
def test_a_layer_as_integers(axis: int, largest: int) -> None:
    rng = np.random.default_rng(0)
    kernel, count = rng.normal(size=(5, 4)).astype(np.float32), (5, 4)[max(axis, 0)]
    kernel[(slice(None), 2) if axis == 1 else 2] = 0  # an output that is dead, but for a large bias
    bias = np.array([0.5, -0.25, 1e6, 0, 0.1], np.float32)[:count]
    layer = QuantisedLayer("w", "b", axis, largest, 0.01)
    found = quantised_tensors([layer], {"w": kernel, "b": bias, "other": bias})
    assert set(found) == {
        "w_quantized",
        "w_scale",
        "w_zero_point",
        "b_quantized",
        "b_quantized_scale",
        "other",
    }
    scale = found["w_scale"]
    assert (scale.shape, scale.dtype) == (() if axis < 0 else (count,), np.float32)
    assert (found["w_zero_point"] == 0).all()
    assert found["w_quantized"].dtype == found["w_zero_point"].dtype == np.int8
    assert np.abs(found["w_quantized"]).max() == largest if axis >= 0 else True
    along = np.expand_dims(scale, 1 - axis) if axis >= 0 else scale
    assert (np.abs(found["w_quantized"] * along - kernel) <= 0.5001 * along).all()
    assert found["b_quantized"].dtype == np.int32
    np.testing.assert_allclose(
        found["b_quantized"] * found["b_quantized_scale"], bias, atol=0.01 * scale.max()
    )
    unbiased = quantised_tensors([replace(layer, bias="")], {"w": kernel})
    assert set(unbiased) == {"w_quantized", "w_scale", "w_zero_point"}


@pytest.mark.parametrize(("axis", "bias"), [(2, 5), (1, 5), (0, 4)])
def test_a_layer_that_does_not_fit(axis: int, bias: int) -> None:
    layer = QuantisedLayer("w", "b", axis, 127, 0.01)
    tensors = {"w": np.ones((5, 4), np.float32), "b": np.ones(bias, np.float32)}
    with pytest.raises(
        BundleError, match=r"layer 'w' has a kernel \(5, 4\) that does not fit its bias or its axis"
    ):
        quantised_tensors([layer], tensors)


def test_a_model_whose_range_was_reduced(tmp_path: Path, digits: Digits) -> None:
    calibration, _ = digits.arrays(OLD, 0, 20)
    style = STYLES["QDQ-QUInt8-channel"]
    deployed = quantised(SOURCE, tmp_path / "model.onnx", pixels(calibration), reduce_range=True, **style)
    build(deployed, tmp_path / "bundle")
    open_learner(tmp_path / "bundle", tmp_path / "state").export(tmp_path / "int8.onnx", precision="int8")
    kernels = [
        array for name, array in tensors(tmp_path / "int8.onnx").items() if name.endswith("_quantized")
    ]
    assert max(np.abs(array).max() for array in kernels if array.dtype == np.int8) == 64
