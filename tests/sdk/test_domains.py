"""Which domain an image is of, and what its channels are brought to: held against NumPy on the images themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from csk_sdk import StateError
from csk_sdk.bundle.folder import Bundle
from csk_sdk.method.domains import MOST_SCALE, TOLD, ChannelSum, affine, brings_nothing, domain_of, telling
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.network.domains import PARTS, Domains

PRIOR = 100.0
RNG = np.random.default_rng(5)


def known(count: int, features: int = 12, classes: int = 3) -> tuple[np.ndarray, ClassStatistics]:
    rng = np.random.default_rng(5)
    # Correlated, and no direction so narrow that a little shrinkage is much there.
    mixing = np.eye(features) + rng.normal(size=(features, features)) / (2 * np.sqrt(features))
    labels = np.arange(count) % classes
    x = (
        rng.normal(size=(count, features)) @ mixing + 3 * rng.normal(size=(classes, features))[labels]
    ).astype(np.float32)
    names = tuple(f"c{index}" for index in range(classes))
    return x, ClassStatistics.empty(features).add(x, labels, names)


@pytest.mark.parametrize("sizes", [[40], [16, 16, 8], [1] * 40])
def test_means_and_deviations_of_batches_are_those_of_all_images(sizes: list[int]) -> None:
    values = RNG.normal(3.0, 2.0, size=(sum(sizes), 5, 7, 7)).astype(np.float32)
    total, start = ChannelSum(), 0
    for size in sizes:
        part = values[start : start + size]
        total.add(part.mean((0, 2, 3)), part.var((0, 2, 3)), size)
        start += size
    np.testing.assert_allclose(total.mean, values.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(total.deviation, values.std((0, 2, 3)), rtol=1e-5)


def test_channels_are_brought_to_the_base_s() -> None:
    values = RNG.normal(3.0, 2.0, size=(64, 4, 5, 5)).astype(np.float32)
    total = ChannelSum()
    total.add(values.mean((0, 2, 3)), values.var((0, 2, 3)), 64)
    mean, deviation = (np.arange(4) + part for part in (0.5, 1.5))
    scale, shift = affine(total, mean.astype(np.float32), deviation.astype(np.float32))
    seen = values * scale[:, None, None] + shift[:, None, None]
    np.testing.assert_allclose(seen.mean((0, 2, 3)), mean, atol=1e-4)
    np.testing.assert_allclose(seen.std((0, 2, 3)), deviation, rtol=1e-4)


def test_a_channel_that_says_nothing_is_not_made_loud() -> None:
    total = ChannelSum()
    total.add(np.array([2.0, 2.0], np.float32), np.array([0.0, 1e-9], np.float32), 16)
    scale, shift = affine(total, np.array([1.0, 1.0], np.float32), np.array([1.0, 0.0], np.float32))
    assert (scale[0], scale[1]) == (MOST_SCALE, 0.0)
    np.testing.assert_allclose(2.0 * scale + shift, 1.0, rtol=1e-6)


def test_of_many_images_it_is_fisher_s_discriminant() -> None:
    """So many that neither what is shrunk nor what is taken off for chance matters."""
    x, statistics = known(60_000)
    step = RNG.normal(size=12)
    told = telling(statistics, (x[:20_000] + step).astype(np.float32), PRIOR)
    assert told is not None
    covariance = np.cov(x.T.astype(np.float64))
    moved = (x[:20_000] + step).mean(0) - x.mean(0)
    expected = np.linalg.solve(covariance, moved)
    np.testing.assert_allclose(told.direction, expected, rtol=0.02, atol=0.02 * np.abs(expected).max())
    assert told.apart == pytest.approx(np.sqrt(moved @ expected), rel=0.01)
    middle = x.mean(0) + moved / 2
    assert float(middle @ told.direction) == pytest.approx(told.offset, abs=0.02 * float(moved @ expected))


@pytest.mark.parametrize("count", [32, 64, 500])
def test_the_mean_of_few_images_is_no_distance(count: int) -> None:
    """Of images like all others none are told, however far their mean lies off by chance in many directions."""
    x, statistics = known(4000, features=200)
    apart = []
    for seed in range(20):
        rows = np.random.default_rng(seed).permutation(len(x))[:count]
        told = telling(statistics, x[rows], PRIOR)
        assert told is not None
        apart.append(told.apart)
    assert max(apart) < TOLD


@pytest.mark.parametrize("count", [32, 500])
def test_images_that_were_not_seen_are_told(count: int) -> None:
    x, statistics = known(4000, features=200)
    whitened = np.linalg.cholesky(np.cov(x.T.astype(np.float64))) @ RNG.normal(size=200)
    step = 6.0 * whitened / np.sqrt(whitened @ np.linalg.solve(np.cov(x.T.astype(np.float64)), whitened))
    told = telling(statistics, (x[:count] + step).astype(np.float32), PRIOR)
    assert told is not None
    assert told.apart > TOLD
    rest = x[2000:]
    own, foreign = (rest + step) @ told.direction - told.offset, rest @ told.direction - told.offset
    assert np.mean(own > 0) > 0.9
    assert np.mean(foreign < 0) > 0.9


def test_nothing_is_told_where_nothing_is_known() -> None:
    images = np.ones((40, 6), np.float32)
    assert telling(ClassStatistics.empty(6), images, PRIOR) is None
    flat = ClassStatistics.empty(6).add(images, np.zeros(40, np.int64), ("c",))
    assert telling(flat, images, PRIOR) is None


def test_an_image_is_of_the_domain_that_is_likeliest() -> None:
    scores = np.array([[-1.0, -2.0], [0.5, 2.0], [3.0, 2.0], [0.0, -1.0]], np.float32)
    assert domain_of(scores).tolist() == [-1, 1, 0, -1]


@pytest.mark.parametrize("known_share", [0.0, 0.005], ids=["none", "hardly any"])
def test_a_feature_that_known_images_do_not_show_tells_not_alone(known_share: float) -> None:
    """Half of the domain's images show it, and the others are told by all that is else."""
    x, _ = known(400)
    x[:, 5] = np.where(RNG.random(400) < known_share, 0.1, 0.0)
    statistics = ClassStatistics.empty(12).add(x, np.arange(400) % 3, ("a", "b", "c"))
    images, _ = known(200)
    images += (4.0 * np.std(x, axis=0)).astype(np.float32)
    images[:, 5] = np.where(np.arange(200) % 2, 1.0, 0.0)
    told = telling(statistics, images, PRIOR)
    assert told is not None
    scores = images @ told.direction - told.offset
    assert np.mean(scores[::2] > 0.0) > 0.9
    assert np.mean(x @ told.direction - told.offset > 0.0) < 0.1


@pytest.mark.parametrize("change", [None, np.zeros(3, np.float32)], ids=["missing", "of another size"])
@pytest.mark.parametrize("part", PARTS)
def test_a_domain_of_another_network_is_refused(part: str, change: np.ndarray | None) -> None:
    bundle = Bundle.open(Path(__file__).parents[1] / "conformance" / "vectors" / "bundles" / "weather")
    sizes = (22, 22, bundle.manifest.head.features, 1)
    tensors = {f"domain/x/{one}": np.zeros(size, np.float32) for one, size in zip(PARTS, sizes, strict=True)}
    assert Domains(bundle, tensors).names == ("x",)
    del tensors[f"domain/x/{part}"]
    if change is not None:
        tensors[f"domain/x/{part}"] = change
    with pytest.raises(
        StateError, match=r"^Domain 'x' does not fit its network: roll back to an earlier task\.$"
    ):
        Domains(bundle, tensors)


@pytest.mark.parametrize(
    ("before", "after", "unknown", "another", "expected"),
    [
        # Night, and JPEG of a low quality: 5 % right before and 37 after, 22 and 31.
        (1.71, 1.84, 0.20, None, False),
        (2.05, 2.09, 0.27, None, False),
        # One class: with little contrast, and as it always looks.
        (1.00, 1.05, 0.47, None, True),
        (1.00, 1.54, 0.48, None, True),
        # Other things in a poor look come nearer, and are asked about.
        (1.00, 0.23, 0.68, None, False),
        # A look that is known already, and one near to it that gains.
        (1.00, 1.00, 0.05, (1.00, 1.00), True),
        (1.00, 0.95, 0.05, (1.00, 0.95), False),
        # One that is known already, of which some images are not told to be of it.
        (1.13, 1.10, 0.05, (1.09, 1.09), True),
    ],
)
def test_a_domain_of_one_class_or_of_a_known_look_brings_nothing(
    before: float, after: float, unknown: float, another: tuple[float, float] | None, expected: bool
) -> None:
    assert brings_nothing(before, after, unknown, another) is expected
