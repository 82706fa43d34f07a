"""The ARM64 run without ARM64: what is asked of apt, pip and qemu, and what becomes of their answers.

The run itself is `make arm64`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from workspaces import digits_workspace

from platforms import arm64, arm64_root, travel
from platforms.__main__ import main
from platforms.arm64 import check_arm64
from platforms.arm64_root import CPUS, Arm64, Arm64Error
from platforms.digits import TASKS, Learned, add_to_result

REPOSITORY = Path(__file__).parents[2]
VECTORS = REPOSITORY / "tests" / "conformance" / "vectors"
NEOVERSE, CORTEX = CPUS


@pytest.fixture
def native(tmp_path):
    """A root whose emulator is this machine: it drops `-cpu CPU -L ROOT PYTHON -S`, and runs this Python."""

    def make(first="exec"):
        emulator = tmp_path / "emulator"
        emulator.write_text(f'#!/bin/sh\nshift 6\n{first} {sys.executable} "$@"\n')
        emulator.chmod(0o755)
        return Arm64(tmp_path / "arm64", "python3.11", emulator)

    return make


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return digits_workspace(tmp_path_factory.mktemp("digits") / "digits")


@pytest.fixture
def little(tmp_path):
    """Vectors of one case: the others are tested elsewhere."""
    folder = tmp_path / "vectors"
    (folder / "cases").mkdir(parents=True)
    for suffix in ("json", "safetensors"):
        data = (VECTORS / "cases" / f"head.{suffix}").read_bytes()
        (folder / "cases" / f"head.{suffix}").write_bytes(data)
    (folder / "index.json").write_text(json.dumps({"format": 1, "digest": "0", "cases": ["head"]}))
    return folder


def test_a_cpu_and_its_cpuinfo_agree():
    assert "asimddp" in NEOVERSE.cpuinfo
    assert "asimddp" not in CORTEX.cpuinfo
    assert "CPU part\t: 0xd03\n" in CORTEX.cpuinfo
    assert all(cpu.cpuinfo.endswith("\n\n") for cpu in CPUS)


def test_the_requirements_are_those_of_a_device():
    names = {name.split(">")[0] for name in arm64_root._requirements()}
    assert names == {"numpy", "onnxruntime", "pillow", "rich", "safetensors", "typer"}


def test_the_command_finds_the_root_before_this_machine(native, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    command, environment = native().command(CORTEX, ["-c", "pass"])
    root = native().folder / "cortex-a53"
    assert command[1:5] == ["-cpu", "cortex-a53", "-L", str(root)]
    assert command[5:] == [str(root / "usr" / "bin" / "python3.11"), "-S", "-c", "pass"]
    path = environment["PYTHONPATH"].split(os.pathsep)
    assert path[0] == str(native().folder / "wheels")
    assert "/elsewhere" not in path
    assert {(Path(one) / name).is_dir() for one in path[1:] for name in ("csk_sdk",)} >= {True}


@pytest.mark.slow
def test_states_travel_in_both_directions(native, little, workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(arm64, "CPUS", (NEOVERSE,))
    findings = check_arm64(native(), little, workspace, tmp_path)
    assert [finding.what for finding in findings if not finding.passed] == []
    assert len(findings) == 5
    result = json.loads((tmp_path / "aarch64-neoverse-n1.json").read_text())
    assert (result["platform"], result["passed"]) == ("aarch64 neoverse-n1", True)
    # Far above the 1 in 8 of guessing, and the same machine learned the same.
    assert result["digits"]["accuracy"] > 85
    states = workspace / "states"
    kept = {name: _heads(states / name) for name in ("host", "neoverse-n1", "host-neoverse-n1")}
    assert len(set(kept.values())) == 1


def _heads(state):
    """The checksum of the last generation's tensors: on one machine the same to the bit."""
    return json.loads((state / "generations" / "000002.json").read_text())["sha256"]


@pytest.mark.slow
def test_a_crash_is_told(native, little, workspace, tmp_path):
    with pytest.raises(Arm64Error, match=r"conformance run on an emulated .* ended with 139: status 139"):
        check_arm64(native("exit 139;"), little, workspace, tmp_path)


@pytest.mark.slow
def test_another_accuracy_is_found(native, little, workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(arm64, "CPUS", (NEOVERSE,))

    def learn(run, workspace, state, tasks):
        state.mkdir(parents=True, exist_ok=True)
        return Learned(90.0 if run is arm64.here else 88.0, 1.0)

    monkeypatch.setattr(arm64, "learn", learn)
    monkeypatch.setattr(travel, "learn", learn)
    monkeypatch.setattr(arm64, "accuracy", lambda *_: 88.9)
    findings = check_arm64(native(), little, workspace, tmp_path)
    wrong = [finding.detail for finding in findings if not finding.passed]
    assert len(wrong) == 2
    assert wrong[0].startswith("88.0 %, 90.0 % where all was learned on ")


def test_what_cannot_be_fetched_is_told():
    with pytest.raises(
        Arm64Error, match="no-such-apt is missing, and the ARM64 root is made of Debian's packages"
    ):
        arm64_root._call(["no-such-apt"])
    with pytest.raises(
        Arm64Error, match=r"`sh -c` failed \(no such package\): check this machine's package sources"
    ):
        arm64_root._call(["sh", "-c", "echo no such package >&2; exit 100"])


def test_a_root_of_other_requirements_is_made_again(tmp_path, monkeypatch):
    made = []

    def unpack(folder):
        made.append(folder)
        (folder / "root" / "usr" / "bin").mkdir(parents=True)
        (folder / "root" / "usr" / "bin" / "python3.11").touch()
        for cpu in CPUS:
            (folder / cpu.name / "proc").mkdir(parents=True)

    monkeypatch.setattr(arm64_root, "_unpack", unpack)
    monkeypatch.setattr(arm64_root, "_unpack_emulator", lambda folder, out: out.touch())
    monkeypatch.setattr(arm64_root.shutil, "which", lambda name: None)
    for _ in range(2):
        arm = Arm64.prepare(tmp_path / "root")
    assert (arm.python, arm.emulator.name, len(made)) == ("python3.11", "qemu-aarch64", 1)
    assert (tmp_path / "root" / "cortex-a53" / "proc" / "cpuinfo").read_text() == CORTEX.cpuinfo
    monkeypatch.setattr(arm64_root, "_PACKAGES", ("another",))
    Arm64.prepare(tmp_path / "root")
    assert len(made) == 2


def test_digits_are_added_to_a_result(workspace, tmp_path):
    result = tmp_path / "host.json"
    result.write_text('{"format": 1}')
    add_to_result(result, Learned(12.5, 3.0))
    assert json.loads(result.read_text())["digits"] == {"accuracy": 12.5, "seconds": 3.0}


def test_the_commands_say_what_is_wrong(tmp_path, capsys):
    assert main(["digits", str(tmp_path), str(tmp_path / "none.json")]) == 1
    assert "Error: `csk-sdk train" in capsys.readouterr().err


def test_bundles_lie_where_any_platform_finds_them(workspace):
    listed = subprocess.run(
        [sys.executable, "-m", "csk_sdk", "tasks", "--workspace", str(workspace), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [
        task["name"] for task in json.loads(listed.stdout) if task["state"] in ("next", "waiting")
    ] == list(TASKS)
