"""A real 1-d network learns new kinds of sound, and images of many channels go the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import sounds
from conftest import Digits
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_device_runners.check import check_bundle
from csk_sdk import ConfigError, Learner, Task, TaskError, TrainingConfig

PAIRS = (("01", sounds.NEW[:2]), ("02", sounds.NEW[2:]))


def open_learner(bundle: Path, state: Path, **settings: Any) -> Learner:
    """A learning rate at which a network without protection forgets."""
    return Learner.open(
        bundle,
        state,
        TrainingConfig(
            **{
                "threads": 1,
                "learning_rate": 0.05,
                "few_shot": 0,
                "train": "centers",
                "max_forgetting": 100.0,
                "gradient_share": 1.0,
                **settings,
            }
        ),
    )


def task(name: str, kinds: tuple[str, ...], count: int = 50) -> Task:
    held_out = dict(zip(("test_signals", "test_labels"), sounds.arrays(kinds, 20, seed=2), strict=True))
    return Task.from_signals(name, *sounds.arrays(kinds, count, seed=1), kinds, **held_out)


def accuracy(learner: Learner, kinds: tuple[str, ...], name: str | None = None) -> float:
    """Share of clips that nothing was trained on whose kind is predicted."""
    clips, labels = sounds.arrays(kinds, 40, seed=2)
    return float(np.mean(learner.predict(clips, name).labels == np.array(kinds)[labels]))


@pytest.fixture
def learner(sounds_bundle: Path, tmp_path: Path) -> Learner:
    return open_learner(sounds_bundle, tmp_path / "state")


@pytest.fixture(scope="module")
def lives(sounds_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Learner]:
    """Both tasks learned, protected and not."""
    settings: dict[str, dict[str, Any]] = {
        "protected": {},
        "unprotected": {"energy": 0.0, "channel_ratio": 1.0, "max_forgetting": 100.0},
    }
    made = {}
    for name, chosen in settings.items():
        made[name] = open_learner(sounds_bundle, tmp_path_factory.mktemp(name), **chosen)
        for one, kinds in PAIRS:
            made[name].learn(task(one, kinds))
    return made


@pytest.mark.slow
def test_sounds_are_learned_and_nothing_is_forgotten(lives: dict[str, Learner]) -> None:
    learner = lives["protected"]
    assert learner.classes == sounds.BASE + sounds.NEW
    assert accuracy(learner, sounds.BASE, "base") > 0.95
    for name, kinds in PAIRS:
        assert accuracy(learner, kinds, name) > 0.9
    # Chance is 1 in 8.
    assert accuracy(learner, sounds.BASE + sounds.NEW) > 0.85


def test_without_protection_they_are_forgotten(lives: dict[str, Learner]) -> None:
    assert accuracy(lives["unprotected"], PAIRS[1][1], "02") > 0.9
    assert accuracy(lives["unprotected"], sounds.BASE) < accuracy(lives["protected"], sounds.BASE) - 0.3


def test_each_step_was_kept_off_what_the_base_needs(lives: dict[str, Learner], learner: Learner) -> None:
    before, after = learner.generation.tensors, lives["protected"].generation.tensors
    centers = [name for name in before if name.startswith("center/")]
    assert len(centers) == 3
    assert any(np.any(before[name] != after[name]) for name in centers)
    report = learner.learn(task("03", PAIRS[0][1]))
    assert report.leak <= 1e-5


def test_what_is_exported_gives_the_same_answers(lives: dict[str, Learner], tmp_path: Path) -> None:
    learner = lives["protected"]
    learner.export(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["signal"]
    names = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    clips, _ = sounds.arrays(sounds.BASE + sounds.NEW, 5, seed=2)
    std = learner.bundle.manifest.preprocessing.std[0]
    (logits,) = session.run(None, {"signal": (clips / 32768 / std).astype(np.float32)[:, None]})
    assert np.array(names)[logits.argmax(axis=1)].tolist() == learner.predict(clips).labels.tolist()


def test_floats_longer_and_shorter_clips_and_lists(lives: dict[str, Learner]) -> None:
    learner = lives["protected"]
    clips, _ = sounds.arrays(sounds.BASE, 5, seed=2)
    expected = learner.predict(clips).probabilities
    np.testing.assert_allclose(learner.predict(clips / 32768).probabilities, expected, atol=1e-5)
    longer = np.pad(clips, ((0, 0), (10, 11)), mode="wrap")
    np.testing.assert_array_equal(learner.predict(list(longer)).probabilities, expected)
    quiet = clips.copy()
    quiet[:, :100] = quiet[:, -100:] = 0
    np.testing.assert_array_equal(
        learner.predict(quiet[:, 100:-100]).probabilities, learner.predict(quiet).probabilities
    )


def test_a_signal_that_overflows_in_the_network_gets_no_answer(lives: dict[str, Learner]) -> None:
    clips = sounds.arrays(sounds.NEW[:1], 3, seed=2)[0].astype(np.float32)
    clips[2] *= 1e37 / np.abs(clips[2]).max()
    assert np.isfinite(clips).all()
    with pytest.raises(TaskError, match=r"^For signal 2 the network computes numbers that are not finite"):
        lives["protected"].predict(clips)
    clips[1, 0] = np.nan
    with pytest.raises(TaskError, match=r"signal 1 has 1 sample that is not finite"):
        lives["protected"].predict(clips)


@pytest.mark.parametrize("heads", ["heads", "centers"])
@pytest.mark.parametrize(("scale", "broken"), [(16000.0, 1.0), (1e10, 1.0), (1.0, 1e12)])
def test_signals_of_another_scale_are_refused(
    sounds_bundle: Path, tmp_path: Path, heads: str, scale: float, broken: float
) -> None:
    """16-bit samples that were saved as floats, or one spike, would cover all that is known."""
    learner = open_learner(sounds_bundle, tmp_path / "state", train=heads)
    clips, labels = sounds.arrays(sounds.NEW[:2], 20, seed=1)
    clips = clips.astype(np.float32) / (32768 if clips.dtype == np.int16 else 1) * np.float32(scale)
    clips[3] *= np.float32(broken)
    with pytest.raises(TaskError, match=r"classes would spread .* times as wide .* Nothing was committed"):
        learner.learn(Task.from_signals("01", clips, labels, sounds.NEW[:2]))
    assert learner.tasks == ()
    assert accuracy(learner, sounds.BASE) > 0.9


def test_louder_signals_are_not(sounds_bundle: Path, tmp_path: Path) -> None:
    learner = open_learner(sounds_bundle, tmp_path / "state", train="heads")
    clips, labels = sounds.arrays(sounds.NEW[:2], 20, seed=1)
    clips = clips.astype(np.float32) / (32768 if clips.dtype == np.int16 else 1)
    learner.learn(Task.from_signals("01", 2 * clips, labels, sounds.NEW[:2]))
    assert accuracy(learner, sounds.BASE) > 0.9


def test_an_application_feeds_batches(learner: Learner) -> None:
    kinds = PAIRS[0][1]
    clips, labels = sounds.arrays(kinds, 40, seed=1)
    order = np.random.default_rng(0).permutation(len(clips))
    with learner.stream("01", kinds) as stream:
        for part in np.array_split(order, 8):
            stream.observe(clips[part], labels[part])
    assert accuracy(learner, kinds, "01") > 0.9
    with (
        pytest.raises(TaskError, match="Task '02' saw no signal of 'tremolo'"),
        learner.stream("02", PAIRS[1][1]) as s,
    ):
        s.observe(clips[:4], [0, 0, 0, 0])


def test_evaluation_over_test_signals(lives: dict[str, Learner]) -> None:
    found = lives["protected"].evaluate([task(name, kinds) for name, kinds in PAIRS])
    assert min(found.matrix.values[-1][-2:]) > 90.0


def test_the_runner_confirms_the_gradients(sounds_bundle: Path) -> None:
    results = check_bundle(sounds_bundle)
    assert [result.name for result in results if not result.passed] == []
    assert sum(result.name.startswith("gradient of") for result in results) == 6


# What does not fit


def test_pictures_for_a_model_of_signals(learner: Learner, digits: Digits) -> None:
    with pytest.raises(TaskError) as caught:
        learner.learn(digits.task("01", (4, 5)))
    assert str(caught.value) == (
        "None of the 80 images can be learned. The first: "
        "Task '01': images[0] is an image (uint8 of shape (8, 8, 1)), and the model takes signals: int16 or float, "
        "(length, channels) = (2048, 1)."
    )
    with pytest.raises(TaskError, match=r"The array is an image \(uint8 of shape \(20, 8, 8\)\)"):
        learner.predict(digits.of(4, 0, 20))
    assert learner.generation.number == 0


def test_signals_for_a_model_of_pictures(digits_bundle: Path, tmp_path: Path) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state")
    with pytest.raises(TaskError) as caught:
        learner.learn(task("01", PAIRS[0][1]))
    assert str(caught.value) == (
        "None of the 100 signals can be learned. The first: "
        "Task '01': signals[0] is a signal of 2,048 samples, and the model takes images of 8x8 pixels (width x "
        "height): hand over uint8 images."
    )
    with pytest.raises(TaskError, match="The images are int16 and must be uint8"):
        learner.predict(sounds.clips("tone", 2, 0))


def test_stereo_for_a_model_of_one_channel(learner: Learner) -> None:
    clips, labels = sounds.arrays(PAIRS[0][1], 5, seed=1)
    stereo = Task.from_signals("01", np.stack([clips, clips], axis=2), labels, PAIRS[0][1])
    with pytest.raises(TaskError, match=r"signals\[0\] has 2 channels and the model takes 1"):
        learner.learn(stereo)


def test_a_flip_for_signals(sounds_bundle: Path, tmp_path: Path) -> None:
    learner = open_learner(sounds_bundle, tmp_path / "state", flip=True)
    with pytest.raises(ConfigError, match="takes signals, which are never mirrored"):
        learner.learn(task("01", PAIRS[0][1]))


# Images of any number of channels


def test_pictures_of_five_bands(tmp_path: Path) -> None:
    """Bands of an instrument: which of them is bright is the class. The network is as it was drawn."""
    rng = np.random.default_rng(0)
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> m (float[N,5,8,8] x) => (float[N,2] y) {'
        " c = Conv <pads=[1,1,1,1]> (x, w) \n r = Relu(c) \n d = Conv <pads=[1,1,1,1]> (r, v) \n s = Relu(d) \n"
        " p = GlobalAveragePool(s) \n f = Flatten(p) \n y = Gemm <transB=1> (f, h, b) }"
    )
    model = onnx.parser.parse_model(text)
    for name, shape in (("w", (16, 5, 3, 3)), ("v", (16, 16, 3, 3)), ("h", (2, 16)), ("b", (2,))):
        drawn = rng.normal(0, 0.15, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(drawn, name))
    onnx.save(model, tmp_path / "bands.onnx")
    build_artifacts(tmp_path / "bands.onnx", tmp_path / "bundle", BuildOptions(mean=[0.5] * 5, std=[0.3] * 5))

    def bands(seed: int) -> tuple[np.ndarray, np.ndarray]:
        noise = np.random.default_rng(seed).integers(0, 120, (90, 9, 8, 5))
        labels = np.arange(90) % 3
        noise[np.arange(90), :, :, labels + 2] += 80
        return noise.astype(np.uint8), labels

    learner = open_learner(tmp_path / "bundle", tmp_path / "state")
    pictures, labels = bands(1)
    learner.learn(Task.from_arrays("01", pictures, labels, ["red edge", "infrared", "thermal"]))
    held_out, truth = bands(2)
    predicted = learner.predict(held_out, "01").labels
    assert np.mean(predicted == np.array(["red edge", "infrared", "thermal"])[truth]) > 0.9
    with pytest.raises(TaskError, match="image 0 has 3 channels and the model takes 5"):
        learner.predict(held_out[..., :3])
