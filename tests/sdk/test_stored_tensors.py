"""Tensors left in their file: read when they are asked for, and not kept."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Digits, open_learner
from csk_sdk import BundleError, Progress, StateError, TrainingConfig
from csk_sdk.bundle.folder import Bundle
from csk_sdk.formats.stored_tensors import JoinedTensors, StoredTensors, several
from csk_sdk.learning.training import TaskTraining
from csk_sdk.state import State
from csk_sdk.state.tensorfile import packed
from csk_sdk.workspace.folder import Workspace
from sdk.stored_states import same

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b/c": np.array([[0.1]]),
    "names": np.frombuffer(b"xyz", np.uint8),
    "numbers": np.array([1, -2], np.int64),
    "none": np.zeros((0, 4), np.float32),
    "scalar": np.array(2.5),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "t.safetensors").write_bytes(packed(TENSORS, {"a": "text"}))
    return tmp_path / "t.safetensors"


def test_they_are_those_of_the_file(path: Path) -> None:
    stored = StoredTensors(path)
    assert set(stored) == set(TENSORS)
    assert len(stored) == len(TENSORS)
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(stored[name], tensor)
        assert (stored[name].dtype, stored[name].shape) == (tensor.dtype, tensor.shape)
    with pytest.raises(KeyError):
        stored["d"]


@pytest.mark.parametrize("left_out", [(), ("b/c",), ("a", "numbers"), tuple(TENSORS)])
def test_several_at_once_are_what_each_is(path: Path, left_out: tuple[str, ...]) -> None:
    wanted = [name for name in reversed(TENSORS) if name not in left_out]
    stored = StoredTensors(path)
    found = several(stored, wanted)
    assert sorted(found) == sorted(wanted)
    for name in wanted:
        np.testing.assert_array_equal(found[name], stored[name])
        assert (found[name].dtype, found[name].shape) == (stored[name].dtype, stored[name].shape)
    assert set(several(TENSORS, wanted)) == set(wanted)
    with pytest.raises(KeyError):
        several(stored, ["d"])


def test_several_are_missed_where_the_file_was_cut(path: Path) -> None:
    stored = StoredTensors(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StateError, match="it was cut short"):
        stored.several(TENSORS)


def test_each_reading_is_an_array_of_its_own(path: Path) -> None:
    stored = StoredTensors(path)
    stored["a"][:] = 7
    np.testing.assert_array_equal(stored["a"], TENSORS["a"])


def test_the_file_stays_what_it_was_when_another_takes_its_place(path: Path) -> None:
    stored = StoredTensors(path)
    path.unlink()
    path.write_bytes(packed({"a": np.ones(1)}))
    np.testing.assert_array_equal(stored["a"], TENSORS["a"])


def test_what_cannot_be_read_is_said(path: Path) -> None:
    with pytest.raises(StateError, match=r"absent.safetensors cannot be read \(.*No such file"):
        StoredTensors(path.with_name("absent.safetensors"))
    stored = StoredTensors(path, BundleError)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 8)
    with pytest.raises(BundleError, match=r"t.safetensors cannot be read \(it was cut short\)"):
        [stored[name] for name in stored]
    with pytest.raises(StateError, match=r"t.safetensors cannot be read \(its tensors take"):
        StoredTensors(path)
    path.write_bytes(packed({"half": np.zeros(2, np.float16)}))
    with pytest.raises(StateError, match=r"cannot be read \(tensor 'half' is F16"):
        StoredTensors(path)


def test_a_state_closes_the_file_of_the_generation_that_is_learned_on(tmp_path: Path) -> None:
    base = tmp_path / "base.safetensors"
    base.write_bytes(packed({"t": np.zeros(3)}))
    state = State.open(tmp_path / "state", "bundle", lambda: StoredTensors(base, BundleError))
    for committed in (0.0, 1.0):
        with state.lock(), state.opened() as generation:
            np.testing.assert_array_equal(generation.tensors["t"], np.full(3, committed))
            state.commit(generation.number, (), {"t": np.full(3, committed + 1)})
            # What is open stays what it was.
            np.testing.assert_array_equal(generation.tensors["t"], np.full(3, committed))
        with pytest.raises(ValueError, match="closed file"):
            generation.tensors["t"]
    np.testing.assert_array_equal(state.load().tensors["t"], np.full(3, 2.0))
    np.testing.assert_array_equal(state.load(0).tensors["t"], np.zeros(3))


class Watched(Mapping[str, NDArray[Any]]):
    """The tensors, and which of the arrays that were handed out are still in memory."""

    def __init__(self, inner: Mapping[str, NDArray[Any]]) -> None:
        self._inner = inner
        self._given: list[tuple[str, weakref.ref[NDArray[Any]]]] = []

    def __getitem__(self, name: str) -> NDArray[Any]:
        found = self._inner[name]
        self._given.append((name, weakref.ref(found)))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)

    def alive(self) -> list[str]:
        return [name for name, one in self._given if one() is not None]


def test_a_task_keeps_none_of_them_while_it_trains(digits_bundle: Path, digits: Digits) -> None:
    bundle = Bundle.open(digits_bundle)
    config = TrainingConfig(threads=1, learning_rate=0.05, max_forgetting=100.0)
    images, labels = digits.arrays((4, 5), 0, 16)
    batch = bundle.preprocessing(images), labels
    results = []
    for tensors in (Watched(bundle.stored_checkpoint()), bundle.checkpoint()):
        training = TaskTraining(bundle, tensors, ("four", "five"), config)
        training.warm_up(lambda: [batch])
        training.step(batch, 1.0)
        if isinstance(tensors, Watched):
            assert len(tensors._given) > len(bundle.manifest.sites)
            assert tensors.alive() == []
        training.step(batch, 1.0)
        results.append(training.consolidate("new", lambda: [batch]).tensors)
    stored, resident = results
    assert stored.keys() == resident.keys()
    for name, tensor in resident.items():
        assert stored[name].tobytes() == tensor.tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("through", ["Learner.open", "a workspace"])
def test_neither_does_a_learner(digits_bundle: Path, digits: Digits, tmp_path: Path, through: str) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state", epochs=1)
    if through == "a workspace":
        (tmp_path / "bundle").symlink_to(digits_bundle)
        learner = Workspace.open(tmp_path).learner(learner.config)
    for name, chosen in (("01", (4, 5)), ("02", (6, 7))):
        # Of generation 0 too, which is the bundle's checkpoint.
        kept = {key: weakref.ref(tensor) for key, tensor in learner.generation.tensors.items()}
        assert kept["statistics.scatter"]() is not None
        alive: list[str] = []

        def look(_: Progress, kept: Any = kept, alive: list[str] = alive) -> None:
            alive.extend(key for key, one in kept.items() if one() is not None)

        learner.learn(digits.task(name, chosen, train=16, test=4), on_progress=look)
        assert alive == []
    assert [task.name for task in learner.tasks] == ["01", "02"]


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    parts: list[Mapping[str, NDArray[Any]]] = [
        {"rows": np.arange(4.0).reshape(2, 2), "a": np.ones(2), "b": np.zeros(3), "hidden": np.ones(1)},
        {"rows": np.arange(6.0).reshape(3, 2), "c": np.array(5.0), "hidden": np.ones(1)},
        {"rows": np.arange(2.0).reshape(1, 2), "d": np.zeros((0, 4), np.float32)},
    ]
    for index, part in enumerate(parts):
        (tmp_path / str(index)).write_bytes(packed(part))
    *behind, last = [StoredTensors(tmp_path / str(index)) for index in range(3)]
    joined = JoinedTensors(behind, last, "hidden")
    assert set(joined) == {"rows", "a", "b", "c", "d"}
    assert len(joined) == 5
    expected = {**parts[0], **parts[1], **parts[2], "rows": np.concatenate([one["rows"] for one in parts])}
    del expected["hidden"]
    assert same({name: joined[name] for name in joined}, dict(expected))
    assert same(several(joined, ["d", "rows", "a"]), {name: expected[name] for name in ("a", "d", "rows")})
    with pytest.raises(KeyError):
        several(joined, ["hidden"])
    assert same(joined.resident(), dict(expected))
    with pytest.raises((StateError, ValueError)):
        joined["rows"]
    (tmp_path / "2").write_bytes(packed({"rows": np.ones((1, 3))}))
    *behind, last = [StoredTensors(tmp_path / str(index)) for index in range(3)]
    with pytest.raises(StateError, match="tensor 'rows' does not fit those in other files"):
        JoinedTensors(behind, last, "hidden")["rows"]
