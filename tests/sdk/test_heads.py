import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from csk_sdk.errors import ConfigError, StateError, TaskError
from csk_sdk.method.heads import ClassStatistics, Means, Scatter, lda_head
from csk_sdk.state.tensorfile import packed

NAMES = ("ant", "bee", "cat", "dog", "élan")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def clouds(rng, counts, features=6, scale=1.0):
    """Positive, correlated features around one mean per class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    mixing = rng.normal(size=(features, features))
    means = rng.normal(size=(len(counts), features))
    x = scale * np.abs(means[labels] + 0.5 * rng.normal(size=(len(labels), features)) @ mixing + 2)
    order = rng.permutation(len(labels))
    return x[order].astype(np.float32), labels[order]


def statistics_of(x, labels, names=NAMES):
    classes = names[: labels.max() + 1]
    return ClassStatistics.empty(x.shape[1]).add(x, labels, classes)


def assert_same(actual: ClassStatistics, expected: ClassStatistics, rtol=1e-12):
    assert actual.classes == expected.classes
    for key in ("gram", "sums", "counts"):
        np.testing.assert_allclose(getattr(actual, key), getattr(expected, key), rtol=rtol, err_msg=key)


# --- statistics


def test_sums_are_those_of_the_definition(rng):
    x, labels = clouds(rng, [3, 2, 4])
    statistics = statistics_of(x, labels)
    np.testing.assert_allclose(statistics.gram, sum(np.outer(v, v) for v in x.astype(np.float64)))
    for index in range(3):
        np.testing.assert_allclose(statistics.sums[index], x[labels == index].astype(np.float64).sum(0))
    assert statistics.counts.tolist() == [3, 2, 4]
    assert statistics.classes == ("ant", "bee", "cat")
    assert {a.dtype for a in (statistics.gram, statistics.sums, statistics.counts)} == {np.dtype("f8")}


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=4), st.integers(0, 2**16))
def test_streaming_gives_what_one_shot_gives(cuts, seed):
    x, labels = clouds(np.random.default_rng(seed), [4, 1, 5])
    streamed = ClassStatistics.empty(x.shape[1])
    for part in np.split(np.arange(10), sorted(cuts)):
        streamed = streamed.add(x[part], labels[part], NAMES[:3])
    assert_same(streamed, statistics_of(x, labels))


def test_known_classes_are_updated_by_name_and_new_ones_appended(rng):
    x, labels = clouds(rng, [4, 4, 4])
    split = 6
    statistics = ClassStatistics.empty(6).add(x[:split], labels[:split], ("ant", "bee", "cat"))
    # The second batch numbers the same names differently, and brings one more.
    renumbered = np.array([3, 1, 0])[labels[split:]]
    statistics = statistics.add(x[split:], renumbered, ("cat", "bee", "dog", "ant"))
    assert statistics.classes == ("ant", "bee", "cat", "dog")
    expected = statistics_of(x, labels)
    np.testing.assert_allclose(statistics.sums[:3], expected.sums)
    assert statistics.counts.tolist() == [4, 4, 4, 0]


def test_a_change_is_a_new_object(rng):
    x, labels = clouds(rng, [2, 2])
    before = statistics_of(x, labels)
    kept = copy.deepcopy(before)
    before.add(x, labels, ("bee", "cat"))
    before.merge(before)
    assert_same(before, kept, rtol=0)


def test_merging_is_the_sum(rng):
    x, labels = clouds(rng, [3, 3, 3])
    parts = [
        ClassStatistics.empty(6).add(x[:4], labels[:4], NAMES[:3]),
        ClassStatistics.empty(6).add(x[4:], labels[4:], NAMES[:3]),
    ]
    assert_same(parts[0].merge(parts[1]), statistics_of(x, labels))
    with pytest.raises(StateError, match="over 6 and 5 features do not belong to one model"):
        parts[0].merge(ClassStatistics.empty(5))


def test_what_is_stored_is_what_is_added_to(rng):
    stored = statistics_of(*clouds(rng, [30, 20, 9])).tensors()
    read = ClassStatistics.from_tensors(stored)
    again = read.tensors()
    # To the bit: no lesson rounds anew what it leaves alone.
    for key, value in stored.items():
        np.testing.assert_array_equal(again[key], value, err_msg=key)
    x, labels = clouds(rng, [8])
    grown = read.merge(ClassStatistics.empty(6).add(x, labels, ("dog",)))
    apart = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(grown.scatter() - stored["statistics.scatter"], apart.T @ apart, rtol=1e-9)


def test_of_a_class_in_both_the_means_lie_apart(rng):
    x, labels = clouds(rng, [9, 8, 7])
    both = [
        ClassStatistics.empty(6).add(x[part], labels[part], NAMES[:3]) for part in (slice(10), slice(10, 24))
    ]
    kept = [replace(one, matrix=Scatter(one.scatter())) for one in both]
    as_means = [replace(one, totals=Means(one.means)) for one in kept]
    pairs = [(first, second) for first in (0, 1, 2) for second in (0, 1, 2) if first or second]
    forms = list(zip(both, kept, as_means, strict=True))
    for merged in (forms[0][first].merge(forms[1][second]) for first, second in pairs):
        assert_same(merged, statistics_of(x, labels), rtol=1e-10)
        np.testing.assert_allclose(merged.scatter(), both[0].merge(both[1]).scatter(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(merged.variances(), np.diag(merged.covariance()), rtol=1e-9)
        assert merged.energy == pytest.approx(np.trace(merged.gram))


def test_means_are_sums_that_were_divided(rng):
    """As a state stores them, and as images are added: the same in every question."""
    x, labels = clouds(rng, [9, 8, 7, 3])
    summed = statistics_of(x, labels)
    divided = replace(summed, matrix=Scatter(summed.scatter()), totals=Means(summed.means))
    assert_same(divided, summed)
    rows = np.array([2, 0])
    np.testing.assert_allclose(divided.means_of(rows), summed.means_of(rows), rtol=1e-12)
    np.testing.assert_allclose(
        summed.means_of(rows), [x[labels == row].mean(axis=0) for row in rows], rtol=1e-5
    )
    assert divided.features == 6
    assert divided.energy == pytest.approx(np.trace(summed.gram))
    assert_same(divided.scaled(3.0), summed.scaled(3.0), rtol=1e-9)
    assert_same(divided.without(["bee"]), summed.without(["bee"]), rtol=1e-9)
    assert_same(divided.named({"ant": "cat"}), summed.named({"ant": "cat"}), rtol=1e-9)
    for first, second in zip(lda_head(divided, 100.0), lda_head(summed, 100.0), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4)


def test_tensors_return_through_a_safetensors_file_with_means_rounded_to_float32(rng, tmp_path):
    x, labels = clouds(rng, [2, 3, 1, 1, 2])
    statistics = statistics_of(x, labels)
    (tmp_path / "s.safetensors").write_bytes(packed(statistics.tensors("a.")))
    tensors = load_file(tmp_path / "s.safetensors")
    assert {key: value.dtype.name for key, value in tensors.items()} == {
        "a.classes": "uint8", "a.scatter": "float64", "a.means": "float32", "a.counts": "float64",
    }  # fmt: skip
    exact = x.astype(np.float64)
    within = exact - np.stack([exact[labels == index].mean(axis=0) for index in range(5)])[labels]
    np.testing.assert_allclose(tensors["a.scatter"], within.T @ within, atol=1e-12)
    read = ClassStatistics.from_tensors(tensors, "a.")
    assert_same(read, statistics, rtol=2e-7)
    # Read and written once more, nothing moves any further.
    again = ClassStatistics.from_tensors(read.tensors())
    np.testing.assert_array_equal(again.tensors()["statistics.means"], tensors["a.means"])
    assert_same(again, read, rtol=1e-14)
    assert ClassStatistics.from_tensors(ClassStatistics.empty(3).tensors()).classes == ()


def test_a_class_without_samples_has_a_mean_of_zero(rng):
    x, labels = clouds(rng, [3, 4])
    statistics = ClassStatistics.empty(6).add(x, labels, NAMES[:3])
    tensors = statistics.tensors()
    np.testing.assert_array_equal(tensors["statistics.means"][2], np.zeros(6))
    read = ClassStatistics.from_tensors(tensors)
    assert read.counts.tolist() == [3, 4, 0]
    assert_same(read, statistics, rtol=2e-7)


def test_sums_of_earlier_states_are_read_as_they_are(rng):
    """The form of states and bundles before means: written here by hand, from the definition."""
    x, labels = clouds(rng, [4, 2, 3])
    exact = x.astype(np.float64)
    tensors = {
        "statistics.classes": np.frombuffer(b'["ant", "bee", "cat"]', np.uint8),
        "statistics.gram": exact.T @ exact,
        "statistics.sums": np.stack([exact[labels == index].sum(axis=0) for index in range(3)]),
        "statistics.counts": np.array([4.0, 2.0, 3.0]),
    }
    read = ClassStatistics.from_tensors(tensors)
    assert_same(read, statistics_of(x, labels))
    np.testing.assert_array_equal(read.gram, tensors["statistics.gram"])
    read.replace_in(tensors)
    assert sorted(tensors) == [f"statistics.{key}" for key in ("classes", "counts", "means", "scatter")]
    tensors = {"statistics.gram": read.gram, "statistics.sums": read.sums, "statistics.counts": read.counts}
    two = np.frombuffer(b'["ant", "bee"]', np.uint8)
    with pytest.raises(StateError, match="2 classes, gram \\(6, 6\\), sums \\(3, 6\\)"):
        ClassStatistics.from_tensors(tensors | {"statistics.classes": two})


@pytest.mark.parametrize("offset", [0.0, 100.0, 3000.0])
def test_features_far_from_zero_keep_their_spread_over_many_generations(rng, offset):
    """Means of thousands of spreads: stored beside rounded means, the sum of `x x^T` would lose the spread."""
    f, each = 12, 40
    labels = np.repeat(np.arange(4), each)
    noise = rng.normal(size=(len(labels), f)) @ rng.normal(size=(f, f))
    x = (offset + 3.0 * rng.normal(size=(4, f))[labels] + noise).astype(np.float32)
    kept = ClassStatistics.empty(f)
    for part in np.array_split(rng.permutation(len(x)), 50):
        # Learned in fifty tasks, with a generation written and read behind each.
        kept = ClassStatistics.from_tensors(kept.add(x[part], labels[part], NAMES[:4]).tensors())
    exact = x.astype(np.float64)
    within = exact - np.stack([exact[labels == index].mean(axis=0) for index in range(4)])[labels]
    scatter = kept.tensors()["statistics.scatter"]
    np.testing.assert_allclose(scatter, within.T @ within, atol=3e-5 * np.trace(within.T @ within))
    weight, bias = lda_head(kept, 1.6)
    expected, other = lda_head(statistics_of(x, labels), 1.6)
    # Shifted logits of all classes alike decide nothing.
    logits, wanted = (
        x.astype(np.float64) @ w.T.astype(np.float64) + b for w, b in ((weight, bias), (expected, other))
    )
    # Few lie so near to a border that their float32 rounding decides.
    assert (logits.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.95


def test_damaged_tensors_are_refused(rng):
    tensors = statistics_of(*clouds(rng, [2, 3])).tensors()
    for key in tensors:
        with pytest.raises(StateError, match="cannot be read"):
            ClassStatistics.from_tensors({k: v for k, v in tensors.items() if k != key})
    with pytest.raises(StateError, match="do not fit together: 2 classes"):
        ClassStatistics.from_tensors(tensors | {"statistics.counts": np.zeros(3)})


def test_bad_batches_are_refused():
    empty = ClassStatistics.empty(2)
    for label in (-1, 2):
        with pytest.raises(TaskError, match="there are 2 classes: check the task's labels"):
            empty.add(np.ones((1, 2), np.float32), np.array([label]), ("a", "b"))
    with pytest.raises(TaskError, match="features are NaN or infinite"):
        empty.add(np.full((1, 2), np.nan, np.float32), np.array([0]), ("a",))


# --- LDA


def prior_for(shrinkage: float, freedom: int) -> float:
    """So many prior images shrink `freedom` others by this share."""
    return shrinkage * freedom / (1.0 - shrinkage)


def spread_within(x, labels) -> np.ndarray:
    """Root mean square distance of each feature from its class mean."""
    return np.std(
        np.concatenate([x[labels == c] - x[labels == c].mean(0) for c in set(labels)]).astype(float), 0
    )


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.9, 0.999])
def test_lda_posterior_is_sklearns_on_balanced_classes(rng, shrinkage):
    x, labels = clouds(rng, [25, 25, 25, 25])
    weight, bias = lda_head(statistics_of(x, labels), prior_for(shrinkage, 96))
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=np.full(4, 0.25))
    # sklearn shrinks towards a multiple of the identity: the diagonal, where every feature spreads alike.
    alike = x / spread_within(x, labels)
    oracle.fit(alike, labels)
    # sklearn divides the scatter by n, and this head by the unbiased n - C: logits differ by that factor.
    logits = (x @ weight.T + bias).astype(np.float64) * 100 / 96
    posterior = np.exp(logits - logits.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(posterior, oracle.predict_proba(alike), atol=2e-4)


@pytest.mark.parametrize("counts", [[40, 5, 20], [10, 2, 2]])
@pytest.mark.parametrize("shrinkage", [0.1, 0.7])
def test_lda_is_sklearns_but_for_the_priors_on_unbalanced_classes(rng, counts, shrinkage):
    x, labels = clouds(rng, counts)
    n, c = len(x), len(counts)
    weight, bias = lda_head(statistics_of(x, labels), prior_for(shrinkage, n - c))
    spread = spread_within(x, labels)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x / spread, labels)
    np.testing.assert_allclose(weight * n / (n - c), oracle.coef_ / spread, rtol=1e-4, atol=1e-5)
    without_priors = oracle.intercept_ - np.log(oracle.priors_)
    without_noise = bias - noise_of_means(x, labels, shrinkage)
    np.testing.assert_allclose(without_noise * n / (n - c), without_priors, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("counts", [[40, 5, 20], [400, 3, 3]])
def test_half_of_the_noise_of_means_is_made_up_for(rng, counts):
    x, labels = clouds(rng, counts)
    prior = 50.0
    weight, bias = lda_head(statistics_of(x, labels), prior)
    plain = -0.5 * np.sum(weight * np.stack([x[labels == c].mean(0) for c in range(len(counts))]), axis=1)
    shrinkage = prior / (prior + len(x) - len(counts))
    np.testing.assert_allclose(bias - plain, noise_of_means(x, labels, shrinkage), rtol=1e-3)


def noise_of_means(x, labels, shrinkage: float) -> np.ndarray:
    """A quarter of the mean squared Mahalanobis distance of a class's samples from its mean, over its samples."""
    names, counts = np.unique(labels, return_counts=True)
    around = np.concatenate([x[labels == c] - x[labels == c].mean(0) for c in names]).astype(np.float64)
    covariance = around.T @ around / (len(x) - len(names))
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.diag(np.diag(covariance))
    squared = np.einsum("nf,fg,ng->n", around, np.linalg.inv(shrunk), around)
    return squared.sum() / (len(x) - len(names)) / (4 * counts)


def test_a_class_of_few_samples_stands_its_ground_beside_a_large_one(rng):
    features, counts = 200, (500, 5)
    centers = rng.normal(size=(2, features)) * 0.15
    labels, truth = np.repeat([0, 1], counts), np.repeat([0, 1], 400)
    right = np.zeros(2)
    for _ in range(10):
        x = (rng.normal(size=(sum(counts), features)) + centers[labels]).astype(np.float32)
        probes = rng.normal(size=(len(truth), features)) + centers[truth]
        weight, bias = lda_head(statistics_of(x, labels), 100.0)
        uncorrected = bias - noise_of_means(x, labels, 100.0 / (100.0 + len(x) - 2))
        right += [np.mean((probes @ weight.T + b).argmax(axis=1) == truth) for b in (bias, uncorrected)]
    assert right[0] > right[1] + 0.3, right


def test_without_any_spread_the_nearest_mean_wins(rng):
    x = rng.normal(size=(3, 8)).astype(np.float32)
    weight, bias = lda_head(statistics_of(x, np.arange(3)), 0.1)  # one sample per class
    probes = rng.normal(size=(50, 8)).astype(np.float32)
    nearest = np.argmin(((probes[:, None] - x[None]) ** 2).sum(axis=2), axis=1)
    np.testing.assert_array_equal(np.argmax(probes @ weight.T + bias, axis=1), nearest)
    assert np.abs(weight).max() < 10  # and not the inverse of a rounding error


@pytest.mark.parametrize("counts", [[4, 3, 5], [2, 2, 2], [1, 1, 2]])
def test_fewer_samples_than_features_is_safe_and_still_separates(rng, counts):
    x, labels = clouds(rng, counts, features=64)
    weight, bias = lda_head(statistics_of(x, labels), 0.1)
    assert np.isfinite(weight).all()
    assert np.isfinite(bias).all()
    np.testing.assert_array_equal(np.argmax(x @ weight.T + bias, axis=1), labels)


@pytest.mark.parametrize("setting", [0.0, 0.1])
def test_degenerate_features_give_finite_heads(setting):
    for x in (np.zeros((4, 3)), np.ones((4, 3)), np.eye(4, 3) * [1, 0, 0], np.full((4, 3), 1e4)):
        weight, bias = lda_head(statistics_of(x.astype(np.float32), np.array([0, 0, 1, 1])), setting)
        assert np.isfinite(weight).all()
        assert np.isfinite(bias).all()


def test_decisions_do_not_depend_on_the_features_scale(rng):
    x, labels = clouds(rng, [20, 20, 20])
    decisions = []
    for scale in (1.0, 1000.0, 1e-3):
        scaled = (scale * x).astype(np.float32)
        weight, bias = lda_head(statistics_of(scaled, labels), 0.3)
        decisions.append(scaled @ weight.T + bias)
    np.testing.assert_allclose(decisions[1], decisions[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(decisions[2], decisions[0], rtol=1e-3, atol=1e-3)


def test_a_subset_of_classes_is_those_rows_in_the_order_asked(rng):
    x, labels = clouds(rng, [10, 12, 14, 9])
    statistics = statistics_of(x, labels)
    weight, bias = lda_head(statistics, 0.2)
    some_weight, some_bias = lda_head(statistics, 0.2, ("dog", "ant"))
    np.testing.assert_allclose(some_weight, weight[[3, 0]], rtol=1e-5)
    np.testing.assert_allclose(some_bias, bias[[3, 0]], rtol=1e-5)


def test_a_class_without_samples_is_refused_but_does_not_disturb_the_others(rng):
    x, labels = clouds(rng, [5, 6])
    statistics = statistics_of(x, labels)
    with_empty = statistics.add(x[:0], labels[:0], ("cat",))
    for classes in (None, ("cat",), ("zebra",)):
        with pytest.raises(TaskError, match=r"class '(cat|zebra)' has no samples to compute a head from"):
            lda_head(with_empty, 0.1, classes)
    np.testing.assert_array_equal(lda_head(with_empty, 0.1, NAMES[:2])[0], lda_head(statistics, 0.1)[0])
    with pytest.raises(TaskError, match="there are no classes"):
        lda_head(ClassStatistics.empty(3), 0.1)


@pytest.mark.parametrize("prior", [-0.1, np.inf, np.nan])
def test_settings_out_of_range_are_refused(rng, prior):
    with pytest.raises(ConfigError, match=r"prior_pictures is .*, but it must"):
        lda_head(statistics_of(*clouds(rng, [3, 3])), prior)


def test_decisions_do_not_depend_on_each_features_unit(rng):
    x, labels = clouds(rng, [20, 20, 20])
    units = np.logspace(-2, 2, x.shape[1]).astype(np.float32)
    plain, scaled = (
        given @ weight.T + bias
        for given in (x, x * units)
        for weight, bias in [lda_head(statistics_of(given, labels), 30.0)]
    )
    np.testing.assert_allclose(scaled, plain, rtol=1e-3, atol=1e-3)


def test_classes_that_get_one_name_are_one_class(rng):
    """What was counted of both, as if they had been named so from the start."""
    x, labels = clouds(rng, (10, 20, 30))
    both = np.array([0, 1, 0])[labels]
    named = statistics_of(x, labels).named({"cat": "ant"})
    assert_same(named, statistics_of(x, both, NAMES[:2]))
    renamed = statistics_of(x, labels).named({"bee": "wasp"})
    assert_same(renamed, statistics_of(x, labels, ("ant", "wasp", "cat")))
