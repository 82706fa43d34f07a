"""States in a folder, with made-up tensors, and what spoils them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk.state import LearnedTask, State

BUNDLE = "1a2b3c4d" * 8
BASE = {"delta": np.zeros((3, 4), np.float32), "counts": np.arange(5, dtype=np.int64)}


def task(name: str) -> LearnedTask:
    return LearnedTask(name, (f"{name}-x", "ü"), 4, 32, 1.25, 0.1, 10**8, {"lr": 0.01, "sites": ["a"]})


def tasks(names: str) -> tuple[LearnedTask, ...]:
    return tuple(task(name) for name in names)


def tensors(seed: int, rows: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "delta": rng.normal(size=(rows, 4)).astype(np.float32),
        "moment": rng.normal(size=(2, 5, 5)),
        "indices": rng.integers(0, 99, size=(4,)),
        "basis.rank": np.array(seed, np.uint8),
        "none": np.zeros((0, 4), np.float32),
    }


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(
        left[n].dtype == right[n].dtype
        and left[n].shape == right[n].shape
        and left[n].tobytes() == right[n].tobytes()
        for n in left
    )


def state_at(folder: Path, **settings: Any) -> State:
    return State.open(folder, BUNDLE, BASE, **settings)


def learned(folder: Path, names: str, **settings: Any) -> State:
    """A state whose generations 1, 2, ... learned the one-letter task names; tensors are seeded by number."""
    state = state_at(folder, **settings)
    with state.lock():
        for number in range(1, len(names) + 1):
            state.commit(number - 1, tasks(names[:number]), tensors(number))
    return state


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def tensors_of(state: State, number: int) -> Path:
    return state.folder / "generations" / f"{number:06d}.safetensors"


def record_of(state: State, number: int) -> Path:
    return state.folder / "generations" / f"{number:06d}.json"
