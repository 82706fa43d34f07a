"""States of small tasks with heads and rows, as those whose tasks go into blocks are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.state import LearnedTask, State
from csk_sdk.state.repair import Finding, StateCheck
from csk_sdk.state.sealing import unseal
from sdk.stored_states import BUNDLE

WIDTH = 6
Tensors = dict[str, NDArray[Any]]


def task(number: int, ledger: str = "", classes: int = 2) -> LearnedTask:
    names = tuple(f"c{number}-{index}" for index in range(classes))
    return LearnedTask(
        f"t{number}", names, 4, 8, 1.5, 0.25, 10**8, {"lr": 0.01}, contributions={names[0]: ledger}
    )


def rows(numbers: Sequence[int], width: int, seed: int) -> NDArray[np.float32]:
    """Two for each task."""
    found = [np.random.default_rng((seed, number)).normal(size=(2, width)) for number in numbers]
    return np.concatenate(found).astype(np.float32) if found else np.zeros((0, width), np.float32)


def tensors_of(numbers: Sequence[int], width: int = WIDTH, seed: int = 0) -> Tensors:
    """As a learner has them, of tasks of these numbers: heads, rows for each class, what changes with each lesson."""
    rng = np.random.default_rng((len(numbers), seed))
    found: Tensors = {
        "statistics.means": rows(numbers, width, seed + 1),
        "statistics.counts": np.full(2 * len(numbers), 4.0),
        "statistics.classes": np.frombuffer(
            json.dumps([f"c{number}-{index}" for number in numbers for index in (0, 1)]).encode(), np.uint8
        ),
        "statistics.scatter": rng.normal(size=(width, width)),
        "familiarity.margins": rows(numbers, 3, seed + 2),
        "familiarity.oddness": rows(numbers, 3, seed + 3),
        "center/site": np.ones((2, 2), np.float32),
        "of a newer one": np.arange(3),
        "head/base/weight": np.ones((3, width), np.float32),
    }
    for number in numbers:
        found[f"head/t{number}/weight"] = rows([number], width, seed + 4)
        found[f"head/t{number}/bias"] = rows([number], 1, seed + 5)[:, 0]
    return found


def learn(state: State, first: int, last: int, width: int = WIDTH) -> None:
    """Tasks of these numbers, one generation each, on what is known."""
    with state.lock():
        for number in range(first, last + 1):
            known = state.load()
            numbers = [int(one.name[1:]) for one in known.tasks] + [number]
            file = state.keep_contribution({"count": np.array([float(number)])})
            state.commit(known.number, (*known.tasks, task(number, file)), tensors_of(numbers, width))


def block_files(state: State) -> dict[str, Path]:
    return {path.name: path for path in sorted((state.folder / "blocks").glob("*"))}


def names_of(state: State, number: int | None = None) -> list[str]:
    path = state.folder / "generations" / f"{number or state.head():06d}.json"
    found: list[str] = unseal(path).get("blocks", [])
    return found


def check(state: State, repair: bool = False) -> list[Finding]:
    return [
        one for one in StateCheck(state.folder, BUNDLE).run(repair) if one.status not in ("intact", "pruned")
    ]


def names_and_files(folder: Path) -> dict[Path, tuple[int, int]]:
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (status.st_ino, status.st_size) for path, status in found.items()}
