import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csk_sdk.errors import ConfigError, TaskError
from csk_sdk.method.selection import Sensitivity, channel_count, select_channels


def test_sensitivity_sums_squared_column_norms_over_batches(rng: np.random.Generator):
    gradients = rng.normal(size=(5, 7, 4)).astype(np.float32)
    sensitivity = Sensitivity(4)
    for gradient in gradients:
        sensitivity.add(gradient)
    expected = [sum(float(g) ** 2 for batch in gradients for g in batch[:, channel]) for channel in range(4)]
    np.testing.assert_allclose(sensitivity.values, expected, rtol=1e-12)
    assert sensitivity.values.dtype == np.float64


def test_sensitivity_does_not_underflow_or_overflow_where_float32_would():
    sensitivity = Sensitivity(2)
    sensitivity.add(np.array([[1e-30, 1e30]], np.float32))
    np.testing.assert_allclose(sensitivity.values, [1e-60, 1e60], rtol=1e-6)


def test_visiting_the_channels_in_portions_gives_the_same(rng: np.random.Generator):
    gradient = rng.normal(size=(3, 6)).astype(np.float32)
    whole, portions = Sensitivity(6), Sensitivity(6)
    whole.add(gradient)
    for indices in (np.array([5, 0]), np.array([1, 3, 2, 4])):
        portions.add(gradient[:, indices], indices)
    np.testing.assert_array_equal(portions.values, whole.values)


@pytest.mark.parametrize(
    ("values", "ratio", "expected"),
    [
        ([1, 9, 3, 7], 0.5, [1, 3]),
        ([9, 1, 3, 7], 0.75, [0, 2, 3]),
        ([1, 2, 3, 4], 0.01, [3]),  # never fewer than one
        ([1, 2, 3, 4], 1.0, [0, 1, 2, 3]),
        ([5, 5, 5, 5], 0.5, [0, 1]),  # ties: the lower index
        ([1, 5, 0, 5, 5], 0.4, [1, 3]),
        ([0, 0, 0], 0.3, [0]),
        ([2], 0.25, [0]),
    ],
)
def test_the_most_sensitive_channels_are_selected(values, ratio, expected):
    selected = select_channels(np.array(values, np.float64), ratio)
    assert selected.dtype == np.int64
    assert selected.tolist() == expected


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.floats(0.0, 1.0, exclude_min=True))
def test_selected_channels_are_sorted_distinct_and_no_other_is_more_sensitive(values, ratio):
    sensitivity = np.array(values, np.float64)
    selected = select_channels(sensitivity, ratio)
    assert len(selected) == channel_count(len(values), ratio) == max(1, round(ratio * len(values)))
    assert (np.diff(selected) > 0).all()
    others = np.delete(sensitivity, selected)
    assert others.size == 0 or others.max() <= sensitivity[selected].min()


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.01, float("nan")])
def test_a_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ConfigError, match=r"channel_ratio is .*, but it must be above 0 and at most 1"):
        select_channels(np.ones(4), ratio)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_sensitivities_that_are_not_finite_are_refused(broken):
    with pytest.raises(TaskError, match="gradient of input channel 2 is not finite"):
        select_channels(np.array([1.0, 2.0, broken]), 0.5)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
