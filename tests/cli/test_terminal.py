"""The real command, as a process: on a terminal, in a pipe, without a disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from csk_sdk.cli.commands import COMMANDS, TELLING

COMMAND = [sys.executable, "-m", "csk_sdk"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")


def in_pipe(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **more},
        check=False,
        timeout=600,
    )


def on_terminal(*arguments: str | Path, **more: str) -> tuple[int, str]:
    """Exit status, and everything that the terminal was sent (both streams)."""
    import pty

    control, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **more}
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    pieces = []
    while True:
        try:
            piece = os.read(control, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(control)
    return process.wait(timeout=600), b"".join(pieces).decode()


@pytest.mark.slow
def test_a_terminal_shows_a_bar_and_a_pipe_gets_lines(workspace, learned):
    status, seen = on_terminal("train", "--workspace", workspace)
    assert status == 0
    assert "\x1b[" in seen
    assert "━" in seen
    done = in_pipe("train", "--workspace", learned, "--state", workspace / "other")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "━" not in done.stdout
    assert len(done.stdout.splitlines()) < 20


def test_json_on_a_terminal_is_still_json(learned_workspace):
    status, seen = on_terminal("tasks", "--workspace", learned_workspace, "--json")
    assert status == 0
    assert len(json.loads(seen)) == 3


@pytest.mark.slow
def test_no_color(learned_workspace):
    _, seen = on_terminal("tasks", "--workspace", learned_workspace)
    assert "\x1b[32m" in seen
    _, seen = on_terminal("tasks", "--workspace", learned_workspace, NO_COLOR="1")
    assert "\x1b[32m" not in seen


def test_a_terminal_without_unicode_gets_through(learned_workspace):
    done = in_pipe("evaluate", "--workspace", learned_workspace, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_is_one_sentence_and_no_traceback(tmp_path):
    done = in_pipe("tasks", "--workspace", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: There is no bundle in ")
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_quiet(learned_workspace):
    process = subprocess.Popen(
        [*COMMAND, "tasks", "--workspace", str(learned_workspace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=600)
    assert said == b""


@pytest.mark.parametrize(
    ("command", "generations", "unbuffered"),
    [
        (("train", "--no-evaluate"), 1, "1"),
        (("train", "--no-evaluate", "--json"), 1, ""),
        (("train", "--task", "all"), 2, ""),
        (("watch", "--once", "--settle", "0", "--poll", "0.1", "--nice", "0"), 2, ""),
    ],
)
def test_what_learns_goes_on_where_nobody_reads_any_more(workspace, command, generations, unbuffered):
    process = subprocess.Popen(
        [*COMMAND, *command, "--workspace", str(workspace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    if "--json" not in command:
        assert process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=600), said) == (0, b"")
    assert in_pipe("tasks", "--workspace", workspace).stdout.count("learned") == generations


def test_what_learns_goes_on_without_its_terminal(workspace):
    import pty

    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "train", "--no-evaluate", "--workspace", str(workspace)],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(terminal)
    assert os.read(control, 1)
    os.close(control)
    assert process.wait(timeout=600) == 0
    assert in_pipe("tasks", "--workspace", workspace).stdout.count("learned") == 1


def test_a_command_that_only_tells_ends_with_its_reader(run, monkeypatch):
    outlived = []
    monkeypatch.setattr("csk_sdk.cli.outlive_output", lambda: outlived.append(command))
    for command in COMMANDS:
        assert run(command, "--no-such-option").status == 2
    assert set(outlived) == set(COMMANDS) - TELLING
    assert set(COMMANDS) >= TELLING


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_sentence(learned_workspace):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "tasks", "--workspace", str(learned_workspace), "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=600,
        )
    assert done.returncode == 1
    assert "Error: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_no_runtime():
    code = (
        "import csk_sdk.cli, sys; print({'onnxruntime', 'onnx', 'csk_artifacts_builder'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout == "set()\n"
