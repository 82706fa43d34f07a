from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_states import BASE, BUNDLE, flip, learned, same, state_at, task, tasks, tensors, tensors_of

from csk_sdk.errors import ConfigError, StateError, StateLockedError
from csk_sdk.state import LearnedTask, State, generation, outlines, sealing
from csk_sdk.state import identity as state_identity
from csk_sdk.state.atomic import replace_file
from csk_sdk.state.lock import StateLock
from csk_sdk.state.sealing import seal
from csk_sdk.state.tensorfile import decode, packed
from csk_sdk.version import __version__

# Reading and committing


def test_reading_a_fresh_folder_creates_nothing(tmp_path: Path) -> None:
    state = state_at(tmp_path / "state")
    generation = state.load()
    assert (generation.number, generation.parent, generation.tasks) == (0, None, ())
    assert same(generation.tensors, BASE)
    assert (state.head(), state.history(), state.records()) == (0, [], [])
    assert (state.load_scores(), state.load_progress(), state.generation_of("base")) == ({}, None, 0)
    assert not (tmp_path / "state").exists()


def test_the_bundles_own_checkpoint_cannot_be_written_into(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        state_at(tmp_path).load().tensors["delta"][0] = 1


def test_a_commit_comes_back_bit_identically(tmp_path: Path) -> None:
    state = state_at(tmp_path)
    with state.lock():
        committed = state.commit(0, tasks("A"), tensors(1))
    for loaded in (committed, state.load(), state_at(tmp_path).load(1)):
        assert (loaded.number, loaded.parent, loaded.tasks) == (1, 0, tasks("A"))
        assert same(loaded.tensors, tensors(1))
        assert loaded.created == committed.created
    assert committed.created.endswith("+00:00")
    assert state.load().tensors["delta"].flags.writeable
    with state.lock():
        assert state.commit(1, tasks("AB"), tensors(2)).number == 2
    assert same(state.load().tensors, tensors(2))
    assert same(state.load(1).tensors, tensors(1))


def test_views_are_stored_by_their_values(tmp_path: Path) -> None:
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    views = {"transposed": whole.T, "sliced": whole[:, ::2], "big endian": whole.astype(">f4")}
    state = state_at(tmp_path)
    with state.lock():
        state.commit(0, tasks("A"), views)
        state.save_progress(views, {})
    progress = state.load_progress()
    assert progress is not None
    for stored in (state.load().tensors, progress[0]):
        for name, view in views.items():
            np.testing.assert_array_equal(stored[name], view)


@pytest.mark.parametrize("bad", [np.zeros(2, np.float16), np.zeros(2, bool), np.array([object()]), [1.0]])
def test_other_dtypes_are_refused_and_nothing_is_written(tmp_path: Path, bad: Any) -> None:
    state = learned(tmp_path, "A")
    with state.lock():
        for write in (
            lambda: state.commit(1, tasks("AB"), {"t": bad}),
            lambda: state.save_progress({"t": bad}, {}),
        ):
            with pytest.raises(
                StateError, match=r"Tensor 't' is \w+; a state holds arrays of float32, float64"
            ):
                write()
    assert state.head() == 1
    assert not tensors_of(state, 2).exists()


def test_a_dtype_that_a_state_does_not_hold_is_refused_on_load(tmp_path: Path) -> None:
    state = learned(tmp_path, "A")
    tensors_of(state, 1).write_bytes(packed({"t": np.zeros(2, np.float16)}))
    with pytest.raises(StateError, match="Tensor 't' is float16"):
        decode(tensors_of(state, 1))


def test_numpy_numbers_in_a_task_become_plain_ones(tmp_path: Path) -> None:
    state = state_at(tmp_path)
    odd = LearnedTask("A", ("x",), 1, 2, 3.0, np.float32(0.5), 4, {"k": np.int64(3), 10: 1, 9: 2})  # type: ignore[arg-type]
    with state.lock():
        state.commit(0, [odd], tensors(1))
    assert state.load().tasks[0].loss == 0.5
    assert state.load().tasks[0].config == {"k": 3, "10": 1, "9": 2}


def test_writers_need_the_lock(tmp_path: Path) -> None:
    state, other = learned(tmp_path, "A"), state_at(tmp_path)
    text = r"is not locked for writing: write inside `with state\.lock\(\):`"
    with other.lock():
        for write in (
            lambda: state.commit(1, tasks("AB"), tensors(2)),
            lambda: state.rollback(0),
            lambda: state.save_progress({}, {}),
            state.clear_progress,
        ):
            with pytest.raises(StateError, match=text):
                write()
    assert state.head() == 1


def test_commit_needs_a_known_parent(tmp_path: Path) -> None:
    state = learned(tmp_path, "A")
    with state.lock(), pytest.raises(StateError, match=r"has no generation 7; the last one is 1\."):
        state.commit(7, tasks("AB"), tensors(2))


# Which bundle, which schema


def test_another_bundle_is_refused(tmp_path: Path) -> None:
    learned(tmp_path, "A")
    with pytest.raises(StateError) as caught:
        State.open(tmp_path, "5e6f7a8b" * 8, BASE)
    assert str(caught.value) == (
        f"{tmp_path} belongs to another bundle (it was learned on 1a2b3c4d…, this bundle is 5e6f7a8b…). "
        "Open it with its own bundle, carry it over to this one with csk-sdk upgrade, or start a new state folder."
    )


def test_two_bundles_opened_on_a_fresh_folder_are_told_apart_at_the_first_write(tmp_path: Path) -> None:
    late = State.open(tmp_path, "5e6f7a8b" * 8, BASE)
    learned(tmp_path, "A")
    with late.lock(), pytest.raises(StateError, match="belongs to another bundle"):
        late.commit(0, tasks("B"), tensors(2))
    with pytest.raises(StateError, match="belongs to another bundle"):
        late.save_scores(1, {})


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    learned(tmp_path, "A")
    (tmp_path / "state.json").write_text(seal({"schema_version": 4, "bundle_id": BUNDLE}).decode())
    with pytest.raises(StateError) as caught:
        state_at(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} was written by a newer csk-sdk, and reading it takes one that knows schema 4 of states (csk-sdk "
        f"{__version__} knows 3): update csk-sdk on this device."
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1}'])
def test_a_damaged_identity_is_named(tmp_path: Path, content: str) -> None:
    learned(tmp_path, "A")
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(
        StateError,
        match=r"state\.json (cannot be read|is damaged).* Restore it from a backup, or start a new",
    ):
        state_at(tmp_path)


def test_a_lost_identity_is_not_replaced_by_a_guess(tmp_path: Path) -> None:
    learned(tmp_path, "A")
    (tmp_path / "state.json").unlink()
    with pytest.raises(StateError, match=r"state\.json is missing, so nobody knows which bundle"):
        state_at(tmp_path)


# Rollback, history, pruning


def test_rollback_then_commit_gets_a_fresh_number_and_the_right_parent(tmp_path: Path) -> None:
    state = learned(tmp_path, "ABC")
    with state.lock():
        state.rollback(state.generation_of("A"))
        assert state.head() == 1
        assert state.commit(1, tasks("AD"), tensors(9)).number == 4
    assert state.load().parent == 1
    assert [record.number for record in state.history()] == [4, 1]
    assert [record.number for record in state.records()] == [1, 2, 3, 4]
    assert same(state.load(3).tensors, tensors(3))
    with state.lock():
        state.rollback(0)
        assert (state.head(), state.load().parent, state.history()) == (0, None, [])
        state.rollback(3)
    assert state.load().tasks == tasks("ABC")


def test_generation_of_looks_on_the_way_of_the_current_one_first(tmp_path: Path) -> None:
    state = learned(tmp_path, "ABC")
    assert [state.generation_of(name) for name in ("base", "A", "B", "C")] == [0, 1, 2, 3]
    with state.lock():
        state.rollback(1)
        state.commit(1, tasks("AD"), tensors(9))
    # What was rolled back from is led to again, as long as it is there.
    assert [state.generation_of(name) for name in ("A", "B", "C", "D")] == [1, 2, 3, 4]
    with pytest.raises(StateError) as caught:
        state.generation_of("E")
    assert str(caught.value) == f"{tmp_path} has no generation of task 'E'. Known: base, A, D, B, C."


def test_a_task_may_be_called_base(tmp_path: Path) -> None:
    state = state_at(tmp_path)
    with state.lock():
        state.commit(0, [task("base")], tensors(1))
    assert state.generation_of("base") == 1


def test_pruning_keeps_the_newest_and_the_history(tmp_path: Path) -> None:
    state = learned(tmp_path, "ABCDE", keep=2)
    stored = [(record.number, record.stored) for record in state.records()]
    assert stored == [(1, False), (2, False), (3, False), (4, True), (5, True)]
    assert state.records()[0].tasks == tasks("A")
    assert [record.task for record in state.history()] == ["E", "D", "C", "B", "A"]
    with pytest.raises(
        StateError, match=r"000002\.safetensors is missing \(old .*Generation 5 stays the current"
    ):
        state.load(2)
    with state.lock(), pytest.raises(StateError, match="is missing"):
        state.rollback(2)
    with pytest.raises(
        StateError, match=r"Generation 2 of task 'B' is pruned or damaged\. Known: base, D, E\."
    ):
        state.generation_of("B")


def test_pruning_never_takes_the_current_generation_or_its_parent(tmp_path: Path) -> None:
    state = learned(tmp_path, "ABC", keep=1)
    assert [record.number for record in state.records() if record.stored] == [2, 3]
    with state.lock():
        state.rollback(2)
        state.commit(2, tasks("ABD"), tensors(4))
    assert [record.number for record in state.records() if record.stored] == [2, 4]
    assert same(state.load(2).tensors, tensors(2))


def test_keep_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep is 0; it must be at least 1"):
        state_at(tmp_path, keep=0)


# Scores and progress


def test_scores_by_generation(tmp_path: Path) -> None:
    state = learned(tmp_path, "AB")
    state.save_scores(2, {"class": [0.5, np.float32(0.25)]})
    state.save_scores(1, {"class": [0.75]})
    state.save_scores(2, {"class": [0.5, 1.0]})
    assert list(state.load_scores().items()) == [(1, {"class": [0.75]}), (2, {"class": [0.5, 1.0]})]
    flip(tmp_path / "scores" / "000001.json", 5)
    (tmp_path / "scores" / "000009.json").write_text("[]")
    assert state.load_scores() == {2: {"class": [0.5, 1.0]}}


def test_scores_of_the_base_can_be_the_first_thing_written(tmp_path: Path) -> None:
    state_at(tmp_path / "state").save_scores(0, {"acc": 0.5})
    state = state_at(tmp_path / "state")
    assert (state.head(), state.load_scores()) == (0, {0: {"acc": 0.5}})
    with state.lock():
        assert state.commit(0, tasks("A"), tensors(1)).number == 1


def test_progress_is_replaced_and_cleared(tmp_path: Path) -> None:
    state = state_at(tmp_path / "state")
    with state.lock():
        state.save_progress(tensors(1), {"epoch": 1, "task": "ü"})
        state.save_progress(tensors(2), {"epoch": 2, "rng": {"state": 2**127}})
    loaded = state_at(tmp_path / "state").load_progress()
    assert loaded is not None
    assert same(loaded[0], tensors(2))
    assert loaded[1] == {"epoch": 2, "rng": {"state": 2**127}}
    with state.lock():
        state.commit(0, tasks("A"), tensors(3))
        assert state.load_progress() is not None
        state.clear_progress()
        assert state.load_progress() is None
        state.clear_progress()


def test_a_commit_reads_no_record_again_that_it_has_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each task the records grow: a commit that read all of them would take longer and longer."""
    names = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    learned(tmp_path, names[:36])
    state = state_at(tmp_path)
    read: list[str] = []
    for module in (generation, outlines):
        monkeypatch.setattr(module, "unseal", lambda path: read.append(path.name) or sealing.unseal(path))
    counts = []
    with state.lock():
        for number in range(37, 49):
            read.clear()
            state.commit(number - 1, tasks(names[:number]), tensors(number))
            counts.append(len(read))
    assert counts[0] > 10, "the first of a process reads those that are stored"
    assert max(counts[1:]) <= 1, counts


def test_a_record_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    learned(tmp_path, "AB")
    known, path = outlines.Outlines(), tmp_path / "generations" / "000002.json"
    assert known.read(path).tasks == 2
    path.unlink()
    with pytest.raises(StateError, match="is missing"):
        known.read(path)
    replace_file(path, seal({"tasks": [1, 2, 3], "number": 2}))
    assert known.read(path).tasks == 3
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StateError, match="cannot be read"):
        known.read(path)


def test_records_of_tasks_that_were_written_are_not_parsed_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first commit of a process asks for all that are stored: read one by one, they are most of what it takes."""
    learned(tmp_path, "ABCDEFGHIJ")
    state = state_at(tmp_path)
    read: list[str] = []
    monkeypatch.setattr(outlines, "unseal", lambda path: read.append(path.name) or sealing.unseal(path))
    with state.lock():
        state.commit(10, tasks("ABCDEFGHIJK"), tensors(11))
    assert {f"{number:06d}.json" for number in range(4, 10)}.isdisjoint(read)
    for path in sorted((tmp_path / "generations").glob("*.json")):
        assert state._store.outlines.read(path) == outlines.Outlines().read(path)


def test_damage_is_noticed_where_the_tasks_are_known(tmp_path: Path) -> None:
    state, path = learned(tmp_path, "ABCD"), tmp_path / "generations" / "000003.json"
    whole = path.read_bytes()
    listed = state._store.outlines.tasks
    assert outlines._outline_by(listed, path) == outlines.Outlines().read(path)
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert outlines._outline_by(listed, path) is None or at >= len(whole) - 1, whole[at - 9 : at + 9]
    for raw in (
        {"more": {"tasks": [json.loads(one.texts[0]) for one in listed[:2]]}, "tasks": []},
        {"tasks": [], "more": {"tasks": [json.loads(one.texts[0]) for one in listed[:2]]}},
        {"tasks": {"tasks": [json.loads(one.texts[0]) for one in listed[:2]]}},
    ):
        path.write_bytes(seal(raw))
        assert outlines._outline_by(listed, path) is None
    for content in (
        b"",
        b"{",
        b'"tasks":[',
        whole[:-20],
        whole.replace(b'"tasks":[', b'"task":['),
        b'["tasks":[]]',
    ):
        path.write_bytes(content)
        assert outlines._outline_by(listed, path) is None
    path.unlink()
    assert outlines._outline_by(listed, path) is None


def test_what_was_committed_is_what_is_read(tmp_path: Path) -> None:
    """The process that wrote it does not read it again: it must not know it otherwise than the next one does."""
    state = learned(tmp_path, "ABC")
    again = state_at(tmp_path)
    assert state.load().tasks == again.load().tasks
    for store in (state, again):
        store.records()
    path = tmp_path / "generations" / "000003.json"
    written = state._store.outlines.read(path)
    assert again._store.outlines.read(path) == written
    assert json.loads(written.last) == json.loads(path.read_bytes())["tasks"][-1]


def test_scores_begin_a_state_under_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes may begin a state at once, for two bundles: the second must not overwrite what the first said."""
    folder = tmp_path / "state"
    begun = []

    def written(path: Path, content: bytes) -> None:
        if path.name == "state.json":
            with pytest.raises(StateLockedError):
                StateLock(folder).__enter__()
            begun.append(path)
        replace_file(path, content)

    monkeypatch.setattr(state_identity, "replace_file", written)
    state_at(folder).save_scores(0, {"base": {"task": 50.0}})
    assert len(begun) == 1
    assert state_at(folder).load_scores() == {0: {"base": {"task": 50.0}}}


def test_scores_are_not_kept_while_somebody_else_begins_the_state(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with StateLock(folder):
        state_at(folder).save_scores(0, {"base": {"task": 50.0}})
    assert sorted(path.name for path in folder.iterdir()) == ["lock"]
