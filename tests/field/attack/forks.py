"""Real processes to be killed: forked from one that has imported everything already, so that hundreds cost seconds.

Each runs a command (or a function) as it would run alone, its output in a file. `kill -9` comes from outside after a
share of the command's life, or from within before its n-th change of a file, where a random moment would hardly ever
fall.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRELOADED = [
    *(
        "csk_sdk.cli",
        "csk_sdk.learner",
        "csk_sdk.workspace.verification",
        "csk_sdk.workspace.doctor",
        "csk_sdk.workspace.watching",
    ),
    *("onnxruntime", "safetensors.numpy", "PIL.Image", "numpy", "csk_artifacts_builder"),
]
# Calls of `os` that change a file, in the modules that change one.
CHANGES = frozenset({"open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "ftruncate"})
MODULES = ("csk_sdk.state.atomic", "csk_sdk.state.lock")
# What Python itself tells of (sys.audit), for whatever does not go through these modules.
EVENTS = frozenset(
    {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "shutil.copyfile"}
)
# A process that has not ended after so much CPU time never will.
CPU_SECONDS = 120
# multiprocessing asks after every other child whenever one is started: two who ask at once get half an answer each.
_ONE_AT_A_TIME = threading.Lock()
_LOOK_SECONDS = 0.004


class Countdown:
    """`os` for a module: kills this process right before its n-th change below `root`; counts them without n."""

    def __init__(self, left: int | None) -> None:
        self.left, self.seen = left, 0

    def __getattr__(self, name: str) -> Any:
        if name in CHANGES:
            self.step()
        return getattr(os, name)

    def step(self) -> None:
        self.seen += 1
        if self.left is not None and self.seen > self.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[Any, ...], root: str) -> None:
        """Where the standard library itself changes a file below `root`."""
        if event in EVENTS and arguments and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.fsdecode(arguments[0])
            if path.startswith(root) and (event != "open" or _writes(arguments)):
                self.step()


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _to(out: Path, cpu_seconds: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _alone(act: Callable[..., Any], arguments: tuple[Any, ...], out: Path) -> None:
    _to(out, 10 * CPU_SECONDS)
    act(*arguments)


def _child(
    act: Callable[..., int], arguments: tuple[Any, ...], place: Path, out: Path, left: int | None
) -> None:
    import importlib

    _to(out, CPU_SECONDS)
    countdown = Countdown(left)
    for name in MODULES:
        importlib.import_module(name).os = countdown
    sys.addaudithook(lambda event, given: countdown.audit(event, given, str(place)))
    status = act(*arguments)
    seen = countdown.seen
    countdown.left = None
    out.with_suffix(".changes").write_text(str(seen))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def command(arguments: list[str]) -> int:
    """`csk-sdk ARGUMENTS`; its exit status."""
    from csk_sdk.cli import app

    try:
        app(arguments, prog_name="csk-sdk")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@dataclass
class Run:
    """How a process ended: its status (-9: killed), what it printed, seconds, and how many changes it made."""

    status: int
    out: str
    seconds: float
    changes: int

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


class Forks:
    """Starts processes; `close` ends those that are left, by their own handles."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._number = 0
        self._living: list[Any] = []

    def start(
        self, place: Path, act: Callable[..., int], *arguments: Any, left: int | None = None
    ) -> tuple[Any, Path]:
        with _ONE_AT_A_TIME:
            self._number += 1
            out = place.with_name(f"{place.name}.{self._number}.log")
            process = self._context.Process(target=_child, args=(act, arguments, place, out, left))
            process.start()
            self._living.append(process)
        return process, out

    def wait(self, started: tuple[Any, Path], seconds: float | None = None) -> Run:
        """Wait for it, and kill it after `seconds`, where given."""
        process, out = started
        begun = time.monotonic()
        while self._alive(process):
            if seconds is not None and time.monotonic() - begun >= seconds:
                self._kill(process)
                seconds = None
            time.sleep(_LOOK_SECONDS)
        took = time.monotonic() - begun
        text = out.read_text(errors="replace") if out.exists() else ""
        told = out.with_suffix(".changes")
        changes = int(told.read_text()) if told.exists() else 0
        for path in (out, told):
            path.unlink(missing_ok=True)
        status = int(process.exitcode)
        with _ONE_AT_A_TIME:
            self._living.remove(process)
            process.close()
        return Run(status, text, took, changes)

    def _alive(self, process: Any) -> bool:
        with _ONE_AT_A_TIME:
            return bool(process.is_alive())

    def _kill(self, process: Any) -> None:
        with _ONE_AT_A_TIME:
            process.kill()

    def cpu_seconds(self) -> float | None:
        """What all processes that have ended took, theirs included; None where the system does not say."""
        pid = getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return sum(int(fields[index]) for index in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")

    def run(self, place: Path, act: Callable[..., int], *arguments: Any) -> Run:
        """Undisturbed."""
        return self.wait(self.start(place, act, *arguments))

    def alone(self, out: Path, act: Callable[..., Any], *arguments: Any) -> Run:
        """A function in a process of its own, undisturbed and with no limit but that of its CPU time."""
        with _ONE_AT_A_TIME:
            process = self._context.Process(target=_alone, args=(act, arguments, out))
            process.start()
            self._living.append(process)
        return self.wait((process, out))

    def close(self) -> None:
        for process in self._living:
            process.join(5)  # after Ctrl-C it unmounts what it has mounted
            process.kill()
            process.join()
