"""The lessons of benchmarks/decisions.py are what they say, and decision 0035's tables are of its results."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY))

from benchmarks.decision_lessons import LOOKS, Lesson, lessons, task_of
from benchmarks.decisions import changed
from benchmarks.decisions_page import Compared, mcnemar, page, verdicts
from benchmarks.decisions_streams import ALL, OWN, of_streams

STREAMS = json.loads((REPOSITORY / "docs/results/continual.json").read_text(encoding="utf-8"))["runs"]
RESULTS = json.loads((REPOSITORY / "docs/results/decisions.json").read_text(encoding="utf-8"))
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)


def of(chosen: str, more: int, fewer: int, base: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    counts = {"all": [more, fewer], "task": [more, fewer], "base": list(base)}
    return {"chosen": chosen, "tested": 1000, "base_tested": 1000, "changed": counts}


def test_the_page_is_written_from_the_results() -> None:
    text = (REPOSITORY / "docs/decisions/0035-train.md").read_text(encoding="utf-8")
    assert page(text, RESULTS, STREAMS) == text


def test_what_was_measured_is_the_list_as_far_as_it_went() -> None:
    """Of the lessons of every known class, and of all others, none is left out in front of the last."""
    listed = [(one.base, one.name, one.images) for one in lessons()]
    assert len(set(listed)) == len(listed)
    every = {(one.base, one.name, one.images) for one in lessons() if one.kind == "every"}
    for seed in {one["seed"] for one in RESULTS}:
        measured = [(one["base"], one["lesson"], one["images"]) for one in RESULTS if one["seed"] == seed]
        for kind in (every, set(listed) - every):
            of_kind = [one for one in measured if one in kind]
            assert of_kind == [one for one in listed if one in kind][: len(of_kind)]


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_is_of_as_many_images_and_another_one(name: str) -> None:
    before = IMAGES.copy()
    seen = LOOKS[name](IMAGES, np.random.default_rng(1))
    assert seen.shape == IMAGES.shape
    assert seen.dtype == np.uint8
    assert (seen != IMAGES).any()
    assert np.array_equal(before, IMAGES)


@pytest.mark.parametrize("look", ["handwritten digits", "drawn letters"])
def test_no_image_of_a_far_lesson_is_learned_and_tested(look: str) -> None:
    task = task_of(Lesson("", "far", 20, look), (), (), None, 1)  # type: ignore[arg-type]
    assert np.bincount(task.train.labels).tolist() == [20] * 10
    assert len(task.test.labels) >= 1000
    trained, tested = ({image.tobytes() for image in part.images} for part in (task.train, task.test))
    assert not trained & tested


def test_answers_that_changed_are_counted() -> None:
    heads, centers = np.array([True, True, False, False]), np.array([True, False, True, True])
    assert changed(heads, centers) == [2, 1]


def test_mcnemar_is_the_binomials_tails() -> None:
    assert mcnemar(0, 0) == mcnemar(4, 4) == 1.0
    assert mcnemar(0, 3) == mcnemar(3, 0) == pytest.approx(0.25)
    assert mcnemar(30, 10) == pytest.approx(0.00222, abs=1e-5)


def test_a_lesson_is_right_where_the_better_way_was_chosen() -> None:
    better = Compared.of(of("centers", 30, 10), ("all",))
    assert (better.gain, better.clear, better.is_better("centers"), better.is_better("heads")) == (
        2.0,
        True,
        True,
        False,
    )
    assert Compared.of(of("heads", 20, 10), ("all",)).clear is False, (
        "it differs by a point, and may by chance"
    )
    both = Compared.of(of("centers", 30, 10, (0, 40)), ("all", "base"))
    assert both.gain == -1.0
    assert not both.is_better("centers")


def test_rules_are_counted_over_the_lessons_that_differ() -> None:
    found = [of("centers", 40, 10), of("heads", 40, 10), of("heads", 10, 40), of("centers", 5, 4)]
    assert "| 4 | a point | 3 | 2 of 3 (67 %) | 2 of 3 (67 %) | 1 of 3 (33 %) |" in verdicts(found)


def test_a_task_of_a_stream_is_of_the_way_that_was_chosen_and_the_other() -> None:
    def run(method: str, epochs: int, new: float) -> dict[str, Any]:
        scenarios = {name: {"accuracy_matrix": [[90.0, None], [89.0, new]]} for name in (OWN, ALL)}
        gain = {"likelihood": 0.002, "sure": 2.5, "done": 0.2}
        run = {"protocol": "p", "seed": 0, "method": method, "tasks": ["01"], "epochs_trained": [epochs]}
        return {**run, "gains": [gain], "scenarios": scenarios}

    heads, centers = run("ours-heads", 0, 70.0), run("ours-centers", 4, 72.0)
    for auto, other, chosen in ((centers, heads, "centers"), (heads, centers, "heads")):
        (found,) = of_streams([{**auto, "method": "ours-auto"}, other])
        assert (found.chosen, found.gains) == (chosen, {OWN: 2.0, ALL: 2.0})
        assert found.right(OWN, chosen) == (chosen == "centers")
        assert (found.way(0.011), found.way(0.01)) == ("heads", "centers")
    assert of_streams([{**heads, "method": "ours-auto"}, heads]) == [], "nothing to compare it with"


def test_the_readme_says_what_centers_add() -> None:
    readme = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    gains = [Compared.of(one, ("all",)).gain for one in RESULTS if one["kind"] == "every"]
    assert (f"{np.mean(gains):.0f}", f"{max(gains):.0f}") == ("1", "3")
    assert "a point, three at most, where all known classes are learned behind a worse camera" in readme
