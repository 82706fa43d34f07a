"""A whole learned task: the digits workspace that tests/conformance/digits.py made, driven by the command line.

As a device is: `csk-sdk train` and `csk-sdk evaluate`, each a process of its own, here or on an emulated CPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from csk_sdk.errors import CskError
from csk_sdk.formats.opening import LARGEST_TEXT, read_file

TASKS = ("01-four-five", "02-six-seven")
# csk-sdk's arguments to what it prints with --json.
Run = Callable[[list[str]], dict[str, Any]]


@dataclass(frozen=True)
class Learned:
    """What a state knows: the mean of its tasks' class-incremental accuracies in percent; and the time it took."""

    accuracy: float
    seconds: float


def here(arguments: list[str]) -> dict[str, Any]:
    """Run csk-sdk on this machine. Raises CskError where it fails."""
    command = [sys.executable, "-m", "csk_sdk", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CskError(f"`csk-sdk {' '.join(arguments)}` failed: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def learn(run: Run, workspace: Path, state: Path, tasks: Sequence[str] = TASKS) -> Learned:
    """Learn the tasks in `state`. The seconds are those of processes, their starts and tests included."""
    begun, known = time.monotonic(), 0.0
    for task in tasks:
        answer = run(["train", "--task", task, *_where(workspace, state), "--json"])
        known = mean(answer["accuracy"]["class"].values())
    return Learned(known, round(time.monotonic() - begun, 1))


def accuracy(run: Run, workspace: Path, state: Path) -> float:
    """What a state knows, as in `Learned`."""
    answer = run(["evaluate", "--scenario", "class", *_where(workspace, state), "--json"])
    return float(answer["acc"])


def add_to_result(path: Path, learned: Learned) -> None:
    """Put it into a result file of a conformance run."""
    result = json.loads(read_file(path, LARGEST_TEXT))
    result["digits"] = {"accuracy": learned.accuracy, "seconds": learned.seconds}
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _where(workspace: Path, state: Path) -> list[str]:
    return ["--workspace", str(workspace), "--state", str(state)]
