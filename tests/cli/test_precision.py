"""An int8 bundle on the command line: doctor chooses, train follows, options overrule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import build_digits_bundle
from csk_sdk.device import tuning


@pytest.fixture
def workspace_int8(
    workspace: Path,
    tmp_path_factory: pytest.TempPathFactory,
    base_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """On a device where int8 takes half of the time."""
    (workspace / "bundle").unlink()
    build_digits_bundle(workspace / "bundle", base_data=base_data, precision="int8")
    slow = {"exact": 20.0, "int8": 10.0}
    monkeypatch.setattr(tuning, "_milliseconds", lambda view, *_: slow[view.precision])
    return workspace


def config_of(workspace: Path, generation: int) -> dict:
    record = json.loads((workspace / f"state/generations/{generation:06d}.json").read_text())
    return record["tasks"][-1]["config"]


@pytest.mark.slow
def test_doctor_shows_what_it_measured_and_train_follows_it(run, workspace_int8: Path, monkeypatch) -> None:
    done = run("doctor", "--workspace", workspace_int8)
    assert done.status == 0
    assert "Precision      int8: int8 takes 0.50 of the time of exact, and is " in done.out
    shown = [line.replace(", wide sums", "").split()[:3] for line in done.out.splitlines() if " ms " in line]
    assert shown[:2] == [["exact", "20.0", "ms"], ["int8", "10.0", "ms"]]
    monkeypatch.setattr(tuning, "_milliseconds", lambda view, *_: 10.0)
    done = run("doctor", "--workspace", workspace_int8, "--json")
    (found,) = [check for check in done.json["checks"] if check["name"] == "Precision"]
    assert found["detail"].startswith("exact: int8 is not faster on this CPU with this model")
    assert [one["precision"] for one in found["measured"]] == ["exact", "int8"]
    assert run("train", "--workspace", workspace_int8, "--no-evaluate").status == 0
    assert config_of(workspace_int8, 1)["precision"] == "exact"
    done = run(
        "train", "--workspace", workspace_int8, "--no-evaluate", "--precision", "int8",
        "--prefix-cache", "auto", "--prefix-views", "3",
    )  # fmt: skip
    assert done.status == 0
    assert "Running the frozen stem" in done.out
    learned = config_of(workspace_int8, 2)
    assert (learned["precision"], learned["prefix_cache"], learned["prefix_views"]) == ("int8", "memory", 3)


@pytest.mark.slow
def test_csk_toml_overrules_what_was_measured(run, workspace_int8: Path) -> None:
    (workspace_int8 / "csk.toml").write_text(
        '[training]\nepochs = 1\nthreads = 1\nfew_shot = 0\ntrain = "centers"\nprecision = "exact"\n'
    )
    done = run("doctor", "--workspace", workspace_int8)
    assert "csk.toml sets precision to exact, and so it stays." in done.out
    run("train", "--workspace", workspace_int8, "--no-evaluate")
    assert config_of(workspace_int8, 1)["precision"] == "exact"


def test_a_precision_that_the_bundle_has_not_is_one_sentence(run, workspace: Path) -> None:
    done = run("train", "--workspace", workspace, "--precision", "int8")
    assert done.status == 1
    assert "has no graphs for int8: build it again with --precision int8." in done.err.replace("\n", " ")


@pytest.mark.slow
def test_where_it_cannot_be_remembered_doctor_says_so(run, workspace_int8: Path) -> None:
    (workspace_int8 / "device.json").mkdir()
    done = run("doctor", "--workspace", workspace_int8)
    assert done.status == 0
    assert "warn  Precision" in done.out
    assert "It could not be remembered, so learning takes int8" in done.out.replace("\n", " ")
