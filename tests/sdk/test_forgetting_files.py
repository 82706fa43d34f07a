"""What is forgotten is in no file of a state, however the commit that forgets it ends; and nothing else is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from csk_sdk import StateError, StorageError
from csk_sdk.state import LearnedTask, State, atomic, blocks
from csk_sdk.state.atomic import UnreadableError
from field.simulated_disk import Recorder, crash_states, write_tree
from sdk.block_states import check, learn, task, tensors_of
from sdk.interrupted import Interrupted
from sdk.stored_states import same, state_at


@pytest.fixture(params=["with blocks", "without"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "with blocks":
        monkeypatch.setattr(blocks, "BLOCK_CLASSES", 4)
    return tmp_path / "state"


def numbers_of(tasks: Sequence[LearnedTask]) -> list[int]:
    return [int(one.name[1:]) for one in tasks]


def forget(state: State, number: int) -> None:
    """As a learner does: a task, with all its classes; nothing where it is not known."""
    with state.lock():
        state.finish_forgetting()
        known = state.load()
        gone = [one for one in known.tasks if one.name == f"t{number}"]
        if gone:
            kept = [one for one in known.tasks if one not in gone]
            purged = state.numbers_with(gone, kept, gone[0].classes)
            state.commit(known.number, kept, tensors_of(numbers_of(kept)), purged=purged)
            state.clear_progress()


def commit(state: State, tasks: Sequence[LearnedTask]) -> int:
    with state.lock():
        return state.commit(state.head(), tasks, tensors_of(numbers_of(tasks))).number


def renamed(state: State, number: int, *classes: str) -> list[LearnedTask]:
    return [
        replace(one, classes=classes, contributions={classes[0]: one.contributions[one.classes[0]]})
        if one.name == f"t{number}"
        else one
        for one in state.load().tasks
    ]


def holding(state: State, number: int, *names: str) -> list[str]:
    """The files that have a row of the task's means or heads, its contribution, or one of the names of its classes."""
    tensors, found = tensors_of([number]), []
    marks = [name.encode() for name in (*task(number).classes, *names)]
    marks += [tensors["statistics.means"][:1].tobytes(), tensors[f"head/t{number}/weight"][:1].tobytes()]
    for path in state.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            counted = path.parent.name == "ledger" and np.float64(number).tobytes() in content
            if counted or any(mark in content for mark in marks):
                found.append(path.relative_to(state.folder).as_posix())
    return found


def whole(state: State, *numbers: int) -> bool:
    """Whether just these tasks are known, with all that belongs to them."""
    found = state.load()
    for one in found.tasks:
        for file in one.files:
            state.contribution(file)
    return numbers_of(found.tasks) == list(numbers) and same(dict(found.tensors), tensors_of(numbers))


def statuses(state: State) -> dict[str, str]:
    return {one.name: one.status for one in check(state)}


# --- what a killed commit left


@pytest.mark.parametrize("killed_at", ["000005.json", "HEAD"])
def test_what_a_killed_commit_left_is_no_generation(
    folder: Path, killed_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_at(folder)
    learn(state, 1, 4)

    def killed(path: Path, data: bytes) -> None:
        if path.name == killed_at:
            raise KeyboardInterrupt
        atomic.replace_file(path, data)

    with monkeypatch.context() as patch:
        patch.setattr("csk_sdk.state.store.replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            learn(state_at(folder), 5, 5)
    assert (folder / "generations/000005.safetensors").exists()
    assert (folder / "generations/000005.json").exists() == (killed_at == "HEAD")
    again = state_at(folder)
    forget(again, 3)
    assert again.head() == 5, "the number of the debris"
    for opened in (again, state_at(folder)):
        assert whole(opened, 1, 2, 4)
    assert not holding(again, 3)
    assert not check(again)
    learn(state_at(folder), 6, 6)
    assert whole(state_at(folder), 1, 2, 4, 6)


def test_a_record_that_lists_itself_removes_nothing_of_itself(folder: Path) -> None:
    state = state_at(folder)
    learn(state, 1, 2)
    with state.lock():
        state.commit(2, state.load().tasks[:1], tensors_of([1]), purged=[2, 3, 4])
    with state.lock():
        state.save_progress({}, {})
    assert whole(state_at(folder), 1)


# --- under other names


def test_a_class_that_had_another_name_is_forgotten_with_it(folder: Path) -> None:
    state = state_at(folder)
    learn(state, 1, 4)
    commit(state, renamed(state, 3, "neu", "c3-1"))
    forget(state, 3)
    assert not holding(state, 3, "neu")
    assert whole(state, 1, 2, 4)
    # Those that never had it are there.
    assert same(dict(state.load(2).tensors), tensors_of([1, 2]))
    with pytest.raises(StateError):
        state.load(3)


@pytest.mark.parametrize(
    "classes", [("neu", "c3-1"), ("c3-1",), ("c3-0",)], ids=["renamed", "into", "merged"]
)
def test_it_is_forgotten_on_branches_that_were_rolled_back_from(
    folder: Path, classes: tuple[str, ...]
) -> None:
    """Also where another class of its task has its name there, or all that was learned of both."""
    state = state_at(folder)
    learn(state, 1, 4)
    commit(state, renamed(state, 3, *classes))
    with state.lock():
        state.rollback(4)
    gone = state.load().tasks[2]
    for names, lost in (((), gone.classes), (("c3-0",), ("c3-1",))):
        with state.lock():
            others = [one for one in state.load().tasks if one != gone]
            assert state.numbers_with([gone], others, lost) == [3, 4, 5], names
    forget(state, 3)
    assert not holding(state, 3, "neu")
    assert whole(state, 1, 2, 4)


def test_a_lesson_of_a_branch_is_followed_by_its_class_through_renaming(folder: Path) -> None:
    """Somebody taught `same` in two lessons; one of a branch that was left, on which it was renamed afterwards."""
    state = state_at(folder)
    learn(state, 1, 2)
    other = replace(task(5), classes=("same", "more"), contributions={})
    commit(state, [*state.load().tasks, other])
    commit(state, [*state.load().tasks[:2], replace(other, classes=("other", "more"))])
    with state.lock():
        state.rollback(2)
    mine = replace(task(6), classes=("same",), contributions={})
    commit(state, [*state.load().tasks, mine])
    with state.lock():
        tasks = state.load().tasks
        assert state.numbers_with(tasks[2:], tasks[:2], ["same"]) == [3, 4, 5]


def test_what_only_looks_like_it_stays(folder: Path) -> None:
    state = state_at(folder)
    learn(state, 1, 1)
    # Another lesson of the same task, and a class of another one that was called so for a while.
    commit(state, [*state.load().tasks, replace(task(3), classes=("x", "y"), seconds=9.0)])
    with state.lock():
        state.rollback(1)
    commit(state, [*state.load().tasks, task(2)])
    commit(state, renamed(state, 2, "c3-0", "c2-1"))
    with state.lock():
        state.rollback(3)
    learn(state, 3, 3)
    with state.lock():
        tasks = state.load().tasks
        # 4 has its name; 3, where the class of that lesson was called otherwise, never had it.
        assert state.numbers_with(tasks[2:], tasks[:2], tasks[2].classes) == [4, 5]
        assert state.numbers_with(tasks[2:], tasks[:2], ["c3-1"]) == [5]


def test_what_the_disk_does_not_give_back_is_not_taken_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_at(folder)
    learn(state, 1, 3)
    fresh = state_at(folder)
    real = fresh._store.record

    def refused(number: int) -> object:
        if number == 1:
            raise UnreadableError("the disk")
        return real(number)

    monkeypatch.setattr(fresh._store, "record", refused)
    with pytest.raises(UnreadableError):
        forget(fresh, 3)
    monkeypatch.undo()
    # A damaged record may hold it.
    (folder / "generations/000001.json").write_bytes(b"{")
    with fresh.lock():
        tasks = fresh.load().tasks
        assert fresh.numbers_with(tasks[2:], tasks[:2], tasks[2].classes) == [1, 3]


# --- killed at any moment


def prepared(folder: Path) -> State:
    """Five tasks, one of a branch, scores, and a lesson about to begin, whose progress names a class of the third."""
    state = state_at(folder)
    learn(state, 1, 4)
    commit(state, renamed(state, 3, "neu", "c3-1"))
    with state.lock():
        state.rollback(4)
    learn(state, 5, 5)
    state.save_scores(4, {"c3-0": {"task": 1.0}})
    with state.lock():
        state.save_progress({}, {"generation": state.head(), "classes": ["c3-0"]})
    return state


def lesson(state: State) -> None:
    learn(state, 8, 8)


def going_back(state: State) -> None:
    with state.lock():
        state.rollback(2)


def asked_again(state: State) -> None:
    forget(state, 3)


def progress(state: State) -> None:
    with state.lock():
        state.save_progress({}, {"generation": state.head()})


def repaired(state: State) -> None:
    check(state, repair=True)


@pytest.mark.parametrize("next_step", [lesson, going_back, asked_again, progress, repaired])
def test_killed_at_any_moment_it_is_as_it_was_or_forgotten_by_what_is_written_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch, next_step: Callable[[State], None]
) -> None:
    prepared(folder.parent / "before")
    before, interrupted, forgotten, told = folder.parent / "before", 0, 0, 0
    for calls in range(1, 500):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)
        left = [calls]
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "os", Interrupted(os, left))
            with suppress(KeyboardInterrupt):
                forget(state_at(folder), 3)
        if left[0] > 0:
            break
        interrupted += 1
        state = state_at(folder)
        if state.head() == 6:
            assert whole(state, 1, 2, 3, 4, 5), calls
            assert "forgetting" not in statuses(state), calls
            continue
        assert whole(state, 1, 2, 4, 5), calls
        forgotten += 1
        unfinished = bool(holding(state, 3, "neu"))
        found = statuses(state)
        assert (found.get("forgetting") == "damaged") >= unfinished, (calls, holding(state, 3, "neu"))
        assert not unfinished or set(found.values()) <= {"damaged", "leftover"}, calls
        told += unfinished
        next_step(state)
        state = state_at(folder)
        assert not holding(state, 3, "neu"), (calls, holding(state, 3, "neu"))
        assert "damaged" not in statuses(state).values(), calls
        assert "lost" not in statuses(state).values(), calls
        rest = {lesson: (1, 2, 4, 5, 8), going_back: (1, 2)}.get(next_step, (1, 2, 4, 5))
        assert whole(state, *rest), calls
    assert interrupted > 30
    assert forgotten > 10
    assert told > 5


@pytest.mark.slow
@pytest.mark.parametrize("next_step", [progress, repaired])
def test_whatever_a_power_cut_leaves_is_as_it_was_or_forgotten_by_what_is_written_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch, next_step: Callable[[State], None]
) -> None:
    """Also where the disk keeps what was removed first, and not what was removed last."""
    prepared(folder)
    with monkeypatch.context() as patch:
        recorder = Recorder(folder)
        patch.setattr(atomic, "os", recorder)
        forget(state_at(folder), 3)
    seen, forgotten = set(), 0
    for _, tree in crash_states(recorder):
        if (key := tuple(sorted(tree.items()))) in seen:
            continue
        seen.add(key)
        shutil.rmtree(folder)
        folder.mkdir()
        write_tree(folder, tree)
        state = state_at(folder)
        if state.head() == 6:
            assert whole(state, 1, 2, 3, 4, 5)
            continue
        forgotten += 1
        assert whole(state, 1, 2, 4, 5)
        next_step(state)
        state = state_at(folder)
        assert not holding(state, 3, "neu"), holding(state, 3, "neu")
        assert whole(state, 1, 2, 4, 5)
    assert forgotten > 20


def test_contributions_of_a_lesson_after_it_are_not_taken_for_what_it_left(folder: Path) -> None:
    """They are listed by nothing until the lesson is committed."""
    prepared(folder)
    state = state_at(folder)
    forget(state, 3)
    with state.lock():
        names = [state.keep_contribution({"count": np.array([float(n)])}) for n in (20, 21)]
        state.save_progress({}, {})
        assert all(state.contribution(name) for name in names)
    again = state_at(folder)
    with again.lock():
        again.save_progress({}, {})
        assert all(again.contribution(name) for name in names)
    assert statuses(again) == {"ledger": "leftover"}
    assert {one.status for one in check(again, repair=True)} == {"repaired"}
    assert not check(again)
    assert whole(again, 1, 2, 4, 5)


def test_where_something_cannot_be_removed_nothing_is_written_over_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that went on would forget what is to be forgotten."""
    state = prepared(folder)
    with monkeypatch.context() as patch:
        patch.setattr("csk_sdk.state.forgetting.remove_file", lambda path: path.suffix != ".safetensors")
        with pytest.raises(StorageError, match="holds what is to be forgotten"):
            forget(state, 3)
        head = state.head()
        with pytest.raises(StorageError, match="holds what is to be forgotten"):
            lesson(state_at(folder))
        assert state_at(folder).head() == head

    def refused(*_: object) -> None:
        raise UnreadableError("the disk")

    with monkeypatch.context() as patch:
        patch.setattr("csk_sdk.state.forgetting.link_of", refused)
        with pytest.raises(UnreadableError):
            lesson(state_at(folder))
    lesson(state_at(folder))
    assert not holding(state, 3, "neu")
    assert whole(state_at(folder), 1, 2, 4, 5, 8)
