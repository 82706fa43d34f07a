"""The tables of benchmarks/decisions.py: which lessons differ, and whether `auto` chose the better way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.decisions_streams import POINT, of_streams, share_of, streams_tables
from benchmarks.page_parts import between, row

MARKS = "<!-- decisions -->", "<!-- end of decisions -->"
CHANCE = 0.05
# What is compared, by the images that count.
MEASURES = {
    "the lesson's images, among all classes": ("all",),
    "the lesson's images, among its own classes": ("task",),
    "the lesson's and the base's images, among all classes": ("all", "base"),
}
AUTO = "auto"
RULES = (AUTO, "centers", "heads")
# Of the table of all lessons; accuracies in percent with heads, and points that centers add to it.
COLUMNS = (
    "base", "lesson", "images a class", "nats by the end", "standard errors", "trained", "among all", "centers",
    "own classes", "centers", "base", "centers",
)  # fmt: skip
BASES = {"cifar100-base10": "10", "cifar100-base50": "50"}


@dataclass(frozen=True)
class Compared:
    """One lesson in both ways: `gain` of centers in points, and the chance that neither way is better (McNemar)."""

    gain: float
    chance: float
    chosen: str

    @classmethod
    def of(cls, lesson: Mapping[str, Any], images: Iterable[str]) -> Compared:
        """By the images of `all`, `task` or `base`, or several of them together."""
        images = tuple(images)
        more, fewer = (sum(lesson["changed"][name][way] for name in images) for way in (0, 1))
        asked = sum(lesson["base_tested" if name == "base" else "tested"] for name in images)
        return cls(100 * (more - fewer) / asked, mcnemar(more, fewer), lesson["chosen"])

    @property
    def differs(self) -> bool:
        """Whether by a point at least."""
        return abs(self.gain) >= POINT

    @property
    def clear(self) -> bool:
        """Whether it differs, and not by chance."""
        return self.differs and self.chance < CHANCE

    def is_better(self, way: str) -> bool:
        """Whether this way is."""
        return (self.gain > 0) == (way == "centers")


def mcnemar(more: int, fewer: int) -> float:
    """The exact two-sided chance of such a split where both sides are as likely."""
    tail = sum(math.comb(more + fewer, count) for count in range(min(more, fewer) + 1))
    return min(1.0, 2 * tail / 2 ** (more + fewer))


def page(text: str, found: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]) -> str:
    """The page with its tables anew: of these lessons, and of the `runs` of benchmarks/continual."""
    return between(text, MARKS, f"{verdicts(found)}\n\n{_every(found)}\n\n{streams_tables(of_streams(runs))}")


def verdicts(found: Sequence[Mapping[str, Any]]) -> str:
    """How many lessons differ, and in how many of these each rule chooses the better way."""
    lines = [row(["by", "lessons", "that differ by", "there are", *(f"right: `{rule}`" for rule in RULES)])]
    lines.append("|---" * (4 + len(RULES)) + "|")
    for title, images in MEASURES.items():
        compared = [Compared.of(lesson, images) for lesson in found]
        for said, kept in (
            ("a point", [one for one in compared if one.differs]),
            (f"a point, p < {CHANCE:g}", [one for one in compared if one.clear]),
        ):
            shares = [
                share_of([one.is_better(one.chosen if rule == AUTO else rule) for one in kept])
                for rule in RULES
            ]
            lines.append(row([title, str(len(found)), said, str(len(kept)), *shares]))
    return "\n".join(lines)


def _every(found: Sequence[Mapping[str, Any]]) -> str:
    """A row for each lesson, means over its seeds."""
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for lesson in found:
        groups.setdefault((lesson["base"], lesson["lesson"], lesson["images"]), []).append(lesson)
    lines = [row(COLUMNS), "|---" * len(COLUMNS) + "|"]
    for (base, name, images), runs in groups.items():
        nats = [run["gain"]["likelihood"] / run["gain"]["done"] for run in runs]
        trained = sum(run["chosen"] == "centers" for run in runs)
        cells = [
            BASES[base],
            name,
            str(images),
            _range(nats, "+.3f"),
            _range([run["gain"]["sure"] for run in runs], ".1f"),
        ]
        cells.append(f"{trained} of {len(runs)}")
        for part in ("all", "task", "base"):
            cells.append(f"{np.mean([run['ways']['heads'][part] for run in runs]):.1f}")
            cells.append(" / ".join(f"{Compared.of(run, (part,)).gain:+.1f}" for run in runs))
        lines.append(row(cells))
    return "\n".join(lines)


def _range(values: Sequence[float], form: str) -> str:
    least, most = (format(value, form) for value in (min(values), max(values)))
    return least if least == most else f"{least} to {most}"
