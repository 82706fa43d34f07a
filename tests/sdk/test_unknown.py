"""How far an image is from all that is known, and which share of known images lies further."""

from __future__ import annotations

import json

import numpy as np
import pytest
from digit_products import digit_products
from sklearn.metrics import roc_auc_score

from csk_sdk.errors import StateError
from csk_sdk.method.heads import ClassStatistics, Shrunk, lda_head
from csk_sdk.method.left_out import JudgedImages, LeftOut
from csk_sdk.method.unknown import QUANTILES, Distance, Familiarity, Spread, distance, margins_of, measured

PRIOR = 100.0


@pytest.fixture(scope="module")
def digits():
    """Seven digits, 100 images of each, and all others."""
    return digit_products(7, 100)


def sketched(known, statistics, x, labels, classes):
    images = JudgedImages.of(statistics, x, labels, classes, Shrunk.of(statistics, PRIOR))
    return known if images is None else measured(known, statistics, images)


def knowing(x, labels, classes):
    statistics = ClassStatistics.empty(x.shape[1]).add(x, labels, classes)
    return statistics, sketched(None, statistics, x, labels, classes)


def judge(statistics, sketch):
    found = distance(statistics, sketch, lda_head(statistics, PRIOR))
    assert found is not None
    return found


def test_a_picture_is_left_out_of_what_judges_it() -> None:
    """Against a discriminant made again for every image, its diagonal and the noise given back as they were."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (9, 5, 14))
    x = (rng.standard_t(3, (28, 6)) + 2 * rng.normal(size=(3, 6))[labels]).astype(np.float32)
    statistics = ClassStatistics.empty(6).add(x, labels, "abc")
    shrunk = Shrunk.of(statistics, PRIOR)
    assert shrunk is not None
    judged = LeftOut.of(statistics, shrunk)
    exact = x.astype(np.float64)
    means = np.stack([exact[labels == c].mean(axis=0) for c in range(3)])
    within = sum(np.cov(exact[labels == c].T, bias=True) * np.sum(labels == c) for c in range(3)) / 25
    a = PRIOR / (25 + PRIOR)
    noise = np.trace(np.linalg.inv((1 - a) * within + a * np.diag(np.diag(within))) @ within)
    expected, odd = [], []
    for index, own in enumerate(labels):
        kept = np.arange(28) != index
        others = means.copy()
        others[own] = exact[kept & (labels == own)].mean(axis=0)
        scatter = sum(
            (exact[kept & (labels == c)] - others[c]).T @ (exact[kept & (labels == c)] - others[c]) for c in range(3)
        )  # fmt: skip
        inverse = np.linalg.inv((1 - a) * scatter / 25 + a * np.diag(np.diag(within)))
        logits = [
            exact[index] @ inverse @ mu - mu @ inverse @ mu / 2 + noise / 4 / count
            for mu, count in zip(others, (9, 5, 14), strict=True)
        ]
        expected.append(np.max(logits) - np.mean(logits))
        variance = np.diag(scatter) / 25 + others.var(axis=0)
        odd.append(np.minimum((exact[index] - others.mean(axis=0)) ** 2 / variance, 4).mean())
    np.testing.assert_allclose(margins_of(judged.logits(shrunk.whiten(exact), labels)), expected, rtol=1e-9)
    np.testing.assert_allclose(Spread.of(statistics).left_out(exact, labels), odd, rtol=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_of_other_pictures_of_known_classes_the_chosen_share_lies_further(digits, share) -> None:
    (x, labels), (tested, answers) = digits
    judged = judge(*knowing(x, labels, tuple("0123456")))
    beyond = np.mean(judged.of(tested[answers < 7]) > judged.limit(share))
    # 500 images: two standard deviations are 2 to 3.6 points.
    assert beyond == pytest.approx(share, abs=0.04)
    assert not np.any(judged.of(tested) > judged.limit(0.0))


def test_the_limit_is_a_quantile_of_all_pairs(digits) -> None:
    (x, labels), _ = digits
    judged = judge(*knowing(x, labels, tuple("0123456")))
    pairs = [
        a / b for own, odd in zip(judged.margins, judged.penalties, strict=True) for a in own for b in odd
    ]
    for share in (0.01, 0.05, 0.5, 1.0):
        assert judged.limit(share) == pytest.approx(1.0 / np.quantile(pairs, share), rel=1e-12)
        assert judged.limit(share) == judged.limit(share)


@pytest.mark.parametrize(("margin", "penalty"), [(0.1, 0.0), (0.1, 1.0), (3.0, 30.0), (1.0, 200.0)])
def test_the_limit_is_that_however_pairs_differ(margin, penalty) -> None:
    rng = np.random.default_rng(7)
    nothing = np.zeros((1, 1), np.float32)
    for classes in (2, 3, 40):
        shape = (classes, QUANTILES)
        margins = np.exp(rng.normal(0, margin, shape))
        penalties = np.exp(np.maximum(rng.normal(0, penalty, shape), 0.0))
        pairs = np.sort((margins[:, :, None] / penalties[:, None, :]).ravel())
        judged = Distance(nothing, nothing, nothing, nothing, 1.0, 1.0, margins, penalties)
        for place in (0, 1, QUANTILES - 1, QUANTILES, len(pairs) // 3, len(pairs) - 2):
            # Half way between two pairs.
            share = (place + 0.5) / (len(pairs) - 1)
            assert judged.limit(share) == pytest.approx(2.0 / (pairs[place] + pairs[place + 1]), rel=1e-9)


def test_it_stays_true_when_classes_are_added(digits) -> None:
    """The first four classes' part of the sketch is from when only they were known."""
    (x, labels), (tested, answers) = digits
    early, late = labels < 4, labels >= 4
    first, sketch = knowing(x[early], labels[early], tuple("0123"))
    both = first.add(x[late], labels[late] - 4, tuple("456"))
    sketch = sketched(sketch, both, x[late], labels[late] - 4, tuple("456"))
    assert sketch is not None
    assert sketch.classes == tuple("0123456")
    judged = judge(both, sketch)
    beyond = np.mean(judged.of(tested[answers < 7]) > judged.limit(0.1))
    assert beyond == pytest.approx(0.1, abs=0.04)


def test_what_was_never_taught_lies_further(digits) -> None:
    (x, labels), (tested, answers) = digits
    judged = judge(*knowing(x, labels, tuple("0123456")))
    unknown = answers >= 7
    assert roc_auc_score(unknown, judged.of(tested)) > 0.9
    noise = np.random.default_rng(0).uniform(0, 256, (200, x.shape[1])).astype(np.float32)
    for far in (noise, np.full((1, x.shape[1]), 255, np.float32)):
        assert (judged.of(far) > judged.limit(0.01)).all()


def test_distances_are_finite_and_above_zero(digits) -> None:
    (x, labels), _ = digits
    judged = judge(*knowing(x, labels, tuple("0123456")))
    extreme = np.array([[0.0], [1e-30], [1e30], [-1e30]], np.float32) * np.ones((1, x.shape[1]), np.float32)
    with np.errstate(over="ignore"):
        found = judged.of(extreme)
    assert np.isfinite(found).all()
    assert (found > 0.0).all()
    assert found.dtype == np.float32


def test_no_temperature_changes_it(digits) -> None:
    from dataclasses import replace

    (x, labels), (tested, _) = digits
    statistics, sketch = knowing(x, labels, tuple("0123456"))
    cooler = replace(statistics, temperature=5.0)
    one, other = judge(statistics, sketch), judge(cooler, sketch)
    np.testing.assert_allclose(one.of(tested), other.of(tested), rtol=1e-4)
    assert one.limit(0.05) == pytest.approx(other.limit(0.05), rel=1e-5)


def test_where_nothing_can_be_told_nothing_is_said() -> None:
    x = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32)
    alone = ClassStatistics.empty(5).add(x, np.zeros(8, np.int64), "a")
    assert sketched(None, alone, x, np.zeros(8, np.int64), "a") is None
    single = ClassStatistics.empty(5).add(x[:2], np.arange(2), "ab")
    assert sketched(None, single, x[:2], np.arange(2), "ab") is None
    same = ClassStatistics.empty(5).add(np.ones((4, 5), np.float32), np.arange(4) % 2, "ab")
    assert sketched(None, same, np.ones((4, 5), np.float32), np.arange(4) % 2, "ab") is None
    two = ClassStatistics.empty(5).add(x, np.arange(8) % 2, "ab")
    assert distance(two, None, lda_head(two, PRIOR)) is None
    # Of a class of one image nothing is kept, and it does not stand in the others' way.
    uneven = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    sketch = knowing(x, uneven, "abc")[1]
    assert sketch is not None
    assert sketch.classes == ("a", "b")


def test_a_class_of_which_nothing_was_measured_is_taken_for_like_the_others(digits) -> None:
    (x, labels), (tested, answers) = digits
    statistics = ClassStatistics.empty(x.shape[1]).add(x, labels, tuple("0123456"))
    late = labels >= 4
    # As in a state of an earlier version, whose fifth to seventh class were learned by this one.
    sketch = sketched(None, statistics, x[late], labels[late], tuple("0123456"))
    assert sketch is not None
    assert sketch.classes == ("4", "5", "6")
    judged = judge(statistics, sketch)
    assert np.mean(judged.of(tested[answers < 7]) > judged.limit(0.1)) == pytest.approx(0.1, abs=0.05)


def test_it_is_stored_and_read_back() -> None:
    rng = np.random.default_rng(3)
    margins, oddness = rng.uniform(0.1, 1.0, (2, 2, QUANTILES)).astype(np.float32)
    sketch = Familiarity(("é", "b"), margins, oddness)
    tensors = sketch.tensors()
    assert json.loads(tensors["familiarity.classes"].tobytes()) == ["é", "b"]
    read = Familiarity.from_tensors(tensors)
    assert read is not None
    assert read.classes == ("é", "b")
    np.testing.assert_array_equal(read.margins, margins)
    np.testing.assert_array_equal(read.oddness, oddness)
    assert Familiarity.from_tensors({}) is None
    merged = sketch.merge(Familiarity(("b", "c"), margins, oddness))
    assert merged.classes == ("é", "b", "c")
    for merged_table, table in ((merged.margins, margins), (merged.oddness, oddness)):
        np.testing.assert_array_equal(merged_table[0], table[0])
        np.testing.assert_allclose(merged_table[1], (table[1] + table[0]) / 2)
        np.testing.assert_array_equal(merged_table[2], table[1])


@pytest.mark.parametrize(
    "damage",
    [
        {"familiarity.oddness": None},
        {"familiarity.margins": np.ones((3, QUANTILES), np.float32)},
        {"familiarity.oddness": np.ones((1, QUANTILES - 1), np.float32)},
        {"familiarity.margins": np.zeros((1, QUANTILES), np.float32)},
        {"familiarity.oddness": np.full((1, QUANTILES), np.nan, np.float32)},
        {"familiarity.classes": np.frombuffer(b"[", np.uint8)},
        {"familiarity.classes": np.frombuffer(b"3", np.uint8)},
        {"familiarity.classes": np.frombuffer(b"[]", np.uint8)},
    ],
)
def test_a_sketch_that_does_not_fit_is_refused(damage) -> None:
    ones = np.ones((1, QUANTILES), np.float32)
    tensors = Familiarity(("a",), ones, ones).tensors() | damage
    with pytest.raises(StateError, match="the sketch of known images cannot be read"):
        Familiarity.from_tensors({name: one for name, one in tensors.items() if one is not None})


@pytest.mark.parametrize("pictures", [(5, 5, 5, 5), (3, 9, 4, 30), (2, 2, 90, 40)])
def test_the_margins_at_means_are_those_of_all_classes_with_all(pictures) -> None:
    """Where classes of fewer images stand above a class at its own mean, too: these lie close to each other."""
    rng = np.random.default_rng(sum(pictures))
    counts = np.repeat(pictures, 80)
    rng.shuffle(counts)
    names, labels = [str(row) for row in range(len(counts))], np.repeat(np.arange(len(counts)), counts)
    means = np.concatenate([0.05 * rng.normal(size=(200, 6)), 3 * rng.normal(size=(len(counts) - 200, 6))])
    x = (means[labels] + rng.normal(size=(len(labels), 6))).astype(np.float32)
    statistics = ClassStatistics.empty(6).add(x, labels, names)
    even = np.ones((len(names), QUANTILES), np.float32)
    weight, bias = lda_head(statistics, PRIOR)
    logits = statistics.means @ weight.astype(np.float64).T + bias.astype(np.float64)
    margins = logits.max(axis=1) - logits.mean(axis=1)
    above = np.mean(logits.argmax(axis=1) != np.arange(len(names)))
    assert above > 0.05 if len(set(pictures)) > 1 else above == 0.0
    found = distance(statistics, Familiarity(tuple(names), even, even), (weight, bias))
    assert found is not None
    np.testing.assert_allclose(found.margin, margins.mean(), rtol=1e-6)
    np.testing.assert_allclose(found.margins[:, 0], margins / margins.mean(), rtol=1e-5, atol=1e-6)
