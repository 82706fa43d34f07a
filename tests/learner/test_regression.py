"""Mean squared error end to end: by how much handwritten digits are turned, and how high they stand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from sklearn.metrics import r2_score

import tables
from conftest import Digits, open_learner
from csk_sdk import ConfigError, Task, TaskError

ANGLE, HEIGHT = (4, 5, 6), (7, 8, 9)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    return tables.angle_bundle(digits, tmp_path_factory.mktemp("angle"))


@pytest.fixture(scope="module")
def tasks(digits: Digits) -> list[Task]:
    return [tables.angle_task(digits, "01", ANGLE), tables.height_task(digits, "02", HEIGHT)]


def test_tasks_are_learned_and_nothing_is_forgotten(bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    learner = open_learner(bundle, tmp_path / "state", shift=0)
    for task in tasks:
        report = learner.learn(task)
        assert report.leak <= 1e-5
        found = learner.score(tasks).evaluation("task")
    assert found.metric == "R2"
    # The mean as an answer has an R2 of 0, and the source model's head, on digits that it does not know:
    test = tasks[0].test
    assert test is not None
    images = [test.images.read(index) for index in range(len(test))]
    untrained = r2_score(test.labels, open_learner(bundle, tmp_path / "none").predict(images).labels)
    matrix = found.matrix.values
    assert matrix[0, 0] > 100 * untrained + 30
    assert matrix[0, 0] > 80
    assert matrix[1, 1] > 75
    assert found.matrix.forgetting < 3.0
    rmse = found.to_json()["rmse"]
    # Uniform in 40 degrees either way: the deviation is 23, and what is left of it sqrt(1 - R2).
    assert rmse["01"]["angle"] == pytest.approx(23.1 * np.sqrt(1 - matrix[1, 0] / 100), rel=0.1)
    assert 0 < rmse["02"]["height"] < 5


def test_heads_only_where_it_is_asked_for(bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    learner = open_learner(bundle, tmp_path / "state", train="heads")
    report = learner.learn(tasks[0])
    assert (report.heads_only_because, report.epochs) == ("train", 0)
    split = tasks[0].train
    assert split is not None
    images = [split.images.read(index) for index in range(len(split))]
    tensors = learner.generation.tensors
    weight, bias = (tensors[f"head/01/{part}"] for part in ("weight", "bias"))
    values = learner.features(images).astype(np.float64) @ weight.T + bias
    # In units of the targets' deviation, as training has it: what ridge regression leaves unexplained.
    assert report.loss == pytest.approx(np.mean((values - split.labels) ** 2) / split.labels.var(), rel=1e-4)


def test_trained_centers_beat_a_head_alone(bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    scores = []
    for rate in (0.0, 0.05):
        learner = open_learner(bundle, tmp_path / str(rate), learning_rate=rate, shift=0)
        learner.learn(tasks[0])
        scores.append(learner.score(tasks).evaluation("task").matrix.acc)
    assert scores[1] > scores[0] + 1.0


def test_the_unit_of_a_target_does_not_matter(bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    """Learning in turns and in degrees gives the same network."""
    train, test = tasks[0].train, tasks[0].test
    assert train is not None
    assert test is not None
    images = np.stack([train.images.read(index) for index in range(len(train))])
    learners = []
    for unit in (1.0, 1024.0):
        learner = open_learner(bundle, tmp_path / str(unit), shift=0)
        learner.learn(Task.from_arrays("01", images, train.labels * np.float32(unit), ["angle"]))
        learners.append(learner)
    plain, scaled = (learner.predict(images[:30], "01").labels for learner in learners)
    np.testing.assert_allclose(scaled / 1024, plain, rtol=1e-3, atol=1e-3)


def test_predictions_are_values_and_the_export_gives_the_same(
    bundle: Path, tmp_path: Path, tasks: list[Task], digits: Digits
) -> None:
    learner = open_learner(bundle, tmp_path / "state", shift=0)
    for task in tasks:
        learner.learn(task)
    images = digits.images[:8]
    prediction = learner.predict(images)
    # "angle" is the base's and the first task's: the later one answers.
    assert prediction.classes == ("angle", "height")
    assert prediction.labels.shape == (8, 2)
    assert prediction.labels.dtype == np.float32
    assert prediction.probabilities.shape == (8, 0)
    np.testing.assert_allclose(
        learner.predict(images, "02").labels, prediction.labels[:, 1:], rtol=1e-4, atol=1e-5
    )
    assert np.abs(learner.predict(images, "base").labels - prediction.labels[:, :1]).max() > 0.1
    learner.export(tmp_path / "model.onnx")
    model = onnx.load(str(tmp_path / "model.onnx"))
    assert (model.metadata_props[0].key, json.loads(model.metadata_props[0].value)) == (
        "targets",
        ["angle", "height"],
    )
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    x = learner.bundle.preprocessing.normalize(learner.bundle.preprocessing.stack(images))
    (values,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(values, prediction.labels, rtol=1e-4, atol=1e-3)


def test_an_interrupted_run_ends_the_same(bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    learners = [open_learner(bundle, tmp_path / name, checkpoint_seconds=0.0) for name in ("whole", "halved")]
    tables.check_that_interrupting_changes_nothing(*learners, tasks[0])


def test_a_stream_of_one_target_takes_plain_numbers(bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    learner = open_learner(bundle, tmp_path / "state", shift=0, sensitivity_batches=4)
    train, test = tasks[0].train, tasks[0].test
    assert train is not None
    assert test is not None
    images = np.stack([train.images.read(index) for index in range(len(train))])
    with learner.stream("s", ["angle"]) as stream:
        for start in range(0, len(images), 16):
            stream.observe(images[start : start + 16], train.labels[start : start + 16, 0])
    held_out = [test.images.read(index) for index in range(len(test))]
    assert r2_score(test.labels, learner.predict(held_out, "s").labels) > 0.75


def test_labels_of_another_loss_are_refused(bundle: Path, tmp_path: Path, digits: Digits) -> None:
    learner = open_learner(bundle, tmp_path / "state")
    message = (
        "Task 'x' gives each image one class, but this bundle was built with --loss mse: give labels (n, targets), "
        "one column of numbers for each of target_names, or a metadata.csv"
    )
    with pytest.raises(TaskError) as caught:
        learner.learn(Task.from_arrays("x", digits.images[:4], [0, 1, 0, 1], ["a", "b"]))
    assert message in str(caught.value)
    with pytest.raises(TaskError, match="Task 's' has no targets: name at least one"):
        learner.stream("s", [])
    with pytest.raises(
        ConfigError, match=r"label_smoothing is 0\.1, but this bundle's loss is mse, and only"
    ):
        learner.stream("s", ["angle"], learner.config.with_overrides(label_smoothing=0.1))


def test_a_classifiers_bundle_refuses_tables(digits_bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state")
    with pytest.raises(TaskError) as caught:
        learner.learn(tasks[0])
    assert str(caught.value) == (
        "Task '01' has a table of labels (240, 1), but this bundle learns one class per image: give labels (n,), "
        "indices into class_names, or folders <class>/; or build the bundle with --loss binary-cross-entropy (any "
        "number of classes per image) or mse (numbers)."
    )
