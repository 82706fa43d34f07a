"""Blocks: a commit writes what changed, and a state with blocks knows what one without would."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from csk_sdk import StateError
from csk_sdk.formats.stored_tensors import JoinedTensors
from csk_sdk.state import blocks, versions
from csk_sdk.state.blocks import layout
from csk_sdk.state.room import commit_bytes
from csk_sdk.state.sealing import unseal
from csk_sdk.state.tensorfile import packed
from sdk.block_states import (
    WIDTH,
    Tensors,
    block_files,
    check,
    learn,
    names_and_files,
    names_of,
    task,
    tensors_of,
)
from sdk.stored_states import BUNDLE, same, state_at


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks of two classes fill a block."""
    monkeypatch.setattr(blocks, "BLOCK_CLASSES", 4)


@pytest.mark.parametrize(
    ("classes", "count", "before", "expected"),
    [
        ([], 0, [], []),
        ([2], 2, [], []),
        ([2, 1], 3, [], []),
        ([2, 2], 4, [], [(2, 4)]),
        ([2, 2, 2], 6, [], [(2, 4)]),
        ([2, 2, 2, 2], 8, [], [(2, 4), (2, 4)]),
        ([3, 3, 3], 9, [], [(2, 4)]),
        ([1, 9, 1], 11, [], [(2, 4)]),
        # Rows of the base fill blocks without tasks.
        ([], 8, [], []),
        ([], 9, [], [(0, 4)]),
        ([2], 15, [], [(0, 4), (0, 4)]),
        ([2, 2], 15, [], [(2, 4), (0, 4)]),
        # Tasks without rows, and with fewer rows than classes.
        ([2, 2, 2], 0, [], [(2, 0)]),
        ([2, 2, 2], 3, [], [(2, 3)]),
        # As it was, as long as it fits; what is too large for a block stays one.
        ([2, 2, 2, 2], 8, [(3, 6)], [(3, 6)]),
        ([2, 2, 2, 2, 2], 10, [(3, 6)], [(3, 6), (2, 4)]),
        ([2, 2], 4, [(3, 6)], [(2, 4)]),
        ([2, 2, 2], 4, [(2, 4), (2, 4)], [(2, 4)]),
        ([2, 2, 2, 2], 5, [(2, 4), (2, 4)], [(2, 4), (2, 1)]),
        ([2], 2, [(2, 4)], []),
    ],
)
def test_what_goes_into_blocks(
    small: None,
    classes: list[int],
    count: int,
    before: list[tuple[int, int]],
    expected: list[tuple[int, int]],
) -> None:
    assert layout(classes, count, [blocks.Extent(*one) for one in before]) == expected


def test_a_state_of_few_classes_is_as_it_always_was(tmp_path: Path) -> None:
    """The very files, and nothing that asks for another reader."""
    state = state_at(tmp_path)
    learn(state, 1, 63)
    assert {path.name for path in tmp_path.iterdir()} == {
        "state.json",
        "HEAD",
        "generations",
        "ledger",
        "lock",
    }
    written = (tmp_path / "generations" / "000063.safetensors").read_bytes()
    assert written == packed(tensors_of(range(1, 64)))
    record = json.loads((tmp_path / "generations" / "000063.json").read_bytes())
    assert list(record) == ["number", "parent", "created", "sha256", "size", "tasks", "check"]
    assert len(record["tasks"]) == 63
    assert unseal(tmp_path / "state.json") == {"schema_version": 1, "bundle_id": BUNDLE}
    learn(state, 64, 64)
    record = json.loads((tmp_path / "generations" / "000064.json").read_bytes())
    assert (len(record["blocks"]), record["tasks"]) == (1, [])
    assert (record["min_reader"], record["min_writer"]) == (2, 2)
    assert unseal(tmp_path / "state.json")["schema_version"] == 1


def test_a_commit_writes_what_changed(tmp_path: Path) -> None:
    """The 65th to 128th task and the 193rd to 256th: as many bytes, but for what has a few bytes for each class."""
    state, written = state_at(tmp_path), [0]
    for number in range(1, 257):
        before = names_and_files(tmp_path)
        learn(state, number, number, 64)
        after = names_and_files(tmp_path)
        written.append(sum(one[1] for path, one in after.items() if before.get(path) != one))
    early, late = sum(written[65:129]), sum(written[193:])
    # Names and counts of 256 classes more, of less than 20 bytes, in each of 64 commits.
    assert early < late < early + 64 * 256 * 20
    assert late < 1.2 * early
    assert len(names_of(state)) == 4
    assert same(dict(state_at(tmp_path).load().tensors), tensors_of(range(1, 257), 64))


def test_it_is_known_as_without_blocks(tmp_path: Path, small: None) -> None:
    """By whoever wrote it and whoever opens it, all at once and one by one; and so is each generation that is kept."""
    state = state_at(tmp_path, keep=5)
    for number in range(1, 16):
        learn(state, number, number)
        for one in (state, state_at(tmp_path)):
            found = one.load()
            assert [task.name for task in found.tasks] == [f"t{index}" for index in range(1, number + 1)]
            assert same(dict(found.tensors), tensors_of(range(1, number + 1)))
            with one.opened() as opened:
                assert set(opened.tensors) == set(found.tensors)
                assert all(
                    np.array_equal(opened.tensors[name], found.tensors[name]) for name in found.tensors
                )
        for back in range(max(1, number - 4), number + 1):
            assert same(dict(state_at(tmp_path).load(back).tensors), tensors_of(range(1, back + 1)))
    assert found.tasks == tuple(state.load().tasks)
    assert found.tasks[2].config == {"lr": 0.01}
    assert len(names_of(state)) == 7
    assert not check(state)


def test_unchanged_blocks_are_not_written_again(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path)
    learn(state, 1, 6)
    before = {name: path.stat().st_ino for name, path in block_files(state).items()}
    # The newest is in no other generation yet, and has no copy.
    copies = {name for name in before if ".copy" in name}
    assert (len(before), len(copies)) == (5, 2)
    assert {name[:64] for name in copies} == set(names_of(state)[:2])
    assert not check(state)
    learn(state_at(tmp_path), 7, 8)
    after = {name: path.stat().st_ino for name, path in block_files(state).items()}
    assert before.items() <= after.items()
    for name, path in block_files(state).items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == name[:64]
        assert set(load_file(path)) > {"tasks", "statistics.means"}


def test_a_correction_changes_the_block_of_its_task(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path)
    learn(state, 1, 8)
    before = names_of(state)
    known = state.load()
    tensors = dict(known.tensors)
    tensors["head/t4/bias"] = tensors["head/t4/bias"] + 1
    with state.lock():
        state.commit(known.number, known.tasks, tensors)
    after = names_of(state)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]
    renamed = [replace(one, name="t5 again") if one.name == "t5" else one for one in known.tasks]
    tensors |= {f"head/t5 again/{kind}": tensors.pop(f"head/t5/{kind}") for kind in ("weight", "bias")}
    with state.lock():
        state.commit(state.head(), renamed, tensors)
    assert [one == other for one, other in zip(after, names_of(state), strict=True)] == [
        *(True, True),
        *(False, True),
    ]
    again = state_at(tmp_path).load()
    assert same(dict(again.tensors), tensors)
    assert list(again.tasks) == [one.as_written() for one in renamed]


def test_what_an_older_csk_sdk_learned_goes_into_blocks_with_the_next_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CLASSES", 10**9)
    learn(state_at(tmp_path), 1, 11)
    assert not block_files(state_at(tmp_path))
    monkeypatch.setattr(blocks, "BLOCK_CLASSES", 4)
    learn(state_at(tmp_path), 12, 12)
    state = state_at(tmp_path)
    assert len(names_of(state)) == 6
    assert same(dict(state.load().tensors), tensors_of(range(1, 13)))
    assert same(dict(state.load(11).tensors), tensors_of(range(1, 12)))
    with state.lock():
        state.rollback(11)
    learn(state_at(tmp_path), 12, 25)
    assert same(dict(state_at(tmp_path).load().tensors), tensors_of(range(1, 26)))
    assert not check(state)


def test_tensors_of_rows_may_differ_or_be_lacking(tmp_path: Path, small: None) -> None:
    """Rows are parted as far as all have them; a base may have some without a task."""
    state = state_at(tmp_path)
    every = tensors_of(range(1, 20))
    cases: list[Tensors] = [
        {**every, "familiarity.margins": every["familiarity.margins"][:7]},
        {name: one for name, one in every.items() if not name.startswith("familiarity.")},
        {name: one for name, one in every.items() if name not in blocks.ROWS},
        {**every, "familiarity.oddness": every["familiarity.oddness"][:0]},
        {name: one for name, one in every.items() if name != "head/t3/bias"},
        every,
    ]
    for tasks in ([], [task(number) for number in range(1, 6)]):
        for tensors in cases:
            with state.lock():
                state.commit(state.head(), tasks, tensors)
            found = state_at(tmp_path).load()
            assert same(dict(found.tensors), tensors)
            assert len(found.tasks) == len(tasks)
            assert bool(names_of(state)) == bool(tasks or blocks.rows_of(tensors) > 8)


def test_contributions_of_tasks_in_blocks_stay(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path, keep=1)
    learn(state, 1, 12)
    learn(state_at(tmp_path, keep=1), 13, 14)
    assert len(list((tmp_path / "ledger").iterdir())) == 14
    for one in state_at(tmp_path).load().tasks:
        assert state.contribution(one.contributions[one.classes[0]])["count"] == [float(one.name[1:])]


def test_a_pruned_generation_lists_no_blocks_and_its_last_task(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path, keep=2)
    learn(state, 1, 9)
    for number in range(1, 10):
        record = unseal(tmp_path / "generations" / f"{number:06d}.json")
        if number < 8:
            assert [one["name"] for one in record["tasks"]] == [f"t{number}"]
            assert "blocks" not in record
    # Of the eighth, whose last task has just gone into a block, too.
    assert [one.task for one in state.history()] == [f"t{number}" for number in range(9, 0, -1)]
    assert [one.tasks for one in state_at(tmp_path).history()][:3] == [9, 8, 1]
    assert state_at(tmp_path).generation_of("t8") == 8


def test_an_older_csk_sdk_says_that_a_newer_one_wrote_it(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(state_at(tmp_path), 1, 4)
    monkeypatch.setattr(versions, "STATE_SCHEMA_VERSION", 1)
    with pytest.raises(StateError, match="takes one that knows schema 2 of states") as caught:
        state_at(tmp_path).load()
    assert "rollback" not in str(caught.value)
    state = state_at(tmp_path)
    with state.lock(), pytest.raises(StateError, match="takes one that knows schema 2 of states"):
        state.commit(3, [task(1)], {})


def test_what_is_forgotten_is_in_no_file(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path)
    learn(state, 1, 9)
    known, gone = state.load(), task(3)
    mean = tensors_of([3])["statistics.means"].tobytes()
    kept = [one for one in known.tasks if one.name != gone.name]
    with state.lock():
        purged = state.numbers_with([known.tasks[2]], kept, gone.classes)
        assert purged == list(range(3, 10))
        state.commit(9, kept, tensors_of([number for number in range(1, 10) if number != 3]), purged=purged)
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"c3-0" not in left
    assert mean[:24] not in left
    assert tensors_of([4])["statistics.means"].tobytes()[:24] in left
    found = state_at(tmp_path).load()
    assert same(dict(found.tensors), tensors_of([1, 2, *range(4, 10)]))
    assert list(found.tasks) == kept
    assert not check(state)


def test_a_lesson_asks_for_room_for_what_it_writes(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path)
    learn(state, 1, 40)

    def asked(trained: bool) -> int:
        with state.opened() as generation:
            assert isinstance(generation.tensors, JoinedTensors)
            return commit_bytes(generation, ["x", "y"], WIDTH, 4, trained)

    whole = sum(one.nbytes for one in state.load().tensors.values())
    before = names_and_files(tmp_path)
    lesson, trained = asked(False), asked(True)
    learn(state, 41, 42)
    written = sum(one[1] for path, one in names_and_files(tmp_path).items() if before.get(path) != one)
    assert written < 2 * lesson
    assert trained > lesson + whole


def test_a_reader_is_not_disturbed_by_a_writer_that_prunes(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path, keep=1)
    learn(state, 1, 5)
    with state_at(tmp_path).opened() as opened:
        known = state.load()
        for seed in (1, 2, 3):
            with state.lock():
                state.commit(state.head(), known.tasks, tensors_of(range(1, 6), seed=seed))
        expected = tensors_of(range(1, 6))
        assert all(np.array_equal(opened.tensors[name], expected[name]) for name in opened.tensors)
