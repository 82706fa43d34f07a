"""How often the network looks at a task's images, and that it makes no difference where it looks less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import Digits, build_digits_bundle, open_learner
from csk_sdk import Task
from csk_sdk.bundle.folder import Bundle
from csk_sdk.learning import consolidation, training
from csk_sdk.method.heads import ClassStatistics, Shrunk
from csk_sdk.method.logistic import known_head, logistic_head
from csk_sdk.network import knowledge
from csk_sdk.network.knowledge import FeatureExtractor, Tensors
from csk_sdk.objectives.classification import PRIOR_PICTURES

SETTINGS = {"few_shot": 0, "train": "centers", "epochs": 1, "threads": 1, "max_forgetting": 100.0}


def learned(
    bundle: Path, state: Path, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensors, list[int]]:
    """The tensors after `tasks`, and how many passes for features each took, moments and steps not counted."""
    passes = [0]

    class Counted(FeatureExtractor):
        def __init__(self, *given: object, **named: object) -> None:
            super().__init__(*given, **named)  # type: ignore[arg-type]
            passes[-1] += 1

    for module in (consolidation, knowledge):
        monkeypatch.setattr(module, "FeatureExtractor", Counted)
    learner = open_learner(bundle, state)
    for task in tasks:
        learner.learn(task, SETTINGS)
        passes.append(0)
    return dict(learner.generation.tensors), passes[:-1]


def test_features_as_they_were_are_kept_where_they_are_few_and_looked_at_again_where_not(
    digits_bundle: Path, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [digits.task("01", (4, 5)), digits.task("02", (6, 7))]
    kept, passes = learned(digits_bundle, tmp_path / "kept", tasks, monkeypatch)
    # Behind the first task the network is the bundle's own no more.
    first = passes[0]
    assert passes == [first, first + 1]
    monkeypatch.setattr(training, "_BEFORE_BYTES", 0)
    again, passes = learned(digits_bundle, tmp_path / "again", tasks, monkeypatch)
    # Of a first task, what it contributes is counted in the pass over the features as they were.
    assert passes == [first + 1, first + 2]
    assert kept.keys() == again.keys()
    for name, tensor in kept.items():
        assert np.array_equal(tensor, again[name]), name


@pytest.mark.parametrize(("count", "turned"), [(10, 40), (35, 60), (55, 0)])
def test_of_few_images_a_head_sees_some_mirrored_too(
    count: int, turned: int, base_data: Path, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred in all, and none where they are more; beside what is known of the base, and of the task itself."""
    bundle = build_digits_bundle(tmp_path / "bundle", base_data=base_data, flip=True)
    opened = Bundle.open(bundle)
    everything = FeatureExtractor(opened, opened.checkpoint(), 1)
    images, labels = digits.arrays((4, 5, 6, 7), 0, count)
    assert len(images) == 4 * count
    mirrored: list[int] = []

    class Counted(FeatureExtractor):
        def __call__(self, batch: np.ndarray) -> np.ndarray:
            mirrored.append(len(batch))
            return super().__call__(batch)

    monkeypatch.setattr(consolidation, "FeatureExtractor", Counted)
    learner = open_learner(bundle, tmp_path / "state", few_shot=10**6)
    learner.learn(Task.from_arrays("01", images, labels, ["four", "five", "six", "seven"]))
    assert sum(mirrored) == turned

    order = np.random.default_rng(0).permutation(len(images))
    own, other = (everything(opened.preprocessing(some[order])) for some in (images, images[:, :, ::-1]))
    chosen = [k * len(images) // turned for k in range(turned)]
    shown = labels[order]
    sample, answers = np.concatenate([own, other[chosen]]), np.concatenate([shown, shown[chosen]])
    found = learner.generation.tensors
    shrunk = Shrunk.of(ClassStatistics.from_tensors(found), PRIOR_PICTURES)
    assert shrunk is not None
    weight, bias = known_head(logistic_head(sample, answers, 4), sample, answers, shrunk)
    np.testing.assert_allclose(found["head/01/weight"], weight, atol=1e-3 * np.abs(weight).max())
    np.testing.assert_allclose(found["head/01/bias"], bias, atol=1e-3 * np.abs(bias).max())


def test_what_is_known_is_decomposed_once_in_a_first_lesson_and_twice_in_a_second(
    base_data: Path, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind other lessons, a task's own head is beside the base alone, and decisions are over all that is known."""
    bundle = build_digits_bundle(tmp_path / "bundle", base_data=base_data)
    roots = [0]
    of = Shrunk.of.__func__

    def counted(cls: type[Shrunk], *given: object, **named: object) -> Shrunk | None:
        roots[-1] += 1
        return of(cls, *given, **named)

    monkeypatch.setattr(Shrunk, "of", classmethod(counted))
    learner = open_learner(bundle, tmp_path / "state", few_shot=10**6)
    for task in (digits.task("01", (4, 5)), digits.task("02", (6, 7))):
        roots.append(0)
        learner.learn(task)
    assert roots[1:] == [1, 2]
