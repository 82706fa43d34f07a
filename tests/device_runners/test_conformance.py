"""The vectors hold on this machine, and a runner that computes something else, or nothing, is told."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from csk_sdk.method.drift import Drift
from csk_sdk.state.tensorfile import packed
from platforms.__main__ import main
from platforms.cases import KINDS
from platforms.conformance import (
    ConformanceError,
    conforms,
    deviation,
    report,
    run_case,
    run_conformance,
    write_report,
)

REPOSITORY = Path(__file__).parents[2]
VECTORS = REPOSITORY / "tests" / "conformance" / "vectors"


@pytest.fixture(scope="module")
def results():
    return run_conformance(VECTORS)


@pytest.fixture
def one_case(tmp_path):
    """Vectors of nothing but the discriminant, to be spoiled."""
    (tmp_path / "cases").mkdir()
    for suffix in ("json", "safetensors"):
        shutil.copy(VECTORS / "cases" / f"discriminant.{suffix}", tmp_path / "cases")
    index = {"format": 1, "digest": "0" * 64, "cases": ["discriminant"]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.slow
def test_every_case_passes_here(results):
    assert [(result.name, result.reason) for result in results if result.status != "passed"] == []


def test_the_cases_cover_every_kind_and_precision(results):
    assert {result.kind for result in results} == set(KINDS)
    assert {(result.kind, result.precision) for result in results} >= {("step", "int8"), ("task", "exact")}
    assert all(result.deviations for result in results)
    measured = {one.measure for result in results for one in result.deviations}
    assert measured == {"equal", "absolute", "relative", "cosine"}


def test_the_index_names_every_case():
    index = json.loads((VECTORS / "index.json").read_text())
    assert index["cases"] == sorted(path.stem for path in (VECTORS / "cases").glob("*.json"))


def test_the_vectors_are_small():
    assert sum(path.stat().st_size for path in VECTORS.rglob("*") if path.is_file()) < 2_700_000


def verify(*arguments):
    """make.py --verify; all cases are verified by `make conformance`."""
    make = [sys.executable, str(REPOSITORY / "tests" / "conformance" / "make.py"), "--verify"]
    return subprocess.run([*make, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow
def test_the_goldens_are_current():
    parts = (
        "augment discriminant drift head project-groups optimizer-adamw-0.05 select-10-0.25 preprocess-resize "
        "optimizer-lion-0.05 label-check-wide label-verdict novelty-far forgetting known-classes-some few-shot "
        "stopping-recovers gradient-share-most telling-narrow channel-affine domain"
    )
    ran = verify(*parts.split(), "step-mobile", "step-plain-int8")
    assert (ran.returncode, ran.stdout) == (0, "22 cases, 0 differences\n")


@pytest.mark.slow
def test_a_golden_that_is_not_current_is_found(tmp_path):
    vectors = tmp_path / "vectors"
    shutil.copytree(VECTORS, vectors)
    path = vectors / "cases" / "drift.safetensors"
    tensors = {name: value.copy() for name, value in load_file(path).items()}
    tensors["out/gram"][1, 2] += 1e-4
    path.write_bytes(packed(tensors))
    ran = verify("drift", "head", "--vectors", vectors)
    assert ran.returncode == 1
    assert [line[:30] for line in ran.stdout.splitlines()] == [
        "FAIL  drift: gram is off by 0.",
        "FAIL  index.json does not fit ",
        "2 cases, 2 differences",
    ]


def _no_drift(estimate, ridge=0.0):
    size = estimate._features
    return Drift(np.eye(size), np.eye(size), np.zeros((1, size)))


# What a port may get wrong, and the kinds of cases that must tell.
FAULTS = {
    "no projection": (
        "csk_sdk.method.projection.Projector.project",
        lambda *_: None,
        {"project", "steps", "task"},
    ),
    "no schedule": (
        "platforms.cases.cosine",
        lambda *_: 1.0,
        {"optimizer", "steps", "task"},
    ),
    "halves round up": (
        "csk_sdk.method.selection.channel_count",
        lambda channels, ratio: max(1, int(ratio * channels + 0.5)),
        {"select"},
    ),
    "normalised by another scale": (
        "csk_sdk.data.preprocess.Preprocessing.normalize",
        lambda self, batch: np.moveaxis(batch, -1, 1).astype(np.float32) * self._gain * 1.02 + self._offset,
        {"preprocess", "task", "domain"},
    ),
    "nearest neighbours": (
        "csk_sdk.data.preprocess._resize",
        lambda pixels, height, width: pixels[
            np.ix_(np.arange(height) * pixels.shape[0] // height, np.arange(width) * pixels.shape[1] // width)
        ],
        {"preprocess"},
    ),
    "no shrinkage": (
        "platforms.cases.PRIOR_PICTURES",
        0.0,
        {"discriminant", "known_head", "calibration", "unknown"},
    ),
    "no shrinkage between domains": ("platforms.domains.PRIOR_PICTURES", 0.0, {"telling"}),
    "a domain that is told, and not seen through": (
        "csk_sdk.network.domains.Domains.__call__",
        lambda self, images, features, told=None: features,
        {"domain"},
    ),
    "channels of a domain that stay as they are": (
        "csk_sdk.learning.adapting.affine",
        lambda total, mean, deviation: (np.ones_like(mean), np.zeros_like(mean)),
        {"domain"},
    ),
    "no drift": ("csk_sdk.method.drift.DriftEstimate.fit", _no_drift, {"drift", "task"}),
    "a moment too many": (
        "csk_sdk.learning.training.basis",
        lambda moment, energy: np.linalg.eigh(moment)[1][:, -1:].astype(np.float32),
        {"steps", "task"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_port_is_found(fault, monkeypatch):
    target, wrong, kinds = FAULTS[fault]
    monkeypatch.setattr(target, wrong)
    failed = {result.kind for result in run_conformance(VECTORS) if result.status == "failed"}
    assert failed == kinds


# A port with a threshold of its own, and the kind of cases that must tell.
OTHERS = [
    ("csk_sdk.method.label_check.USEFUL", 0.25, "label_verdict"),
    ("csk_sdk.method.label_check.LEVEL", 0.02, "label_verdict"),
    ("csk_sdk.method.label_check.RIDGE", 0.5, "label_check"),
    ("csk_sdk.method.label_check.FOLDS", 8, "label_check"),
    ("csk_sdk.method.label_check._MOST_IMAGES", 1000, "label_check"),
    ("csk_sdk.learning.acceptance.UNFAMILIAR", 1.1, "novelty"),
    ("csk_sdk.method.novelty._SHRINKAGE", 0.03, "novelty"),
    ("csk_sdk.method.novelty._LEAST_VARIANCE", 1e-3, "novelty"),
    ("csk_sdk.method.novelty._IMAGES_PER_FEATURE", 9, "novelty"),
    ("csk_sdk.method.forgetting.WIDTH", 1.4, "forgetting"),
    ("csk_sdk.method.forgetting._SAMPLES", 1750, "forgetting"),
    ("csk_sdk.method.forgetting._MORE", 1e-3, "forgetting"),
    ("csk_sdk.method.known_classes.MOST", 10.0, "known_classes"),
    ("csk_sdk.learning.few_shot.TrainingConfig.epochs", 5, "few_shot"),
    ("csk_sdk.learning.stopping._LEAST_FALL", 0.005, "stopping"),
    ("csk_sdk.method.calibration.HIGHEST", 1.5, "calibration"),
    ("csk_sdk.method.calibration.LOWEST", 5.0, "calibration"),
    ("csk_sdk.method.calibration.FOLDS", 4, "calibration"),
    ("csk_sdk.method.domains.MOST_SCALE", 9.0, "channel_affine"),
    ("csk_sdk.method.domains.LEAST_VARIANCE", 0.4, "telling"),
]


@pytest.mark.parametrize(("target", "value", "kind"), OTHERS, ids=lambda one: str(one))
def test_another_threshold_is_found(target, value, kind, monkeypatch):
    cases = [
        path for path in (VECTORS / "cases").glob("*.json") if json.loads(path.read_text())["kind"] == kind
    ]
    assert {run_case(VECTORS, path.stem, frozenset()).status for path in cases} == {"passed"}
    monkeypatch.setattr(target, value)
    assert "failed" in {run_case(VECTORS, path.stem, frozenset()).status for path in cases}


@pytest.mark.parametrize("element", [0.5, np.nan, np.inf])
def test_a_wrong_golden_fails(one_case, element):
    path = one_case / "cases" / "discriminant.safetensors"
    tensors = {name: value.copy() for name, value in load_file(path).items()}
    tensors["in/sums"][0, 0] += element
    path.write_bytes(packed(tensors))
    (result,) = run_conformance(one_case)
    assert result.status == "failed"
    assert result.reason
    assert not conforms([result])


def test_what_a_runner_lacks_is_skipped_and_nothing_executed_is_a_failure(one_case):
    (result,) = run_conformance(one_case, frozenset({"discriminant"}))
    assert (result.status, result.reason) == ("skipped", "needs discriminant")
    assert not conforms([result])
    assert not conforms([])


def test_a_precision_can_be_left_out(one_case):
    path = one_case / "cases" / "discriminant.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "precision": "int8"}))
    (result,) = run_conformance(one_case, frozenset({"int8"}))
    assert (result.status, result.reason) == ("skipped", "needs int8")


def test_an_error_is_a_failed_case_and_the_others_run(one_case):
    index = {"format": 1, "digest": "0" * 64, "cases": ["broken", "discriminant"]}
    (one_case / "index.json").write_text(json.dumps(index))
    case = json.loads((one_case / "cases" / "discriminant.json").read_text())
    (one_case / "cases" / "broken.json").write_text(json.dumps({**case, "kind": "step", "bundle": "none"}))
    shutil.copy(one_case / "cases" / "discriminant.safetensors", one_case / "cases" / "broken.safetensors")
    broken, discriminant = run_conformance(one_case)
    assert (broken.status, discriminant.status) == ("failed", "passed")
    assert broken.reason.startswith("BundleError: There is no bundle")


@pytest.mark.parametrize(
    ("measure", "got", "expected", "off"),
    [
        ("equal", [1, 2, 3], [1, 2, 3], 0.0),
        ("equal", [1, 5, 6], [1, 2, 3], 2.0),
        ("absolute", [1.0, -2.0], [1.5, -2.25], 0.5),
        ("relative", [1.0, -2.0], [1.5, -2.5], 0.2),
        ("relative", [0.25, 0.0], [0.0, 0.0], 0.25),
        ("cosine", [3.0, 0.0], [0.0, 2.0], 1.0),
        ("cosine", [3.0, 4.0], [6.0, 8.0], 0.0),
        ("cosine", [0.0, 0.0], [0.0, 2.0], np.inf),
        ("relative", [1.0, np.nan], [1.0, 1.0], np.inf),
        ("absolute", [1.0], [1.0, 1.0], np.inf),
    ],
)
def test_measures(measure, got, expected, off):
    assert deviation(measure, np.array(got), np.array(expected)) == pytest.approx(off)


def test_other_formats_and_missing_vectors_are_refused(one_case, tmp_path):
    (one_case / "index.json").write_text('{"format": 2}')
    with pytest.raises(ConformanceError, match="has format 2, and this runner reads 1"):
        run_conformance(one_case)
    with pytest.raises(ConformanceError, match="There are no conformance vectors in"):
        run_conformance(tmp_path / "nothing")


def test_commands(one_case, tmp_path, capsys):
    out = tmp_path / "x.json"
    assert main(["conformance", str(one_case), "--out", str(out), "--platform", "this machine"]) == 0
    assert "1 of 1 cases executed: conforms" in capsys.readouterr().out
    written = json.loads(out.read_text())
    assert (written["platform"], written["passed"], written["vectors"]) == ("this machine", True, "0" * 64)
    assert main(["table", str(one_case), str(out), str(out)]) == 0
    printed = capsys.readouterr().out
    assert "discriminant" in printed
    assert "this machine: onnxruntime" in printed
    assert main(["table", str(VECTORS), str(out)]) == 1
    assert "is a result of other vectors than these" in capsys.readouterr().err
    skipped = ["conformance", str(one_case), "--unsupported", "discriminant"]
    assert main(skipped) == 1
    assert "0 of 1 cases executed: does NOT conform" in capsys.readouterr().out


def test_digits_that_are_apart_fail(one_case, tmp_path, capsys):
    result = report(one_case, run_conformance(one_case), "one", frozenset())
    for name, accuracy in (("a", 95.0), ("b", 95.9), ("c", 93.9)):
        write_report(tmp_path / f"{name}.json", {**result, "digits": {"accuracy": accuracy, "seconds": 1.0}})
    near, far = ([str(tmp_path / f"{name}.json") for name in names] for names in ("ab", "ac"))
    assert main(["table", str(one_case), *near]) == 0
    assert "digits 95.9 % after learning" in capsys.readouterr().out
    assert main(["table", str(one_case), *far]) == 1
    assert "more than 1 point apart" in capsys.readouterr().out


def test_a_table_with_a_failure_says_so(one_case, tmp_path, capsys):
    results = run_conformance(one_case)
    result = report(one_case, results, "bad", frozenset())
    result["passed"] = False
    result["cases"][0]["deviations"][0]["deviation"] = float("nan")
    result["cases"][0] |= {"status": "failed", "reason": "spoiled"}
    write_report(tmp_path / "bad.json", result)
    assert main(["table", str(one_case), str(tmp_path / "bad.json")]) == 1
    printed = capsys.readouterr().out
    assert "inf" in printed
    assert "1 failed: discriminant (spoiled)" in printed
