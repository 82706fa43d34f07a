"""A device whose tasks lie in blocks knows, through its whole life, what one without blocks does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Digits, open_learner
from csk_sdk import Learner, verify
from csk_sdk.state import blocks

# With heads alone, as most devices learn; nothing may take part that depends on time.
SETTINGS: dict[str, Any] = {"few_shot": 10**6, "threads": 1}
TASKS = {"01": (4, 5), "02": (6, 7), "03": (8, 9)}


def knows(learner: Learner, digits: Digits) -> dict[str, Any]:
    """All of it, but for what a lesson took."""
    generation = learner.state.load()
    plain = {"seconds": 0.0, "peak_rss_bytes": 0}
    answers = learner.predict(digits.arrays(tuple(range(10)), 0, 20)[0])
    return {
        "number": generation.number,
        "hidden": generation.hidden,
        "tasks": [replace(one, **plain) for one in generation.tasks],
        "tensors": {name: (one.shape, one.tobytes()) for name, one in sorted(generation.tensors.items())},
        "answers": (answers.classes, answers.probabilities.tobytes()),
    }


def life(learner: Learner, digits: Digits) -> Iterator[str]:
    """Everything that commits."""
    for name, chosen in TASKS.items():
        learner.learn(digits.task(name, chosen))
        yield f"learned {name}"
    learner.learn(digits.task("04", (4, 6)), replace=True)
    yield "corrected"
    learner.rename("five", "cinq")
    yield "renamed"
    learner.merge("cinq", "nine")
    yield "merged"
    learner.rollback("03")
    yield "rolled back"
    learner.learn(digits.task("05", (4, 9)), replace=False)
    yield "learned again"
    learner.forget("six")
    yield "forgotten"
    learner.learn(digits.task("06", (6, 1)))
    yield "learned what was forgotten"
    learner.forget(task="01")
    yield "a task forgotten"


@pytest.fixture
def lives(
    digits_bundle: Path, tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], list[tuple[str, dict[str, Any]]]]:
    def lived(block_classes: int) -> list[tuple[str, dict[str, Any]]]:
        monkeypatch.setattr(blocks, "BLOCK_CLASSES", block_classes)
        state = tmp_path / f"state-{block_classes}"
        learner = open_learner(digits_bundle, state, **SETTINGS)
        found = []
        for what in life(learner, digits):
            assert verify(digits_bundle, state, repair=True).ok, what
            listed = list((state / "blocks").glob("*.safetensors"))
            assert bool(listed) == (block_classes < 100) or what == "learned 01", what
            # One file of each block that has a copy may be lost.
            for path in (state / "blocks").glob("*.copy.safetensors"):
                if what in ("learned 03", "merged"):
                    path.with_name(path.name.replace(".copy", "")).unlink()
            found.append((what, knows(open_learner(digits_bundle, state, **SETTINGS), digits)))
        return found

    return lived


@pytest.mark.parametrize("block_classes", [2, 4])
def test_it_knows_what_one_without_blocks_knows(
    lives: Callable[[int], list[tuple[str, dict[str, Any]]]], block_classes: int
) -> None:
    for (what, with_blocks), (_, without) in zip(lives(block_classes), lives(10**6), strict=True):
        for part in without:
            assert with_blocks[part] == without[part], (what, part)


def test_of_what_was_forgotten_no_file_knows(
    digits_bundle: Path, tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CLASSES", 2)
    learner = open_learner(digits_bundle, tmp_path / "state", **SETTINGS)
    for name, chosen in TASKS.items():
        learner.learn(digits.task(name, chosen))
    generation = learner.state.load()
    place = bytes(generation.tensors["statistics.classes"]).decode().split('"')[1::2].index("six")
    mean = generation.tensors["statistics.means"][place].astype(np.float32).tobytes()

    def held() -> bytes:
        return b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())

    before = held()
    assert mean in before
    assert b"six" in before
    learner.forget("six")
    after = held()
    assert mean not in after
    assert b"six" not in after
    assert verify(digits_bundle, tmp_path / "state").ok
