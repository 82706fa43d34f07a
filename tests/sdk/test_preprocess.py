"""Preprocessing against Pillow itself (channels, resize) and against the float64 formula (normalisation)."""

import numpy as np
import pytest
from PIL import Image

from csk_sdk.contract.manifest import InputSpec, PreprocessingSpec
from csk_sdk.data.preprocess import PicturePreprocessing
from csk_sdk.errors import BundleError, TaskError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocessing(channels=3, height=6, width=8, **changes):
    spec = {"mean": MEAN[:channels], "std": STD[:channels], **changes}
    return PicturePreprocessing(PreprocessingSpec(**spec), InputSpec("image", channels, (height, width)))


def picture(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(6, 8), (3, 5), (17, 40), (8, 6)])
def test_rgb_is_resized_as_pillow_does(size):
    image = picture(*size, 3)
    expected = Image.fromarray(image).resize((8, 6), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(preprocessing().to_size(image, "it"), np.asarray(expected))


@pytest.mark.parametrize("shape", [(17, 40), (17, 40, 1), (17, 40, 2)])
def test_gray_for_an_rgb_model_is_resized_and_repeated(shape):
    image = picture(*shape)
    gray = image if image.ndim == 2 else np.ascontiguousarray(image[:, :, 0])
    expected = Image.fromarray(gray).convert("RGB").resize((8, 6), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(preprocessing().to_size(image, "it"), np.asarray(expected))


@pytest.mark.parametrize("channels", [3, 4])
def test_color_for_a_gray_model_becomes_luma(channels):
    image = picture(17, 40, channels)
    luma = Image.fromarray(np.ascontiguousarray(image[:, :, :3])).convert("L")
    expected = np.asarray(luma.resize((8, 6), Image.Resampling.BILINEAR))[:, :, None]
    np.testing.assert_array_equal(preprocessing(channels=1).to_size(image, "it"), expected)


def test_alpha_is_dropped_and_does_not_weigh_the_colors():
    image = picture(17, 40, 4)
    image[:, :20, 3] = 0
    np.testing.assert_array_equal(
        preprocessing().to_size(image, "it"), preprocessing().to_size(image[:, :, :3], "it")
    )


def test_a_model_of_four_bands_takes_four_bands_each_resized_alone():
    bands = picture(17, 40, 4)
    model = preprocessing(channels=4, mean=(0.0,) * 4, std=(1.0,) * 4)
    for band in range(4):
        alone = Image.fromarray(np.ascontiguousarray(bands[:, :, band]))
        expected = np.asarray(alone.resize((8, 6), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(model.to_size(bands, "it")[:, :, band], expected)
    sentence = (
        r"^it has 3 channels without alpha, which is not read of picture files, and the model takes 4: hand"
    )
    with pytest.raises(TaskError, match=sentence):
        model.to_size(picture(6, 8, 3), "it")


def test_a_picture_that_fits_is_not_copied_and_never_changed():
    image = picture(6, 8, 3)
    assert np.shares_memory(preprocessing().to_size(image, "it"), image)
    larger = picture(17, 40, 3)
    before = larger.copy()
    preprocessing()([larger])
    np.testing.assert_array_equal(larger, before)


@pytest.mark.parametrize("resize", ["bilinear", "none"])
def test_strided_pictures_come_out_contiguous(resize):
    image = picture(6, 8, 3)
    mirrored = preprocessing(resize=resize).to_size(image[:, ::-1], "it")
    assert mirrored.flags.c_contiguous
    np.testing.assert_array_equal(mirrored, image[:, ::-1])


@pytest.mark.parametrize("channels", [1, 3])
def test_normalize_is_the_float64_formula(channels):
    every_value = np.arange(256, dtype=np.uint8)
    batch = np.stack([np.roll(every_value, c) for c in range(channels)], axis=-1).reshape(2, 8, 16, channels)
    model = preprocessing(channels, height=8, width=16)
    result = model.normalize(batch)
    mean, std = np.array(MEAN[:channels]), np.array(STD[:channels])
    exact = ((batch.astype(np.float64) / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    assert result.dtype == np.float32
    assert result.shape == (2, channels, 8, 16)
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, exact, rtol=0, atol=6e-7)


def test_normalize_obeys_the_scale():
    model = preprocessing(scale=1.0, mean=(128.0, 127.0, 0.0), std=(64.0, 1.0, 2.0))
    batch = np.full((1, 6, 8, 3), 130, np.uint8)
    np.testing.assert_array_equal(model.normalize(batch)[0, :, 0, 0], [2 / 64, 3.0, 65.0])


def test_a_call_takes_an_array_or_a_list_of_any_sizes():
    model = preprocessing()
    images = [picture(6, 8, 3), picture(30, 20, seed=1), picture(5, 5, 4, seed=2)]
    expected = model.normalize(np.stack([model.to_size(image, "it") for image in images]))
    np.testing.assert_array_equal(model(images), expected)
    large = picture(2, 12, 10, 3)
    np.testing.assert_array_equal(model(large), model(list(large)))
    fitting = picture(2, 6, 8, 3)
    np.testing.assert_array_equal(model(fitting), model(list(fitting)))
    assert model([]).shape == model(np.empty((0, 6, 8, 3), np.uint8)).shape == (0, 3, 6, 8)


def test_gray_batches_may_come_without_a_channel_axis():
    model = preprocessing(channels=1)
    gray = picture(4, 6, 8)
    np.testing.assert_array_equal(model(gray), model(gray[..., None]))
    narrow = preprocessing(channels=1, width=3)
    assert narrow(picture(4, 6, 3)).shape == (4, 1, 6, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 6, 8, 3), np.float32), "The images are float32 and must be uint8 (0 to 255)"),
        (np.zeros((6, 8, 3), np.uint8), "The images have shape (6, 8, 3) and a batch has shape (n, height, "),
        (np.zeros((8,), np.uint8), "hand over a single image as image[None]."),
        ([np.zeros((6, 8, 3), np.int64)], "image 0 is int64 and must be uint8 (0 to 255)."),
        (
            [np.zeros((6, 8, 3), np.uint8), np.zeros((4,), np.uint8)],
            "image 1 has shape (4,) and must be (height",
        ),
        ([np.zeros((0, 8, 3), np.uint8)], "image 0 has shape (0, 8, 3): there is no pixel in it."),
        ([np.zeros((6, 8, 5), np.uint8)], "image 0 has 5 channels and the model takes 3"),
        ([[1, 2, 3]], "image 0 is a list and must be a uint8 NumPy array."),
    ],
)
def test_what_is_no_picture_is_refused(images, message):
    with pytest.raises(TaskError) as caught:
        preprocessing()(images)
    assert message in str(caught.value)


def test_one_color_picture_is_not_taken_for_many_gray_ones():
    with pytest.raises(TaskError, match=r"hand over a single image as image\[None\]"):
        preprocessing(channels=1)(np.zeros((6, 8, 3), np.uint8))


def test_without_resize_another_size_is_an_error_that_names_the_remedy():
    model = preprocessing(resize="none")
    assert model.to_size(picture(6, 8), "it").shape == (6, 8, 3)
    with pytest.raises(TaskError) as caught:
        model.to_size(picture(8, 6, 3), "tasks/x/train/cat/3.png")
    assert str(caught.value) == (
        "tasks/x/train/cat/3.png is 6x8 pixels (width x height) and the model takes 8x6: "
        "resize it, or build the bundle with --resize bilinear."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5,)}, "has 1 means and 3 standard deviations for 3 input channels"),
        ({"std": (0.2, 0.0, 0.2)}, "every std above zero: build the bundle again."),
        ({"mean": (0.2, float("nan"), 0.2)}, "every mean must be finite"),
        ({"resize": "bicubic"}, "asks for resize 'bicubic', and this csk-sdk knows 'bilinear' and 'none'"),
    ],
)
def test_a_manifest_that_cannot_be_applied_is_refused(changes, message):
    with pytest.raises(BundleError) as caught:
        preprocessing(**changes)
    assert message in str(caught.value)
