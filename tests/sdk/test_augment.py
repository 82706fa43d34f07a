"""Augmentation against `np.pad(mode="reflect")` and slicing."""

import numpy as np
import pytest

from csk_sdk.data.augment import augment


def pictures(n=64, height=7, width=9, channels=3):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def every_outcome(image, shift, flip):
    """All images that `augment` may make of one, as bytes -> (down, right, flipped)."""
    height, width, _ = image.shape
    padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
    outcomes = {}
    for y in range(2 * shift + 1):
        for x in range(2 * shift + 1):
            window = padded[y : y + height, x : x + width]
            outcomes[window.tobytes()] = (y - shift, x - shift, False)
            if flip:
                outcomes[window[:, ::-1].tobytes()] = (y - shift, x - shift, True)
    return outcomes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("flip", "shift"), [(True, 2), (False, 2), (True, 0), (False, 8)])
def test_each_picture_is_a_window_of_its_reflected_self(channels, flip, shift):
    batch = pictures(channels=channels)
    result = augment(batch, np.random.default_rng(1), flip, shift)
    assert result.dtype == np.uint8
    assert result.shape == batch.shape
    for before, after in zip(batch, result, strict=True):
        assert after.tobytes() in every_outcome(before, shift, flip)


def test_flips_and_shifts_are_drawn_evenly_and_for_each_picture_alone():
    image = pictures(n=1)
    result = augment(np.repeat(image, 4000, axis=0), np.random.default_rng(1), flip=True, shift=1)
    outcomes = every_outcome(image[0], 1, True)
    drawn = np.array([outcomes[picture.tobytes()] for picture in result])
    cells, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(cells) == 3 * 3 * 2
    assert counts.min() > 150  # 222 expected, standard deviation 15
    assert counts.max() < 300


def test_the_same_seed_gives_the_same_pictures_and_the_input_stays():
    batch = pictures()
    before = batch.copy()
    first = augment(batch, np.random.default_rng(3), True, 2)
    np.testing.assert_array_equal(first, augment(batch, np.random.default_rng(3), True, 2))
    np.testing.assert_array_equal(batch, before)
    assert (first != augment(batch, np.random.default_rng(4), True, 2)).any()


def test_nothing_to_do_returns_an_equal_copy():
    batch = pictures()
    result = augment(batch, np.random.default_rng(0), flip=False, shift=0)
    np.testing.assert_array_equal(result, batch)
    assert not np.shares_memory(result, batch)


@pytest.mark.parametrize("shape", [(0, 7, 9, 3), (5, 1, 1, 3), (5, 1, 9, 1), (5, 2, 2, 3)])
def test_small_batches_and_pictures_smaller_than_the_shift(shape):
    batch = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    result = augment(batch, np.random.default_rng(1), True, 4)
    assert result.shape == shape
    for before, after in zip(batch, result, strict=True):
        assert after.tobytes() in every_outcome(before, 4, True)
