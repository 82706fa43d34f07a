"""Conformance on emulated ARM64 CPUs, and states that travel between them and this machine."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from csk_sdk.formats.opening import LARGEST_TEXT, read_file
from platforms.arm64_root import CPUS, Arm64, Arm64Error, Cpu
from platforms.digits import TASKS, Learned, Run, accuracy, add_to_result, here, learn
from platforms.table import POINTS
from platforms.travel import FIRST, Finding, begin


def check_arm64(arm: Arm64, vectors: Path, workspace: Path, results: Path) -> list[Finding]:
    """All CPUs beside each other: vectors, the digits tasks, and states continued in both directions.

    Writes `aarch64-CPU.json` result files into `results`. Raises Arm64Error where an emulated process dies.
    """
    expected = learn(here, workspace, _copied(begin(workspace), "host"), TASKS[1:]).accuracy
    check = partial(_check, arm, vectors, workspace, results, expected)
    with ThreadPoolExecutor(len(CPUS)) as pool:
        return [finding for found in pool.map(check, CPUS) for finding in found]


def _check(
    arm: Arm64, vectors: Path, workspace: Path, results: Path, expected: float, cpu: Cpu
) -> list[Finding]:
    states, machine = workspace / "states", platform.machine()
    result = results / f"aarch64-{cpu.name}.json"
    started = time.monotonic()
    passed = _conformance(arm, cpu, vectors, result)
    found = [Finding(cpu.name, "conformance vectors", f"{time.monotonic() - started:.0f} s", passed)]
    emulated = on_emulated(arm, cpu)
    first, last = TASKS
    # Learned there, continued here; and the other way round. JavaScript continues what was learned there, too.
    begun = states / f"{cpu.name}{FIRST}"
    shutil.rmtree(begun, ignore_errors=True)
    there = learn(emulated, workspace, begun, [first])
    continued_here = learn(here, workspace, _copied(begun, cpu.name), [last])
    from_here = _copied(states / f"host{FIRST}", f"host-{cpu.name}")
    continued_there = learn(emulated, workspace, from_here, [last])
    seconds = round(there.seconds + continued_there.seconds, 1)
    add_to_result(result, Learned(continued_there.accuracy, seconds))
    seen_here = accuracy(here, workspace, from_here)
    for what, percent in (
        (f"digits: {first} learned on it, {last} on {machine}", continued_here.accuracy),
        (f"digits: {first} learned on {machine}, {last} on it", continued_there.accuracy),
        (f"digits: the same state, tested on {machine}", seen_here),
    ):
        near = abs(percent - expected) <= POINTS
        detail = f"{percent:.1f} %, {expected:.1f} % where all was learned on {machine}"
        found.append(Finding(cpu.name, what, detail, near))
    return [*found, Finding(cpu.name, "time for both tasks on it", f"{seconds:.0f} s", True)]


def on_emulated(arm: Arm64, cpu: Cpu) -> Run:
    """csk-sdk on an emulated CPU."""
    return partial(_csk_sdk, arm, cpu)


def _copied(state: Path, name: str) -> Path:
    """A fresh copy of a state beside it."""
    copy = state.with_name(name)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(state, copy)
    return copy


def _conformance(arm: Arm64, cpu: Cpu, vectors: Path, result: Path) -> bool:
    result.unlink(missing_ok=True)
    arguments = ["-m", "platforms", "conformance", str(vectors), "--out", str(result)]
    done = _run(arm, cpu, [*arguments, "--platform", f"aarch64 {cpu.name}"])
    if not result.is_file():
        raise Arm64Error(
            f"The conformance run on an emulated {cpu.name} ended with {done.returncode}: {_said(done)}"
        )
    return bool(json.loads(read_file(result, LARGEST_TEXT))["passed"])


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
