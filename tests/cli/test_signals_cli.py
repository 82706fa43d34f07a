"""The command line on a model of signals: WAV files in, classes out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import sounds
from conftest import REPOSITORY

MODEL = REPOSITORY / "examples" / "sounds" / "sounds-base4.onnx"


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, sounds_bundle: Path) -> Path:
    """Tasks 01 of WAV files and 02 of arrays; base with test files. Nothing learned."""
    folder = tmp_path_factory.mktemp("sounds-cli")
    (folder / "bundle").symlink_to(sounds_bundle)
    (folder / "csk.toml").write_text("[training]\nepochs = 1\nthreads = 1\nfew_shot = 0\ntrain = 'centers'\n")
    sounds.write_folder(folder / "tasks/base/test", sounds.BASE, 6, seed=2)
    sounds.write_folder(folder / "tasks/01/train", sounds.NEW[:2], 30, seed=1)
    sounds.write_folder(folder / "tasks/01/test", sounds.NEW[:2], 10, seed=2)
    arrays = dict(zip(("signals", "labels"), sounds.arrays(sounds.NEW[2:], 30, seed=1), strict=True))
    held_out = dict(
        zip(("test_signals", "test_labels"), sounds.arrays(sounds.NEW[2:], 10, seed=2), strict=True)
    )
    np.savez(folder / "tasks/02.npz", **arrays, **held_out, class_names=np.array(sounds.NEW[2:]))
    return folder


@pytest.fixture(scope="module")
def learned(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with both learned."""
    from .conftest import csk_sdk

    folder = Path(
        shutil.copytree(space, tmp_path_factory.mktemp("sounds-learned") / "workspace", symlinks=True)
    )
    done = csk_sdk("train", "--task", "all", "--workspace", folder)
    assert done.status == 0, done.err
    assert "Learning 01: 2 classes, 60 signals" in done.out
    return folder


@pytest.mark.slow
def test_build_and_inspect(run, tmp_path):
    sounds.write_folder(tmp_path / "base", sounds.BASE, 10, seed=1)
    arguments = (
        "--base-data",
        tmp_path / "base",
        "--classes",
        MODEL.with_suffix(".json"),
        "--out",
        tmp_path / "b",
    )
    refused = run("build-artifacts", MODEL, *arguments)
    assert refused.status == 1
    assert ".wav is sampled at 8000 Hz, and the bundle does not say what its model takes" in refused.err
    done = run("build-artifacts", MODEL, *arguments, "--sample-rate", "8000")
    assert (done.status, done.err) == (0, "")
    assert "Base accuracy  100.0 % of the base data" in done.out
    shown = run("inspect", tmp_path / "b").out
    assert (
        "signals of 2048 samples at 8000 Hz, 1 channel, mean 0, std 0.3259; other lengths are cropped"
        in shown
    )
    assert "batches of 16, shifted in time, fp32" in shown
    found = run("inspect", tmp_path / "b", "--json").json
    assert found["input"] == {"name": "image", "channels": 1, "size": [2048]}
    assert found["preprocessing"]["sample_rate"] == 8000


def test_evaluate(run, learned):
    found = run("evaluate", "--workspace", learned, "--json", "--scenario", "class").json
    assert found["tasks"] == ["base", "01", "02"]
    assert min(found["accuracy_matrix"][-1]) > 80.0


def test_predict(run, learned):
    files = [f"{learned}/tasks/01/test/{kind}/003.wav" for kind in sounds.NEW[:2]]
    found = run("predict", *files, "--workspace", learned, "--task", "01", "--json").json
    assert [one["file"] for one in found] == files
    assert [one["label"] for one in found] == list(sounds.NEW[:2])


def test_tasks_doctor_and_export(run, learned, tmp_path):
    listed = run("tasks", "--workspace", learned, "--json").json
    counts = {one["name"]: (one["train_images"], one["test_images"]) for one in listed}
    assert counts == {"01": (60, 20), "02": (60, 20), "base": (0, 24)}
    checks = run("doctor", "--workspace", learned, "--json").json
    assert {one["name"]: one["status"] for one in checks["checks"]}["Training step"] == "ok"
    assert run("export", "--workspace", learned, "--out", tmp_path / "new.onnx").status == 0
    (given,) = onnx.load(tmp_path / "new.onnx").graph.input
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim][1:] == [1, 2048]


@pytest.fixture
def recording(tmp_path):
    """A WAV file of two channels, or of another rate."""
    import wave

    def write(name: str, channels: int, rate: int) -> Path:
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(np.zeros(3000 * channels, "<i2").tobytes())
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("channels", "rate", "message"),
    [
        (1, 44100, "x.wav is sampled at 44100 Hz and the model takes 8000 Hz: resample it."),
        (2, 8000, "x.wav has 2 channels and the model takes 1: hand over signals with the channels"),
    ],
)
def test_a_recording_that_does_not_fit(run, learned, recording, channels, rate, message):
    done = run("predict", recording("x.wav", channels, rate), "--workspace", learned)
    assert done.status == 1
    assert message in done.err


def test_a_picture_for_a_model_of_signals(run, learned, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    done = run("predict", tmp_path / "x.png", "--workspace", learned)
    assert done.status == 1
    assert "x.png is an image (uint8 of shape (8, 8, 3)), and the model takes signals" in done.err


def test_a_sound_for_a_model_of_pictures(run, fresh_workspace, recording):
    done = run("predict", recording("x.wav", 1, 8000), "--workspace", fresh_workspace)
    assert done.status == 1
    assert "x.wav is a signal of 3,000 samples, and the model takes images of 8x8 pixels" in done.err


def test_a_task_with_a_broken_recording_changes_nothing(run, space, tmp_path):
    workspace = Path(shutil.copytree(space, tmp_path / "workspace", symlinks=True))
    broken = workspace / "tasks/01/train/siren/007.wav"
    broken.write_bytes(broken.read_bytes()[:1000])
    done = run("train", "--task", "01", "--workspace", workspace, "--no-evaluate")
    assert done.status == 1
    assert f"{broken} cannot be decoded (it ends after " in done.err
    assert not (workspace / "state" / "HEAD").exists()
