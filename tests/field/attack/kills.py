"""kill -9 in the middle of every command: nothing committed is lost, and the next run ends as if nothing had been."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from field.attack import judge
from field.attack.forks import Forks, Run, command
from field.attack.ground import Ground
from field.attack.promise import Tries

# Of this many kills in a row at most, the last one is followed by a run that is left alone.
IN_A_ROW = 3


@dataclass
class Victim:
    """One command under fire.

    `arm(place, rng)` puts the place back to where the command has everything to do; `command` are its arguments, or
    a function and its arguments. `after` judges the place behind a kill, given what was printed so far; `end` judges
    it behind a run that was left alone. `beside` runs at the same time and is not killed; its end is judged, too.
    """

    name: str
    share: float
    arm: Callable[[Path, random.Random], Any]
    command: Callable[[Path], tuple[Any, ...]]
    after: Callable[[Path, Any, str], None]
    end: Callable[[Path, Any], None]
    beside: Callable[[Path], tuple[Any, ...]] | None = None
    make: Callable[[Ground, Path], object] = field(default=lambda ground, place: ground.workspace(place))


def csk(*arguments: str) -> tuple[Any, ...]:
    return (command, list(arguments))


class Fire:
    """Runs one victim: measures its life, then kills it again and again."""

    def __init__(self, forks: Forks, ground: Ground, victim: Victim, place: Path, tries: Tries) -> None:
        self.forks, self.victim, self.place, self.tries = forks, victim, place, tries
        victim.make(ground, place)
        self.killed = 0

    def measure(self) -> None:
        """How long it takes here, and how many changes of files it makes; it must do what it should."""
        with self.tries.one(f"{self.victim.name}, undisturbed"):
            armed = self.victim.arm(self.place, self.tries.rng)
            run = self.forks.run(self.place, *self.victim.command(self.place))
            assert run.status == 0, run.out[-800:]
            self.victim.end(self.place, armed)
            self.seconds, self.changes = run.seconds, run.changes
        self.tries.made -= 1  # what counts are kills

    def shoot(self) -> None:
        """One to three kills in a row, and then a run that is left alone."""
        rng = self.tries.rng
        with self.tries.one(self.victim.name):
            armed = self.victim.arm(self.place, rng)
            printed = ""
            for _ in range(rng.randint(1, IN_A_ROW)):
                run = self._killed(rng)
                printed += run.out
                assert run.status in (0, -9), f"status {run.status}: {run.out[-600:]}"
                self.killed += run.killed
                self.victim.after(self.place, armed, printed)
                if not run.killed:
                    self.seconds = run.seconds  # the machine is faster than it was
                    break
            else:
                run = self.forks.run(self.place, *self.victim.command(self.place))
                self.seconds = max(0.9 * self.seconds, run.seconds)
                assert run.status == 0, f"the next run: {run.status}, {run.out[-600:]}"
            self.victim.end(self.place, armed)

    def _killed(self, rng: random.Random) -> Run:
        within = rng.random() < 0.5 and self.changes > 0
        left = rng.randrange(self.changes) if within else None
        beside = None
        if self.victim.beside is not None:
            beside = self.forks.start(self.place, *self.victim.beside(self.place))
        started = self.forks.start(self.place, *self.victim.command(self.place), left=left)
        run = self.forks.wait(started, None if within else rng.uniform(0.0, 1.1) * self.seconds)
        if beside is not None:
            other = self.forks.wait(beside)
            assert other.status == 0, f"beside it: {other.status}, {other.out[-600:]}"
        return run


def fire(forks: Forks, ground: Ground, victim: Victim, place: Path, tries: Tries) -> None:
    """Kill a victim as often as `tries` wants."""
    at_it = Fire(forks, ground, victim, place, tries)
    at_it.measure()
    if tries.broken:
        return
    rounds = 0
    while at_it.killed < tries.count and tries.broken <= 10:
        at_it.shoot()
        rounds += 1
        if rounds > 50 + 20 * tries.count:
            tries.fault(f"{at_it.killed} kills only in {rounds} rounds: it ends before it can be killed")
            break
    tries.made = at_it.killed


# What the judge says


def state_is(place: Path, ground: Ground, floor: int, top: int) -> int:
    """The state is whole, its current generation from `floor` to `top`, its bits those of an undisturbed life."""
    look = judge.look(place / "state")
    assert floor <= look.head <= top, f"generation {look.head} is current, and {floor} to {top} may be"
    expected = ground.expected()
    for number in range(1, look.last + 1):
        if number in look.intact or number <= look.head:
            assert look.intact[number] == expected[number], f"generation {number} has other bits"
    return look.head


def no_leftovers(place: Path) -> None:
    left = [path.name for path in (place / "state").rglob(".*.csk-tmp") if path.parent.name != "scores"]
    assert not left, f"left over: {left}"
    assert not (place / "state/progress.safetensors").exists(), "a progress checkpoint is left over"


def json_lines(text: str) -> list[dict[str, Any]]:
    """The whole JSON lines of an output that may have been cut off."""
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [one for one in found if isinstance(one, dict)]
