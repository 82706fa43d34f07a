"""Images of what was never taught: predictions, exports, and states of before there was such a thing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from sklearn.metrics import roc_auc_score

from conftest import NAMES, Digits, build_digits_bundle, open_learner, write_pictures
from csk_sdk import ConfigError, Learner
from csk_sdk.network.predicting import Predictor
from csk_sdk.state import State

KNOWN = (0, 1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def digits(digits: Digits) -> Digits:
    """Mixed, for they come writer by writer, and the last writers write unlike the first."""
    order = np.random.default_rng(5).permutation(len(digits.labels))
    return Digits(digits.images[order], digits.labels[order])


@pytest.fixture(scope="module")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    base = write_pictures(folder / "base", digits, (0, 1, 2, 3), 0, 60)
    return build_digits_bundle(folder / "bundle", base_data=base)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, digits_bundle: Path, digits: Digits) -> Learner:
    """Knows the digits 0 to 5."""
    learner = open_learner(digits_bundle, tmp_path_factory.mktemp("taught") / "state")
    learner.learn(digits.task("01", (4, 5), train=60))
    return learner


def pictures(digits: Digits, chosen: tuple[int, ...]) -> np.ndarray:
    return digits.arrays(chosen, 100, 170)[0][..., None]


def test_a_prediction_unpacks_as_three_and_says_what_is_known(taught: Learner, digits: Digits) -> None:
    images = pictures(digits, KNOWN)
    prediction = taught.predict(images)
    labels, probabilities, classes = prediction
    assert len(labels) == len(probabilities) == len(images)
    assert classes == NAMES[:6]
    assert prediction.distance is not None
    assert prediction.known is not None
    assert prediction.distance.dtype == np.float32
    assert prediction.known.dtype == np.bool_
    assert prediction.distance.shape == prediction.known.shape == (len(images),)
    again = pickle.loads(pickle.dumps(prediction))
    np.testing.assert_array_equal(again.known, prediction.known)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_about_the_chosen_share_of_known_pictures_is_rejected(
    taught: Learner, digits: Digits, share: float
) -> None:
    known = taught.predict(pictures(digits, KNOWN), reject=share).known
    assert known is not None
    # 420 images: within three points and two standard deviations.
    assert 1.0 - known.mean() == pytest.approx(
        share, abs=0.03 + 2 * np.sqrt(share * (1 - share) / len(known))
    )
    everything = taught.predict(pictures(digits, KNOWN), reject=0.0).known
    assert everything is not None
    assert everything.all()


def test_what_was_never_taught_is_told(taught: Learner, digits: Digits) -> None:
    known, never = (taught.predict(pictures(digits, chosen)).distance for chosen in (KNOWN, (6, 7, 8, 9)))
    assert known is not None
    assert never is not None
    truth = np.repeat([0, 1], [len(known), len(never)])
    assert roc_auc_score(truth, np.concatenate([known, never])) > 0.85
    rejected = taught.predict(pictures(digits, (6, 7, 8, 9)), reject=0.05).known
    assert rejected is not None
    assert rejected.mean() < 0.5


def test_the_default_is_a_twentieth(taught: Learner, digits: Digits) -> None:
    images = pictures(digits, KNOWN)
    np.testing.assert_array_equal(taught.predict(images).known, taught.predict(images, reject=0.05).known)
    # Known is what is known at all, whatever task's classes are chosen from.
    np.testing.assert_array_equal(taught.predict(images, "01").known, taught.predict(images).known)


@pytest.mark.parametrize("share", [-0.1, 1.0, 5, float("nan"), "a", True])
def test_no_such_share(taught: Learner, digits: Digits, share: Any, tmp_path: Path) -> None:
    for call in (
        lambda: taught.predict(pictures(digits, (0,)), reject=share),
        lambda: taught.export(tmp_path / "out.onnx", reject=share),
    ):
        with pytest.raises(ConfigError, match="must be a share of the known images from 0 to below 1"):
            call()
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("task", [None, "01"])
def test_an_exported_model_rejects_alike(
    taught: Learner, digits: Digits, tmp_path: Path, task: str | None
) -> None:
    path = tmp_path / "out.onnx"
    taught.export(path, task, reject=0.1)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert {entry.key: entry.value for entry in model.metadata_props}["csk_sdk_reject"] == "0.1"
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()][1:] == ["known", "distance"]
    plain = tmp_path / "plain.onnx"
    taught.export(plain, task)
    images = pictures(digits, tuple(range(10)))
    feeds = {session.get_inputs()[0].name: taught.bundle.preprocessing(images)}
    answers, known, distance = session.run(None, feeds)
    (same,) = ort.InferenceSession(plain, providers=["CPUExecutionProvider"]).run(None, feeds)
    np.testing.assert_array_equal(answers, same)
    expected = taught.predict(images, task, reject=0.1)
    assert expected.distance is not None
    np.testing.assert_allclose(distance, expected.distance, rtol=1e-4)
    limit = taught.predictor().doubt(0.1)
    assert limit is not None
    clear = np.abs(expected.distance / limit.distance.limit(0.1) - 1.0) > 1e-3
    np.testing.assert_array_equal(known[clear], np.asarray(expected.known)[clear])
    assert 0 < known.sum() < len(known)


def test_names_that_the_model_has_already_are_not_taken(
    digits_bundle: Path, digits: Digits, tmp_path: Path
) -> None:
    from csk_sdk.network.export_rejection import rejection

    model = onnx.load(digits_bundle / "export_template.onnx", load_external_data=False)
    model.graph.output[0].name = "known"
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name not in {one for other in model.graph.node for one in other.input}:
                node.output[index] = "known"
    doubt = open_learner(digits_bundle, tmp_path / "state").predictor().doubt()
    assert doubt is not None
    found = rejection(model.SerializeToString(), "head.weight", doubt.distance, 2.0)
    assert found.outputs == ("csk_sdk_known", "distance")


def without_sketch(learner: Learner, folder: Path) -> Learner:
    """As a bundle or a state of before is opened: what it knows, without how far that reaches."""
    tensors = {
        name: one for name, one in learner.generation.tensors.items() if not name.startswith("familiarity.")
    }
    state = State.open(folder, learner.bundle.id, tensors)
    return Learner(learner.bundle, state, learner.config)


def test_where_nothing_was_measured_nothing_is_rejected_until_the_next_task(
    digits_bundle: Path, digits: Digits, tmp_path: Path
) -> None:
    learner = without_sketch(open_learner(digits_bundle, tmp_path / "new"), tmp_path / "before")
    images = pictures(digits, (0, 1, 2, 3))
    prediction = learner.predict(images)
    assert prediction.known is None
    assert prediction.distance is None
    for call in (
        lambda: learner.predict(images, reject=0.05),
        lambda: learner.export(tmp_path / "out.onnx", reject=0.05),
    ):
        with pytest.raises(ConfigError, match=r"was never measured here.*learn a task"):
            call()
    learner.learn(digits.task("01", (4, 5), train=60))
    known = learner.predict(pictures(digits, KNOWN)).known
    assert known is not None
    assert 0.8 < known.mean() < 1.0


def test_a_bundle_without_base_data_measures_with_its_first_task(digits: Digits, tmp_path: Path) -> None:
    bundle = build_digits_bundle(tmp_path / "bundle", base_data=None)
    learner = open_learner(bundle, tmp_path / "state")
    assert learner.predict(pictures(digits, (0,))).known is None
    learner.learn(digits.task("01", (4, 5, 6), train=60))
    prediction = learner.predict(pictures(digits, (4, 5, 6)))
    assert prediction.classes == ("four", "five", "six")
    assert prediction.known is not None
    assert 0.8 < prediction.known.mean() < 1.0


def test_without_class_statistics_nothing_is_said(
    digits_bundle: Path, digits: Digits, tmp_path: Path
) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state", class_statistics=False)
    learner.learn(digits.task("01", (4, 5)))
    assert learner.predict(pictures(digits, (4,))).known is None
    assert "four" not in str(learner.generation.tensors["familiarity.classes"].tobytes())


def test_threads_ask_at_once(taught: Learner, digits: Digits) -> None:
    from concurrent.futures import ThreadPoolExecutor

    images = pictures(digits, KNOWN)
    predictor = Predictor(taught.bundle, taught.generation, 1)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: predictor.predict(images).distance, range(8)))
    assert all(one is not None for one in found)
    for one in found[1:]:
        np.testing.assert_array_equal(one, found[0])
