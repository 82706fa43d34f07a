"""Does it learn? Real handwriting, small budgets, and every way to hand a task over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner, write_pictures
from csk_sdk import Inbox, Learner, Progress, TaskError, TrainingConfig
from csk_sdk.state import State
from learner.knowing import HELD_OUT, accuracy, same_tensors


@pytest.mark.slow
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
    ids=["larger than the task", "last of one image", "exactly one", "single images", "one image a class"],
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
    learner.learn(digits.task("01", (4, 5)), TrainingConfig(threads=1, epochs=1, train="centers"))
    assert (learner.tasks[0].epochs, learner.tasks[0].config["epochs"], learner.config.epochs) == (1, 1, 4)


@pytest.mark.slow
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
