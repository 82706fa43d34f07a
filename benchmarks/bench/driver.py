"""The driver: one process per method, all alive at once, stepped in turn."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cases import Case, Method, folder_of, methods_of

BENCHMARKS = Path(__file__).parents[1]


@dataclass
class Measured:
    """What one method gave: seconds of every timed step, seconds to open, peak memory over imports in bytes.

    `missing` says why there is nothing, where there is nothing.
    """

    key: str
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    open_seconds: float = 0.0
    peak: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    missing: str = ""


def environment(threads: int) -> dict[str, str]:
    """The environment of every worker: the same number of threads for every library, and nothing to install from.

    MNN's converter asks the first pip on PATH for a package
    (findings/mnn-tools-install-a-package-when-imported.sh).
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    path = os.pathsep.join(filter(None, (str(BENCHMARKS), os.environ.get("PYTHONPATH", ""))))
    nowhere = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    return {**os.environ, **dict.fromkeys(names, str(threads)), **nowhere, "PYTHONPATH": path}


class Worker:
    """One method's process."""

    def __init__(self, python: Path, method: Method, case: Case, root: Path, log: Path) -> None:
        self.measured = Measured(method.key)
        self._at_most = method.at_most
        self._log = log.open("w")
        command = [
            python,
            "-m",
            "bench.worker",
            "serve",
            method.peer,
            case.to_json(),
            folder_of(root, case),
            method.name,
        ]
        self._process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True, env=environment(1),
        )  # fmt: skip
        opened = self._reply()
        self.measured.open_seconds = opened.get("open_seconds", 0.0)
        self.measured.versions = opened.get("versions", {})

    @property
    def alive(self) -> bool:
        return not self.measured.missing

    @property
    def wants_more(self) -> bool:
        """Whether it is alive, and has not done all the steps that it may."""
        return self.alive and (self._at_most is None or len(self.measured.cpu) < self._at_most)

    def settle(self) -> None:
        """Two steps that do not count: arenas grow, kernels are chosen, optimizers allocate."""
        if self.alive and self._at_most is None:
            self.turn(untimed=2, steps=0)

    def turn(self, untimed: int, steps: int) -> None:
        """Do some steps; a method that fails is left out from then on."""
        if self._at_most is not None:
            untimed, steps = 0, 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"untimed": untimed, "steps": steps}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.measured.missing = "its process ended"
            return
        done = self._reply()
        if self.alive:
            self.measured.cpu += done["cpu"]
            self.measured.wall += done["wall"]
            self.measured.peak = done["peak"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for end in (self._process.stdin, self._process.stdout, self._log):
            end.close()
        self._process.wait()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self.measured.missing = f"its process ended with status {status}"
            return {}
        message: dict[str, Any] = json.loads(line)
        self.measured.missing = message.get("unavailable", "")
        return message


def measure(
    case: Case, pythons: Mapping[str, Path], root: Path, methods: Sequence[Method] | None = None
) -> list[Measured]:
    """Every method of a case, interleaved: each round gives each method one turn."""
    logs = root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    workers: list[Worker] = []
    absent: list[Measured] = []
    try:
        for method in methods or methods_of(case):
            if method.peer not in pythons:
                absent.append(Measured(method.key, missing="its environment was not made"))
                continue
            log = logs / f"{case.model}-{case.batch}-{method.key.replace('/', '-')}.log"
            workers.append(Worker(pythons[method.peer], method, case, root, log))
        for worker in workers:
            worker.settle()
        for _ in range(case.rounds):
            for worker in workers:
                if worker.wants_more:
                    worker.turn(untimed=1 if case.steps > 1 else 0, steps=case.steps)
    finally:
        for worker in workers:
            worker.close()
    return [worker.measured for worker in workers] + absent


def prepare(case: Case, peer: str, python: Path, root: Path) -> str:
    """Let a peer write what it needs, in a process of its own; why it could not, or an empty string."""
    folder = folder_of(root, case)
    folder.mkdir(parents=True, exist_ok=True)
    command = [python, "-m", "bench.worker", "prepare", peer, case.to_json(), folder]
    (root / "logs").mkdir(parents=True, exist_ok=True)
    with (root / "logs" / f"prepare-{case.model}-{case.batch}-{peer}.log").open("w") as log:
        done = subprocess.run(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=log, text=True,
            env=environment(2), check=False,
        )  # fmt: skip
    if not done.stdout.strip():
        return f"its preparation ended with status {done.returncode}"
    reason: str = json.loads(done.stdout.splitlines()[-1]).get("unavailable", "")
    return reason
