"""One learned inbox on a real board: bundle, wheel and tasks there by ssh, state and measurements back.

The board needs a POSIX shell, tar and Python 3.11 or newer; its packages come from its own package index, or from a
folder of wheels. Training runs there on its own: a connection that breaks does not stop it, and the same command picks
it up again. What the board learned stays there too, and goes on with the next tasks.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csk_device_runners.ssh import Board, RemoteError
from csk_sdk.data.inbox import Inbox
from csk_sdk.formats.opening import LARGEST_TEXT, read_file
from csk_sdk.state import State
from csk_sdk.workspace.folder import workspace_of

# A process number alone would be another program's after a restart of the board.
_ALIVE = """
boot() { cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo none; }
alive() { [ -e run.pid ] && read -r pid booted < run.pid && [ "$booted" = "$(boot)" ] && kill -0 "$pid" 2>/dev/null; }
"""
# Started apart from the connection; `run.exit` appears when it ends, whatever becomes of us.
_START = """
if alive; then echo going on; exit 0; fi
rm -f run.exit
nohup sh -c 'venv/bin/csk-sdk train --task all --json {options} >> run.jsonl 2> run.err < /dev/null
echo $? > run.exit.part; mv run.exit.part run.exit' > /dev/null 2>&1 < /dev/null &
echo "$! $(boot)" > run.pid
echo started
"""
# First whether it runs: what has ended had written `run.exit` before.
_LOOK = """
if alive; then echo running; elif [ -e run.exit ]; then echo "exit $(cat run.exit)"; else echo gone; fi
"""
# The board's own figures: what it is, and that the bundle's gradients are right on its runtime.
_MEASURE = """
venv/bin/csk-sdk doctor --json > doctor.json || true
venv/bin/python -m csk_device_runners check bundle --json > check.json || true
{ uname -srm; grep -m1 -iE '^(model name|hardware|model)' /proc/cpuinfo || true; } > machine.txt
"""
_RESULTS = ("state", "run.jsonl", "run.err", "doctor.json", "check.json", "machine.txt")


@dataclass(frozen=True)
class RemoteRun:
    """What came back: the folder, `train --json`'s objects, and what `doctor` and `check` printed there."""

    folder: Path
    learned: list[dict[str, Any]]
    doctor: Any
    check: list[dict[str, Any]]
    machine: str


def learn_remotely(
    board: Board,
    bundle: Path,
    tasks: Path,
    wheel: Path,
    out: Path,
    *,
    python: str = "python3",
    wheels: Path | None = None,
    options: Sequence[str] = (),
    poll: float = 2.0,
    say: Callable[[str], None] = lambda _: None,
) -> RemoteRun:
    """Learn every task of the inbox `tasks` on the board, and bring its state into `out`.

    wheel: csk-sdk's own. wheels: a folder with its dependencies' wheels, where the board has no package index.
    options: more options of `csk-sdk train`. Raises BundleError, TaskError for what is wrong here before anything is
    copied; RemoteError for what fails there; ConnectionBroken where the same command should be given again.
    """
    opened = workspace_of(bundle).open_bundle()
    inbox = Inbox(tasks)
    for name in inbox.names():
        inbox.open(name)
    _install(board, wheel, python, wheels, say)
    pieces = [
        (bundle, "bundle"),
        *((path, f"tasks/{path.name}") for _, path in sorted(inbox.paths().items())),
    ]
    for source, name in pieces:
        say(f"{name}: {'copied' if board.send(source, name) else 'is there'}")
    _train(board, options, poll, say)
    board.run(_MEASURE, "measuring")
    board.run("mkdir -p state", "measuring")
    board.fetch(_RESULTS, out)
    # What came back is whole, and of this bundle: else it is said now and not when it is needed.
    State.open(out / "state", opened.id, opened.checkpoint()).load()
    return RemoteRun(
        folder=out,
        learned=[line for line in _lines(out / "run.jsonl") if line.get("task")],
        doctor=_json(out / "doctor.json"),
        check=_json(out / "check.json") or [],
        machine=read_file(out / "machine.txt", LARGEST_TEXT, out).decode("utf-8", "replace").strip(),
    )


def _install(board: Board, wheel: Path, python: str, wheels: Path | None, say: Callable[[str], None]) -> None:
    changed = board.send(wheel, f"wheel/{wheel.name}")
    if wheels is not None:
        changed = board.send(wheels, "wheels") or changed
    done = board.run("cat venv/.ready 2>/dev/null || true", "looking for an earlier installation").strip()
    if done == wheel.name and not changed:
        return
    say(f"installing {wheel.name}")
    version = "import sys; sys.exit(sys.version_info < (3, 11) and 'Python ' + sys.version.split()[0] + ' is too old')"
    where = "--no-index --find-links wheels" if wheels is not None else ""
    board.run(
        f"rm -f venv/.ready && {shlex.quote(python)} -c {shlex.quote(version)} && "
        f"{shlex.quote(python)} -m venv venv && "
        f"venv/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall {where} "
        f"{shlex.quote(f'wheel/{wheel.name}[device]')} && echo {shlex.quote(wheel.name)} > venv/.ready",
        "installing csk-sdk",
    )


def _train(board: Board, options: Sequence[str], poll: float, say: Callable[[str], None]) -> None:
    # Two levels of quotes: the options stand inside the script that nohup's shell gets in single quotes.
    quoted = " ".join(shlex.quote(option) for option in options).replace("'", "'\\''")
    began = board.run(_ALIVE + _START.replace("{options}", quoted), "starting to learn").strip()
    say("learning" if began == "started" else "learning: going on with the run there")
    while True:
        time.sleep(poll)
        found = board.run(_ALIVE + _LOOK, "learning").strip()
        if found == "gone":
            raise RemoteError(
                f"Learning on {board.host} ended without a word, as when the board was restarted: "
                "run the same command again, and it goes on where it stopped."
            )
        if found == "exit 0":
            return
        if found.startswith("exit"):
            last = board.run("tail -n 1 run.err", "learning").strip() or f"no reason given ({found})"
            raise RemoteError(f"Learning on {board.host} failed: {last.removeprefix('Error: ')}")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in read_file(path, LARGEST_TEXT, path.parent).decode().splitlines()
        if line.startswith("{")
    ]


def _json(path: Path) -> Any:
    try:
        return json.loads(read_file(path, LARGEST_TEXT, path.parent))
    except ValueError:
        return None
