"""How many generations of what is known now stay, whatever else was learned and undone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from csk_sdk.state import LearnedTask, State, atomic, lock
from field.simulated_disk import Recorder, crash_states, write_tree


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


@pytest.mark.slow
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


def test_the_record_of_a_pruned_generation_keeps_its_own_task_only(tmp_path: Path) -> None:
    state = opened(tmp_path, keep=1)
    for names in ("A", "AB", "ABC", "ABCD", "ABCDE"):
        commit(state, names)
    records = state.records()
    assert [[one.name for one in record.tasks] for record in records[:3]] == [["A"], ["B"], ["C"]]
    assert [len(record.tasks) for record in records[3:]] == [4, 5]
    assert [record.task for record in state.history()] == ["E", "D", "C", "B", "A"]
    with state.lock():
        state.rollback(4)
    assert [one.name for one in state.load().tasks] == list("ABCD")


@pytest.mark.slow
def test_the_state_grows_by_the_same_for_every_task(tmp_path: Path) -> None:
    state = opened(tmp_path, keep=2)
    sizes = []
    for count in range(1, 61):
        commit(state, [f"{number:02d}" for number in range(count)])  # type: ignore[arg-type]
        sizes.append(sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
    # Two whole records and one more line of history; kept whole, all records would make it three times as much.
    assert sizes[59] - sizes[39] < 1.1 * (sizes[39] - sizes[19])


def test_a_power_cut_while_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = opened(tmp_path / "disk" / "state", keep=1)
    for names in ("A", "AB", "ABC", "ABCD"):
        commit(state, names)
    with monkeypatch.context() as patch:
        recorder = Recorder(tmp_path / "disk")
        patch.setattr(atomic, "os", recorder)
        patch.setattr(lock, "os", recorder)
        commit(state, "ABCDE")
    found = set()
    for number, (_, tree) in enumerate(crash_states(recorder)):
        place = tmp_path / "after"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        write_tree(place, tree)
        after = opened(place / "state", keep=1)
        known = [one.name for one in after.load().tasks]
        assert known in (list("ABCD"), list("ABCDE"))
        found.add(len(known))
        assert [record.task for record in after.history()] == known[::-1]
        assert after.load(after.load().parent).tensors["t"].tolist() == [len(known) - 1] * 4, number
        commit(after, [*known, "Z"])  # type: ignore[arg-type]
        assert stored(after) == [after.head() - 1, after.head()]
        assert [len(record.tasks) for record in after.records()[:-2]] == [1] * (after.head() - 2)
    assert found == {4, 5}
