"""What a device tries its graphs with is like the data: int8 is judged in the range that it was calibrated for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from conftest import Digits
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import TrainingConfig
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import InputSpec, Manifest, PreprocessingSpec, ProbeSpec, sealed
from csk_sdk.demo.digits import model_files
from csk_sdk.device import comparing, tuning
from csk_sdk.device.probe import like_data, probe
from learner.test_tuning import saturating, slower

SCALES = ("normalised", "by the network", "in bytes")


def in_the_network(to: Path, divisor: float) -> Path:
    """The demo's model, given its pixels over 255 / `divisor`, with what normalises them as its first layers."""
    path, facts = model_files()
    model = onnx.load(path)
    (image,) = (value.name for value in model.graph.input)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = "normed" if name == image else name
    mean, std = (np.array(facts["normalize"][name], np.float32) * divisor for name in ("mean", "std"))
    tensors = {"m": mean.reshape(1, -1, 1, 1), "s": std.reshape(1, -1, 1, 1)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in tensors.items())
    first = [
        helper.make_node("Sub", [image, "m"], ["centred"]),
        helper.make_node("Div", ["centred", "s"], ["normed"]),
    ]
    for place, node in enumerate(first):
        model.graph.node.insert(place, node)
    onnx.save(model, to)
    return to


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, base_data: Path) -> dict[str, Bundle]:
    """One network, whose graphs take pixels in three units."""
    folder = tmp_path_factory.mktemp("units")
    path, facts = model_files()
    base = BuildOptions(classes=facts["classes"], base_data=base_data, precision="int8", flip=False)
    normalised = replace(base, mean=facts["normalize"]["mean"], std=facts["normalize"]["std"])
    models = {
        "normalised": (path, normalised),
        "by the network": (in_the_network(folder / "unit.onnx", 1.0), base),
        "in bytes": (in_the_network(folder / "bytes.onnx", 255.0), base),
    }
    for name, (model, options) in models.items():
        build_artifacts(model, folder / name, options)
    return {name: Bundle.open(folder / name) for name in SCALES}


@pytest.mark.parametrize("scale", SCALES)
def test_int8_is_as_close_whatever_the_units_of_the_graphs(bundles: dict[str, Bundle], scale: str) -> None:
    manifest = bundles[scale].manifest
    assert manifest.agreement["logits"] < 0.03
    assert manifest.agreement["gradients"] < 0.03


@pytest.mark.parametrize("scale", SCALES)
def test_a_probe_is_as_the_base_data(bundles: dict[str, Bundle], digits: Digits, scale: str) -> None:
    bundle = bundles[scale]
    data = bundle.preprocessing(np.concatenate([digits.of(digit, 0, 40) for digit in range(4)]))
    made = probe(bundle.manifest)
    assert made.min() >= data.min() - 1e-6
    assert made.max() <= data.max() + 1e-6
    assert abs(made.mean() - data.mean()) < 0.2 * data.std()
    assert 0.3 < made.std() / data.std() < 0.7


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("older", [False, True])
def test_sums_that_saturate_are_noticed_whatever_the_units(
    bundles: dict[str, Bundle], scale: str, older: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = as_older(bundles[scale], tmp_path / "older", 0.73) if older else bundles[scale]
    saturating(monkeypatch, wide_helps=True)
    slower(monkeypatch, exact=10.0, int8=4.0)
    choice = tuning.choose(bundle, bundle.checkpoint(), TrainingConfig(threads=1))
    assert [(one.precision, one.wide_sums) for one in choice.measured[1:]] == [
        ("int8", False),
        ("int8", True),
    ]
    assert choice.best.wide_sums
    assert choice.best.logits < 0.05


def as_older(bundle: Bundle, folder: Path, logits: float) -> Bundle:
    """As builders before left it: no word on its probe, and numbers of one that lay outside the range of the data."""
    shutil.copytree(bundle.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["probe"], manifest["seal"]
    manifest["agreement"] = {"logits": logits, "gradients": 0.6}
    (folder / "manifest.json").write_text(sealed(manifest))
    return Bundle.open(folder)


def test_older_bundles_are_judged_by_what_int8_is_here(
    bundles: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slower(monkeypatch, exact=10.0, int8=4.0)
    # On a machine that adds up right, a number that is far too small is no reason against int8 either.
    for folder, logits in (("a", 0.73), ("b", 1e-6)):
        older = as_older(bundles["by the network"], tmp_path / folder, logits)
        choice = tuning.choose(older, older.checkpoint(), TrainingConfig(threads=1))
        assert choice.best.precision == "int8"
        assert choice.best.logits < 0.05
    # And one that gives no number is none, with wide sums or without.
    real = tuning._outputs

    def outputs(view: Bundle, *arguments: object) -> dict[str, np.ndarray]:
        found = real(view, *arguments)  # type: ignore[arg-type]
        return {name: y * np.nan for name, y in found.items()} if view.precision == "int8" else found

    monkeypatch.setattr(tuning, "_outputs", outputs)
    assert tuning.choose(older, older.checkpoint(), TrainingConfig(threads=1)).best.precision == "exact"


@pytest.mark.parametrize(("agreement", "limit"), [(0.73, 0.05), (0.02, 0.02), (0.0, 1e-4)])
def test_no_provider_is_the_same_that_is_further_off_than_int8_should_be(
    agreement: float, limit: float
) -> None:
    bundle = SimpleNamespace(precision="int8", manifest=SimpleNamespace(agreement={"logits": agreement}))
    assert comparing._limit(bundle) == pytest.approx(limit)  # type: ignore[arg-type]


def made(
    spec: PreprocessingSpec, channels: int, size: tuple[int, ...], measured: ProbeSpec | None
) -> Manifest:
    """Of a manifest what a probe asks for."""
    image = InputSpec("image", channels, size)
    return SimpleNamespace(preprocessing=spec, input=image, probe=measured)  # type: ignore[return-value]


def test_images_that_nobody_measured_are_pixels() -> None:
    for scale, mean, std in ((1 / 255, 0.0, 1.0), (1 / 255, 0.5, 0.25), (1.0, 0.0, 1.0)):
        manifest = made(PreprocessingSpec((mean,) * 2, (std,) * 2, scale), 2, (17, 9), None)
        pixels = (probe(manifest) * std + mean) / scale
        assert pixels.shape == (8, 2, 17, 9)
        assert (pixels.min(), pixels.max()) >= (-1e-3, 128)
        assert pixels.max() <= 255 + 1e-3
        assert 110 < pixels.mean() < 145
        assert 20 < pixels.std() < 45


def test_signals_are_as_loud_as_those_that_were_measured() -> None:
    spec = PreprocessingSpec((0.0, 0.0), (1.0, 1.0), 1 / 32768, "crop")
    noise = np.random.default_rng(0).normal(size=(50, 2, 40))
    loud = like_data(made(spec, 2, (40,), ProbeSpec((900.0, -3.0), (250.0, 0.0))), noise)
    np.testing.assert_allclose(loud.mean(axis=(0, 2)), [900.0, -3.0], atol=30)
    np.testing.assert_allclose(loud.std(axis=(0, 2)), [250.0, 0.0], rtol=0.1, atol=1e-6)
    np.testing.assert_array_equal(like_data(made(spec, 2, (40,), None), noise), noise.astype(np.float32))
