"""The systemd unit: systemd understands it, and so does the command line."""

import re
import shlex
import shutil
import subprocess

import pytest
from typer.main import get_command

from conftest import REPOSITORY
from csk_sdk.cli import app

UNIT = REPOSITORY / "device_runners/systemd/csk-sdk-watch.service"


def started():
    (line,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    return shlex.split(line)


def test_its_command_is_one_of_ours():
    program, name, *options = started()
    assert program.endswith("/csk-sdk")
    command = get_command(app).get_command(None, name)
    parsed = command.make_context(name, options, resilient_parsing=True).params
    assert (str(parsed["workspace"]), parsed["nice"]) == ("/var/lib/csk-sdk", 15)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_finds_no_fault(tmp_path):
    # Its own program is not installed here, and verifying asks for one that is.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(started()[0], shutil.which("true")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
