"""What a class contributes: its sums made small, added up in one order, and taken out again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from csk_sdk.errors import StateError
from csk_sdk.method.contributions import DIRECTIONS, MIXTURES, Contribution, ContributionSum, Lesson, derived
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.known_classes import MOST

ROWS = DIRECTIONS + MIXTURES


def pictures(count: int, features: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(features, features)) * np.linspace(0.1, 2, features)
    return (rng.normal(size=(count, features)) @ mixed + 3).astype(np.float32)


def contribution(
    x: np.ndarray, at_once: int = 16, rows: tuple[int, int] = (DIRECTIONS, MIXTURES)
) -> Contribution:
    total = ContributionSum(x.shape[1], *rows)
    for start in range(0, len(x), at_once):
        total.add(x[start : start + at_once])
    return total.total()


def scatter(x: np.ndarray) -> np.ndarray:
    centered = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
    return centered.T @ centered


@pytest.mark.parametrize("at_once", [1, 7, 64, 1000])
def test_of_few_pictures_a_contribution_is_exact(at_once: int) -> None:
    x = pictures(ROWS - 1)
    found = contribution(x, at_once)
    assert found.count == len(x)
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.factor.T @ found.factor, scatter(x), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("count", [3, 20, ROWS, 200])
def test_no_row_is_a_pictures(count: int) -> None:
    x = pictures(count, 120)
    found = contribution(x)
    apart = (found.factor.astype(float) ** 2).sum(axis=1)
    for row in found.factor[apart > 1e-3 * apart.max()]:
        for sign in (1, -1):
            nearest = np.linalg.norm(x - (found.mean + sign * row), axis=1).min()
            assert nearest > 0.1 * np.linalg.norm(row)


@pytest.mark.parametrize("at_once", [13, 64, 1000])
def test_of_many_each_features_spread_is_exact_and_the_others_are_near(at_once: int) -> None:
    x = pictures(700, 120)
    found = contribution(x, at_once)
    assert found.factor.shape == (ROWS, 120)
    spread, exact = found.factor.astype(float).T @ found.factor, scatter(x)
    np.testing.assert_allclose(np.diag(spread), np.diag(exact), rtol=1e-4)
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-5)
    assert np.linalg.norm(spread - exact) < 0.4 * np.linalg.norm(exact)


def test_errors_of_mixtures_cancel_out_over_classes_and_those_of_directions_alone_add_up() -> None:
    parts = [pictures(200, 120, seed=seed) for seed in range(30)]
    exact = sum(scatter(part) for part in parts)

    def off(rows: tuple[int, int]) -> float:
        found = [contribution(part, rows=rows).factor.astype(float) for part in parts]
        return float(np.linalg.norm(sum(one.T @ one for one in found) - exact) / np.linalg.norm(exact))

    assert off((DIRECTIONS, MIXTURES)) < 0.5 * off((DIRECTIONS, 0))


def test_as_statistics_it_is_what_the_pictures_are() -> None:
    x = pictures(50)
    found = Lesson(("a",), {"a": contribution(x)}).after(ClassStatistics.empty(40))
    exact = ClassStatistics.empty(40).add(x, np.zeros(50, np.int64), ("a",))
    np.testing.assert_allclose(found.gram, exact.gram, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(found.sums, exact.sums, rtol=1e-5)
    twice = Lesson(("a",), {"a": contribution(x).scaled(2.0)}).after(ClassStatistics.empty(40))
    np.testing.assert_allclose(twice.gram, 2 * found.gram, rtol=1e-5, atol=1e-3)


def test_led_back_it_is_that_of_the_pictures_before() -> None:
    x, matrix = pictures(50), np.eye(40) + 0.1 * np.random.default_rng(1).normal(size=(40, 40))
    before = contribution(x)
    moved = contribution((x @ matrix.T).astype(np.float32))
    found = Lesson(("a", "b"), {"a": moved, "b": moved}).led_back(matrix).contributions["b"]
    np.testing.assert_allclose(found.mean, before.mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        found.factor.T @ found.factor, before.factor.T @ before.factor, rtol=1e-2, atol=0.5
    )


def lesson(*names: str, count: int = 30) -> Lesson:
    return Lesson(names, {name: contribution(pictures(count, seed=ord(name))) for name in names})


def test_what_is_left_of_a_sum_is_to_the_bit_the_sum_of_what_is_left() -> None:
    base = ClassStatistics.empty(40).add(pictures(60, seed=5), np.arange(60) % 2, ("x", "y"))
    first, second, third = lesson("a", "b"), lesson("c", "d"), lesson("e")
    without = replace(second, classes=("d",), contributions={"d": second.contributions["d"]})
    one_by_one = base
    for part in (first, without, third):
        # As a device learns: from what the generation before has stored.
        one_by_one = ClassStatistics.from_tensors(part.after(one_by_one).tensors())
    found = derived(base, [first, without, third])
    assert found.classes == ("x", "y", "a", "b", "d", "e")
    for name in ("gram", "sums", "counts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(one_by_one, name))


def test_new_pictures_of_a_known_class_count_like_the_old_ones() -> None:
    base = ClassStatistics.empty(40).add(pictures(400, seed=5), np.arange(400) % 2, ("a", "y"))
    found = lesson("a", "n", count=20).after(base)
    assert dict(zip(found.classes, found.counts, strict=True)) == {"a": 400, "y": 200, "n": 20}
    found = lesson("a", count=4).after(base)
    assert found.counts[0] == 200 + 4 * MOST


def test_the_first_temperature_counts() -> None:
    base = ClassStatistics.empty(40)
    lessons = [replace(lesson("a"), temperature=2.0), replace(lesson("b"), temperature=3.0)]
    assert derived(base, lessons).temperature == 2.0
    assert derived(base, lessons[1:]).temperature == 3.0


@pytest.mark.parametrize(
    "change", [{"mean": np.zeros(3, np.float32)}, {"count": np.zeros(2)}, {"factor": None}]
)
def test_what_is_no_contribution_is_refused(change: dict) -> None:
    tensors = contribution(pictures(5)).tensors() | change
    with pytest.raises(StateError, match="a contribution is not one over 40 features"):
        Contribution.from_tensors({k: v for k, v in tensors.items() if v is not None}, 40)


def test_a_contribution_comes_back_as_it_was() -> None:
    one = contribution(pictures(50)).scaled(1.5)
    again = Contribution.from_tensors(one.tensors(), 40)
    assert again.count == one.count == 75.0
    np.testing.assert_array_equal(again.mean, one.mean)
    np.testing.assert_array_equal(again.factor, one.factor)


def test_statistics_without_a_class() -> None:
    x, labels = pictures(300), np.arange(300) % 3
    known = ClassStatistics.empty(40).add(x, labels, ("a", "b", "c"))
    left = known.without(["b", "unknown"])
    assert left.classes == ("a", "c")
    np.testing.assert_array_equal(left.sums, known.sums[[0, 2]])
    # What all classes share of spread stays what it is.
    np.testing.assert_allclose(left.covariance(), known.covariance(), rtol=1e-6, atol=1e-8)
    assert known.without(["unknown"]) is known
    assert known.without(["a", "b", "c"]).classes == ()
