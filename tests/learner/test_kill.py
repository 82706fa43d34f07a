"""kill -9 before each change that a commit makes: what was committed stays whole. At random moments: make attack."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import Digits
from csk_sdk.workspace.folder import Workspace

# One thread and no evaluation: the same bits, and nothing to do but to learn. A checkpoint after each step.
SETTINGS = """
[training]
threads = 1
shift = 1
few_shot = 0
train = "centers"
epochs = 12
patience = 0
checkpoint_seconds = 0.0
"""
STEPS = 60

# `csk-sdk train --task next`, saying where it is; "ready" is when all is imported.
SCRIPT = """
import sys
from csk_sdk.runtime.sessions import load_onnxruntime
from csk_sdk.workspace.folder import Workspace
load_onnxruntime()
space = Workspace.open(sys.argv[1])
learner = space.learner()
task = next(space.waiting(learner))
print("ready", flush=True)
phases = set()
def tell(progress):
    if progress.phase not in phases:
        phases.add(progress.phase)
        print(progress.phase, flush=True)
learner.learn(task, on_progress=tell)
"""

DIE_AT_STEP = f"""
import os, signal
from csk_sdk.learning import learn_run
class Progress(learn_run.Progress):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        if self.step == {STEPS // 2}:
            os.kill(os.getpid(), signal.SIGKILL)
learn_run.Progress = Progress
"""

Tensors = dict[str, bytes]


@dataclass
class Device:
    """A workspace whose first task is learned and whose second one is to be learned under fire."""

    folder: Path
    saved: Path
    expected: list[Tensors]
    kills: int = 0

    def reset(self) -> None:
        """Back to where only the first task is learned."""
        shutil.rmtree(self.folder / "state")
        shutil.copytree(self.saved, self.folder / "state")

    def check(self) -> int:
        """The generation that HEAD names; it must be whole, and what an undisturbed run has there."""
        generation = Workspace.open(self.folder).learner().generation
        found = {name: tensor.tobytes() for name, tensor in generation.tensors.items()}
        assert found == self.expected[generation.number]
        return generation.number

    def remaining(self) -> float:
        """The share of the task's steps that a resumed run has still to do."""
        progress = Workspace.open(self.folder).learner().state.load_progress()
        return 1.0 - (progress[1]["step"] / STEPS if progress is not None else 0.0)

    def script(self) -> list[str]:
        return [sys.executable, "-c", SCRIPT, str(self.folder)]

    def run(self, arguments: list[str]) -> None:
        """Run, until it ends or kills itself."""
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        self.kills += done.returncode != 0


@pytest.fixture
def device(tmp_path: Path, digits_bundle: Path, digits: Digits) -> Device:
    folder = tmp_path / "device"
    shutil.copytree(digits_bundle, folder / "bundle")
    (folder / "csk.toml").write_text(SETTINGS)
    for name, chosen in (("01", (4, 5)), ("02", (6, 7))):
        digits.save(digits.task(name, chosen, test=0), folder / "tasks")
    space = Workspace.open(folder)
    learner = space.learner()
    expected = []
    for task in [*space.waiting(learner), None]:
        expected.append({name: tensor.tobytes() for name, tensor in learner.generation.tensors.items()})
        if len(expected) == 2:
            shutil.copytree(folder / "state", tmp_path / "saved")
        if task is not None:
            learner.learn(task)
    made = Device(folder, tmp_path / "saved", expected)
    assert made.check() == 2
    made.reset()
    assert made.check() == 1
    return made


SUICIDE = """
import os, signal
from csk_sdk.state import atomic
class Countdown:
    left = {calls}
    def __getattr__(self, name):
        if name in ("write", "fsync", "replace", "mkdir", "open", "close", "unlink"):
            Countdown.left -= 1
            if Countdown.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return getattr(os, name)
"""


@pytest.mark.slow
def test_killed_before_each_change_that_a_commit_makes(device: Device) -> None:
    # Where a random moment would hardly ever fall: between two calls of the commit.
    killed_at, calls = 0, 0
    while device.check() == 1:
        code = SUICIDE.format(calls=calls) + SCRIPT.replace(
            "    if progress.phase not in phases:",
            "    if progress.phase == 'consolidate':\n        atomic.os = Countdown()\n"
            "    if progress.phase not in phases:",
        )
        before = device.kills
        device.run([sys.executable, "-c", code, str(device.folder)])
        killed_at += device.kills > before
        calls += 1
        assert calls < 60
    # Tensors, record and HEAD: each is opened, written, synced, closed, renamed, and its folder synced.
    assert killed_at >= 15


@pytest.mark.slow
def test_killed_in_the_middle_of_a_task_it_goes_on_from_there(device: Device) -> None:
    device.run([sys.executable, "-c", DIE_AT_STEP + SCRIPT, str(device.folder)])
    assert device.check() == 1
    assert 0.0 < device.remaining() < 1.0
    device.run(device.script())
    assert device.check() == 2
    assert not list((device.folder / "state").rglob(".*.csk-tmp"))
    assert not (device.folder / "state" / "progress.safetensors").exists()
