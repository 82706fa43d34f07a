"""Signals from arrays, WAV and npy files to a network's input: against integers written by hand and float64."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csk_sdk import ConfigError, Task, TaskError, TrainingConfig
from csk_sdk.config import augmentation
from csk_sdk.contract.manifest import InputSpec, Manifest, PreprocessingSpec, sealed
from csk_sdk.data.augment import augment
from csk_sdk.data.files import open_files
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.preprocess import PicturePreprocessing
from csk_sdk.data.preprocess_signals import SignalPreprocessing
from csk_sdk.data.signals import FileSignals, Signal
from csk_sdk.errors import BundleError

SCALE = 1 / 32768


def preprocessing(channels: int = 2, length: int = 6, **changes: Any) -> SignalPreprocessing:
    spec = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "scale": SCALE, "resize": "crop", **changes}
    return SignalPreprocessing(PreprocessingSpec(**spec), InputSpec("image", channels, (length,)))


def write_wav(path: Path, data: bytes, width: int = 2, channels: int = 1, rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return path


def little(values: list[int], width: int) -> bytes:
    return b"".join(value.to_bytes(width, "little", signed=width > 1) for value in values)


# Reading files


@pytest.mark.parametrize(
    ("width", "stored", "expected"),
    [
        (1, [0, 128, 255, 64], [-1.0, 0.0, 127 / 128, -0.5]),
        (2, [-32768, 0, 32767, 5], [-1.0, 0.0, 32767 / 32768, 5 / 32768]),
        (3, [-8388608, -1, 8388607, 65536], [-1.0, -1 / 8388608, 8388607 / 8388608, 1 / 128]),
        (4, [-(2**31), 2**30, -256, 0], [-1.0, 0.5, -256 / 2**31, 0.0]),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_pcm_of_every_width_has_full_scale_one(
    tmp_path: Path, width: int, stored: list[int], expected: list[float], channels: int
) -> None:
    path = write_wav(tmp_path / "a.WAV", little(stored, width), width, channels, 22050)
    signal = FileSignals([path]).read(0)
    assert signal.rate == 22050
    assert signal.samples.shape == (4 // channels, channels)
    prepared = preprocessing(channels, 4 // channels, sample_rate=22050).to_size(signal, "it")
    np.testing.assert_array_equal(prepared, np.array(expected, np.float32).reshape(-1, channels))


def test_npy_files_are_taken_as_they_are(tmp_path: Path) -> None:
    for name, array in (("a", np.arange(6.0)), ("b", np.arange(12, dtype=np.int16).reshape(6, 2))):
        np.save(tmp_path / f"{name}.npy", array)
        signal = FileSignals([tmp_path / f"{name}.npy"]).read(0)
        assert (signal.rate, signal.samples.dtype) == (None, array.dtype)
        np.testing.assert_array_equal(signal.samples, array.reshape(6, -1))


def with_text(path: Path) -> None:
    path.write_text("hello, this is text")


def cut_short(path: Path) -> None:
    write_wav(path, little(list(range(100)), 2))
    path.write_bytes(path.read_bytes()[:-100])


def of_floats(path: Path) -> None:
    write_wav(path, little([1, 2, 3, 4], 2))
    data = bytearray(path.read_bytes())
    data[20] = 3  # the format tag, behind RIFF, WAVE and fmt
    path.write_bytes(bytes(data))


def of_objects(path: Path) -> None:
    np.save(path, np.array([{}, []], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.wav", with_text, "a.wav cannot be decoded (no WAV file of PCM samples: file does not start"),
        ("a.wav", lambda path: path.write_bytes(b""), "a.wav cannot be decoded (no WAV file of PCM samples: it"),
        ("a.wav", cut_short, "a.wav cannot be decoded (it ends after 50 of 100 samples): remove or replace it"),
        ("a.wav", of_floats, "a.wav cannot be decoded (no WAV file of PCM samples: unknown format: 3)"),
        ("a.wav", lambda path: write_wav(path, b""), "a.wav cannot be decoded (it holds no sample)"),
        ("a.wav", lambda path: None, "a.wav cannot be read (No such file or directory): restore it"),
        ("a.npy", lambda path: None, "a.npy cannot be read (No such file or directory): restore it"),
        ("a.npy", with_text, "a.npy cannot be decoded ("),
        ("a.npy", of_objects, "a.npy cannot be decoded ("),
        ("a.npy", lambda path: np.save(path, np.zeros((2, 3, 4))), "has shape (2, 3, 4) and must be (length,) or"),
        ("a.npy", lambda path: np.save(path, np.zeros(4, np.int64)), "a.npy is int64, and signals must be int16"),
        ("a.npy", lambda path: np.save(path, np.zeros((0, 2))), "has shape (0, 2): there is no sample in it."),
    ],
)  # fmt: skip
def test_files_that_are_no_signal(
    tmp_path: Path, name: str, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(TaskError) as caught:
        FileSignals([tmp_path / name]).read(0)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_file_of_too_many_samples_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csk_sdk.data.signals.MAX_SAMPLES", 3)
    np.save(tmp_path / "a.npy", np.zeros(4))
    for path in (tmp_path / "a.npy", write_wav(tmp_path / "a.wav", little([1, 2, 3, 4], 2))):
        with pytest.raises(TaskError, match=r"cannot be decoded \(4 samples, more than 3\)"):
            FileSignals([path]).read(0)


# Length, channels, normalisation


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([1, 2, 3, 4, 5, 6], [2, 3, 4, 5]),
        ([1, 2, 3, 4, 5, 6, 7], [2, 3, 4, 5]),
        ([1, 2], [0, 1, 2, 0]),
        ([1, 2, 3], [1, 2, 3, 0]),
        ([1], [0, 1, 0, 0]),
    ],
)
def test_the_middle_is_kept_and_zeros_go_around(given: list[int], expected: list[int]) -> None:
    signal = np.array(given, np.float64)
    np.testing.assert_array_equal(preprocessing(1, 4).to_size(signal, "it")[:, 0], expected)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_normalised_is_the_float64_formula(dtype: type) -> None:
    rng = np.random.default_rng(0)
    batch = (
        rng.integers(-32768, 32768, (5, 6, 2)) if dtype is np.int16 else rng.normal(size=(5, 6, 2))
    ).astype(dtype)
    model = preprocessing(mean=(0.1, -0.2), std=(0.5, 2.0))
    given = batch.astype(np.float64) * (SCALE if dtype is np.int16 else 1.0)
    exact = ((given - [0.1, -0.2]) / [0.5, 2.0]).transpose(0, 2, 1)
    result = model(batch)
    assert (result.dtype, result.shape, result.flags.c_contiguous) == (np.float32, (5, 2, 6), True)
    np.testing.assert_allclose(result, exact, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(model(list(batch)), result)


def test_one_channel_needs_no_channel_axis_and_no_signal_is_no_problem() -> None:
    model = preprocessing(1, 20)
    batch = np.random.default_rng(0).normal(size=(3, 20))
    np.testing.assert_array_equal(model(batch), model(batch[:, :, None]))
    assert model([]).shape == (0, 1, 20)


def test_what_is_given_is_not_changed() -> None:
    batch = np.random.default_rng(0).normal(size=(3, 6, 2)).astype(np.float32)
    before = batch.copy()
    preprocessing(std=(2.0, 3.0))(batch)
    np.testing.assert_array_equal(batch, before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((6, 3)), "it has 3 channels and the model takes 2: hand over signals with the channels"),
        (np.zeros((2, 6)), "it has shape (2, 6), and the model takes (length, channels) with 2 channels: transpose"),
        (np.zeros((6, 2), np.int32), "it is int32, and signals must be int16 (full scale 32768) or float"),
        (np.zeros((6, 2), np.uint8), "it is an image (uint8 of shape (6, 2)), and the model takes signals: int16"),
        (np.zeros((1, 6, 2)), "it has shape (1, 6, 2) and must be (length,) or (length, channels)."),
        (np.zeros((0, 2)), "it has shape (0, 2): there is no sample in it."),
        (np.full((6, 2), np.nan), "it has 12 samples that are not finite (NaN or infinite)"),
        (np.full((6, 2), 1e300), "it has 12 samples that are not finite"),
        ([[1, 2]], "it is a list and must be an int16 or float NumPy array."),
        (Signal(np.zeros((6, 2)), 44100), "it is sampled at 44100 Hz and the model takes 8000 Hz: resample it."),
    ],
)  # fmt: skip
def test_what_is_no_signal_of_the_model_is_refused(given: Any, message: str) -> None:
    with pytest.raises(TaskError) as caught:
        preprocessing(sample_rate=8000).to_size(given, "it")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), "The array is an image (uint8 of shape (2, 8, 8, 3)), and the model"),
        (np.zeros(6), "The signals have shape (6,) and a batch has shape (n, length, channels): hand over a single"),
        (np.zeros((6, 2)), "hand over a single signal as signal[None]."),
        ([np.zeros((6, 2)), np.zeros((6, 1))], "signal 1 has 1 channel and the model takes 2"),
    ],
)  # fmt: skip
def test_what_is_no_batch_is_refused(given: Any, message: str) -> None:
    with pytest.raises(TaskError) as caught:
        preprocessing()(given)
    assert message in str(caught.value)


def test_one_signal_is_not_taken_for_many_short_ones() -> None:
    with pytest.raises(TaskError, match=r"hand over a single signal as signal\[None\]"):
        preprocessing(1, 2048)(np.zeros((2048, 1)))


def test_a_rate_that_the_bundle_does_not_know() -> None:
    with pytest.raises(
        TaskError, match="the bundle does not say what its model takes: build it again with --samp"
    ):
        preprocessing().to_size(Signal(np.zeros((6, 2)), 8000), "it")


def test_without_crop_another_length_names_the_remedy() -> None:
    model = preprocessing(resize="none")
    assert model.to_size(np.zeros((6, 2)), "it").shape == (6, 2)
    with pytest.raises(TaskError) as caught:
        model.to_size(np.zeros((7, 2)), "a.wav")
    assert str(caught.value) == (
        "a.wav is 7 samples long and the model takes 6: cut it to that length, or build the bundle with "
        "--resize crop."
    )


def test_a_manifest_that_resizes_signals_like_pictures_is_refused() -> None:
    with pytest.raises(
        BundleError, match="asks for resize 'bilinear', and this csk-sdk knows 'crop' and 'none'"
    ):
        preprocessing(resize="bilinear")


def test_a_picture_model_says_that_it_takes_no_signal() -> None:
    spec = PreprocessingSpec((0.5,) * 3, (0.25,) * 3)
    model = PicturePreprocessing(spec, InputSpec("image", 3, (6, 8)))
    with pytest.raises(TaskError) as caught:
        model.to_size(Signal(np.zeros((100, 1))), "signals[3]")
    assert str(caught.value) == (
        "signals[3] is a signal of 100 samples, and the model takes images of 8x6 pixels (width x height): hand "
        "over uint8 images."
    )


# Augmentation


def test_signals_are_shifted_in_time_and_never_reversed() -> None:
    batch = np.random.default_rng(0).normal(size=(200, 10, 2)).astype(np.float32)
    before = batch.copy()
    moved = augment(batch, np.random.default_rng(1), flip=True, shift=3)
    np.testing.assert_array_equal(batch, before)
    found = set()
    for one, original in zip(moved, batch, strict=True):
        padded = np.pad(original, ((3, 3), (0, 0)), mode="reflect")
        found.add(next(at for at in range(7) if np.array_equal(padded[at : at + 10], one)))
    assert found == set(range(7))


def manifest(size: tuple[int, ...], flip: bool) -> Manifest:
    from csk_sdk.contract.manifest import Head

    spec = PreprocessingSpec((0.0,), (1.0,), resize="crop")
    return Manifest("m", ("a", "b"), InputSpec("image", 1, size), spec, Head(4), (), True, 0.25, 16, flip)


def test_a_shift_is_a_sixteenth_of_the_length() -> None:
    assert augmentation(TrainingConfig(), manifest((2048,), flip=False)) == (False, 128)
    assert augmentation(TrainingConfig(shift=5), manifest((2048,), flip=False)) == (False, 5)


def test_flipping_signals_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="flip is on, and this bundle's model takes signals, which are never"
    ):
        augmentation(TrainingConfig(flip=True), manifest((2048,), flip=False))


# The manifest


def test_schema_1_knew_pictures_only() -> None:
    now = manifest((6, 8), flip=True)
    raw = json.loads(now.to_json())
    raw |= {"schema_version": 1, "input": {"name": "image", "channels": 1, "height": 6, "width": 8}}
    del raw["seal"], raw["preprocessing"]["sample_rate"]
    read = Manifest.from_json(sealed(raw), "it")
    assert (read.input, read.preprocessing) == (now.input, now.preprocessing)
    assert read.input.shape == (1, 6, 8)


# Tasks


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    good = {
        "signals": rng.integers(-9, 9, (6, 20, 2), dtype=np.int16),
        "labels": np.array([0, 1, 0, 1, 0, 1]),
        "class_names": np.array(["a", "b"]),
    }
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def test_a_task_of_arrays(tmp_path: Path) -> None:
    given = arrays(test_signals=np.ones((2, 20, 2)), test_labels=np.array([1, 0]))
    np.savez(tmp_path / "01.npz", **given)
    fingerprints = set()
    for task in (Task.from_npz(tmp_path / "01.npz"), Task.from_signals("01", **given)):
        assert (task.name, task.classes, len(task.train), len(task.test)) == ("01", ("a", "b"), 6, 2)
        np.testing.assert_array_equal(task.train.images.read(4).samples, given["signals"][4])
        assert task.train.images.name(4).endswith("signals[4]")
        fingerprints.add(task.fingerprint())
    assert len(fingerprints) == 1
    assert (
        Task.from_signals("01", **arrays(signals=given["signals"] + np.int16(1))).fingerprint()
        not in fingerprints
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signals": np.zeros((6, 5), np.int32)}, "signals is int32, and signals must be int16"),
        (
            {"signals": np.zeros(6)},
            "signals has shape (6,), and signals must be (n, length, channels), or (n,",
        ),
        ({"signals": np.zeros((0, 5))}, "signals holds no signal (shape (0, 5)): put at least one into it."),
        ({"signals": np.zeros((6, 0))}, "signals has shape (6, 0): there is no sample in its signals."),
        (
            {"signals": np.full((6, 1), np.inf)},
            "signals has 6 samples that are not finite (NaN or infinite): repair or remove those of index 0, 1, 2, 3, "
            "4, ...",
        ),
        (
            {"signals": np.where(np.arange(6)[:, None] == 4, np.nan, np.zeros((6, 3)))},
            "signals has 3 samples that are not finite (NaN or infinite): repair or remove those of index 4.",
        ),
        (
            {"labels": np.zeros(6, int)},
            "class 'b' has no signal: no label is 1. Add signals of it, or remove",
        ),
        ({"labels": np.zeros(5, int)}, "labels has 5 entries for 6 signals: give one for each."),
        ({"labels": np.zeros(6)}, "labels is float64 of shape (6,), and must be one integer per signal"),
        (
            {"test_signals": np.zeros((2, 5))},
            "test_signals is there alone: give test_signals and test_labels",
        ),
    ],
)
def test_arrays_that_are_no_task(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays(**changes))
    for make in (
        lambda: Task.from_npz(tmp_path / "x.npz"),
        lambda: Task.from_signals("x", **arrays(**changes)),
    ):
        with pytest.raises(TaskError) as caught:
            make()
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labels": None},
            "x.npz lacks labels: an npz task holds the arrays signals, labels and class_names",
        ),
        ({"signals": None}, "x.npz lacks images: an npz task holds"),
        (
            {"images": np.zeros((6, 4, 4), np.uint8)},
            "x.npz holds both images and signals: make two tasks of it",
        ),
    ],
)
def test_npz_files_that_are_no_task(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays(**changes))
    with pytest.raises(TaskError) as caught:
        Task.from_npz(tmp_path / "x.npz")
    assert message in str(caught.value)


def test_signals_given_as_images_are_told_where_to_go() -> None:
    with pytest.raises(
        TaskError, match=r"Signals go into an array called signals, or into Task\.from_signals"
    ):
        Task.from_arrays("x", np.zeros((6, 20), np.float32), [0, 1] * 3, ["a", "b"])


def test_a_task_of_files_in_a_cache(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for index in range(3):
            write_wav(tmp_path / f"01/train/{name}/{index}.wav", little([index, 7] * (index + 1), 2))
    np.save(tmp_path / "01/train/a/3.npy", np.ones(4))
    (tmp_path / "01/train/a/notes.txt").write_text("ignored")
    task = Task.open(tmp_path / "01")
    assert (task.classes, task.train.labels.tolist()) == (("a", "b"), [0, 0, 0, 0, 1, 1, 1])
    assert isinstance(task.train.images, FileSignals)
    cache = PixelCache(task.train, preprocessing(1, 4, sample_rate=8000), budget_bytes=2 * 4 * 4)
    cache.verify()
    assert cache.kept_bytes == 2 * 4 * 4
    batch = cache.batch([1, 3, 0])
    assert batch.dtype == np.float32
    expected = [[SCALE, 7 * SCALE, SCALE, 7 * SCALE], [1, 1, 1, 1], [0, 0, 7 * SCALE, 0]]
    np.testing.assert_allclose(batch[:, :, 0], expected, rtol=1e-7)
    assert cache.batch([]).shape == (0, 4, 1)


def test_pictures_and_signals_are_kept_apart(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as caught:
        open_files([tmp_path / "a.png", tmp_path / "b.wav", tmp_path / "c.png"])
    assert str(caught.value) == (
        f"{tmp_path}/b.wav is a signal and {tmp_path}/a.png is an image, and one model takes only one of them: "
        "keep them apart."
    )
