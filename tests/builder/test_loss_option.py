"""`build-artifacts --loss`: what model and base data must be, and that a device can check the result."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
from onnx import helper

import tables
from conftest import Digits
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_device_runners.check import check_bundle
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, MSE, Manifest, sealed
from csk_sdk.errors import BundleError, ConfigError, TaskError
from csk_sdk.objectives import objective_of

LOSSES = (CROSS_ENTROPY, BINARY_CROSS_ENTROPY, MSE)


def model(folder: Path, ending: str | None) -> Path:
    proto = networks.RESNET.proto()
    output = proto.graph.output[0].name
    if ending is not None:
        last = next(node for node in proto.graph.node if output in node.output)
        last.output[list(last.output).index(output)] = "before"
        axis = {} if ending == "Sigmoid" else {"axis": -1}
        proto.graph.node.append(helper.make_node(ending, ["before"], [output], **axis))
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("loss", LOSSES)
def test_a_devices_check_of_a_bundle_passes(tmp_path: Path, loss: str) -> None:
    """Its finite differences are of a loss computed in float64 from the logits."""
    build_artifacts(model(tmp_path, None), tmp_path / "bundle", BuildOptions(loss=loss))
    assert Bundle.open(tmp_path / "bundle").manifest.loss == loss
    results = check_bundle(tmp_path / "bundle")
    assert [result.name for result in results if not result.passed] == []


@pytest.mark.parametrize(
    ("loss", "ending", "remedy"),
    [
        (CROSS_ENTROPY, "Sigmoid", BINARY_CROSS_ENTROPY),
        (MSE, "Sigmoid", BINARY_CROSS_ENTROPY),
        (BINARY_CROSS_ENTROPY, "Softmax", CROSS_ENTROPY),
        (MSE, "LogSoftmax", CROSS_ENTROPY),
    ],
)
def test_a_loss_that_contradicts_the_models_ending_is_refused(
    tmp_path: Path, loss: str, ending: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_artifacts(model(tmp_path, ending), tmp_path / "bundle", BuildOptions(loss=loss))
    assert str(caught.value) == (
        f"model.onnx ends in {ending}, which does not go with --loss {loss}. Pass --loss {remedy}, or export the "
        f"model without {ending}."
    )
    assert not (tmp_path / "bundle").exists()


def test_unknown_losses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="--loss is 'hinge'; it must be cross-entropy, binary-cross-entropy, mse"
    ):
        build_artifacts(model(tmp_path, None), tmp_path / "bundle", BuildOptions(loss="hinge"))
    with pytest.raises(
        BundleError, match="The bundle was built with loss 'hinge', and this csk-sdk knows cross-"
    ):
        objective_of("hinge")


def test_a_manifest_without_a_loss_is_a_classifiers(tmp_path: Path) -> None:
    """Bundles of before there was a choice."""
    build_artifacts(model(tmp_path, None), tmp_path / "bundle", BuildOptions())
    manifest = Bundle.open(tmp_path / "bundle").manifest
    import json

    fields = json.loads(manifest.to_json())
    del fields["loss"], fields["seal"]
    assert Manifest.from_json(sealed(fields), "here").loss == CROSS_ENTROPY


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attributes", "angle"])
def test_base_data_with_a_table_of_labels(tmp_path: Path, digits: Digits, kind: str) -> None:
    make = {"attributes": tables.attribute_bundle, "angle": tables.angle_bundle}[kind]
    bundle = Bundle.open(make(digits, tmp_path))
    assert bundle.manifest.base_protected
    checkpoint = bundle.checkpoint()
    for site in bundle.manifest.sites:
        assert np.trace(checkpoint[f"moment/{site.name}"][0]) > 0
    # Statistics are of classes that exclude each other, and here there are none.
    assert checkpoint["statistics.counts"].shape == (0,)


@pytest.mark.slow
def test_what_the_base_model_is_worth_is_measured(tmp_path: Path, digits: Digits) -> None:
    tables.attribute_bundle(digits, tmp_path)
    options = BuildOptions(
        classes=("even", "round"),
        loss=BINARY_CROSS_ENTROPY,
        base_data=tmp_path / "base-data",
        mean=tables.NORMALIZE["mean"],
        std=tables.NORMALIZE["std"],
    )
    report = build_artifacts(tmp_path / "attributes.onnx", tmp_path / "again", options)
    assert report.metric == "mAP"
    assert report.base_accuracy is not None
    assert report.base_accuracy > 95
    swapped = BuildOptions(**{**vars(options), "classes": ("round", "even")})
    report = build_artifacts(tmp_path / "attributes.onnx", tmp_path / "swapped", swapped)
    assert report.base_accuracy is not None
    assert report.base_accuracy < 95


def test_base_data_without_a_table_is_refused(tmp_path: Path, base_data: Path) -> None:
    with pytest.raises(TaskError) as caught:
        build_artifacts(
            model(tmp_path, None),
            tmp_path / "bundle",
            BuildOptions(loss=MSE, classes=("x", "y", "z"), base_data=base_data),
        )
    assert str(caught.value) == (
        f"{base_data} has no metadata.csv, and with --loss mse the labels are in it: one line for each image, with "
        "file_name and a number for each of x, y, z."
    )


def test_mirrored_pictures_of_a_regression_are_warned_about(tmp_path: Path) -> None:
    source = model(tmp_path, None)
    for flip, expected in ((True, 1), (False, 0)):
        report = build_artifacts(source, tmp_path / str(flip), BuildOptions(loss=MSE, flip=flip))
        assert sum("--no-flip" in warning for warning in report.warnings) == expected
