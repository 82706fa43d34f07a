"""Runs all attacks on one ground, each in a process of its own, two at a time."""

from __future__ import annotations

import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from field.attack import page
from field.attack.attacks import PROMISES
from field.attack.forks import Forks
from field.attack.ground import Ground, prepare
from field.attack.kills import fire
from field.attack.promise import Tries
from field.attack.victims import KILLS, victims

WORKERS = 2


def attacked(name: str, size: float, place: str, ground: str, out: str) -> int:
    """One attack, in this process; its tries as JSON in `out`."""
    promise = PROMISES[name]
    tries = Tries(name, promise.wanted, size, promise.least)
    Path(place).mkdir()
    promise.attack(tries, Ground(Path(ground)), Path(place))
    Path(out).write_text(json.dumps(vars_of(tries)))
    return 0


def vars_of(tries: Tries) -> dict[str, object]:
    """What is told of an attack."""
    return {
        "tries": tries.made,
        "faults": tries.broken,
        "told": tries.faults,
        "skipped": tries.skipped,
        "notes": tries.notes,
    }


class Harness:
    """All attacks on one ground."""

    def __init__(self, folder: Path, size: float) -> None:
        self.folder, self.size = folder, size
        self.forks = Forks()
        self.ground = Ground(folder / "ground")

    def prepare(self) -> None:
        self.ground.folder.mkdir()
        run = self.forks.alone(self.folder / "ground.log", prepare, self.ground.folder)
        if run.status != 0:
            sys.exit(f"The ground could not be prepared: {run.out[-2000:]}")

    def attack(self, name: str) -> dict[str, object]:
        """One promise that is attacked within a process."""
        out = self.folder / f"{name}.json"
        arguments = (name, self.size, str(self.folder / name), str(self.ground.folder), str(out))
        run = self.forks.alone(self.folder / f"{name}.log", attacked, *arguments)
        shutil.rmtree(self.folder / name, ignore_errors=True)
        if not out.exists():
            tries = Tries(name, 1)
            tries.fault(f"the attack itself ended with {run.status}: {run.out[-550:]}")
            return {**vars_of(tries), "seconds": round(run.seconds, 1)}
        return {**json.loads(out.read_text()), "seconds": round(run.seconds, 1)}

    def kill(self, index: int) -> dict[str, object]:
        """One command that is killed; the kills are shared out among them."""
        victim = victims(self.ground)[index]
        tries = Tries(f"kill {victim.name}", round(KILLS * victim.share), self.size)
        place = self.folder / f"kill-{index}"
        begun = time.monotonic()
        try:
            fire(self.forks, self.ground, victim, place, tries)
        except Exception as error:
            tries.fault(f"{victim.name}: {type(error).__name__}: {error}")
        shutil.rmtree(place, ignore_errors=True)
        return {**vars_of(tries), "victim": victim.name, "seconds": round(time.monotonic() - begun, 1)}

    def run(self, names: list[str], kills: bool) -> dict[str, dict[str, object]]:
        """Everything, two at a time, the longest first; prints a line for each as it ends."""
        found: dict[str, dict[str, object]] = {}

        def one(name: str) -> None:
            found[name] = self.kill(int(name.split()[1])) if name.startswith("kill ") else self.attack(name)
            print(page.line(name, found[name]), flush=True)

        jobs = [f"kill {index}" for index in range(len(victims(self.ground)))] if kills else []
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(one, [*jobs, *names]))
        return found
