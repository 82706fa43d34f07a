"""How often the network looks at a task's images while centers are trained, and that it makes no difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import Digits, open_learner
from csk_sdk import Task
from csk_sdk.learning import consolidation, training
from csk_sdk.network.knowledge import FeatureExtractor, Tensors

SETTINGS = {"few_shot": 0, "epochs": 1, "threads": 1, "max_forgetting": 100.0}


def learned(
    bundle: Path, state: Path, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensors, list[int]]:
    """The tensors after `tasks`, and how many passes for features each took, moments and steps not counted."""
    passes = [0]

    class Counted(FeatureExtractor):
        def __init__(self, *given: object, **named: object) -> None:
            super().__init__(*given, **named)  # type: ignore[arg-type]
            passes[-1] += 1

    for module in (consolidation, training):
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
    assert passes == [first + 2, first + 2]
    assert kept.keys() == again.keys()
    for name, tensor in kept.items():
        assert np.array_equal(tensor, again[name]), name
