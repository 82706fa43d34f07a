"""The witness accepts a right bundle, and finds a wrong gradient."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_text import model

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_device_runners import check_bundle
from csk_device_runners.__main__ import main
from csk_sdk.contract.manifest import sealed

SDK = Path(__file__).parents[2] / "sdk"


@pytest.fixture
def spoiled(digits_bundle, tmp_path):
    """A copy of the bundle in which an output of one graph is scaled, and nobody could tell by the hashes."""
    bundle = tmp_path / "bundle"
    shutil.copytree(digits_bundle, bundle)

    def spoil(graph, output, factor):
        path = bundle / graph
        model = onnx.load(str(path), load_external_data=False)
        for node in model.graph.node:
            node.output[:] = [f"{name}.right" if name == output else name for name in node.output]
            node.input[:] = [f"{name}.right" if name == output else name for name in node.input]
        model.graph.initializer.append(helper.make_tensor("factor", onnx.TensorProto.FLOAT, [], [factor]))
        model.graph.node.append(helper.make_node("Mul", [f"{output}.right", "factor"], [output]))
        path.write_bytes(model.SerializeToString())
        manifest = json.loads((bundle / "manifest.json").read_text())
        manifest["files"][graph] = {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        (bundle / "manifest.json").write_text(sealed(manifest))
        return bundle

    return spoil


def test_a_right_bundle_passes_every_check(digits_bundle):
    results = check_bundle(digits_bundle)
    assert [(result.name, result.detail) for result in results if not result.passed] == []
    # Four sites and the head's weight and bias; batch 1 and the bundle's own.
    assert sum(result.name.startswith("gradient of") for result in results) == 4 + 2 + 1
    assert [result.name for result in results][:2] == ["training step, batch 1", "training step, batch 16"]


@pytest.mark.slow
@pytest.mark.parametrize("factor", [-1.0, 1.2, 1.03, 0.0])
@pytest.mark.parametrize("output", ["stage2.second.conv.gradient", "head.weight.gradient"])
def test_a_wrong_gradient_is_found(spoiled, output, factor):
    results = check_bundle(spoiled("training_model.onnx", output, factor))
    wrong = [result.name for result in results if not result.passed]
    parameter = output.replace("conv.gradient", "conv.delta").removesuffix(".gradient")
    # The graph that is cut no longer gives the same, but its own gradients are right.
    assert wrong == [f"gradient of {parameter}"]


def test_a_moment_that_is_not_positive_is_found(spoiled):
    results = check_bundle(spoiled("memory_model.onnx", "stage3.first.conv.moment", -1.0))
    assert [result.name for result in results if not result.passed] == ["moment of stage3.first.conv"]


def test_a_wrong_loss_is_found(spoiled):
    results = check_bundle(spoiled("training_model.onnx", "loss", 2.0))
    assert {result.name for result in results if not result.passed} == {
        "training step, batch 1",
        "training step, batch 16",
    }


def test_command(digits_bundle, tmp_path, capsys):
    assert main(["check", str(digits_bundle)]) == 0
    assert "ok    gradient of head.weight" in capsys.readouterr().out
    assert main(["check", str(digits_bundle), "--json"]) == 0
    assert all(result["passed"] for result in json.loads(capsys.readouterr().out))
    assert main(["check", str(tmp_path)]) == 1
    assert "There is no bundle" in capsys.readouterr().err


def test_csk_sdk_does_not_know_the_runners():
    assert [path for path in SDK.rglob("*.py") if "csk_device_runners" in path.read_text()] == []


def test_a_wrong_gradient_behind_the_cut_is_found(spoiled, digits_bundle):
    site = json.loads((digits_bundle / "manifest.json").read_text())["sites"][0]
    bundle = spoiled("training_suffix.onnx", site["gradient"], 1.1)
    failed = [result.name for result in check_bundle(bundle) if not result.passed]
    assert failed == ["suffix of prefix = whole"]


def test_a_network_of_pixels_only_is_shown_pixels(tmp_path):
    """A power, as of gamma, has no answer to noise below zero, which no device ever sees."""
    text = """(float[N,3,8,8] x) => (float[N,2] y) {
        d = Div(x, white)  g = Pow(d, e)  a = Conv<pads=[1,1,1,1]>(g, k0)  r = Relu(a)
        [site] c = Conv<pads=[1,1,1,1]>(r, k1)  m = GlobalAveragePool(c)  f = Flatten(m)  y = MatMul(f, w)
    }"""
    rng = np.random.default_rng(0)
    tensors = {
        "k0": rng.normal(size=(4, 3, 3, 3)),
        "k1": rng.normal(size=(4, 4, 3, 3)),
        "w": rng.normal(size=(4, 2)),
    }
    onnx.save(model(text, white=np.float32(255), e=np.float32(2.2), **tensors), tmp_path / "m.onnx")
    build_artifacts(
        tmp_path / "m.onnx", tmp_path / "bundle", BuildOptions(features="last", trainable="from:site")
    )
    assert [result for result in check_bundle(tmp_path / "bundle") if not result.passed] == []
