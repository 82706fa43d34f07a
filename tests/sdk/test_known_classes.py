"""Classes that are known already: one column each, old and new images in balance, and better at the new kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import Learner, Task
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.known_classes import MOST, KnownClasses


def statistics(count: int, offset: float, classes: tuple[str, ...] = ("a", "b")) -> ClassStatistics:
    rng = np.random.default_rng(count)
    labels = np.arange(count * len(classes)) % len(classes)
    x = (rng.normal(size=(len(labels), 3)) + offset + labels[:, None]).astype(np.float32)
    return ClassStatistics.empty(3).add(x, labels, classes)


@pytest.mark.parametrize("pictures", [40, 4, 200, 400])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_new_pictures_of_known_classes_count_like_the_old_ones(pictures: int, scale: float) -> None:
    rng = np.random.default_rng(1)
    known = KnownClasses(("b", "new"), statistics(200, 0.0))
    assert known.names == ("b",)
    labels = np.repeat([0, 1], pictures)
    x = rng.normal(size=(2 * pictures, 3)).astype(np.float32)
    for part in np.array_split(rng.permutation(2 * pictures), 3):
        known.add(x[part], labels[part])
    found = known.balance(ClassStatistics.empty(3).add(x, labels, ("b", "new")), scale)
    factor = max(1.0, min(MOST, 200 / (scale * pictures)))
    weights = scale * np.where(labels == 0, factor, 1.0)
    np.testing.assert_allclose(found.gram, (x.T * weights) @ x.astype(np.float64), rtol=1e-6)
    np.testing.assert_allclose(found.counts, [scale * factor * pictures, scale * pictures])
    np.testing.assert_allclose(found.sums[0], scale * factor * x[labels == 0].sum(0), rtol=1e-4, atol=1e-4)


def test_where_nothing_is_known_nothing_is_weighed() -> None:
    known = KnownClasses(("x", "y"), statistics(50, 0.0))
    fresh = statistics(10, 1.0, ("x", "y"))
    known.add(np.ones((2, 3), np.float32), np.array([0, 1]))
    assert known.names == ()
    assert known.balance(fresh).counts.tolist() == fresh.counts.tolist()


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
