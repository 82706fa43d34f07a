"""How a device is doing: how its predictions went, and which classes need more images. Nothing is measured anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from csk_sdk.state import LearnedTask
from csk_sdk.state.field import SHARES, Day

# Below this share of right decisions over all classes, more images of a class are asked for.
ENOUGH = 0.8
# From this share of a class's images on, the class that they are taken for is named.
_MIXED_UP = 0.1
# Images are drifting away where so many times as many lie beyond a distance as of known ones do, of so many at least.
_DRIFTED, _TELLING = 3.0, 50
# The newest days that drift is told by.
_RECENT = 7


@dataclass(frozen=True)
class Need:
    """A class that was learned here and needs more images. Immutable.

    - `name`, `task`, `images`: the class, the task that it was learned with last, and how many images of it count, of
      all lessons; where the state does not say it, that one's images of a class
    - `all_classes`, `among_task`: shares of its images that were expected to be named right, among all classes and
      among its task's own
    - `confused`, `share`: what most others were expected to be taken for ("" for nothing much), and how many
    - `told`: what images would help, a sentence
    """

    name: str
    task: str
    images: int
    all_classes: float
    among_task: float
    confused: str
    share: float
    told: str


@dataclass(frozen=True)
class Status:
    """How a device is doing. Immutable.

    - `generation`, `tasks`, `classes`: the current one, the names of its tasks, and how many classes are known
    - `days`: what was counted, oldest first; None where predictions are not counted (`Learner.count`)
    - `needs`: classes that need more images, those that are worst first
    - `noun`: "image" or "signal"
    - `domains`: the names of those that images are told to be of
    """

    generation: int
    tasks: tuple[str, ...]
    classes: int
    days: tuple[Day, ...] | None
    needs: tuple[Need, ...]
    noun: str = "image"
    domains: tuple[str, ...] = ()

    @property
    def answers(self) -> int:
        """How many images or signals were predicted while that was counted."""
        return sum(day.answers for day in self.days or ())

    @property
    def unknown(self) -> float | None:
        """The share of them that was called unknown; None where that could be told of none."""
        measured = sum(day.measured for day in self.days or ())
        return sum(day.unknown for day in self.days or ()) / measured if measured else None

    @property
    def drift(self) -> str:
        """A sentence where what comes in lately is unlike what was learned; else ""."""
        recent = self.recent
        measured = sum(day.measured for day in recent)
        for place in reversed(range(len(SHARES))):
            # Of known images half lie beyond the first distance: no more than all of them can.
            limit = min(_DRIFTED * SHARES[place], (1.0 + SHARES[place]) / 2.0)
            share = sum(day.beyond[place] for day in recent) / max(measured, 1)
            if measured >= _TELLING and share > limit:
                return (
                    f"{100 * share:.0f} % of the latest {measured:,} {self.noun}s are further from all that is known "
                    f"than {100 * (1 - SHARES[place]):.0f} % of what was learned: new things, or surroundings "
                    f"that have changed. Teach some of these {self.noun}s."
                )
        return ""

    @property
    def recent(self) -> tuple[Day, ...]:
        """The newest days, of the current generation, that drift is told by."""
        return tuple(day for day in self.days or () if day.generation == self.generation)[-_RECENT:]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `status --json`."""
        return {
            "generation": self.generation,
            "tasks": list(self.tasks),
            "classes": self.classes,
            "domains": list(self.domains),
            "counting": self.days is not None,
            "answers": self.answers,
            "unknown": self.unknown,
            "drift": self.drift,
            "days": [asdict(day) for day in self.days or ()],
            "needs": [asdict(need) for need in self.needs],
        }


def needs_of(
    tasks: Sequence[LearnedTask], noun: str, images: Callable[[str], int | None] = lambda name: None
) -> tuple[Need, ...]:
    """Classes of these tasks that need more images, those that are worst first; of a class taught twice, the later.

    `images` says how many of a class count, None where that is not known.
    """
    found: dict[str, Need] = {}
    for task in tasks:
        for name, one in task.expected.get("classes", {}).items():
            found.pop(name, None)
            if float(one["all_classes"]) < ENOUGH:
                found[name] = _need(name, task, one, noun)
    counted = (replace(need, images=images(need.name) or need.images) for need in found.values())
    return tuple(sorted(counted, key=lambda need: need.all_classes))


def _need(name: str, task: LearnedTask, one: dict[str, Any], noun: str) -> Need:
    share = float(one["share"])
    confused = str(one["confused"]) if share >= _MIXED_UP else ""
    right, among = float(one["all_classes"]), float(one["task"])
    if name in task.contributions and not task.contributions[name]:
        told = f"it cannot be told from '{confused or one['confused']}': is it the same thing under another name?"
    elif confused:
        told = f"{noun}s that show what sets it apart from '{confused}', of both"
    else:
        told = f"more {noun}s, of more kinds: its own differ, and are taken for many classes"
    images = round(task.images / max(len(task.classes), 1))
    return Need(name, task.name, images, right, among, confused, share, told)
