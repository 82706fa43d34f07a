"""What a promise is, and how an attack on it counts its tries and what it broke."""

from __future__ import annotations

import random
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[3]
GUARANTEES, STATE = "docs/guarantees.md", "docs/state.md"
SEED = 20261128
# Faults beyond these are counted, and not told one by one.
_TOLD = 20


@dataclass
class Tries:
    """One attack's tries: how many there shall be, how many there were, and what broke.

    `size` is 1 for all of it, about 10 minutes on two quiet cores together. Chance comes from `rng` and `numpy`
    only, which are the same in every run.
    """

    name: str
    wanted: int
    size: float = 1.0
    least: int = 1
    made: int = 0
    broken: int = 0
    faults: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{SEED} {self.name}")
        self.numpy = np.random.default_rng(self.rng.getrandbits(32))

    @property
    def count(self) -> int:
        """How many tries this run is to make: of each kind at least one."""
        return max(self.least, round(self.wanted * self.size))

    def __iter__(self) -> Iterator[int]:
        yield from range(self.count)

    @contextmanager
    def one(self, what: str) -> Iterator[None]:
        """One try: whatever is raised inside, a failed `assert` above all, is a fault."""
        self.made += 1
        try:
            yield
        except Exception as error:
            lines = traceback.extract_tb(error.__traceback__)
            at = f"{Path(lines[-1].filename).name}:{lines[-1].lineno}"
            self.fault(f"{what}: {type(error).__name__} at {at}: {error or lines[-1].line}")

    def fault(self, what: str) -> None:
        """Note that the promise was broken."""
        self.broken += 1
        if len(self.faults) < _TOLD:
            self.faults.append(re.sub(r"\s+", " ", what)[:600])

    def skip(self, why: str) -> None:
        """Note what could not be tried on this machine."""
        self.skipped.append(why)


# Tries, the ground, and an empty folder of the attack's own.
Attack = Callable[[Tries, Any, Path], None]


@dataclass(frozen=True)
class Promise:
    """What is promised, in words that stand in the docs, and the attack on it.

    `says` are sentences, or first cells of rows of a table, as they stand in `page`. `wanted` is the number of tries
    of a whole run, `least` that of any.
    """

    name: str
    page: str
    says: tuple[str, ...]
    wanted: int
    least: int
    attack: Attack


PROMISES: dict[str, Promise] = {}


def promise(page: str, *says: str, tries: int, least: int = 1) -> Callable[[Attack], Attack]:
    """Registers an attack under its function's name; fewer than `least` tries would leave out a kind of them."""

    def register(attack: Attack) -> Attack:
        name = attack.__name__.replace("_", "-")
        assert name not in PROMISES, name
        PROMISES[name] = Promise(name, page, says, tries, least, attack)
        return attack

    return register


def plain(text: str) -> str:
    """Text as it is compared: no line breaks, links, backticks or stars."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\s+", " ", re.sub(r"[`*]", "", text)).strip()
