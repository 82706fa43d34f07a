"""How many generations of what is known now stay, whatever else was learned and undone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from csk_sdk.state import LearnedTask, State


def task(name: str) -> LearnedTask:
    return LearnedTask(name, ("a", "b"), 1, 2, 0.1, 0.1, 1, {})


def opened(folder: Path, keep: int) -> State:
    return State.open(folder, "b" * 64, {"t": np.zeros(4, np.float32)}, keep=keep)


def commit(state: State, names: str) -> int:
    with state.lock():
        tensors = {"t": np.full(4, len(names), np.float32)}
        return state.commit(state.head(), [task(name) for name in names], tensors).number


def stored(state: State) -> list[int]:
    return [record.number for record in state.records() if record.stored]


def test_generations_that_were_rolled_back_from_take_no_room_from_the_way(tmp_path: Path) -> None:
    state = opened(tmp_path, keep=3)
    for names in ("A", "AB", "ABC"):
        commit(state, names)
    for _ in range(4):
        with state.lock():
            state.rollback(3)
        commit(state, "ABCX")
    # Before, the newest numbers won: 5, 6, 7 and the parent 3, and going back to A or B was lost.
    assert [record.number for record in state.history()] == [7, 3, 2, 1]
    assert stored(state) == [2, 3, 7]
    assert state.generation_of("B") == 2


def test_room_that_the_way_leaves_goes_to_the_newest_undone_ones(tmp_path: Path) -> None:
    state = opened(tmp_path, keep=4)
    for names in ("A", "AB", "ABC", "ABCD"):
        commit(state, names)
    with state.lock():
        state.rollback(1)
    commit(state, "AX")
    assert [record.number for record in state.history()] == [5, 1]
    assert stored(state) == [1, 3, 4, 5]


def test_a_file_that_lost_bytes_does_not_count(tmp_path: Path) -> None:
    state = opened(tmp_path, keep=2)
    for names in ("A", "AB"):
        commit(state, names)
    os.truncate(tmp_path / "generations" / "000002.safetensors", 10)
    commit(state, "ABC")
    assert stored(state) == [1, 3]
    assert state.load(1).tasks == (task("A"),)


@pytest.mark.parametrize("keep", [1, 2, 3, 8])
def test_disk_space_is_bounded_and_the_way_is_kept(tmp_path: Path, keep: int) -> None:
    rng = np.random.default_rng(keep)
    state = opened(tmp_path, keep=keep)
    for step in range(40):
        way = [record for record in state.history() if record.stored]
        if way and rng.random() < 0.4:
            with state.lock():
                state.rollback(way[int(rng.integers(len(way)))].number)
        known = [one.name for one in state.load().tasks]
        before = len([record for record in state.history() if record.stored])
        commit(state, [*known, str(step)])  # type: ignore[arg-type]
        assert len(stored(state)) <= keep + 1
        now = [record.number for record in state.history() if record.stored]
        assert len(now) >= min(keep, before + 1)
        assert now == [record.number for record in state.history()][: len(now)], "without gaps, newest first"
