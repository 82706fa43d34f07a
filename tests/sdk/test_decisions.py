"""What a lesson expects of itself, against classes whose confusion is known, and against decisions made one by one."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
import pytest

from csk_sdk.config import TrainingConfig
from csk_sdk.errors import TaskError
from csk_sdk.learning.acceptance import not_told, told_alike, twins_to_part
from csk_sdk.method.decisions import Expected, Judgement, Recognised, Twin, expected_of, judge
from csk_sdk.method.heads import ClassStatistics, Shrunk
from csk_sdk.method.left_out import JudgedImages

PRIOR = 100.0


def judged(
    apart: float, count: int = 400, old: int = 4000, seed: int = 0, right: dict[str, float] | None = None
) -> Judgement:
    """Two old classes far from each other, and a new one `apart` standard deviations from the first."""
    rng = np.random.default_rng(seed)
    means = np.array([[0.0, 0, 0], [40.0, 0, 0]])
    x = rng.normal(size=(2 * old, 3)) + np.repeat(means, old, axis=0)
    known = ClassStatistics.empty(3).add(x.astype(np.float32), np.repeat([0, 1], old), ("a", "b"))
    new = (rng.normal(size=(count, 3)) + np.array([0, apart, 0])).astype(np.float32)
    labels = np.zeros(count, np.int64)
    now = known.merge(ClassStatistics.empty(3).add(new, labels, ("n",)))
    images = JudgedImages.of(now, new, labels, ("n",), Shrunk.of(now, PRIOR))
    assert images is not None
    return judge(now, images, ("n",), (), ("a", "b"), rng, right)


@pytest.mark.parametrize("apart", [1.0, 2.0, 4.0])
def test_of_gaussian_classes_it_is_the_known_share(apart: float) -> None:
    # Halfway between both means; made-up images are 1.5 times as wide.
    found = judged(apart)
    assert found.expected["n"].all_classes == pytest.approx(_phi(apart / 2), abs=0.06)
    assert found.lost == pytest.approx(0.5 - 0.5 * _phi(apart / 2 / 1.5), abs=0.04)


def test_twins_are_those_that_cannot_be_told_apart() -> None:
    for seed in range(5):
        (twin,) = judged(0.0, 60, seed=seed).twins.items()
        assert (twin[0], twin[1].old) == ("n", "a")
        assert not judged(3.0, 60, seed=seed).twins
    assert not judged(0.0, 9).twins, "too few to say"


def two_classes(apart: float, count: int, seed: int = 0) -> Judgement:
    """Of two new classes, `apart` standard deviations from each other."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], count)
    x = (rng.normal(size=(2 * count, 3)) + np.outer(labels, [apart, 0, 0])).astype(np.float32)
    known = ClassStatistics.empty(3).add(x, labels, ("m", "n"))
    images = JudgedImages.of(known, x, labels, ("m", "n"), Shrunk.of(known, PRIOR))
    assert images is not None
    return judge(known, images, ("m", "n"), (), (), rng)


def test_classes_of_a_task_may_be_twins_of_each_other() -> None:
    for seed in range(5):
        for count in (20, 200):
            assert two_classes(0.0, count, seed).alike == (("m", "n"),)
            assert two_classes(3.0, count, seed).alike == ()
    one = two_classes(0.0, 20)
    assert one.without((), one).alike == one.alike
    assert told_alike(one, "image")[0].startswith("'m' and 'n' cannot be told apart by these images: ")
    many = Judgement({}, {}, alike=(("a", "b"), ("a", "c"), ("b", "c"), ("c", "d")))
    assert told_alike(many, "signal")[0].startswith(
        "'a' and 'b', 'a' and 'c', 'b' and 'c', ... cannot be told apart by these signals: "
    )
    assert told_alike(None, "image") == told_alike(Judgement({}, {}), "image") == ()


def test_a_twin_takes_no_more_of_a_learned_class_than_was_right_before() -> None:
    made_up = judged(0.0).twins["n"].taken
    assert made_up == pytest.approx(0.5, abs=0.05), "of what is made up here, all is right before"
    half = judged(0.0, right={"a": 0.5, "b": 0.1}).twins["n"]
    assert half.taken == pytest.approx(0.5 * made_up, abs=1e-3)
    assert judged(0.0, right={"b": 0.1}).twins["n"].taken == made_up
    assert judged(0.0, right={"a": 0.0}).twins["n"].taken == 0.0


def test_how_often_learned_classes_were_right_is_what_the_last_lesson_says() -> None:
    said = [
        Judgement({"n": Expected(0.5, 0.9), "m": Expected(0.25, 0.9)}, {}).to_json(),
        {},
        Judgement({"n": Expected(0.75, 0.9)}, {}).to_json(),
    ]
    assert Recognised(said) == {"n": 0.75, "m": 0.25}
    # Nobody checks what a record says of this.
    for wrong in (None, [], "0.5", True, -0.1, 1.1, {"share": 0.5}):
        assert Recognised([{"classes": {"n": {"all_classes": wrong}}}]) == {}
    for wrong in (None, [], {"n": 0.5}, {"n": []}):
        assert Recognised([{"classes": wrong}]) == {}


def test_what_is_left_out_of_decisions() -> None:
    one = Judgement({"n": Expected(0.5, 0.9), "m": Expected(0.4, 0.9)}, {"n": Twin("a", 0.4, 0.6)}, 0.2)
    config = TrainingConfig(max_forgetting=39.0)
    assert twins_to_part(one, config, "t", ("n", "m")) == ("n",)
    assert twins_to_part(one, TrainingConfig(max_forgetting=41.0), "t", ("n", "m")) == ()
    assert twins_to_part(None, config, "t", ("n",)) == ()
    with pytest.raises(TaskError, match="Task 't' teaches 'n', which cannot be told from 'a': 40 %"):
        twins_to_part(one, config, "t", ("n",))
    then = one.without(("n",), Judgement({"m": Expected(0.6, 0.9)}, {}, 0.05))
    assert then.expected == {"n": Expected(0.0, 0.9, "a", 0.6), "m": Expected(0.6, 0.9)}
    assert (then.lost, then.twins) == (0.05, one.twins)
    assert one.without(("n",), None).lost == 0.0


def test_a_lesson_that_nothing_shows_of_is_warned_of() -> None:
    lost = Judgement({"n": Expected(0.0, 0.8), "m": Expected(0.3, 0.9)}, {})
    (said,) = not_told(lost, ())
    assert said.startswith(
        "among all classes only 15 % of the task's images would be named right, though 85 %"
    )
    assert not_told(Judgement({"n": Expected(0.0, 0.5), "m": Expected(0.3, 0.6)}, {}), ()) == ()
    assert not_told(Judgement({"n": Expected(0.3, 0.9), "m": Expected(0.3, 0.9)}, {}), ()) == ()
    assert not_told(lost, ("n",)) == not_told(None, ()) == ()


def test_names_in_a_record_change_with_the_classes() -> None:
    said = Judgement(
        {"n": Expected(0.5, 0.9, "m", 0.5), "m": Expected(0.4, 0.9, "a", 0.3)}, {}, 0.2
    ).to_json()
    assert expected_of(said, {"m": "k"})["classes"]["n"]["confused"] == "k"
    gone = expected_of(said, {"m": None})
    assert set(gone["classes"]) == {"n"}
    assert (gone["classes"]["n"]["confused"], gone["classes"]["n"]["share"]) == ("", 0.0)
    assert gone["old"] == said["old"]
    # Of two that become one, what was taken for the other is right.
    (one,) = expected_of(said, {"n": "one", "m": "one"})["classes"].values()
    assert (one["all_classes"], one["confused"], one["share"]) == (0.4, "a", 0.3)
    alone = expected_of({"classes": {"n": said["classes"]["n"]}}, {"m": "n"})["classes"]["n"]
    assert (alone["all_classes"], alone["confused"], alone["share"]) == (1.0, "", 0.0)
    told = {"n": {"all_classes": "most", "share": None, "confused": "m"}}
    assert expected_of({"classes": told}, {"m": "n"})["classes"]["n"]["all_classes"] == 0.0
    assert expected_of({}, {"m": None}) == {}


def _phi(z: float) -> float:
    return 0.5 * (1.0 + erf(z / sqrt(2.0)))
