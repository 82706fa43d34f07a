"""The label check against plain refits, binomial tails of another kind, and labels that are really wrong."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import Learner, Task, TaskError
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.label_check import (
    LEVEL,
    LabelEvidence,
    _at_most,
    class_evidence,
    held_out_scores,
    table_evidence,
)
from csk_sdk.method.novelty import novelty


@pytest.mark.parametrize(("pictures", "features"), [(40, 7), (20, 60)], ids=["more images", "more features"])
def test_held_out_scores_are_those_of_refits(pictures: int, features: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(3.0, 2.0, (pictures, features)).astype(np.float32)
    targets, weights = np.eye(3)[rng.integers(3, size=pictures)], rng.random(pictures) + 0.5
    folds = np.arange(pictures) % 5
    found = held_out_scores(x, targets, weights, folds)
    scaled = np.concatenate([(x - x.mean(0)) / x.std(0), np.ones((pictures, 1))], axis=1)
    share = weights / weights.mean()
    ridge = 0.3 * np.sum(share[:, None] * scaled**2) / pictures
    for fold in range(5):
        rest, out = folds != fold, folds == fold
        gram = (scaled[rest].T * share[rest]) @ scaled[rest] + ridge * np.eye(features + 1)
        head = np.linalg.solve(gram, (scaled[rest].T * share[rest]) @ targets[rest])
        np.testing.assert_allclose(found[out], scaled[out] @ head, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("trials", "probability"), [(12, 0.28), (50, 0.6), (200, 0.1)])
def test_binomial_tail(trials: int, probability: float) -> None:
    for successes in (0, trials // 3, trials - 1, trials):
        exact = sum(
            comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(successes + 1)
        )
        assert _at_most(successes, trials, probability) == pytest.approx(exact, rel=1e-9)


def test_labels_without_meaning_score_as_guessing_does() -> None:
    rng = np.random.default_rng(0)
    for classes, pictures in ((2, 10), (5, 20), (10, 50)):
        accuracies = [
            class_evidence(
                rng.normal(size=(classes * pictures, 30)).astype(np.float32),
                rng.permutation(np.repeat(np.arange(classes), pictures)),
                classes,
            ).accuracy
            for _ in range(60)
        ]
        # 60 means of 20 to 500 images: three standard errors.
        margin = 3 * np.sqrt((1 - 1 / classes) / classes / (60 * classes * pictures)) + 0.01
        assert abs(np.mean(accuracies) - 1 / classes) < margin


def test_labels_just_useful_enough_are_hardly_ever_refused() -> None:
    rng = np.random.default_rng(0)
    limit = LabelEvidence(0.0, 0.1, 100).useful
    assert limit == pytest.approx(0.28)
    refused = [LabelEvidence(rng.binomial(100, limit) / 100, 0.1, 100.0).refuted for _ in range(4000)]
    assert np.mean(refused) < LEVEL + 3 * np.sqrt(LEVEL / 4000)


def test_few_pictures_refute_nothing() -> None:
    assert not LabelEvidence(0.0, 0.5, 4.0).refuted
    assert not class_evidence(np.ones((3, 4), np.float32), np.arange(3), 3).refuted


@pytest.mark.parametrize("images", [4, 60])
def test_of_images_that_are_all_the_same_no_labels_tell_anything(images: int) -> None:
    labels = np.arange(images) % 2
    same = np.tile(np.random.default_rng(0).normal(size=20), (images, 1))
    noise = 1e-8 * np.random.default_rng(1).normal(size=same.shape)
    for features in (same, same + noise, np.zeros_like(same)):
        evidence = class_evidence(features.astype(np.float32), labels, 2)
        assert (evidence.accuracy, evidence.chance, evidence.refuted) == (0.5, 0.5, True)
    same[labels == 1] += 1.0
    assert not class_evidence(same.astype(np.float32), labels, 2).refuted


def test_a_camera_that_sees_nothing_teaches_nothing(learner: Learner) -> None:
    images, labels = np.zeros((60, 8, 8), np.uint8), np.arange(60) % 2
    with pytest.raises(TaskError, match="guessing"):
        learner.learn(Task.from_arrays("01", images, labels, ["one", "other"]))
    assert learner.generation.number == 0


def test_rare_classes_count_as_much_as_frequent_ones() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [180, 20])
    x = rng.normal(size=(200, 5)).astype(np.float32)
    blind = class_evidence(x, labels, 2)
    assert 0.35 < blind.accuracy < 0.65
    assert blind.pictures == pytest.approx(4 / (1 / 180 + 1 / 20))
    x[:, 0] += 6 * labels
    assert class_evidence(x, labels, 2).accuracy > 0.97


def test_a_table_is_as_good_as_its_columns_together() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 8)).astype(np.float32)
    labels = (x[:, :3] > 0).astype(np.float32)
    assert table_evidence(x, labels).accuracy > 0.9
    shuffled = table_evidence(x, rng.permutation(labels))
    assert shuffled.refuted
    # Three columns of the same images are no more evidence than the images.
    assert shuffled.pictures < 201
    assert not table_evidence(x, np.ones((200, 2), np.float32)).refuted


def test_novelty_is_one_for_what_is_known_and_large_for_noise() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    means = rng.normal(scale=5.0, size=(3, 6))
    labels = rng.integers(3, size=3000)
    x = (means[labels] + rng.normal(size=(3000, 6)) @ mixing).astype(np.float32)
    known = ClassStatistics.empty(6).add(x[:2000], labels[:2000], "abc")
    near = novelty(known, x[2000:])
    assert near == pytest.approx(1.0, abs=0.15)
    far = novelty(known, x[2000:] + 20 * rng.normal(size=(1000, 6)).astype(np.float32))
    assert far is not None
    assert far > 5
    assert novelty(ClassStatistics.empty(6).add(x[:40], labels[:40], "abc"), x) is None


# A device


def shuffled(digits: Digits) -> Task:
    images, labels = digits.arrays((4, 5, 6, 7), 0, 60)
    labels = np.random.default_rng(0).permutation(labels)
    return Task.from_arrays("01", images, labels, [NAMES[digit] for digit in (4, 5, 6, 7)])


def test_shuffled_labels_are_refused_and_nothing_is_committed(learner: Learner, digits: Digits) -> None:
    with pytest.raises(
        TaskError, match=r"labels of task '01' look wrong: .* guessing in 25 %.*--no-label-check"
    ):
        learner.learn(shuffled(digits))
    assert learner.generation.number == 0
    assert learner.state.load_progress() is None
    config = learner.config.with_overrides(label_check=False, epochs=1)
    assert learner.learn(shuffled(digits), config).generation == 1


def test_a_stream_of_shuffled_labels_is_refused(learner: Learner, digits: Digits) -> None:
    task = shuffled(digits)
    config = learner.config.with_overrides(sensitivity_batches=10)

    def feed() -> None:
        assert task.train is not None
        with learner.stream("01", task.classes, config) as stream:
            for start in range(0, 240, 20):
                pictures = [task.train.images.read(index) for index in range(start, start + 20)]
                stream.observe(pictures, task.train.labels[start : start + 20])

    with pytest.raises(TaskError, match="look wrong"):
        feed()
    assert learner.generation.number == 0


def test_true_labels_pass(digits_bundle: object, digits: Digits, tmp_path: object) -> None:
    for pictures in (5, 60):
        state = tmp_path / str(pictures)  # type: ignore[operator]
        learner = open_learner(digits_bundle, state, epochs=1)  # type: ignore[arg-type]
        report = learner.learn(digits.task("01", (4, 5, 6, 7), train=pictures))
        assert report.generation == 1
        assert report.warnings == ()
