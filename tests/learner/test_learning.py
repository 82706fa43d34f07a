"""Does it learn? Real handwriting, small budgets, and every way to hand a task over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner, write_pictures
from csk_sdk import Inbox, Learner, Progress, StateError, StateLockedError, Task, TaskError, TrainingConfig
from csk_sdk.predicting import Predictor
from csk_sdk.state import State
from csk_sdk.stream import TaskStream

HELD_OUT = 100, 170


def accuracy(learner: Learner, digits: Digits, chosen: tuple[int, ...], task: str | None = None) -> float:
    """Share of pictures that no test trains on whose class name is predicted."""
    images, labels = digits.arrays(chosen, *HELD_OUT)
    truth = np.array([NAMES[digit] for digit in chosen])[labels]
    return float(np.mean(learner.predict(images, task).labels == truth))


def batches(digits: Digits, chosen: tuple[int, ...], size: int = 16) -> list[tuple[np.ndarray, np.ndarray]]:
    images, labels = digits.arrays(chosen, 0, 40)
    order = np.random.default_rng(0).permutation(len(images))
    return [(images[part], labels[part]) for part in np.array_split(order, len(order) // size)]


def same_tensors(left: Learner, right: Learner) -> bool:
    first, second = left.generation.tensors, right.generation.tensors
    return first.keys() == second.keys() and all(first[k].tobytes() == second[k].tobytes() for k in first)


# Learning


@pytest.mark.parametrize(
    "optimizer", [{}, {"optimizer": "adamw", "learning_rate": 1e-3}], ids=["sgd", "adamw"]
)
def test_tasks_are_learned_and_nothing_is_forgotten(learner: Learner, digits: Digits, optimizer: Any) -> None:
    config = learner.config.with_overrides(**optimizer)
    assert learner.classes == NAMES[:4]
    base = accuracy(learner, digits, (0, 1, 2, 3))
    assert base > 0.95
    assert accuracy(learner, digits, (4, 5)) == 0.0
    for name, chosen in (("01", (4, 5)), ("02", (6, 7)), ("03", (8, 9))):
        report = learner.learn(digits.task(name, chosen), config)
        assert (report.task, report.classes, report.images) == (name, tuple(NAMES[d] for d in chosen), 80)
        assert report.generation == int(name)
        assert np.isfinite(report.loss)
        assert accuracy(learner, digits, chosen, name) > 0.8
        known = tuple(range(chosen[-1] + 1))
        assert learner.classes == NAMES[: chosen[-1] + 1]
        # Chance is 1 in 6, 8, 10.
        assert accuracy(learner, digits, known) > 0.75
    assert accuracy(learner, digits, (4, 5), "01") > 0.9
    assert accuracy(learner, digits, (0, 1, 2, 3), "base") > base - 0.05


def test_a_state_of_sums_as_they_were_stored_at_first_is_learned_on(
    learner: Learner, digits: Digits, tmp_path: Path
) -> None:
    """Earlier states and bundles: float64 sums of the features, and of `x x^T`, in place of means and scatter."""
    earlier = learner.bundle.checkpoint()
    counts, means = earlier["statistics.counts"], earlier.pop("statistics.means").astype(np.float64)
    spread = earlier.pop("statistics.scatter") + np.einsum("c,ci,cj->ij", counts, means, means)
    earlier |= {"statistics.sums": counts[:, None] * means, "statistics.gram": spread}
    state = State.open(tmp_path / "earlier", learner.bundle.id, earlier)
    with state.lock():
        state.commit(0, (), earlier)
    old = Learner(
        learner.bundle, State.open(tmp_path / "earlier", learner.bundle.id, earlier), learner.config
    )
    assert "statistics.gram" in old.generation.tensors
    for one in (learner, old):
        assert accuracy(one, digits, (0, 1, 2, 3)) > 0.95
        one.learn(digits.task("01", (4, 5)))
    assert old.generation.tensors.keys() == learner.generation.tensors.keys()
    for name, tensor in learner.generation.tensors.items():
        np.testing.assert_allclose(old.generation.tensors[name], tensor, rtol=1e-5, atol=1e-8, err_msg=name)
    images, _ = digits.arrays(tuple(range(6)), *HELD_OUT)
    np.testing.assert_array_equal(old.predict(images).labels, learner.predict(images).labels)


def test_a_task_with_base_digits_known_to_be_old_updates_their_statistics(
    learner: Learner, digits: Digits
) -> None:
    learner.learn(digits.task("01", (4, 5)))
    before = learner.generation.tensors["statistics.counts"]
    learner.learn(digits.task("02", (4, 6, 0)))
    after = learner.generation.tensors["statistics.counts"]
    assert learner.classes == (*NAMES[:4], "four", "five", "six")
    assert (after[:6] - before).tolist() == [40, 0, 0, 0, 40, 0]
    assert after[6] == 40
    assert learner.head("02").classes == ("four", "six", "zero")
    assert accuracy(learner, digits, (4, 6, 0), "02") > 0.9
    assert accuracy(learner, digits, tuple(range(7))) > 0.75


@pytest.mark.parametrize(
    ("train", "batch_size", "steps"),
    [(40, 500, 1), (8, 15, 2), (8, 16, 1), (3, 1, 6), (1, 4, 1)],
    ids=["larger than the task", "last of one image", "exactly one", "single images", "one picture a class"],
)
def test_batch_sizes(learner: Learner, digits: Digits, train: int, batch_size: int, steps: int) -> None:
    seen: list[Progress] = []
    config = learner.config.with_overrides(batch_size=batch_size, epochs=2)
    learner.learn(digits.task("01", (4, 5), train, 0), config, seen.append)
    assert [p.step for p in seen if p.phase == "train"] == list(range(1, 2 * steps + 1))
    assert all(p.steps == 2 * steps and p.epochs == 2 for p in seen if p.phase == "train")
    assert accuracy(learner, digits, (4, 5), "01") > (0.5 if train == 1 else 0.6)


def test_progress_tells_the_phases_in_order(learner: Learner, digits: Digits) -> None:
    seen: list[Progress] = []
    learner.learn(digits.task("01", (4, 5)), on_progress=seen.append)
    assert list(dict.fromkeys(p.phase for p in seen)) == ["check", "select", "train", "consolidate"]
    train = [p for p in seen if p.phase == "train"]
    assert [p.step for p in train] == list(range(1, 21))
    assert [p.epoch for p in train] == [1] * 5 + [2] * 5 + [3] * 5 + [4] * 5
    assert all(np.isfinite(p.loss) for p in train)


def test_training_lowers_the_loss_on_what_it_trains(learner: Learner, digits: Digits) -> None:
    losses: dict[int, float] = {}
    config = learner.config.with_overrides(epochs=8)
    learner.learn(digits.task("01", (4, 5, 6, 7, 8, 9)), config, lambda p: losses.update({p.epoch: p.loss}))
    assert losses[8] < 0.8 * losses[1]


def test_a_seed_decides_everything(digits_bundle: Path, tmp_path: Path, digits: Digits) -> None:
    first, second, other = (
        open_learner(digits_bundle, tmp_path / str(index), seed=seed) for index, seed in enumerate((3, 3, 4))
    )
    for one in (first, second, other):
        one.learn(digits.task("01", (4, 5)))
    assert same_tensors(first, second)
    assert not same_tensors(first, other)


def test_settings_may_be_those_of_one_task(learner: Learner, digits: Digits) -> None:
    learner.learn(digits.task("01", (4, 5)), TrainingConfig(threads=1, epochs=1))
    assert (learner.tasks[0].epochs, learner.tasks[0].config["epochs"], learner.config.epochs) == (1, 1, 4)


def test_folders_npz_files_and_arrays_are_the_same_task(
    digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    # Folders list their classes by name: "five" before "four".
    arrays = digits.task("01", (5, 4), test=0)
    digits.save(arrays, tmp_path / "npz")
    write_pictures(tmp_path / "folder" / "01" / "train", digits, (5, 4), 0, 40)
    learners = []
    for index, task in enumerate(
        (arrays, Inbox(tmp_path / "npz").open("01"), Inbox(tmp_path / "folder").open("01"))
    ):
        learners.append(open_learner(digits_bundle, tmp_path / str(index)))
        learners[-1].learn(task)
    assert same_tensors(learners[0], learners[1])
    assert same_tensors(learners[0], learners[2])


# Predicting


def test_pictures_of_any_size_and_color(learner: Learner, digits: Digits) -> None:
    small = digits.of(1, 100, 103)[0]
    large = np.kron(small, np.ones((5, 3), np.uint8))
    color = np.repeat(large[:, :, None], 3, axis=2)
    prediction = learner.predict([small, large, color, np.dstack([color, large])])
    assert prediction.labels.tolist() == ["one"] * 4
    assert prediction.probabilities.shape == (4, 4)
    assert prediction.probabilities.dtype == np.float32
    np.testing.assert_allclose(prediction.probabilities[2], prediction.probabilities[3], atol=1e-6)


def test_many_pictures_and_none(learner: Learner, digits: Digits) -> None:
    images, _ = digits.arrays((0, 1, 2, 3), 0, 170)
    together = learner.predict(images)
    one_by_one = np.concatenate([learner.predict(images[i : i + 1]).probabilities for i in range(0, 600, 37)])
    np.testing.assert_allclose(together.probabilities[0:600:37], one_by_one, atol=1e-4)
    for nothing in (images[:0], []):
        assert learner.predict(nothing).labels.shape == (0,)
        assert learner.predict(nothing).probabilities.shape == (0, 4)


def test_a_task_that_is_not_learned_cannot_be_asked(learner: Learner, digits: Digits) -> None:
    with pytest.raises(TaskError, match=r"^Task '01' is not learned\. Learned: base\.$"):
        learner.predict(digits.of(1, 0, 1), "01")


# Streams


def test_a_stream_learns_and_commits(learner: Learner, digits: Digits) -> None:
    with learner.stream(
        "01", ["four", "five"], learner.config.with_overrides(sensitivity_batches=2)
    ) as stream:
        losses = [
            stream.observe(list(images), labels.tolist()) for images, labels in 4 * batches(digits, (4, 5))
        ]
    assert losses[0] is None
    assert all(loss is not None for loss in losses[1:])
    assert [task.name for task in learner.tasks] == ["01"]
    assert (learner.tasks[0].images, learner.tasks[0].classes) == (320, ("four", "five"))
    assert accuracy(learner, digits, (4, 5), "01") > 0.9
    assert accuracy(learner, digits, tuple(range(6))) > 0.8
    assert learner.generation.tensors["statistics.counts"].sum() == 160 + 320


def test_a_short_stream_is_learned_when_it_ends(learner: Learner, digits: Digits) -> None:
    with learner.stream("01", ["four", "five"]) as stream:
        assert [stream.observe(*batch) for batch in batches(digits, (4, 5))] == [None] * 5
    assert accuracy(learner, digits, (4, 5), "01") > 0.9


def test_an_exception_in_a_stream_commits_nothing_and_frees_the_lock(
    learner: Learner, digits: Digits
) -> None:
    def learn_and_fail() -> None:
        with learner.stream("01", ["four", "five"]) as stream:
            for batch in batches(digits, (4, 5)):
                stream.observe(*batch)
            raise ZeroDivisionError

    def learn_one_class() -> None:
        with learner.stream("01", ["four", "five"]) as stream:
            stream.observe(digits.of(4, 0, 8), [0] * 8)

    def learn_without_the_third() -> None:
        with learner.stream("01", ["four", "five", "six"]) as stream:
            losses = [stream.observe(*batch) for _ in range(30) for batch in batches(digits, (4, 5))]
            assert losses[-1] is not None, "training has begun without waiting for ever"

    with pytest.raises(ZeroDivisionError):
        learn_and_fail()
    assert learner.tasks == ()
    with pytest.raises(TaskError, match="Task '01' saw no picture of 'six'; nothing was committed"):
        learn_without_the_third()
    with pytest.raises(TaskError, match="Task '01' saw no picture of 'five'; nothing was committed"):
        learn_one_class()
    assert learner.state.head() == 0
    learner.learn(digits.task("01", (4, 5)))


def test_a_refused_batch_leaves_no_trace_in_a_stream(
    learner: Learner, digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    other = open_learner(digits_bundle, tmp_path / "other")
    bad: list[tuple[Any, Any, str]] = [
        (digits.of(4, 0, 3), [0, 1], r"3 pictures came with labels of shape \(2,\)"),
        (digits.of(4, 0, 3), [0, 1, 2], "Labels run from 0 to 2, but there are 2 classes"),
        (digits.of(4, 0, 3), [0, 1, -1], "Labels run from -1 to 1"),
        (digits.of(4, 0, 3).astype(np.float32), [0, 1, 1], "The images are float32 and must be uint8"),
    ]
    with learner.stream("01", ["four", "five"]) as clean, other.stream("01", ["four", "five"]) as disturbed:
        for batch in batches(digits, (4, 5)):
            clean.observe(*batch)
            disturbed.observe(*batch)
            disturbed.observe(digits.of(4, 0, 0), [])
            for images, labels, message in bad:
                with pytest.raises(TaskError, match=message):
                    disturbed.observe(images, labels)
    assert same_tensors(learner, other)


@pytest.mark.parametrize("held", [1, 32], ids=["trained at once", "held back"])
def test_a_camera_may_reuse_its_buffer(
    learner: Learner, digits_bundle: Path, tmp_path: Path, digits: Digits, held: int
) -> None:
    other = open_learner(digits_bundle, tmp_path / "other")
    config = learner.config.with_overrides(sensitivity_batches=held)
    pictures, truth = np.empty((16, 8, 8), np.uint8), np.empty(16, np.int64)
    with (
        learner.stream("01", ["four", "five"], config) as fresh,
        other.stream("01", ["four", "five"], config) as reused,
    ):
        for images, labels in batches(digits, (4, 5)):
            fresh.observe(images, labels)
            pictures[:], truth[:] = images, labels
            reused.observe(pictures, truth)
            pictures[:], truth[:] = 0, 0
    assert same_tensors(learner, other)


def test_a_rare_class_survives_a_small_sample(learner: Learner, digits: Digits) -> None:
    config = learner.config.with_overrides(sensitivity_batches=1, learning_rate=0.01)
    stream = TaskStream(learner.bundle, learner.state, "01", ("four", "five"), config, reservoir=6)
    with stream:
        stream.observe(np.concatenate([digits.of(4, 0, 1), digits.of(5, 0, 1)]), [0, 1])
        for start in range(0, 100, 10):
            stream.observe(digits.of(5, start, start + 10), [1] * 10)
    assert learner.classes == NAMES[:6]
    counts = learner.generation.tensors["statistics.counts"]
    assert counts[4] > 0
    assert counts[4:].sum() == pytest.approx(102)
    learner.predict(digits.of(4, 100, 110))


def test_a_stream_and_another_learner_exclude_each_other(
    learner: Learner, digits_bundle: Path, digits: Digits
) -> None:
    other = open_learner(digits_bundle, learner.state.folder)
    late = other.stream("01", ["four", "five"])
    with learner.stream("01", ["four", "five"]) as stream:
        with pytest.raises(StateLockedError, match="This process"):
            other.learn(digits.task("02", (6, 7)))
        for batch in batches(digits, (4, 5)):
            stream.observe(*batch)
    with pytest.raises(TaskError, match="Task '01' is learned already"), late:
        pass
    other.learn(digits.task("02", (6, 7)))
    assert [task.name for task in learner.tasks] == ["01", "02"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["four"], "fewer than two classes"),
        ([], "fewer than two classes"),
        (["four", "five", "four"], "'four', and each class needs a name of its own"),
        (["four", ""], "'', and each class needs a name of its own"),
    ],
)
def test_classes_of_a_stream_are_checked_first(learner: Learner, classes: list[str], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        learner.stream("01", classes)


# Evaluating


def base_test(digits: Digits, tmp_path: Path) -> Task:
    write_pictures(tmp_path / "base" / "test", digits, (0, 1, 2, 3), 100, 120)
    return Task.from_folder(tmp_path / "base")


def test_accuracy_matrices_grow_by_a_row_per_task(learner: Learner, digits: Digits, tmp_path: Path) -> None:
    tasks = [base_test(digits, tmp_path), digits.task("01", (4, 5)), digits.task("02", (6, 7))]
    learner.evaluate(tasks)
    for task in tasks[1:]:
        learner.learn(task)
        learner.evaluate(tasks)
    for scenario in ("task", "class"):
        evaluation = learner.evaluate(tasks, scenario)
        raw = evaluation.to_json()
        matrix = raw["accuracy_matrix"]
        assert raw["scenario"] == f"{scenario}-incremental"
        assert raw["tasks"] == ["base", "01", "02"]
        assert [[value is not None for value in row] for row in matrix] == [
            [True, False, False],
            [True, True, False],
            [True, True, True],
        ]
        assert raw["acc"] == pytest.approx(np.mean(matrix[2]))
        earlier = [matrix[2][0] - matrix[0][0], matrix[2][1] - matrix[1][1]]
        assert raw["bwt"] == pytest.approx(np.mean(earlier))
        last = matrix[2]
        assert raw["accuracy"] == pytest.approx((80 * last[0] + 80 * last[1] + 80 * last[2]) / 240)
        assert {"acc", "bwt", "forgetting"} <= raw.keys()
    images, labels = digits.arrays((6, 7), 100, 140)
    hits = learner.predict(images, "02").labels == np.array(["six", "seven"])[labels]
    assert learner.evaluate(tasks).to_json()["accuracy_matrix"][2][2] == pytest.approx(100 * hits.mean())
    assert learner.evaluate(tasks).matrix.acc > 90


def test_without_test_pictures_of_the_base_the_matrix_begins_with_the_first_task(
    learner: Learner, digits: Digits
) -> None:
    with pytest.raises(TaskError, match=r"None of the learned tasks \(base\) has test pictures"):
        learner.evaluate([digits.task("01", (4, 5))])
    for name, chosen in (("01", (4, 5)), ("02", (6, 7))):
        learner.learn(digits.task(name, chosen))
    raw = learner.evaluate([digits.task("01", (4, 5)), digits.task("02", (6, 7))]).to_json()
    assert raw["tasks"] == ["01", "02"]
    assert raw["accuracy_matrix"][0] == [None, None]
    assert None not in raw["accuracy_matrix"][1]
    # Nobody measured after the first task, so forgetting is not known either.
    assert (raw["bwt"], raw["forgetting"]) == (None, None)


def test_measuring_while_another_learner_commits(
    learner: Learner, digits_bundle: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = digits.task("01", (4, 5))
    learner.learn(task)
    expected = learner.evaluate([task], "class").to_json()
    other = open_learner(digits_bundle, learner.state.folder)
    read = Predictor.features

    def disturbed(self: Predictor, images: Any) -> Any:
        if len(other.tasks) == 1:
            other.learn(digits.task("02", (6, 7)))
        return read(self, images)

    monkeypatch.setattr(Predictor, "features", disturbed)
    assert learner.evaluate([task], "class").to_json() == expected
    assert learner.tasks[-1].name == "02"


# Going back


def test_rollback_then_relearn(learner: Learner, digits: Digits) -> None:
    tasks = {name: digits.task(name, chosen) for name, chosen in (("01", (4, 5)), ("02", (6, 7)))}
    images = digits.arrays(tuple(range(8)), *HELD_OUT)[0]
    before = learner.predict(images).probabilities
    learner.learn(tasks["01"])
    after_first = learner.predict(images).probabilities
    learner.learn(tasks["02"])
    both = learner.generation.tensors
    assert learner.rollback("01").number == 1
    np.testing.assert_array_equal(learner.predict(images).probabilities, after_first)
    report = learner.learn(tasks["02"])
    assert (report.generation, report.resumed_at_step) == (3, 0)
    assert all(both[name].tobytes() == learner.generation.tensors[name].tobytes() for name in both)
    assert learner.rollback("base").number == 0
    np.testing.assert_array_equal(learner.predict(images).probabilities, before)
    with pytest.raises(StateError, match=r"has no generation of task '02'\. Known: base\."):
        learner.rollback("02")
    learner.learn(tasks["02"])
    assert [task.name for task in learner.tasks] == ["02"]


# Reading while another process writes

WRITER = """
import sys
from csk_sdk import Inbox, Learner, TrainingConfig
bundle, state, inbox = sys.argv[1:]
learner = Learner.open(bundle, state, TrainingConfig(threads=1, shift=1, epochs=12, learning_rate=0.05, few_shot=0))
for name in Inbox(inbox).names():
    learner.learn(Inbox(inbox).open(name))
"""


def test_a_reader_sees_whole_generations_while_another_process_trains(
    digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    images = digits.arrays(tuple(range(10)), 100, 104)[0]
    reference = open_learner(digits_bundle, tmp_path / "reference", epochs=12)
    expected = {len(reference.classes): reference.predict(images).probabilities}
    for name, chosen in (("01", (4, 5)), ("02", (6, 7)), ("03", (8, 9))):
        task = digits.task(name, chosen, test=0)
        digits.save(task, tmp_path / "tasks")
        reference.learn(task)
        expected[len(reference.classes)] = reference.predict(images).probabilities
    reader = open_learner(digits_bundle, tmp_path / "state")
    command = [
        sys.executable,
        "-c",
        WRITER,
        *map(str, (digits_bundle, tmp_path / "state", tmp_path / "tasks")),
    ]
    seen = set()
    with subprocess.Popen(command) as writer:
        while writer.poll() is None or not seen:
            prediction = reader.predict(images)
            np.testing.assert_array_equal(prediction.probabilities, expected[len(prediction.classes)])
            seen.add(len(prediction.classes))
    assert writer.returncode == 0
    assert len(seen) >= 2
    assert len(reader.predict(images).classes) == 10
    assert np.array_equal(reader.predict(images).probabilities, expected[10])


def test_a_predictor_stays_with_its_generation(learner: Learner, digits: Digits) -> None:
    images = digits.arrays((0, 4), 100, 110)[0]
    predictor, before = learner.predictor(), learner.predict(images)
    learner.learn(digits.task("01", (4, 5)))
    after = predictor.head().predict(predictor.features(images))
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    assert after.classes == before.classes != learner.predict(images).classes
