"""Binary cross-entropy end to end: attributes of handwritten digits, several at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.special import log_expit
from sklearn.metrics import average_precision_score

import tables
from conftest import Digits, open_learner
from csk_sdk import ConfigError, Learner, Task, TaskError, TrainingConfig

FIRST, SECOND = ("loop", "prime", "above five"), ("stem", "round")
EVERY = tuple(range(10))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    return tables.attribute_bundle(digits, tmp_path_factory.mktemp("attributes"))


@pytest.fixture
def tasks(digits: Digits) -> list[Task]:
    return [
        tables.attribute_task(digits, "01", (4, 5, 6, 7), FIRST),
        tables.attribute_task(digits, "02", EVERY, SECOND),
    ]


@pytest.fixture
def base(digits: Digits) -> Task:
    images, labels = tables.chosen(digits, tables.BASE, 100, 140)
    names = ("even", "round")
    whole = Task.from_arrays("base", images, tables.attributes(labels, names), names)
    return Task("base", names, None, whole.train)


@pytest.mark.slow
def test_tasks_are_learned_and_nothing_is_forgotten(
    bundle: Path, tmp_path: Path, tasks: list[Task], base: Task
) -> None:
    learner = open_learner(bundle, tmp_path / "state")
    learner.score([base])
    for task in tasks:
        report = learner.learn(task)
        assert report.leak <= 1e-5
        found = learner.score([*tasks, base]).evaluation("task")
    assert found.metric == "mAP"
    matrix = found.matrix.values
    share = [100 * task.test.labels.mean() for task in tasks if task.test]  # what guessing gets
    assert max(share) < 55
    assert matrix[0, 0] > 95
    assert matrix[1, 1] > 95
    assert matrix[2, 2] > 90
    assert found.matrix.forgetting < 1.0
    assert np.isfinite(report.loss)


def test_trained_centers_beat_a_head_alone(bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    scores = []
    for rate in (0.0, 0.2):
        learner = open_learner(bundle, tmp_path / str(rate), learning_rate=rate)
        learner.learn(tasks[1])
        scores.append(learner.score(tasks).evaluation("task").matrix.acc)
    assert scores[1] > scores[0] + 0.5


def _told(learner: Learner, task: Task) -> tuple[NDArray[Any], NDArray[Any]]:
    """What the task's own head says of its images, and their labels."""
    assert task.train is not None
    images = [task.train.images.read(index) for index in range(len(task.train))]
    tensors = learner.generation.tensors
    weight, bias = (tensors[f"head/{task.name}/{part}"] for part in ("weight", "bias"))
    return learner.features(images).astype(np.float64) @ weight.T + bias, task.train.labels


@pytest.mark.parametrize("train", ["heads", "auto"])
def test_heads_only_where_it_is_asked_for(
    bundle: Path, tmp_path: Path, tasks: list[Task], train: str
) -> None:
    still = open_learner(bundle, tmp_path / "still", learning_rate=0.0, epochs=1)
    still.learn(tasks[0])
    learner = open_learner(bundle, tmp_path / "state", train=train)
    report = learner.learn(tasks[0])
    assert report.gain == {}, "nothing was measured for several labels an image: auto trains"
    assert report.heads_only_because == ("train" if train == "heads" else "")
    if train == "heads":
        for name, tensor in learner.generation.tensors.items():
            np.testing.assert_array_equal(tensor, still.generation.tensors[name], err_msg=name)
        z, y = _told(learner, tasks[0])
        expected = -np.mean(y * log_expit(z) + (1 - y) * log_expit(-z))
        assert report.loss == pytest.approx(expected, rel=1e-4)


def test_predictions_are_sigmoids_of_independent_heads(
    bundle: Path, tmp_path: Path, tasks: list[Task], digits: Digits
) -> None:
    learner = open_learner(bundle, tmp_path / "state")
    for task in tasks:
        learner.learn(task)
    # "round" is the base's and the second task's: the later one answers.
    assert learner.classes == ("even", "round", *FIRST, "stem")
    images = digits.images[:20]
    everything, first, second = (learner.predict(images, task) for task in (None, "01", "02"))
    assert everything.probabilities.shape == (20, 6)
    np.testing.assert_allclose(everything.probabilities[:, 2:5], first.probabilities, rtol=1e-5)
    np.testing.assert_allclose(everything.probabilities[:, [5, 1]], second.probabilities, rtol=1e-5)
    logits = learner.features(images) @ learner.head("01").weight.T + learner.head("01").bias
    np.testing.assert_allclose(
        first.probabilities, 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-4, atol=1e-6
    )
    for labels, row in zip(first.labels, first.probabilities, strict=True):
        assert labels == tuple(name for name, p in zip(FIRST, row, strict=True) if p > 0.5)


def test_map_is_scikit_learns_on_what_is_predicted(bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    learner = open_learner(bundle, tmp_path / "state")
    learner.learn(tasks[0])
    test = tasks[0].test
    assert test is not None
    images = [test.images.read(index) for index in range(len(test))]
    expected = average_precision_score(test.labels, learner.predict(images, "01").probabilities)
    scores = learner.score(tasks)
    for scenario in ("task", "class"):
        assert scores.evaluation(scenario).matrix.acc == pytest.approx(100 * expected, abs=1e-3)


def test_the_export_ends_in_the_sources_sigmoid(
    bundle: Path, tmp_path: Path, tasks: list[Task], digits: Digits
) -> None:
    learner = open_learner(bundle, tmp_path / "state")
    learner.learn(tasks[0])
    learner.export(tmp_path / "model.onnx")
    model = onnx.load(str(tmp_path / "model.onnx"))
    assert model.graph.node[-1].op_type == "Sigmoid"
    assert json.loads(model.metadata_props[0].value) == ["even", "round", *FIRST]
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    images = learner.bundle.preprocessing.normalize(learner.bundle.preprocessing.stack(digits.images[:8]))
    (probabilities,) = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(probabilities, learner.predict(digits.images[:8]).probabilities, atol=1e-5)


def test_a_stream_learns_a_rare_class(bundle: Path, tmp_path: Path, digits: Digits) -> None:
    """One image in 16 has it; the sample that the head is fitted on keeps some."""
    learner = open_learner(bundle, tmp_path / "state", sensitivity_batches=4)
    images, labels = tables.chosen(digits, EVERY, 0, 60)
    keep = (labels != 9) | (np.arange(len(labels)) % 2 == 0)
    images, labels = images[keep], labels[keep]
    table = np.stack([labels == 9, np.isin(labels, (4, 7))], axis=1)
    with learner.stream("s", ["nine", "angular"]) as stream:
        losses = [stream.observe(images[i : i + 16], table[i : i + 16]) for i in range(0, len(images), 16)]
    assert losses[:3] == [None] * 3
    assert losses[-1] is not None
    held_out, truth = digits.arrays(EVERY, 100, 140)
    predicted = learner.predict(held_out, "s").probabilities
    assert average_precision_score(truth == 9, predicted[:, 0]) > 0.7
    assert average_precision_score(np.isin(truth, (4, 7)), predicted[:, 1]) > 0.9


def test_an_interrupted_run_ends_the_same(bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    learners = [open_learner(bundle, tmp_path / name, checkpoint_seconds=0.0) for name in ("whole", "halved")]
    tables.check_that_interrupting_changes_nothing(*learners, tasks[0])


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (
            np.array([0, 1, 0, 1]),
            ["a", "b"],
            "Task 'x' gives each image one class, but this bundle was built with --loss binary-cross-entropy: give "
            "labels (n, classes) of 0 and 1, one column for each of class_names, or a metadata.csv",
        ),
        (
            np.array([[0, 1], [1, 0], [0, 0.5], [1, 1]]),
            ["a", "b"],
            "Task 'x': label 'b' of image 2 is 0.5, and must be 0 or 1 in a bundle built with --loss "
            "binary-cross-entropy. For other numbers, build it with --loss mse.",
        ),
    ],
    ids=["classes", "not 0 or 1"],
)
def test_labels_of_another_loss_are_refused(
    bundle: Path, tmp_path: Path, digits: Digits, labels: np.ndarray, names: list[str], message: str
) -> None:
    learner = open_learner(bundle, tmp_path / "state")
    with pytest.raises(TaskError) as caught:
        learner.learn(Task.from_arrays("x", digits.images[:4], labels, names))
    assert message in str(caught.value)
    assert learner.generation.number == 0


def test_bad_batches_of_a_stream_are_refused(bundle: Path, tmp_path: Path, digits: Digits) -> None:
    learner = open_learner(bundle, tmp_path / "state")
    with pytest.raises(TaskError, match="Task 's' has no classes: name at least one"):
        learner.stream("s", [])
    images = digits.images[:2]
    stream = learner.stream("s", ["a", "b"])
    stream.__enter__()
    for labels, message in (
        ([0, 1], r"2 images came with labels of shape \(2,\): give labels \(n, classes\)"),
        ([[0, 1, 1], [0, 1, 1]], r"labels is int64 of shape \(2, 3\), and must be"),
        ([[0, 1]], "labels has 1 entry for 2 images"),
        ([[0, 2], [0, 1]], "The batch: label 'b' of image 0 is 2, and must be 0 or 1"),
        ([[0, np.nan], [0, 1]], r"labels\[0, 1\] \('b'\) is nan, and a label must be a finite number"),
    ):
        with pytest.raises(TaskError, match=message):
            stream.observe(images, labels)
    assert stream.observe(images[:0], []) is None
    stream.observe(images, [[0, 1], [1, 1]])
    with pytest.raises(TaskError, match="saw only images with one and the same label 'b'; nothing was"):
        stream.__exit__(None, None, None)
    assert learner.generation.number == 0


def test_smoothing_belongs_to_cross_entropy(bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    learner = open_learner(bundle, tmp_path / "state")
    with pytest.raises(
        ConfigError, match=r"label_smoothing is 0\.1, but this bundle's loss is binary-cross-ent"
    ):
        learner.learn(tasks[0], TrainingConfig(label_smoothing=0.1))


def test_pictures_that_are_listed_and_not_there_are_all_named_or_left_out(
    bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    folder = tmp_path / "01" / "train"
    folder.mkdir(parents=True)
    images, labels = tables.chosen(digits, (4, 5, 6, 7), 0, 10)
    table = tables.attributes(labels, FIRST)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    lines = [f"{number:02}.png," + ",".join(map(str, row)) for number, row in enumerate(table)]
    lines += [f"gone-{number}.png,1,0,1" for number in range(3)]
    (folder / "metadata.csv").write_text("\n".join((f"file_name,{','.join(FIRST)}", *lines)) + "\n")
    learner = open_learner(bundle, tmp_path / "state")
    with pytest.raises(TaskError) as caught:
        learner.learn(Task.open(tmp_path / "01"))
    assert "3 of 43 images cannot be learned: " in str(caught.value)
    assert str(caught.value).count("cannot be read (No such file") == 1
    assert all(f"gone-{number}.png" in str(caught.value) for number in range(3))
    assert "--skip-broken" in str(caught.value)
    report = learner.learn(Task.open(tmp_path / "01"), {"skip_broken": True, "threads": 1})
    assert (report.images, len(report.skipped)) == (40, 3)
    assert learner.tasks[0].notes[0] == "3 of 43 images could not be read and were left out."


def test_a_forgotten_column_is_left_out_of_tests(bundle: Path, tmp_path: Path, tasks: list[Task]) -> None:
    learner = open_learner(bundle, tmp_path / "state", few_shot=10**6)
    for task in tasks:
        learner.learn(task)
    learner.forget("stem")
    found = learner.score(tasks)
    assert found.notes[0].startswith("Test images of 'stem' in task '02' are left out")
    assert set(found.rows[-1]) == {"01", "02"}
    assert tasks[1].test is not None
    images = np.stack([tasks[1].test.images.read(index) for index in range(len(tasks[1].test))])
    told = learner.predict(images, task="02").probabilities[:, 0]
    expected = 100 * average_precision_score(tasks[1].test.labels[:, 1], told)
    assert found.rows[-1]["02"]["task"] == pytest.approx(expected)
