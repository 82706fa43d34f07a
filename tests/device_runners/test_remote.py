"""Learning on a board over ssh, against a real sshd on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import REPOSITORY
from csk_device_runners.remote import learn_remotely
from csk_device_runners.ssh import Board, ConnectionBroken, RemoteError, fingerprint
from csk_sdk import Learner
from device_runners.sending import sent_once

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
# It installs csk-sdk as on a board, from the package index, so it has a target of its own: make test-ssh.
WANTED = "CSK_SDK_SSHD" in os.environ
if WANTED and SSHD is None:
    raise RuntimeError("make test-ssh needs sshd: install OpenSSH's server.")
pytestmark = [pytest.mark.skipif(not WANTED, reason="run by make test-ssh"), pytest.mark.slow]


class Sshd:
    """An sshd of this user's own on a loopback port, with keys of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.port = 20000 + os.getpid() % 20000
        for name in ("host", "client"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "authorized").write_text((folder / "client.pub").read_text())
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized\nPidFile {folder}/pid\n"
            f"UsePAM no\nStrictModes no\nPasswordAuthentication no\n"
        )
        self.options = [
            *("-p", str(self.port), "-i", str(folder / "client"), "-o", "IdentitiesOnly=yes"),
            *(
                "-o",
                f"UserKnownHostsFile={folder}/known",
                "-o",
                "StrictHostKeyChecking=accept-new",
                "-F",
                "none",
            ),
        ]
        self.process = None

    def start(self):
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where it drops its privileges
        self.process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", self.folder / "sshd_config"], stderr=subprocess.PIPE, text=True
        )
        for line in self.process.stderr:
            if "listening" in line:
                return
        raise RuntimeError("sshd did not start")

    def cut(self):
        """End the server and every connection: their processes are its descendants that still are sshd."""
        table = subprocess.run(
            ["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split(None, 2) for line in table.splitlines()[1:]]
        ours, found = {self.process.pid}, True
        while found:
            found = {int(pid) for pid, parent, name in rows if int(parent) in ours and "sshd" in name} - ours
            ours |= found
        for pid in sorted(ours, reverse=True):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    server.start()
    yield server
    server.cut()


@pytest.fixture
def board(sshd, tmp_path):
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    return Board(f"{user}@127.0.0.1", str(tmp_path / "board"), sshd.options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        folder,
        REPOSITORY,
    ]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture
def tasks(tmp_path, digits):
    folder = tmp_path / "tasks"
    folder.mkdir()
    digits.save(digits.task("01-four-five", (4, 5), train=20, test=10), folder)
    digits.save(digits.task("02-six-seven", (6, 7), train=20, test=10), folder)
    return folder


def test_files_arrive_whole_and_once(board, tmp_path):
    source = sent_once(board, tmp_path)
    assert [path.name for path in (tmp_path / "board/tasks").iterdir()] == ["it's"]
    (source / "empty").write_text("no more")
    assert board.send(source, "tasks/it's")
    board.fetch(["tasks"], tmp_path / "back")
    assert fingerprint(tmp_path / "back/tasks/it's") == fingerprint(source)


def test_what_fails_there_is_a_sentence(board, sshd):
    with pytest.raises(RemoteError, match=r"failed at trying \(exit status 3\): no such luck$"):
        board.run("echo no such luck >&2; exit 3", "trying")
    nobody = Board("127.0.0.1", "x", ["-p", "1", "-F", "none"])
    with pytest.raises(
        ConnectionBroken, match=r"^The connection to 127.0.0.1 failed while trying \(.*refused\). Run"
    ):
        nobody.run("true", "trying")


def test_a_copy_that_breaks_leaves_nothing_to_be_taken_for_it(sshd, board, tmp_path):
    source, there = tmp_path / "big", tmp_path / "board"
    source.mkdir()
    with (source / "a").open("wb") as file:
        file.truncate(1 << 30)
    (source / "b").write_text("the last")

    def cut():
        while not list(there.glob("incoming/content/a")):
            time.sleep(0.01)
        sshd.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises(ConnectionBroken, match="failed while copying big"):
        board.send(source, "bundle")
    cutter.join()
    assert not (there / "bundle").exists()
    sshd.start()
    (source / "a").write_text("shorter")
    assert board.send(source, "bundle")
    assert fingerprint(there / "bundle") == fingerprint(source)


def test_a_broken_connection_costs_nothing(sshd, board, digits_bundle, tasks, wheel, tmp_path):
    out, said = tmp_path / "out", []
    options = ["--epochs=60", "--patience=0", "--threads=1", "--no-evaluate"]

    def learn():
        return learn_remotely(
            board, digits_bundle, tasks, wheel, out, options=options, poll=0.2, say=said.append
        )

    def say(line):
        said.append(line)
        if line.startswith("learning"):
            sshd.cut()

    with pytest.raises(ConnectionBroken, match="Run the same command again"):
        learn_remotely(board, digits_bundle, tasks, wheel, out, options=options, poll=0.2, say=say)
    assert not out.exists()
    time.sleep(0.5)
    sshd.start()
    said.clear()
    run = learn()
    assert "installing" not in " ".join(said)
    assert said[:3] == [
        "bundle: is there",
        "tasks/01-four-five.npz: is there",
        "tasks/02-six-seven.npz: is there",
    ]
    assert [line["task"] for line in run.learned] == ["01-four-five", "02-six-seven"]
    assert all(result["passed"] for result in run.check)
    assert run.doctor
    # What came back goes on here, and is what the board has.
    here = Learner.open(digits_bundle, out / "state")
    assert [task.name for task in here.tasks] == ["01-four-five", "02-six-seven"]
    assert fingerprint(out / "state") == fingerprint(tmp_path / "board/state")
    # Once more, with nothing left to learn: the earlier results come back again.
    again = learn()
    assert [line["task"] for line in again.learned] == ["01-four-five", "02-six-seven"]


def test_a_task_that_is_no_good_is_told(board, digits_bundle, tasks, wheel, tmp_path):
    (tasks / "03-broken.npz").write_bytes(b"not a zip")
    with pytest.raises(Exception, match="03-broken"):
        learn_remotely(board, digits_bundle, tasks, wheel, tmp_path / "out")
    assert not (tmp_path / "board").exists()


def test_the_command(sshd, board, digits_bundle, tasks, wheel, tmp_path):
    command = [sys.executable, "-m", "csk_device_runners", "learn", digits_bundle, tasks, "--ssh", board.host]
    command += ["--out", tmp_path / "out", "--wheel", wheel, "--folder", tmp_path / "board", "--json"]
    command += [f"--ssh-option={option}" for option in sshd.options] + ["--train-option=--epochs=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [line["task"] for line in report["learned"]] == ["01-four-five", "02-six-seven"]
    assert "Linux" in report["machine"]
