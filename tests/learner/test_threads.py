"""One learner, several threads: each call ends on the generation that it began with."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from conftest import Digits, open_learner
from csk_sdk import Learner, Prediction, StateLockedError
from csk_sdk.network.export import export_model
from csk_sdk.network.knowledge import FeatureExtractor
from csk_sdk.state import State

FIRST, SECOND = (4, 5), (6, 7)


@pytest.fixture
def learner(digits_bundle: Path, tmp_path: Path, digits: Digits) -> Learner:
    """One task is learned."""
    learner = open_learner(digits_bundle, tmp_path / "state", epochs=1, label_check=False)
    learner.learn(digits.task("01", FIRST))
    return learner


@pytest.fixture
def pictures(digits: Digits) -> np.ndarray:
    """More than go through the network at once."""
    return digits.images[:150][..., None]


def once(before: Callable[[], object], method: Callable[..., Any]) -> Callable[..., Any]:
    """`method`, and before its first call something else, in another thread, to its end."""
    waiting = [before]

    def called(*arguments: Any, **named: Any) -> Any:
        if waiting:
            in_another_thread(waiting.pop())
        return method(*arguments, **named)

    return called


def in_another_thread(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def same(one: Prediction, other: Prediction) -> bool:
    return one.classes == other.classes and np.array_equal(one.probabilities, other.probabilities)


MOMENTS = {
    "when it asks which generation is current": (State, "head"),
    "when it reads that generation": (State, "load"),
    "between two batches": (FeatureExtractor, "told"),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("change", ["learn", "rollback"])
def test_a_prediction_is_one_generations(
    learner: Learner,
    pictures: np.ndarray,
    digits: Digits,
    moment: str,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = learner.predict(pictures)
    task = digits.task("02", SECOND)

    def other() -> None:
        if change == "learn":
            learner.learn(task)
        else:
            learner.rollback("base")

    if moment == "when it reads that generation":
        learner._held = None  # as another thread's learn leaves it
    where, name = MOMENTS[moment]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, once(other, getattr(where, name)))
        during = learner.predict(pictures)
    after = learner.predict(pictures)
    assert len(after.classes) == (8 if change == "learn" else 4)
    assert same(during, before) or (moment != "between two batches" and same(during, after))


def test_a_prediction_that_learning_overtakes(
    learner: Learner, pictures: np.ndarray, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread has dropped the opened generation, and not committed another."""
    before = learner.predict(pictures)
    begun, go_on = threading.Event(), threading.Event()

    def progress(_: object) -> None:
        begun.set()
        assert go_on.wait(60)

    head = State.head
    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
        waiting, learning = [1], list[Any]()

        def asked(self: State) -> int:
            # The other thread asks, too.
            if waiting and waiting.pop():
                learning.append(pool.submit(learner.learn, digits.task("02", SECOND), None, progress))
                assert begun.wait(60)
            return head(self)

        patch.setattr(State, "head", asked)
        try:
            during = learner.predict(pictures)
        finally:
            go_on.set()
        assert learning[0].result().generation == 2
    assert same(during, before)
    assert len(learner.predict(pictures).classes) == 8


def test_an_evaluation_and_an_export_are_one_generations(
    learner: Learner, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = digits.task("01", FIRST)
    expected = learner.evaluate([task]).matrix.to_json()
    learner.export(tmp_path / "expected.onnx")
    with monkeypatch.context() as patch:
        second = lambda: learner.learn(digits.task("02", SECOND))  # noqa: E731
        patch.setattr(FeatureExtractor, "__call__", once(second, FeatureExtractor.__call__))
        assert learner.evaluate([task]).matrix.to_json() == expected
    learner.rollback("01")
    with monkeypatch.context() as patch:
        back = lambda: learner.rollback("base")  # noqa: E731
        patch.setattr(
            "csk_sdk.learner.export_model",
            once(back, export_model),
        )
        learner.export(tmp_path / "found.onnx")
    assert learner.generation.number == 0
    assert (tmp_path / "found.onnx").read_bytes() == (tmp_path / "expected.onnx").read_bytes()


def test_threads_share_one_graph(
    learner: Learner, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first opens it."""
    predictor = learner.predictor()
    predictor.release()
    opened: list[FeatureExtractor] = []
    init = FeatureExtractor.__init__
    with ThreadPoolExecutor(1) as pool:

        def opening(self: FeatureExtractor, *arguments: Any, **named: Any) -> None:
            opened.append(self)
            if len(opened) == 1:
                later.append(pool.submit(predictor.features, pictures[:2]))
            init(self, *arguments, **named)

        later: list[Any] = []
        monkeypatch.setattr(FeatureExtractor, "__init__", opening)
        predictor.features(pictures[:2])
        later[0].result()
    assert len(opened) == 1


def writers(learner: Learner, digits: Digits) -> Iterator[Callable[[], object]]:
    other = Learner(learner.bundle, State.open(learner.state.folder, learner.bundle.id, {}), learner.config)
    for one in (learner, other):
        yield lambda one=one: one.learn(digits.task("03", (8, 9)))
        yield lambda one=one: one.rollback("base")
        yield lambda one=one: one.stream("03", ["a", "b"]).__enter__()


def test_a_second_writer_is_told_in_one_sentence(learner: Learner, digits: Digits) -> None:
    """On the same learner, and on another of the same state, in another thread and in this one."""
    told: list[str] = []

    def progress(_: object) -> None:
        if told:
            return
        for write in writers(learner, digits):
            for run in (in_another_thread, lambda work: work()):
                with pytest.raises(StateLockedError) as caught:
                    run(write)
                told.append(str(caught.value))

    learner.learn(digits.task("02", SECOND), on_progress=progress)
    assert len(told) == 12
    assert set(told) == {told[0]}
    assert told[0].startswith("This process (pid ")
    assert told[0].endswith(
        f"is writing to {learner.state.folder}. Wait for it to finish, or stop it; nothing was changed."
    )
    assert [task.name for task in learner.tasks] == ["01", "02"]


@pytest.mark.slow
def test_life_in_threads(learner: Learner, pictures: np.ndarray, digits: Digits, tmp_path: Path) -> None:
    """Learning, going back, predicting, evaluating and exporting at once: nothing torn, no error but the lock's."""
    task = digits.task("01", FIRST)
    other = open_learner(learner.bundle.folder, learner.state.folder)
    known = {len(learner.predict(pictures).classes): learner.predict(pictures)}
    over = threading.Event()

    def reading(work: Callable[[], object]) -> int:
        count = 0
        while not over.is_set() or not count:
            work()
            count += 1
        return count

    def predict(by: Learner) -> None:
        found = by.predict(pictures)
        expected = known.setdefault(len(found.classes), found)
        assert same(found, expected)

    def export() -> None:
        path = tmp_path / "model.onnx"
        learner.export(path)
        session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        assert session.get_outputs()[0].shape[1] in (6, 8)

    def write() -> None:
        for _ in range(3):
            learner.learn(digits.task("02", SECOND))
            learner.rollback("01")

    with ThreadPoolExecutor(5) as pool:
        readers = [
            pool.submit(reading, lambda: predict(learner)),
            pool.submit(reading, lambda: predict(other)),
            pool.submit(reading, lambda: learner.evaluate([task], "class")),
            pool.submit(reading, export),
        ]
        try:
            pool.submit(write).result()
        finally:
            over.set()
        assert all(reader.result() > 0 for reader in readers)
    assert {6} <= set(known) <= {6, 8}


def test_a_state_that_was_begun_anew_is_not_what_it_was(
    learner: Learner, digits_bundle: Path, digits: Digits, pictures: np.ndarray
) -> None:
    learner.predict(pictures)
    folder = learner.state.folder
    shutil.rmtree(folder)
    other = open_learner(digits_bundle, folder, epochs=1, label_check=False)
    other.learn(digits.task("02", SECOND))
    assert learner.state.head() == 1, "the number is the same"
    assert learner.tasks == other.tasks
    assert same(learner.predict(pictures), other.predict(pictures))
