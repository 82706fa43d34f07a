"""Learning with an int8 bundle: as well as exact, remembered the same, exported as float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from conftest import NAMES, Digits, build_digits_bundle, open_learner
from csk_device_runners import check_bundle
from csk_sdk import Learner
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, TRAINING_MODEL, Site
from csk_sdk.network.knowledge import FeatureExtractor, neutral_deltas

TASKS = {"01": (4, 5), "02": (6, 7), "03": (8, 9)}


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory, base_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "bundle"
    return build_digits_bundle(folder, base_data=base_data, precision="int8")


@dataclass(frozen=True)
class Lives:
    """Two devices that learned the same three tasks."""

    exact: Learner
    int8: Learner


@pytest.fixture(scope="module")
def lives(
    tmp_path_factory: pytest.TempPathFactory, digits_bundle: Path, int8_bundle: Path, digits: Digits
) -> Lives:
    folder = tmp_path_factory.mktemp("lives")
    learners = [
        open_learner(bundle, folder / name)
        for name, bundle in (("exact", digits_bundle), ("int8", int8_bundle))
    ]
    for learner in learners:
        for name, chosen in TASKS.items():
            learner.learn(digits.task(name, chosen))
    return Lives(*learners)


def accuracies(learner: Learner, digits: Digits) -> dict[str, float]:
    """Percent right, of 70 images a class that nothing trained on: per task, and over all classes."""
    found = {}
    for task, chosen in {"base": (0, 1, 2, 3), **TASKS}.items():
        images, labels = digits.arrays(chosen, 100, 170)
        found[task] = 100 * float(np.mean(learner.predict(images, task).labels == names(chosen)[labels]))
    images, labels = digits.arrays(tuple(range(10)), 100, 170)
    found["all"] = 100 * float(np.mean(learner.predict(images).labels == names(range(10))[labels]))
    return found


def names(chosen: range | tuple[int, ...]) -> np.ndarray:
    return np.array([NAMES[digit] for digit in chosen])


@pytest.mark.slow
def test_int8_learns_as_well_as_exact(lives: Lives, digits: Digits) -> None:
    exact, int8 = accuracies(lives.exact, digits), accuracies(lives.int8, digits)
    tasks = ("base", *TASKS)
    assert abs(np.mean([int8[task] - exact[task] for task in tasks])) <= 1.0
    assert abs(int8["all"] - exact["all"]) <= 1.0
    assert all(int8[task] >= exact[task] - 2.5 for task in tasks)


def test_the_graphs_differ_from_the_exact_ones(
    int8_bundle: Path, digits_bundle: Path, digits: Digits
) -> None:
    exact, int8 = Bundle.open(digits_bundle), Bundle.open(int8_bundle)
    assert int8.manifest.precision == "int8"
    x = exact.preprocessing(digits.arrays((0, 1, 2, 3), 100, 130)[0])
    a, b = (FeatureExtractor(bundle, bundle.checkpoint(), 1)(x) for bundle in (exact, int8))
    assert 1e-4 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.02


def test_kernels_are_rounded_before_anything_is_made_of_them(int8_bundle: Path) -> None:
    """What the runtime makes of a float kernel when it opens the graph is as large as the kernel, four times int8."""
    graph = onnx.load(int8_bundle / TRAINING_MODEL, load_external_data=False).graph
    made_by = {output: node for node in graph.node for output in node.output}
    kernels = {tensor.name for tensor in graph.initializer}
    moved = 0
    for node in graph.node:
        if node.op_type == "QLinearConv":
            producer = made_by[node.input[3]]
            while producer.op_type in ("Transpose", "Slice"):
                moved += 1
                producer = made_by[producer.input[0]]
            assert producer.op_type == "QuantizeLinear"
            assert producer.input[0] in kernels
            readers = {one.op_type for one in graph.node if producer.input[0] in one.input}
            assert readers <= {"QuantizeLinear", "ReduceMax", "ReduceMin"}
    assert moved > 0


def test_gradients_of_a_new_task_point_where_the_exact_ones_do(
    int8_bundle: Path, digits_bundle: Path, digits: Digits
) -> None:
    """Digits that int8 was not calibrated on, a head for them, and changed centers."""
    rng = np.random.default_rng(0)
    images, labels = digits.arrays((4, 5, 6, 7), 0, 16)
    exact, int8 = Bundle.open(digits_bundle), Bundle.open(int8_bundle)
    head = exact.manifest.head
    feeds = {
        "image": exact.preprocessing(images),
        "label": labels,
        head.weight: rng.normal(0, 0.3, (4, head.features)).astype(np.float32),
        head.bias: np.zeros(4, np.float32),
    }
    for site in exact.manifest.sites:
        feeds[site.indices] = np.arange(0, site.columns, 4)
        shape = site.rows, len(feeds[site.indices])
        feeds[site.delta] = rng.normal(0, 0.01, shape).astype(np.float32)
    a, b = (bundle.graph(TRAINING_MODEL, bundle.checkpoint(), 1).run(feeds) for bundle in (exact, int8))
    for site in exact.manifest.sites:
        x, y = a[site.gradient].ravel(), b[site.gradient].ravel()
        assert float(x @ y / np.sqrt((x @ x) * (y @ y))) >= 0.98, site.name


def test_folding_a_change_into_the_kernels_moves_features_by_less_than_int8_itself_does(
    lives: Lives, digits: Digits
) -> None:
    """What a task trained as a delta beside the int8 kernels is rounded with them when it is consolidated.

    However many tasks there were: the centers themselves are kept in float32, so nothing adds up.
    """
    bundle, history = lives.int8.bundle, lives.int8.state
    sites = bundle.manifest.sites
    x = bundle.preprocessing(np.concatenate([digits.of(digit, 100, 130) for digit in range(10)]))
    start = history.load(0).tensors
    for number in (1, 2, 3):
        tensors = history.load(number).tensors
        folded = features(bundle, tensors, x, {})
        change = {site.name: center_change(site, start, tensors) for site in sites}
        beside = features(bundle, start, x, change)
        exact = features(lives.exact.bundle, tensors, x, {})
        assert 0 < np.linalg.norm(folded - beside) < 1.2 * np.linalg.norm(folded - exact)
        assert np.linalg.norm(folded - beside) < 0.02 * np.linalg.norm(exact)


def center_change(site: Site, before: dict, after: dict) -> np.ndarray:
    return after[f"center/{site.name}"] - before[f"center/{site.name}"]


def features(bundle: Bundle, tensors: dict, x: np.ndarray, deltas: dict[str, np.ndarray]) -> np.ndarray:
    """The eval model's features, with dense center changes beside the kernels of a generation."""
    feeds = neutral_deltas(bundle.manifest.sites)
    for site in bundle.manifest.sites:
        if site.name in deltas:
            assert site.groups == 1
            feeds[site.indices], feeds[site.delta] = np.arange(site.columns), deltas[site.name]
    head = bundle.manifest.head
    feeds[head.weight], feeds[head.bias] = np.zeros((1, head.features), np.float32), np.zeros(1, np.float32)
    return bundle.graph(EVAL_MODEL, tensors, 1).run({"image": x, **feeds}, ["features"])["features"]


def test_the_exported_float32_model_decides_as_the_device_does(
    lives: Lives, digits: Digits, tmp_path: Path
) -> None:
    path = tmp_path / "exported.onnx"
    lives.int8.export(path)
    images = np.concatenate([digits.of(digit, 100, 170) for digit in range(10)])
    session = onnxruntime.InferenceSession(path)
    (logits,) = session.run(None, {"image": lives.int8.bundle.preprocessing(images)})
    decided = np.array(lives.int8.classes)[logits.argmax(axis=1)]
    assert np.mean(decided == lives.int8.predict(images).labels) >= 0.985


def test_the_witness_accepts_a_right_int8_bundle(int8_bundle: Path) -> None:
    results = check_bundle(int8_bundle)
    assert [(result.name, result.detail) for result in results if not result.passed] == []
    assert sum(result.name.startswith("gradient of") for result in results) == 4 + 2 + 1
