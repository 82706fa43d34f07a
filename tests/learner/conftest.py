"""A device in use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import Digits, open_learner
from csk_sdk import Progress
from learner.used_device import Device


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, digits_bundle: Path, digits: Digits) -> Path:
    folder = tmp_path_factory.mktemp("used")
    shutil.copytree(digits_bundle, folder / "bundle")
    learner = open_learner(folder / "bundle", folder / "state", checkpoint_seconds=0.0)
    learner.learn(digits.task("01", (4, 5)))

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.learn(digits.task("02", (6, 7)), on_progress=stop)
    assert learner.state.load_progress() is not None
    return folder


@pytest.fixture
def device(used: Path, tmp_path: Path, digits: Digits) -> Device:
    shutil.copytree(used, tmp_path / "device")
    return Device(tmp_path / "device", digits)
