"""States that travel: what other platforms wrote of the digits tasks, opened and continued here.

In `states/` of the digits workspace, `NAME/` is a state and `NAME.json` what its writer says of it: `platform`, the
`sha256` of every file, `told`, and `opened`, what it was when the writer opened it, where it was begun elsewhere. Both
have `predictions`: of each task's test images the class among all classes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk import Learner, TrainingConfig
from csk_sdk.formats.opening import LARGEST_TEXT, open_file, read_file
from csk_sdk.formats.stored_tensors import StoredTensors
from platforms.conformance import ConformanceError
from platforms.digits import TASKS, Run, accuracy, here, learn
from platforms.table import POINTS

FIRST = "-first"
HOST = "host"
_BASE = "base"


@dataclass(frozen=True)
class Told:
    """What a state knows: the mean accuracy of base and tasks in percent, and what it says of their test images."""

    accuracy: float
    predictions: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Finding:
    """One line of what was found on a platform."""

    platform: str
    what: str
    detail: str
    passed: bool


def begin(workspace: Path) -> Path:
    """The first task learned on this machine, for others to continue: the state's folder."""
    state = workspace / "states" / f"{HOST}{FIRST}"
    shutil.rmtree(state, ignore_errors=True)
    learn(here, workspace, state, TASKS[:1])
    return state


def check_states(workspace: Path, elsewhere: Mapping[str, Run] | None = None) -> list[Finding]:
    """Every state in `states/` with a writer's word: as it was sent, saying the same here, and continued.

    A state with the first task only is continued here, and on the platforms `elsewhere`, too. Raises ConformanceError
    where there is none, or no life of this machine to compare with.
    """
    states = workspace / "states"
    said = {path.stem: json.loads(read_file(path, LARGEST_TEXT)) for path in sorted(states.glob("*.json"))}
    if not said or not (states / "conformance").is_dir():
        raise ConformanceError(
            f"{states} has no states to compare: run `make conformance`, which has them written by each platform."
        )
    expected = accuracy(here, workspace, states / "conformance")
    continuing = {HOST: here, **(elsewhere or {})}
    found: list[Finding] = []
    for name, word in said.items():
        found += _opened_here(workspace, name, word, expected)
        if name.endswith(FIRST):
            for place, run in continuing.items():
                found.append(_continued(workspace, name, word["platform"], place, run, expected))
    return found


def _opened_here(workspace: Path, name: str, word: Mapping[str, Any], expected: float) -> list[Finding]:
    state, platform = workspace / "states" / name, str(word["platform"])
    origin = name.removesuffix(FIRST).removesuffix(f"-{platform}")
    what = "learned" if name == platform else "begun" if name.endswith(FIRST) else f"continued from {origin}"
    changed = changed_files(state, word["sha256"])
    found = [
        Finding(
            platform,
            f"{what}: its files as they were sent",
            ", ".join(changed) or f"{len(word['sha256'])} files",
            not changed,
        )
    ]
    found.append(_same(platform, f"{what}: {HOST} says the same", workspace, state, word["told"]))
    if "opened" in word:
        before = workspace / "states" / f"{origin}{FIRST}"
        found.append(_same(platform, f"opened from {origin}: the same", workspace, before, word["opened"]))
    if not name.endswith(FIRST):
        found.append(_near(platform, f"{what}: accuracy", float(word["told"]["accuracy"]), expected))
    return found


def _continued(workspace: Path, name: str, platform: str, place: str, run: Run, expected: float) -> Finding:
    states = workspace / "states"
    state = states / f"{name.removesuffix(FIRST)}-{place}"
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(states / name, state)
    return _near(
        platform,
        f"begun, continued on {place}: accuracy",
        learn(run, workspace, state, TASKS[1:]).accuracy,
        expected,
    )


def _near(platform: str, what: str, percent: float, expected: float) -> Finding:
    detail = f"{percent:.1f} %, {expected:.1f} % where all was learned on {HOST}"
    return Finding(platform, what, detail, abs(percent - expected) <= POINTS)


def _same(platform: str, what: str, workspace: Path, state: Path, word: Mapping[str, Any]) -> Finding:
    """Whether this machine says of every test image what the writer said."""
    mine, theirs = tell(workspace, state), Told(float(word["accuracy"]), word["predictions"])
    shapes = [{task: len(labels) for task, labels in told.predictions.items()} for told in (mine, theirs)]
    if shapes[0] != shapes[1]:
        return Finding(platform, what, f"{shapes[1]} images there, {shapes[0]} here", False)
    pairs = [
        pair
        for task, labels in mine.predictions.items()
        for pair in zip(labels, theirs.predictions[task], strict=True)
    ]
    other = sum(one != two for one, two in pairs)
    detail = (
        f"{other} of {len(pairs)} images differ; {mine.accuracy:.2f} % here, {theirs.accuracy:.2f} % there"
    )
    # An image between two classes may fall to either by rounding, and no more than one in a hundred lies there.
    return Finding(platform, what, detail, 100 * other <= POINTS * len(pairs))


def tell(workspace: Path, state: Path) -> Told:
    """What this machine says of the test images of base and of every task that a state knows."""
    tensors = StoredTensors(workspace / "digits.safetensors")
    learner = Learner.open(workspace / "bundle", state, TrainingConfig(threads=1))
    classes = {_BASE: learner.bundle.manifest.classes} | {task.name: task.classes for task in learner.tasks}
    said, shares = {}, []
    for name, members in classes.items():
        labels = learner.predict(tensors[f"{name}/test/images"][..., None]).labels
        truth = np.array(members)[tensors[f"{name}/test/labels"]]
        said[name] = [str(label) for label in labels]
        shares.append(100 * float(np.mean(np.array(said[name]) == truth)))
    return Told(float(np.mean(shares)), said)


def _sha256(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed_files(state: Path, sent: Mapping[str, str]) -> list[str]:
    """The files of a state that are missing, new, or other than what was sent: by their sha256."""
    mine = {path.relative_to(state).as_posix(): _sha256(path) for path in state.rglob("*") if path.is_file()}
    return sorted(path for path in mine.keys() | sent.keys() if mine.get(path) != sent.get(path))
