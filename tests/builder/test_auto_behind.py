"""`--trainable auto` trains what lies behind the last op without a gradient rule, and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import RNG, classifier

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import ModelError, UnsupportedOpError

MORE = {"v2": RNG.normal(0, 0.3, (5, 5, 3, 3)), "v3": RNG.normal(0, 0.3, (5, 5, 3, 3))}


def network(second: str, third: str) -> onnx.ModelProto:
    """Four convolutions of one stage, with `second` behind the second and `third` behind the third."""
    return classifier(
        f"[one] a = Conv<pads=[1,1,1,1]>(x, w) \n b = Relu(a) \n [two] c = Conv<pads=[1,1,1,1]>(b, v) \n"
        f"[first_bend] d = {second}(c) \n [three] e = Conv<pads=[1,1,1,1]>(d, v2) \n [second_bend] f0 = {third}(e) \n"
        "[four] t = Conv<pads=[1,1,1,1]>(f0, v3)",
        **MORE,
    )


@pytest.mark.slow
@pytest.mark.parametrize("features", ["last", "layers"])
@pytest.mark.parametrize(
    ("second", "third", "sites", "op"),
    [
        ("ThresholdedRelu", "Relu", ["three", "four"], "first_bend"),
        ("Relu", "ThresholdedRelu", ["four"], "second_bend"),
        ("ThresholdedRelu", "Hardmax", ["four"], "second_bend"),
        ("Relu", "Relu", ["one", "two", "three", "four"], ""),
    ],
)
def test_auto_begins_behind_it(
    tmp_path: Path, second: str, third: str, sites: list[str], op: str, features: str
) -> None:
    onnx.save(network(second, third), tmp_path / "model.onnx")
    report = build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(features=features))
    manifest = Bundle.open(tmp_path / "bundle").manifest
    said = [one for one in report.notes if "--trainable auto trains what lies behind it" in one]
    if features == "last":
        assert [site.node for site in manifest.sites] == sites
        assert len(said) == bool(op)
    assert manifest.sites[-1].node == "four"
    assert [one.name for one in manifest.candidates] == ["w", "v", "v2", "v3"]
    assert [one.chosen for one in manifest.candidates].count(True) == len(manifest.sites)
    for sentence in said:
        assert f"node '{op}'" in sentence
        assert f"from node '{manifest.sites[0].node}' on." in sentence


def test_with_a_memory_budget(tmp_path: Path) -> None:
    onnx.save(network("ThresholdedRelu", "Relu"), tmp_path / "model.onnx")
    options = BuildOptions(features="last", memory_budget=1 << 30)
    build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", options)
    assert [site.node for site in Bundle.open(tmp_path / "bundle").manifest.sites] == ["three", "four"]


@pytest.mark.parametrize("trainable", ["all", "from:two"])
def test_what_was_asked_for_is_refused(tmp_path: Path, trainable: str) -> None:
    onnx.save(network("Relu", "ThresholdedRelu"), tmp_path / "model.onnx")
    with pytest.raises(UnsupportedOpError, match="no gradient rule for 'ThresholdedRelu'"):
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(trainable=trainable))
    assert not (tmp_path / "bundle").exists()


def test_nothing_lies_behind(tmp_path: Path) -> None:
    """The op stands between the last convolution and the classifier."""
    proto = classifier(
        "a = Conv(x, w) \n b = Conv(a, v) \n [last_bend] t = ThresholdedRelu(b)", **{"unused": np.zeros(1)}
    )
    onnx.save(proto, tmp_path / "model.onnx")
    for trainable in ("auto", "all", "from:last_bend"):
        with pytest.raises(ModelError) as caught:
            build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(trainable=trainable))
        assert "--trainable from:NODE" not in str(caught.value)
        if trainable != "from:last_bend":
            assert "(node 'last_bend' of model.onnx" in str(caught.value)
            assert str(caught.value).endswith(
                "and no convolution that could be trained lies behind it: of this network none can."
            )
