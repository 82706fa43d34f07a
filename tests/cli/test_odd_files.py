"""Pipes and devices in the place of a workspace's files: no command waits for them, and each says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import csk_sdk
from field.test_openings import a_device, a_pipe

IN_A_WORKSPACE = (
    "csk.toml",
    "device.json",
    "state/state.json",
    "state/HEAD",
    "state/lock",
    "state/progress.safetensors",
    "state/generations/000001.json",
    "state/generations/000001.safetensors",
    "state/generations/000002.json",
    "state/generations/000002.safetensors",
    "state/scores/000001.json",
    "tasks/01-four-five/train/four/0.png",
    "tasks/02-six-seven.npz",
)


@pytest.mark.slow
@pytest.mark.parametrize("make", [a_pipe, a_device])
@pytest.mark.parametrize("name", IN_A_WORKSPACE)
def test_no_command_waits_for_what_is_no_file(learned: Path, name: str, make: Callable[[Path], None]) -> None:
    (learned / name).unlink(missing_ok=True)
    make(learned / name)
    at = ("--workspace", learned)
    for command in (
        ("tasks", *at),
        ("train", *at),
        ("evaluate", *at),
        ("watch", "--once", "--settle", "0", "--nice", "0", *at),
        ("rollback", "--to", "01-four-five", *at),
        ("verify", *at),
        ("verify", "--repair", *at),
        ("report", "--out", learned / "report.html", *at),
    ):
        done = csk_sdk(*command)  # a traceback would be raised here
        assert done.status in (0, 1), command
        assert done.status == 0 or done.err.startswith("Error: ") or command[0] == "verify", done.err
    # What was learned can be reached all the same, unless csk.toml itself cannot be read.
    if name != "csk.toml":
        (learned / "state/lock").unlink()
        assert csk_sdk("rollback", "--to", "base", *at).status == 0
