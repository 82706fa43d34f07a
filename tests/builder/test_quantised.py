"""A quantised classifier, as it is deployed: built, taught two classes, and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization.shape_inference import quant_pre_process
from quantised_models import EVERY_STYLE, STYLES, quantised, quantised_weights, run

from conftest import REPOSITORY, Digits, open_learner
from csk_artifacts_builder import BuildOptions, BuildReport, build_artifacts
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.prepare.quantized_values import Grid, Values
from csk_sdk.demo.digits import model_files
from csk_sdk.errors import ModelError

SOURCE = REPOSITORY / "examples/digits/digits-base4.onnx"
OLD, NEW = (0, 1, 2, 3), (4, 5)


def pixels(images: NDArray) -> NDArray[np.float32]:
    normalize = model_files()[1]["normalize"]
    scaled = (images / 255 - normalize["mean"][0]) / normalize["std"][0]
    return scaled.astype(np.float32)[:, None]


def build(model: Path, out: Path, base_data: Path | None = None, **more: Any) -> BuildReport:
    facts = model_files()[1]
    known = {**facts["normalize"], "classes": facts["classes"], "flip": False, "base_data": base_data}
    return build_artifacts(model, out, BuildOptions(**{**known, **more}))


def agreement(deployed: Path, exported: Path, digits: Digits) -> float:
    """The share of images of which both say the same class."""
    x = pixels(digits.arrays(OLD, 40, 175)[0])
    return float((run(deployed, x).argmax(axis=1) == run(exported, x).argmax(axis=1)).mean())


@pytest.mark.parametrize("style", EVERY_STYLE)
def test_it_learns_and_decides_as_the_deployed_file(
    tmp_path: Path, digits: Digits, base_data: Path, style: str
) -> None:
    calibration, _ = digits.arrays(OLD, 0, 20)
    deployed = quantised(SOURCE, tmp_path / "model.onnx", pixels(calibration), **STYLES[style])
    report = build(deployed, tmp_path / "unprotected")
    kind, _, which = style.split("-")
    assert report.notes[0] == (
        f"quantised model ({kind}, per {which}): weights dequantised; activations are held to the ranges it was "
        "deployed with."
    )
    open_learner(tmp_path / "unprotected", tmp_path / "unused").export(tmp_path / "base.onnx")
    assert agreement(deployed, tmp_path / "base.onnx", digits) >= 0.98
    build(deployed, tmp_path / "bundle", base_data)
    learner = open_learner(tmp_path / "bundle", tmp_path / "state")
    learner.learn(digits.task("new", NEW))
    images, labels = digits.arrays((*OLD, *NEW), 100, 175)
    predicted = learner.predict(images)[0]
    names = np.array(learner.classes)
    assert (np.array(predicted) == names[labels]).mean() > 0.95
    assert set(predicted) == set(names)
    learner.export(tmp_path / "learned.onnx")
    exported = names[run(tmp_path / "learned.onnx", pixels(images)).argmax(axis=1)]
    assert (exported == np.array(predicted)).mean() >= 0.99


@pytest.mark.parametrize("style", EVERY_STYLE)
def test_batch_norm_that_was_quantised_by_itself(tmp_path: Path, digits: Digits, style: str) -> None:
    calibration, _ = digits.arrays(OLD, 0, 20)
    deployed = quantised(SOURCE, tmp_path / "model.onnx", pixels(calibration), fold=False, **STYLES[style])
    build(deployed, tmp_path / "bundle")
    open_learner(tmp_path / "bundle", tmp_path / "unused").export(tmp_path / "base.onnx")
    assert agreement(deployed, tmp_path / "base.onnx", digits) >= 0.98


@pytest.mark.parametrize("fold", [True, False])
def test_weights_alone_are_quantised(tmp_path: Path, digits: Digits, fold: bool) -> None:
    source = SOURCE
    if fold:
        source = tmp_path / "folded.onnx"
        quant_pre_process(str(SOURCE), str(source), skip_symbolic_shape=True)
    deployed = quantised_weights(source, tmp_path / "model.onnx")
    report = build(deployed, tmp_path / "bundle")
    assert report.notes[0].startswith("quantised model (dynamic, per tensor): weights dequantised; its activ")
    open_learner(tmp_path / "bundle", tmp_path / "unused").export(tmp_path / "base.onnx")
    assert agreement(deployed, tmp_path / "base.onnx", digits) >= 0.98


@pytest.mark.parametrize("style", ["QDQ-QUInt8-channel", "QOperator-QInt8-tensor"])
def test_a_range_that_is_lost_on_the_way_ends_the_build(
    tmp_path: Path, digits: Digits, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration, _ = digits.arrays(OLD, 0, 20)
    deployed = quantised(SOURCE, tmp_path / "model.onnx", pixels(calibration), **STYLES[style])
    monkeypatch.setattr(Values, "held", lambda values, x, grid: x)
    with pytest.raises(
        ModelError, match=r"differ by \d+ % of how far its classes lie apart, where 25 % is the most"
    ):
        build(deployed, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def rounding(values: Values, x: ir.Value, grid: Grid) -> ir.Value:
    """Onto the grid, instead of within its ends."""
    zero, scale = np.asarray(grid.zero, grid.dtype.numpy()), np.asarray(grid.scale)
    grids = values.emit.constant(scale, np.float32), values.emit.constant(zero, zero.dtype)
    y = values.emit.op("DequantizeLinear", values.emit.op("QuantizeLinear", x, *grids), *grids)
    y.shape, y.type = x.shape, x.type
    return y


@pytest.mark.parametrize("style", EVERY_STYLE)
def test_with_rounding_it_is_the_deployed_file(
    tmp_path: Path, digits: Digits, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left out is the rounding, and nothing else."""
    calibration, _ = digits.arrays(OLD, 0, 20)
    deployed = quantised(SOURCE, tmp_path / "model.onnx", pixels(calibration), **STYLES[style])
    monkeypatch.setattr(Values, "held", rounding)
    proto = ir.to_proto(prepare(deployed).model)
    x = pixels(digits.arrays(OLD, 40, 175)[0])
    expected, got = run(deployed, x), run(proto.SerializeToString(), x, optimised=False)
    # Sums in float32 round to the other side now and then.
    assert np.sqrt(np.mean(np.square(got - expected))) < 0.01 * np.ptp(expected)
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.995
