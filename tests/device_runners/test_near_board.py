"""Learning on a board, where `ssh` is a script that runs the command right here; over a real sshd: test_remote.py."""

from __future__ import annotations

import json
import os
import stat
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from conftest import Digits
from csk_device_runners import __main__ as command
from csk_device_runners import remote
from csk_device_runners.remote import RemoteRun, learn_remotely
from csk_device_runners.ssh import Board, ConnectionBroken, RemoteError, fingerprint
from csk_sdk import Learner, TaskError
from device_runners.sending import sent_once

# What is given last is the script; what `broken` says is there instead of it, once.
SSH = """#!/bin/sh
for last; do :; done
if [ -e "{folder}/broken" ]; then mv "{folder}/broken" "{folder}/was-broken"; last=$(cat "{folder}/was-broken"); fi
exec sh -c "$last"
"""
# As much of Python as an installation asks for: its venv runs this one, and pip has nothing to do.
PYTHON = """#!/bin/sh
case "$2" in
venv) mkdir -p "$3/bin"
  printf '#!/bin/sh\\n[ "$2" = pip ] || exec "{python}" "$@"\\n' > "$3/bin/python"
  printf '#!/bin/sh\\nexec "{python}" -m csk_sdk "$@"\\n' > "$3/bin/csk-sdk"
  chmod +x "$3/bin/python" "$3/bin/csk-sdk" ;;
*) exec "{python}" "$@" ;;
esac
"""


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    script(tmp_path / "bin" / "ssh", SSH.format(folder=tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return Board("user@board", str(tmp_path / "board"), ["-p", "2222"])


def broken(folder: Path, instead: str) -> None:
    """The next command there is another one."""
    (folder / "broken").write_text(instead)


def test_without_ssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RemoteError, match=r"^There is no ssh on this machine: install OpenSSH's client\.$"):
        Board("user@board", "csk-sdk")


@pytest.fixture(params=[True, False], ids=["filters", "none"])
def python_of_today(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 has filters of archives from 3.11.4 on; Debian 12 has 3.11.2."""
    if not request.param:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


@pytest.mark.usefixtures("python_of_today")
def test_files_arrive_whole_and_once(board: Board, tmp_path: Path) -> None:
    source = sent_once(board, tmp_path)
    (source / "empty").write_text("no more")
    assert board.send(source, "tasks/it's")
    assert board.send(source / "empty", "one")
    assert fingerprint(tmp_path / "board" / "one") != fingerprint(source / ".hidden/x y.bin")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "earlier").touch()
    board.fetch(["tasks", "one"], tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["one", "tasks"]
    assert fingerprint(tmp_path / "back/tasks/it's") == fingerprint(source)
    assert not list(tmp_path.glob(".back*"))


@pytest.mark.usefixtures("python_of_today")
@pytest.mark.parametrize("name", ["../beside", "/tmp/elsewhere/beside", "inside/../../beside"])
def test_what_would_lead_out_of_the_folder_is_not_written(board: Board, tmp_path: Path, name: str) -> None:
    board.run("true", "looking")
    with tarfile.open(tmp_path / "board" / "crafted.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    broken(tmp_path, f"cat {tmp_path}/board/crafted.tar")
    if name.startswith("/") and hasattr(tarfile, "data_filter"):
        # A filter takes the leading slash away.
        board.fetch(["one"], tmp_path / "back")
        assert (tmp_path / "back" / name[1:]).exists()
    else:
        with pytest.raises(ConnectionBroken):
            board.fetch(["one"], tmp_path / "back")
    assert not (tmp_path / "beside").exists()
    assert not Path(name).exists()


def test_what_fails_there_is_a_sentence(board: Board) -> None:
    with pytest.raises(RemoteError, match=r"^user@board failed at trying \(exit status 3\): no such luck$"):
        board.run("echo at first >&2; echo no such luck >&2; exit 3", "trying")
    with pytest.raises(RemoteError, match=r"\(exit status 1\): no reason given$"):
        board.run("exit 1", "trying")
    said = r"^The connection to user@board failed while trying \(refused\)\. Run the same command again: it goes on"
    with pytest.raises(ConnectionBroken, match=said):
        board.run("echo refused. >&2; exit 255", "trying")
    with pytest.raises(ConnectionBroken, match=r"failed while trying \(no reason given\)"):
        board.run("kill -9 $$", "trying")


def test_a_copy_that_breaks_leaves_nothing_to_be_taken_for_it(board: Board, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.mkdir()
    (source / "a").write_bytes(os.urandom(3_000_000))
    board.run("true", "looking")
    # Asked whether it is there, the board says no; what unpacks then hangs up in the middle.
    lost = 'case "$last" in *incoming*) head -c 1000000 > /dev/null; echo lost >&2; exit 255;; esac'
    script(tmp_path / "bin" / "ssh", SSH.format(folder=tmp_path).replace("exec sh", f"{lost}\nexec sh"))
    with pytest.raises(ConnectionBroken, match=r"failed while copying big \(lost\)"):
        board.send(source, "bundle")
    assert not (tmp_path / "board" / "bundle").exists()
    script(tmp_path / "bin" / "ssh", SSH.format(folder=tmp_path))
    assert board.send(source, "bundle")
    assert fingerprint(tmp_path / "board" / "bundle") == fingerprint(source)


@pytest.mark.parametrize(
    ("instead", "error", "words"),
    [
        (
            "printf 'half a' ",
            ConnectionBroken,
            r"while bringing the results back \(the archive ended early\)",
        ),
        ("echo lost >&2; exit 255", ConnectionBroken, r"while bringing the results back \(lost\)"),
        (
            "echo no such file >&2; exit 2",
            RemoteError,
            r"at bringing the results back \(exit status 2\): no such",
        ),
    ],
    ids=["half", "lost", "refused"],
)
def test_results_come_back_at_once_or_not_at_all(
    board: Board, tmp_path: Path, instead: str, error: type[Exception], words: str
) -> None:
    board.run("echo one > one", "writing")
    board.fetch(["one"], tmp_path / "back")
    broken(tmp_path, instead)
    with pytest.raises(error, match=words):
        board.fetch(["one"], tmp_path / "back")
    assert (tmp_path / "back" / "one").read_text() == "one\n"


@pytest.fixture
def tasks(tmp_path: Path, digits: Digits) -> Path:
    for name, chosen in (("01-four-five", (4, 5)), ("02-six-seven", (6, 7))):
        digits.save(digits.task(name, chosen, train=20, test=10), tmp_path / "tasks")
    return tmp_path / "tasks"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    (tmp_path / "csk_sdk-1-py3-none-any.whl").write_bytes(b"a wheel")
    return tmp_path / "csk_sdk-1-py3-none-any.whl"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return script(tmp_path / "bin" / "board-python", PYTHON.format(python=sys.executable))


@pytest.mark.slow
def test_an_inbox_is_learned_there_and_comes_back(
    board: Board, digits_bundle: Path, tasks: Path, wheel: Path, python: Path, tmp_path: Path
) -> None:
    said: list[str] = []

    def learn(*options: str) -> RemoteRun:
        said.clear()
        return learn_remotely(
            *(board, digits_bundle, tasks, wheel, tmp_path / "out"),
            python=str(python),
            wheels=wheel.parent / "tasks",
            options=["--threads=1", "--no-evaluate", *options],
            poll=0.2,
            say=said.append,
        )

    with pytest.raises(RemoteError, match=r"^Learning on user@board failed: .*--no-such-option"):
        learn("--no-such-option")
    run = learn()
    # What is there already is neither copied nor installed again.
    there = ("bundle", "tasks/01-four-five.npz", "tasks/02-six-seven.npz")
    assert said == [*(f"{name}: is there" for name in there), "learning"]
    assert [line["task"] for line in run.learned] == ["01-four-five", "02-six-seven"]
    assert all(result["passed"] for result in run.check)
    assert run.doctor["ok"]
    assert run.machine.startswith("Linux") or sys.platform != "linux"
    here = Learner.open(digits_bundle, run.folder / "state")
    assert [task.name for task in here.tasks] == ["01-four-five", "02-six-seven"]


def test_what_is_no_task_is_told_before_anything_is_copied(
    board: Board, digits_bundle: Path, tasks: Path, wheel: Path, tmp_path: Path
) -> None:
    (tasks / "03-broken.npz").write_bytes(b"not a zip")
    with pytest.raises(TaskError, match="03-broken"):
        learn_remotely(board, digits_bundle, tasks, wheel, tmp_path / "out")
    assert not (tmp_path / "board").exists()


@pytest.mark.parametrize(
    ("answers", "error", "began"),
    [
        (["started", "running", "exit 0"], None, "learning"),
        (["going on", "exit 0"], None, "learning: going on with the run there"),
        (["started", "running", "gone"], "ended without a word, as when the board was restarted", "learning"),
        (["started", "exit 1", "Error: No room."], r"^Learning on board failed: No room\.$", "learning"),
        (["started", "exit 137", ""], r"failed: no reason given \(exit 137\)$", "learning"),
    ],
)
def test_how_learning_there_ends(answers: list[str], error: str | None, began: str) -> None:
    class Answering:
        host, asked = "board", list[str]()

        def run(self, script: str, doing: str) -> str:
            self.asked.append(script)
            return answers.pop(0) + "\n"

    said: list[str] = []
    ours: Any = Answering()
    ours.asked.clear()
    options = ["--epochs=2", "--task=it's"]

    def train() -> None:
        remote._train(ours, options, 0.0, said.append)

    if error is None:
        train()
    else:
        with pytest.raises(RemoteError, match=error):
            train()
    assert (said, answers) == ([began], [])
    # Two shells read them.
    assert "--json --epochs=2 " in ours.asked[0]


def finished(folder: Path, passed: bool) -> RemoteRun:
    learned = [{"task": "01-four-five", "generation": 1, "seconds": 2.5, "peak_rss_bytes": 128 << 20}]
    checks = [{"name": "eval_model", "passed": True}, {"name": "gradients", "passed": passed}]
    return RemoteRun(folder, learned, {"ok": True}, checks, "Linux 6.1 aarch64\nRaspberry Pi 5")


@pytest.fixture
def learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: Board) -> dict[str, Any]:
    """What the command gives to `learn_remotely`, which does nothing; `passed` says how its checks end."""
    given: dict[str, Any] = {"passed": True}

    def learn(*arguments: object, **options: Any) -> RemoteRun:
        given.update(options, arguments=arguments)
        options["say"]("learning")
        return finished(tmp_path / "out", given["passed"])

    monkeypatch.setattr(command, "learn_remotely", learn)
    return given


@pytest.mark.parametrize("passed", [True, False])
def test_the_command_tells_what_came_back(
    learned: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], passed: bool
) -> None:
    given = learned
    given["passed"] = passed
    where = ["learn", "bundle", "tasks", "--ssh", "user@board", "--out", str(tmp_path / "out")]
    status = command.main([*where, "--wheel", "csk.whl", "--ssh-option=-p", "--train-option=--epochs=1"])
    out, err = capsys.readouterr()
    assert (status, err) == (0 if passed else 1, "learning\n")
    assert out.splitlines() == [
        "Learned on Linux 6.1 aarch64:",
        "  01-four-five  generation 1       2.5 s     128 MiB",
        "Checks of its runtime: 2 of 2 passed."
        if passed
        else "Checks of its runtime: 1 of 2 passed: not gradients.",
        f"State and measurements: {tmp_path / 'out'}",
    ]
    assert given["arguments"][1:] == (Path("bundle"), Path("tasks"), Path("csk.whl"), tmp_path / "out")
    assert given["options"] == ["--epochs=1"]
    assert command.main([*where, "--wheel", "csk.whl", "--json"]) == status
    printed = json.loads(capsys.readouterr().out)
    assert printed["folder"] == str(tmp_path / "out")
    assert printed["learned"][0]["task"] == "01-four-five"


def test_a_wheel_is_of_a_checkout(
    learned: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "_CHECKOUT", tmp_path / "elsewhere")
    assert (
        command.main(["learn", "bundle", "tasks", "--ssh", "user@board", "--out", str(tmp_path / "out")]) == 1
    )
    said = "Error: This csk-sdk is installed and not a checkout: give its wheel with --wheel.\n"
    assert capsys.readouterr().err == said


@pytest.mark.slow
def test_a_wheel_that_cannot_be_built(
    learned: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "_CHECKOUT", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project\n")
    assert (
        command.main(["learn", "bundle", "tasks", "--ssh", "user@board", "--out", str(tmp_path / "out")]) == 1
    )
    assert capsys.readouterr().err.startswith("Error: The wheel could not be built: ")
