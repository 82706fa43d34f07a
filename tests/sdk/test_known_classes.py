"""Classes that are known already: one column each, old and new images in balance, and better at the new kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import Learner, Task
from csk_sdk.method import known_classes
from csk_sdk.method.heads import ClassStatistics, images_counted
from csk_sdk.method.known_classes import MOST, contradicted, known_among, times_counted, with_known_classes


def statistics(count: int, offset: float, classes: tuple[str, ...] = ("a", "b")) -> ClassStatistics:
    rng = np.random.default_rng(count)
    labels = np.arange(count * len(classes)) % len(classes)
    x = (rng.normal(size=(len(labels), 3)) + offset + labels[:, None]).astype(np.float32)
    return ClassStatistics.empty(3).add(x, labels, classes)


@pytest.mark.parametrize("pictures", [40, 4, 200, 400])
def test_new_pictures_of_known_classes_count_like_the_old_ones(pictures: int) -> None:
    rng = np.random.default_rng(1)
    old = statistics(200, 0.0)
    assert known_among(("b", "new"), old.counted) == ("b",)
    labels = np.repeat([0, 1], pictures)
    x = rng.normal(size=(2 * pictures, 3)).astype(np.float32)
    found = with_known_classes(old, x, labels, ("b", "new"))
    factor = max(1.0, min(MOST, 200 / pictures))
    assert times_counted({"b": pictures, "new": pictures}, old) == {"b": factor}
    weights = np.where(labels == 0, factor, 1.0)
    np.testing.assert_allclose(
        found.gram - old.gram, (x.T * weights) @ x.astype(np.float64), rtol=1e-5, atol=1e-3
    )
    np.testing.assert_allclose(found.counts, [200, 200 + factor * pictures, pictures])
    np.testing.assert_allclose(
        found.sums[1] - old.sums[1], factor * x[labels == 0].sum(0), rtol=1e-4, atol=1e-3
    )


def test_where_nothing_is_known_nothing_is_weighed() -> None:
    assert known_among(("x", "y"), images_counted(statistics(50, 0.0).tensors())) == ()
    assert times_counted({"x": 1, "y": 1}, statistics(50, 0.0)) == {}


CENTERS = 6.0 * np.eye(3, 8)


def around(*centers: np.ndarray, count: int = 40, seed: int = 1) -> np.ndarray:
    """Images around some centers, of spread 1."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(count, 8)) + center for center in centers]).astype(np.float32)


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ((CENTERS[1], CENTERS[0]), {"a": "b", "b": "a"}),
        ((CENTERS[0], CENTERS[1]), {}),
        ((CENTERS[2], CENTERS[1]), {"a": "c"}),
        # Nearest to another class, but unlike all of them.
        ((CENTERS[1] + 5.0, CENTERS[1]), {}),
    ],
)
def test_which_classes_are_contradicted(pictures: tuple[np.ndarray, ...], expected: dict[str, str]) -> None:
    known = ClassStatistics.empty(8).add(around(*CENTERS, seed=0), np.repeat([0, 1, 2], 40), ("a", "b", "c"))
    labels = np.repeat([0, 1], 40)
    found = contradicted(known, 10.0, around(*pictures), labels, ("a", "b"))
    assert {name: other for name, (other, _) in found.items()} == expected
    assert all(share > 0.9 for _, share in found.values())
    # Nothing is said of a class that is not known, nor of few images.
    assert contradicted(known, 10.0, around(*pictures), labels, ("new", "other")) == {}
    assert contradicted(known, 10.0, around(*pictures, count=4), np.repeat([0, 1], 4), ("a", "b")) == {}


def test_names_that_were_exchanged_are_a_contradiction_also_where_one_of_them_is_new() -> None:
    known = ClassStatistics.empty(8).add(around(*CENTERS, seed=0), np.repeat([0, 1, 2], 40), ("a", "b", "c"))
    labels = np.repeat([0, 1], 40)
    new = 6.0 * np.eye(8)[5]
    found = contradicted(known, 10.0, around(new, CENTERS[0]), labels, ("a", "new"))
    assert {name: other for name, (other, _) in found.items()} == {"new": "a"}
    # A new class that looks like a known one is the known one's twin, where that is taught as it is.
    assert contradicted(known, 10.0, around(CENTERS[0], CENTERS[0]), labels, ("a", "new")) == {}


def test_a_part_of_a_class_says_nothing() -> None:
    known = ClassStatistics.empty(8).add(around(*CENTERS, seed=0), np.repeat([0, 1, 2], 40), ("a", "b", "c"))
    x = np.concatenate([around(CENTERS[0], count=21), around(CENTERS[1], count=19)])
    assert contradicted(known, 10.0, x, np.zeros(40, np.int64), ("a",)) == {}


# A device


def inverted(digits: Digits, name: str, chosen: tuple[int, ...]) -> Task:
    images, labels = digits.arrays(chosen, 0, 40)
    return Task.from_arrays(name, 255 - images, labels, [NAMES[digit] for digit in chosen])


def accuracy(learner: Learner, digits: Digits, chosen: tuple[int, ...], invert: bool) -> float:
    images, labels = digits.arrays(chosen, 100, 170)
    found = learner.predict(255 - images if invert else images).labels
    return float(np.mean(found == np.array([NAMES[digit] for digit in chosen])[labels]))


def test_known_classes_are_updated_and_listed_once(learner: Learner, digits: Digits, tmp_path: Path) -> None:
    learner.learn(digits.task("01", (4, 5)))
    base = (0, 1, 2, 3)
    before = accuracy(learner, digits, base, invert=True)
    clean = accuracy(learner, digits, base, invert=False)
    report = learner.learn(inverted(digits, "02-inverted", (*base, 6)))
    assert report.known == NAMES[:4]
    assert report.classes == (*NAMES[:4], NAMES[6])
    # Each class once, those that are new last; in predictions, evaluations and exports.
    assert learner.classes == (*NAMES[:6], NAMES[6])
    images, _ = digits.arrays((0, 6), 100, 110)
    assert learner.predict(images).probabilities.shape == (20, 7)
    assert learner.head("02-inverted").classes == report.classes
    assert learner.head("base").classes == NAMES[:4]
    assert accuracy(learner, digits, base, invert=True) > max(before, 0.5) + 0.1
    assert accuracy(learner, digits, base, invert=False) > clean - 0.15
    learner.export(tmp_path / "model.onnx")
    again = open_learner(learner.bundle.folder, learner.state.folder)
    assert again.classes == learner.classes


def test_a_stream_updates_them_too(learner: Learner, digits: Digits) -> None:
    task = inverted(digits, "01", (0, 1))
    assert task.train is not None
    images = np.stack([task.train.images.read(index) for index in range(80)])
    before = learner.generation.tensors["statistics.counts"].copy()
    with learner.stream("01", task.classes) as stream:
        for part in np.array_split(np.random.default_rng(0).permutation(80), 5):
            stream.observe(images[part], task.train.labels[part])
    assert learner.classes == NAMES[:4]
    after = learner.generation.tensors["statistics.counts"]
    np.testing.assert_allclose(after - before, [40, 40, 0, 0], atol=1e-6)


@pytest.mark.parametrize(("count", "features"), [(40, 100), (60, 30), (400, 100)])
def test_other_images_of_a_class_lie_as_far_as_is_expected(count: int, features: int) -> None:
    """The covariance fits the images that it is made of too closely; others were taken for foreign ones."""
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(features, features)) / np.sqrt(features) + np.eye(features)
    means = 3 * rng.normal(size=(5, features))
    labels = np.repeat(np.arange(5), count)
    x = (means[labels] + rng.normal(size=(5 * count, features)) @ shape).astype(np.float32)
    known = ClassStatistics.empty(features).add(x, labels, "abcde")
    others = (means[2] + rng.normal(size=(2000, features)) @ shape).astype(np.float32)
    distance = known_classes._Distance.of(known, 100.0)
    assert distance is not None
    assert distance(others, "c") == pytest.approx(1.0, abs=0.25)
    assert distance(others + 2 * shape[0].astype(np.float32), "c") > distance(others, "c")
