"""Artifacts of onnxruntime-training that were deployed once learn for ever: tests/deployed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from conftest import REPOSITORY
from csk_sdk import Learner

DEPLOYED = REPOSITORY / "tests" / "deployed"
sys.path.append(str(DEPLOYED))
BUNDLES = sorted(DEPLOYED.glob("*/ort-training"))


def test_there_are_some() -> None:
    assert BUNDLES


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.parent.name)
def test_they_take_the_next_task(folder: Path, tmp_path: Path) -> None:
    from make_deployed import SETTINGS, picture_task

    shutil.copytree(folder, tmp_path / folder.name)
    state = tmp_path / folder.name / "python"
    learner = Learner.open(tmp_path / folder.name / "bundle", state, SETTINGS, backend="ort-training")
    sets = load_file(folder.parent / "pictures.safetensors")
    report = learner.learn(picture_task(folder, sets, "03"))
    assert report.epochs == SETTINGS["epochs"]
    assert [task.name for task in learner.tasks] == ["01", "02", "03"]
