"""Multi-label and regression bundles on the command line, from the model to the prediction."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tables
from conftest import Digits
from csk_sdk import Task

SETTINGS = "[training]\nepochs = 2\nthreads = 1\nshift = 0\nlearning_rate = 0.05\n"


def save(task: Task, tasks: Path) -> None:
    """The folders of a task, with a metadata.csv in each."""
    for name, split in (("train", task.train), ("test", task.test)):
        assert split is not None
        images = np.stack([split.images.read(index)[..., 0] for index in range(len(split))])
        tables.write_table(tasks / task.name / name, images, task.classes, split.labels)


def inhabited(
    folder: Path, bundle: Callable[[Digits, Path], Path], digits: Digits, tasks: list[Task]
) -> Path:
    folder.mkdir()
    bundle(digits, folder)
    for task in tasks:
        save(task, folder / "tasks")
    (folder / "csk.toml").write_text(SETTINGS)
    return folder


@pytest.mark.slow
def test_multi_label(run: Any, tmp_path: Path, digits: Digits) -> None:
    tasks = [
        tables.attribute_task(digits, "01", (4, 5, 6, 7), ("loop", "prime")),
        tables.attribute_task(digits, "02", (0, 1, 2, 3), ("stem",)),
    ]
    folder = inhabited(tmp_path / "w", tables.attribute_bundle, digits, tasks)
    at = ("--workspace", folder)
    done = run("train", "--task", "all", *at, "--json")
    assert (done.status, done.err.count("Error")) == (0, 0)
    last = done.lines[-1]
    assert last["mAP"]["task"].keys() == {"01", "02"}
    assert min(last["mAP"]["task"].values()) > 95
    found = run("evaluate", *at, "--json").json
    assert (found["metric"], "accuracy" in found) == ("mAP", False)
    shown = run("evaluate", *at, "--scenario", "class").out
    assert "mAP in % (mean average precision), one head over everything known" in shown
    picture = folder / "tasks" / "01" / "test" / "0000.png"
    (one,) = run("predict", picture, *at, "--json").json
    assert {choice["class"] for choice in one["top"]} <= {"even", "round", "loop", "prime", "stem"}
    assert set(one["labels"]) == {
        choice["class"]
        for choice in run("predict", picture, "--top", "9", *at, "--json").json[0]["top"]
        if choice["probability"] > 0.5
    }
    header = run("predict", picture, *at).out.splitlines()[0].split()
    assert header[:3] == ["File", "Has", "1st"]
    inspected = run("inspect", folder / "bundle")
    assert "Loss           binary-cross-entropy" in inspected.out
    assert run("inspect", folder / "bundle", "--json").json["loss"] == "binary-cross-entropy"


@pytest.mark.slow
def test_regression(run: Any, tmp_path: Path, digits: Digits) -> None:
    tasks = [tables.angle_task(digits, "01", (4, 5)), tables.height_task(digits, "02", (6, 7))]
    folder = inhabited(tmp_path / "w", tables.angle_bundle, digits, tasks)
    at = ("--workspace", folder)
    learned = run("train", "--task", "all", *at)
    assert learned.status == 0
    assert "Learning 01: 1 target, 160 images" in learned.out
    assert "R2 in %" in learned.out
    assert "all targets" in learned.out
    found = run("evaluate", *at, "--json").json
    assert found["metric"] == "R2"
    assert found["acc"] > 60
    assert found["rmse"].keys() == {"01", "02"}
    shown = run("evaluate", *at).out
    assert "R2 in % (share of the variance explained)" in shown
    assert [line.split() for line in shown.splitlines()[-2:]] == [
        [name, target, f"{found['rmse'][name][target]:.4g}"]
        for name, target in (("01", "angle"), ("02", "height"))
    ]
    picture = folder / "tasks" / "01" / "test" / "0000.png"
    (one,) = run("predict", picture, *at, "--json").json
    assert one.keys() == {"file", "values"}
    assert one["values"].keys() == {"angle", "height"}
    lines = run("predict", picture, *at).out.splitlines()
    assert lines[0].split() == ["File", "angle", "height"]
    assert lines[2].split()[1:] == [f"{value:.4g}" for value in one["values"].values()]
    assert "2 targets" in run("export", "--out", folder / "x.onnx", *at).out
    metadata = {entry.key: entry.value for entry in onnx.load(str(folder / "x.onnx")).metadata_props}
    assert json.loads(metadata["targets"]) == ["angle", "height"]
    checks = {one["name"]: one for one in run("doctor", *at, "--json").json["checks"]}
    assert checks["Training step"]["status"] != "fail", checks
    refused = run("train", *at, "--task", "01", "--label-smoothing", "0.1", "--state", tmp_path / "other")
    assert refused.status == 1
    assert "label_smoothing is 0.1, but this bundle's loss is mse" in refused.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "metric"), [("cross-entropy", "accuracy"), ("binary-cross-entropy", "mAP"), ("mse", "R2")]
)
def test_build_takes_a_loss_and_names_the_metric(
    run: Any, tmp_path: Path, digits: Digits, base_data: Path, loss: str, metric: str
) -> None:
    images, labels = tables.chosen(digits, tables.BASE, 0, 20)
    names = ("zero", "one", "two", "three")
    data = base_data
    if loss != "cross-entropy":
        data = tables.write_table(tmp_path / "data", images, names, np.eye(4)[labels])
    arguments = ("--classes", tables.MODEL.with_suffix(".json"), "--base-data", data, "--loss", loss)
    done = run("build-artifacts", tables.MODEL, "--out", tmp_path / "b", *arguments, "--no-flip", "--json")
    assert done.status == 0, done.err
    assert (done.json["loss"], f"base_{metric}" in done.json) == (loss, True)
    shown = run("build-artifacts", tables.MODEL, "--out", tmp_path / "c", *arguments, "--no-flip").out
    assert f"Base {metric} " in shown


@pytest.mark.slow
def test_smoothing_is_a_setting_of_train(run: Any, workspace: Path) -> None:
    losses = []
    for smoothing in ("0", "0.3"):
        state = ("--state", workspace / smoothing)
        done = run("train", "--label-smoothing", smoothing, "--workspace", workspace, *state, "--json")
        losses.append(done.lines[-1]["loss"])
    assert losses[1] > losses[0] + 0.1
    wrong = run("train", "--label-smoothing", "1", "--workspace", workspace)
    assert wrong.status == 2
    assert "label_smoothing is 1.0; it must be at least 0 and below 1." in wrong.err


def test_an_unknown_loss_is_wrong_usage(run: Any, tmp_path: Path) -> None:
    done = run("build-artifacts", tables.MODEL, "--out", tmp_path / "b", "--loss", "hinge")
    assert done.status == 2
    assert "cross-entropy" in done.err
