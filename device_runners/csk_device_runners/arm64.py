"""Conformance on emulated ARM64 CPUs, and states that travel between them and this machine."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from csk_device_runners.arm64_root import CPUS, Arm64, Arm64Error, Cpu
from csk_device_runners.conformance_table import POINTS
from csk_device_runners.digits import TASKS, Learned, accuracy, add_to_result, here, learn


@dataclass(frozen=True)
class Finding:
    """One line of what was found on a CPU."""

    cpu: str
    what: str
    detail: str
    passed: bool


def check_arm64(arm: Arm64, vectors: Path, workspace: Path, results: Path) -> list[Finding]:
    """All CPUs beside each other: vectors, the digits tasks, and states continued in both directions.

    Writes `aarch64-CPU.json` result files into `results`. Raises Arm64Error where an emulated process dies.
    """
    states = workspace / "states"
    shutil.rmtree(states, ignore_errors=True)
    first, last = TASKS
    learn(here, workspace, states / "host-first", [first])
    shutil.copytree(states / "host-first", states / "host")
    expected = learn(here, workspace, states / "host", [last]).accuracy
    check = partial(_check, arm, vectors, workspace, results, expected)
    with ThreadPoolExecutor(len(CPUS)) as pool:
        return [finding for found in pool.map(check, CPUS) for finding in found]


def _check(
    arm: Arm64, vectors: Path, workspace: Path, results: Path, expected: float, cpu: Cpu
) -> list[Finding]:
    states, machine = workspace / "states", platform.machine()
    result = results / f"aarch64-{cpu.name}.json"
    begun = time.monotonic()
    passed = _conformance(arm, cpu, vectors, result)
    found = [Finding(cpu.name, "conformance vectors", f"{time.monotonic() - begun:.0f} s", passed)]
    emulated: Callable[[list[str]], dict[str, Any]] = partial(_csk_sdk, arm, cpu)
    first, last = TASKS
    # Learned there, continued here; and the other way round.
    there = learn(emulated, workspace, states / cpu.name, [first])
    continued_here = learn(here, workspace, states / cpu.name, [last])
    shutil.copytree(states / "host-first", states / f"host-{cpu.name}")
    continued_there = learn(emulated, workspace, states / f"host-{cpu.name}", [last])
    seconds = round(there.seconds + continued_there.seconds, 1)
    add_to_result(result, Learned(continued_there.accuracy, seconds))
    seen_here = accuracy(here, workspace, states / f"host-{cpu.name}")
    for what, percent in (
        (f"digits: {first} learned on it, {last} on {machine}", continued_here.accuracy),
        (f"digits: {first} learned on {machine}, {last} on it", continued_there.accuracy),
        (f"digits: the same state, tested on {machine}", seen_here),
    ):
        near = abs(percent - expected) <= POINTS
        detail = f"{percent:.1f} %, {expected:.1f} % where all was learned on {machine}"
        found.append(Finding(cpu.name, what, detail, near))
    return [*found, Finding(cpu.name, "time for both tasks on it", f"{seconds:.0f} s", True)]


def _conformance(arm: Arm64, cpu: Cpu, vectors: Path, result: Path) -> bool:
    result.unlink(missing_ok=True)
    arguments = ["-m", "csk_device_runners", "conformance", str(vectors), "--out", str(result)]
    done = _run(arm, cpu, [*arguments, "--platform", f"aarch64 {cpu.name}"])
    if not result.is_file():
        raise Arm64Error(
            f"The conformance run on an emulated {cpu.name} ended with {done.returncode}: {_said(done)}"
        )
    return bool(json.loads(result.read_text(encoding="utf-8"))["passed"])


def _csk_sdk(arm: Arm64, cpu: Cpu, arguments: list[str]) -> dict[str, Any]:
    done = _run(arm, cpu, ["-m", "csk_sdk", *arguments])
    if done.returncode != 0:
        raise Arm64Error(f"`csk-sdk {' '.join(arguments)}` failed on an emulated {cpu.name}: {_said(done)}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _run(arm: Arm64, cpu: Cpu, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command, environment = arm.command(cpu, arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr or done.stdout).strip().splitlines()
    # A signal has a negative status: a crash of the emulator or the runtime says nothing.
    return said[-1] if said else f"status {done.returncode}, and not a word"
