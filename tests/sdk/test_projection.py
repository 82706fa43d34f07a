import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csk_sdk.errors import ConfigError, StateError
from csk_sdk.method.optimizers import SGD, AdamW
from csk_sdk.method.projection import (
    Projector,
    add_to_centers,
    basis,
    frozen_moment,
    is_frozen,
    leak,
    project,
    projectors,
    restrict,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def inputs(rng: np.random.Generator, samples: int, channels: int) -> np.ndarray:
    """Correlated, positive inputs, as behind a ReLU."""
    return np.maximum(rng.normal(size=(samples, channels)) @ rng.normal(size=(channels, channels)), 0)


def orthonormal(rng, k, r):
    """Any `r` directions of `k`, float32."""
    return np.linalg.qr(rng.normal(size=(k, k)))[0][:, :r].astype(np.float32)


@st.composite
def grouped_sites(draw):
    """(rng, groups, channels per group, rows per group, selected)"""
    groups = draw(st.integers(1, 4))
    per_group = draw(st.integers(1, 5))
    rows = draw(st.integers(1, 4))
    chosen = draw(st.sets(st.integers(0, groups * per_group - 1), min_size=1))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return rng, groups, per_group, rows, np.array(sorted(chosen), np.int64)


# --- restrict


def test_without_groups_it_is_the_submatrix(rng):
    moment = rng.normal(size=(1, 5, 5)).astype(np.float32)
    restricted = restrict(moment, np.array([0, 3, 4]))
    assert restricted.dtype == np.float64
    np.testing.assert_array_equal(restricted, moment[0][np.ix_([0, 3, 4], [0, 3, 4])])


@given(grouped_sites())
def test_channels_of_different_groups_do_not_interact(site):
    rng, groups, per_group, _, selected = site
    moment = rng.normal(size=(groups, per_group, per_group))
    restricted = restrict(moment, selected)
    for a, i in enumerate(selected):
        for b, j in enumerate(selected):
            same = i // per_group == j // per_group
            expected = moment[i // per_group, i % per_group, j % per_group] if same else 0.0
            assert restricted[a, b] == expected


# --- basis


@pytest.mark.parametrize(
    ("eigenvalues", "energy", "rank"),
    [
        ([6, 3, 1], 0.0, 0),
        ([6, 3, 1], 0.5, 1),
        ([6, 3, 1], 0.6, 1),  # reached exactly
        ([6, 3, 1], 0.61, 2),
        ([6, 3, 1], 0.95, 3),
        ([6, 3, 1], 1.0, 3),
        ([6, 3, 0], 1.0, 2),
        ([6, 3, 1e-9], 1.0, 2),  # below the rounding of a float32 moment
        ([6, 3, 1e-9], 0.9999999999, 2),
        ([0, 0, 0], 0.9, 0),
        ([0, 0, 0], 1.0, 0),
    ],
)
def test_rank_is_the_smallest_that_holds_the_energy(eigenvalues, energy, rank):
    directions = basis(np.diag(np.array(eigenvalues, np.float64)), energy)
    assert directions.shape == (3, rank)
    assert directions.dtype == np.float32
    np.testing.assert_array_equal(np.abs(directions), np.eye(3)[:, :rank])


@settings(deadline=None)
@given(st.integers(1, 12), st.floats(0.01, 0.99), st.integers(0, 2**16))
def test_basis_is_orthonormal_and_holds_the_energy_but_one_vector_less_does_not(k, energy, seed):
    x = inputs(np.random.default_rng(seed), 40, k)
    moment = x.T @ x
    directions = basis(moment, energy).astype(np.float64)
    rank = directions.shape[1]
    np.testing.assert_allclose(directions.T @ directions, np.eye(rank), atol=1e-6)
    # Independent of eigenvectors: the singular values of the data, and the share of them that is captured.
    squared = np.linalg.svd(x, compute_uv=False) ** 2
    assert squared[:rank].sum() >= energy * squared.sum() * (1 - 1e-9)
    assert squared[: rank - 1].sum() < energy * squared.sum() * (1 + 1e-9)
    captured = np.trace(directions.T @ moment @ directions)
    np.testing.assert_allclose(captured, squared[:rank].sum(), rtol=1e-5)


@settings(deadline=None)
@given(grouped_sites(), st.floats(0.0, 1.0))
def test_no_direction_mixes_groups_even_when_their_eigenvalues_are_equal(site, energy):
    rng, groups, per_group, _, selected = site
    x = rng.normal(size=(20, per_group))
    moment = np.repeat((x.T @ x)[None], groups, axis=0)  # the same data in every group
    directions = basis(restrict(moment, selected), energy)
    for direction in directions.T:
        assert len(np.unique(selected[direction != 0] // per_group)) == 1


def test_a_basis_of_a_rank_deficient_moment_spans_the_data(rng):
    x = rng.normal(size=(3, 8)).astype(np.float32)
    directions = basis((x.T @ x).astype(np.float64), 1.0).astype(np.float64)
    assert directions.shape == (8, 3)
    np.testing.assert_allclose(x @ directions @ directions.T, x, atol=1e-5)


@pytest.mark.parametrize("energy", [-0.1, 1.1, float("nan")])
def test_energy_out_of_range_is_refused(energy):
    with pytest.raises(ConfigError, match=r"energy is .*, but it must lie between 0"):
        basis(np.eye(3), energy)


def test_a_moment_that_is_not_finite_is_refused_rather_than_left_unprotected():
    with pytest.raises(StateError, match="memory of past data holds NaN or infinity"):
        basis(np.full((2, 2), np.nan), 0.9)


# --- project, leak


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 10), st.floats(0.0, 1.0), st.integers(0, 2**16))
def test_projection_matches_the_formula_and_is_idempotent(rows, k, energy, seed):
    rng = np.random.default_rng(seed)
    x = inputs(rng, 30, k)
    directions = basis(x.T @ x, energy)
    step = rng.normal(size=(rows, k)).astype(np.float32)
    exact = directions.astype(np.float64)
    expected = step.astype(np.float64) @ (np.eye(k) - exact @ exact.T)

    project(step, directions)
    np.testing.assert_allclose(step, expected, atol=2e-6)
    again = step.copy()
    Projector.of(rows, directions).project(again)
    np.testing.assert_allclose(again, step, atol=1e-6)


def test_an_empty_basis_leaves_a_step_alone_and_a_full_one_leaves_nothing(rng):
    step = rng.normal(size=(4, 3)).astype(np.float32)
    kept = step.copy()
    project(step, np.zeros((3, 0), np.float32))
    np.testing.assert_array_equal(step, kept)
    project(step, basis(np.diag([3.0, 2.0, 1.0]), 1.0))
    np.testing.assert_array_equal(step, np.zeros((4, 3)))


def test_leak_is_the_share_along_the_basis():
    directions = np.eye(3, 1, dtype=np.float32)
    assert leak(np.array([[3, 4, 0]], np.float32), directions) == pytest.approx(0.6)
    assert leak(np.array([[0, 4, 1]], np.float32), directions) == 0.0
    assert leak(np.zeros((2, 3), np.float32), directions) == 0.0
    assert leak(np.ones((2, 3), np.float32), np.zeros((3, 0), np.float32)) == 0.0


@pytest.mark.parametrize("optimizer", [SGD(0.05, 0.9), AdamW(1e-3, weight_decay=0.01)], ids=["sgd", "adamw"])
@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("groups", [1, 4])
def test_after_200_steps_nothing_has_leaked_along_the_basis(rng, optimizer, energy, groups):
    rows, channels = 24, 64
    selected = np.sort(rng.choice(channels, 40, replace=False))
    past = inputs(rng, 500, channels).reshape(500, groups, -1).transpose(1, 0, 2)
    directions = basis(restrict(past.transpose(0, 2, 1) @ past, selected), energy)
    delta = np.zeros((rows, 40), np.float32)
    update = np.empty_like(delta)
    projector = Projector.of(rows, directions)
    name = f"{energy}/{groups}"
    for _ in range(200):
        # Gradients are made of inputs like the past ones: the hard case, most of each step lies along B.
        x = inputs(rng, 16, channels)[:, selected]
        gradient = (rng.normal(size=(16, rows)).T @ x).astype(np.float32)
        optimizer.step(name, gradient, update, parameter=delta)
        projector.project(update)
        delta -= update
    assert np.linalg.norm(delta) > 0.01
    assert leak(delta, directions) <= 1e-5


def test_projected_change_leaves_the_output_for_past_data_unchanged(rng):
    """The point of it all, on a grouped site: data within the basis' span get the same output as before."""
    groups, per_group, rows = 3, 6, 4
    selected = np.array([0, 1, 2, 4, 6, 7, 9, 10, 13, 14, 16, 17])
    past = rng.normal(size=(groups, 50, 2)) @ rng.normal(size=(groups, 2, per_group))
    directions = basis(restrict(past.transpose(0, 2, 1) @ past, selected), 1.0)
    delta = rng.normal(size=(rows, len(selected))).astype(np.float32)
    before = np.linalg.norm(delta)
    project(delta, directions)
    assert np.linalg.norm(delta) > 0.1 * before
    change = np.zeros((groups * rows, per_group), np.float32)
    add_to_centers(change, delta, selected, groups)
    change = change.reshape(groups, rows, per_group)
    outputs = np.einsum("gni,gri->gnr", past, change)
    assert np.abs(outputs).max() < 1e-5


@pytest.mark.parametrize("protected", [20, 100])
def test_a_step_allocates_nothing(rng, protected):
    projector = Projector.of(256, orthonormal(rng, 128, protected))
    step = rng.normal(size=(256, 128)).astype(np.float32)
    projector.project(step)
    tracemalloc.start()
    projector.project(step)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < step.nbytes / 10


@pytest.mark.parametrize("protected", [0, 1, 15, 16, 17, 31, 32])
def test_the_work_is_done_on_the_side_of_fewer_directions(rng, protected):
    directions = orthonormal(rng, 32, protected)
    projector = Projector.of(9, directions)
    assert projector.along.shape == (9, min(protected, 32 - protected))
    step = rng.normal(size=(9, 32)).astype(np.float32)
    exact = directions.astype(np.float64)
    expected = step.astype(np.float64) @ (np.eye(32) - exact @ exact.T)
    projector.project(step)
    np.testing.assert_allclose(step, expected, atol=2e-6)
    projector.project(step)
    np.testing.assert_allclose(step, expected, atol=2e-6)
    if 0 < protected < 32:
        assert leak(step, directions) < 1e-6


def test_sites_that_share_buffers_are_projected_to_the_same_bits(rng):
    bases = {
        "wide": orthonormal(rng, 64, 30),
        "tall": orthonormal(rng, 16, 12),
        "outside": orthonormal(rng, 24, 8),
        "free": np.zeros((8, 0), np.float32),
    }
    rows = {"wide": 32, "tall": 256, "outside": 40, "free": 16}
    shared = projectors(rows, bases)
    for name in ("wide", "tall", "free", "outside", "wide"):
        step = rng.normal(size=(rows[name], len(bases[name]))).astype(np.float32)
        alone = step.copy()
        Projector.of(rows[name], bases[name]).project(alone)
        shared[name].project(step)
        assert np.array_equal(step, alone)
    assert np.shares_memory(shared["wide"].along, shared["tall"].along)
    assert np.shares_memory(shared["wide"].product, shared["outside"].product)
    assert not np.shares_memory(shared["wide"].along, shared["wide"].product)


# --- add_to_centers


@given(grouped_sites())
def test_each_entry_is_added_where_its_group_is(site):
    rng, groups, per_group, rows, selected = site
    delta = rng.normal(size=(rows, len(selected))).astype(np.float32)
    expected = np.zeros((groups * rows, per_group), np.float32)
    for column, channel in enumerate(selected):
        for row in range(rows):
            group = channel // per_group
            expected[group * rows + row, channel % per_group] = delta[row, column]
    got = np.zeros_like(expected)
    add_to_centers(got, delta, selected, groups)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 3), (5, 3), (7,), (2, 4), (3, 3, 3)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_only_centers_of_selected_channels_change(rng, kernel, groups):
    rows, per_group, selected = 4, 12 // groups, np.array([0, 3, 4, 11])
    weight = rng.normal(size=(rows * groups, per_group, *kernel)).astype(np.float32)
    delta = rng.normal(size=(rows, 4)).astype(np.float32)
    expected = weight.copy()
    for column, channel in enumerate(selected):
        group, within = divmod(channel, per_group)
        for row in range(rows):
            expected[(group * rows + row, within, *(size // 2 for size in kernel))] += delta[row, column]
    add_to_centers(weight, delta, selected, groups)
    np.testing.assert_array_equal(weight, expected)


def test_a_grouped_convolution_with_added_centers_is_the_sum_of_both_branches(rng):
    """Against a naive grouped convolution: W + delta acts as W plus a 1x1 branch on the center samples."""
    groups, rows, per_group, size = 2, 3, 2, 5
    selected = np.array([1, 2])
    x = rng.normal(size=(groups * per_group, size, size)).astype(np.float32)
    weight = rng.normal(size=(groups * rows, per_group, 3, 3)).astype(np.float32)
    delta = rng.normal(size=(rows, 2)).astype(np.float32)

    def convolve(kernel: np.ndarray) -> np.ndarray:
        out = np.zeros((groups * rows, size - 2, size - 2))
        for o, r, c in np.ndindex(out.shape):
            first = (o // rows) * per_group
            out[o, r, c] = (kernel[o] * x[first : first + per_group, r : r + 3, c : c + 3]).sum()
        return out

    expected = convolve(weight)
    for column, channel in enumerate(selected):
        group = channel // per_group
        for row in range(rows):
            expected[group * rows + row] += delta[row, column] * x[channel, 1:-1, 1:-1]
    add_to_centers(weight, delta, selected, groups)
    np.testing.assert_allclose(convolve(weight), expected, atol=1e-5)


def test_a_delta_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"delta of shape \(1, 2\) does not fit 4 rows, 2 channels"):
        add_to_centers(np.zeros((4, 3, 3, 3), np.float32), np.ones((1, 2), np.float32), np.array([0, 1]), 1)


def test_a_frozen_site_keeps_every_direction_whatever_was_added(rng):
    moment = frozen_moment(2, 75)
    assert is_frozen(moment)
    x = inputs(rng, 500, 75).astype(np.float32)
    later = (moment + 1e6 * (x.T @ x)).astype(np.float32)
    assert is_frozen(later)
    assert not is_frozen((x.T @ x)[None])
    selected = np.arange(0, 150, 2)
    for energy in (0.01, 0.9, 1.0):
        kept = basis(restrict(later, selected), energy)
        assert kept.shape == (75, 75)
        step = np.ones((3, 75), np.float32)
        project(step, kept)
        assert not step.any()
