"""Both backends learn the same: same data, same seed, the same losses, accuracies, gradients and states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import NETWORKS
from PIL import Image
from small_network import Network

from conftest import NAMES, Digits
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Inbox, Learner, Progress, Task, TrainingConfig
from csk_sdk.backends import StepResult, open_step
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import BACKENDS, CLASS_MASK, LABEL, ORT_TRAINING, PORTABLE
from csk_sdk.demo import digits as demo
from csk_sdk.method import gain
from ort_training.ort_networks import REWRITTEN

TASKS = (("01", (4, 5)), ("02", (6, 7)), ("03", (8, 9)))


def opened(bundle: Path, state: Path, backend: str, **settings: Any) -> Learner:
    fixed = {
        "threads": 1,
        "shift": 1,
        "learning_rate": 0.05,
        "few_shot": 0,
        "train": "centers",
        "gradient_share": 1.0,
    }
    return Learner.open(bundle, state, TrainingConfig(**{**fixed, **settings}), backend=backend)


def losses_of(learner: Learner, task: Task) -> list[float]:
    """The running mean loss of the epoch after each step."""
    seen: list[Progress] = []
    learner.learn(task, on_progress=seen.append)
    return [progress.loss for progress in seen if progress.phase == "train"]


@pytest.fixture(scope="module")
def demo_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's own images and bundle: scikit-learn's digits, all of them."""
    folder = tmp_path_factory.mktemp("demo")
    demo.write_folders(demo.load(), folder / "base-data", folder / "tasks")
    demo.build_bundle(folder / "bundle", base_data=folder / "base-data", backend="both")
    return folder


@pytest.mark.parametrize(
    "optimizer", [{}, {"optimizer": "adamw", "learning_rate": 1e-3}], ids=["sgd", "adamw"]
)
def test_the_demo_is_learned_alike(demo_workspace: Path, tmp_path: Path, optimizer: dict[str, Any]) -> None:
    inbox = Inbox(demo_workspace / "tasks")
    tasks = [inbox.open(name) for name in demo.TASKS]
    curves: dict[str, list[float]] = {}
    accuracies: dict[str, list[float | None]] = {}
    for backend in BACKENDS:
        learner = opened(
            demo_workspace / "bundle", tmp_path / backend, backend, epochs=10, patience=0, **optimizer
        )
        assert learner.backend == backend
        curves[backend] = [loss for task in tasks for loss in losses_of(learner, task)]
        scores = learner.score([inbox.open("base"), *tasks])
        accuracies[backend] = [
            accuracy
            for scenario in ("task", "class")
            for accuracy in scores.evaluation(scenario).to_json()["accuracy_matrix"][-1]
        ]
    assert len(curves[PORTABLE]) > 450
    np.testing.assert_allclose(curves[ORT_TRAINING], curves[PORTABLE], rtol=0, atol=1e-3)
    assert np.mean(accuracies[PORTABLE]) > 90.0
    np.testing.assert_allclose(accuracies[ORT_TRAINING], accuracies[PORTABLE], rtol=0, atol=0.5)


def test_tasks_with_more_classes_than_the_base_and_with_fewer(
    both: Path, tmp_path: Path, digits: Digits
) -> None:
    """The head's rows are written anew for every task; the base has four classes, the artifacts room for six."""
    found = {}
    for backend in BACKENDS:
        learner = opened(both, tmp_path / backend, backend)
        curve = losses_of(learner, digits.task("six", (4, 5, 6, 7, 8, 9)))
        found[backend] = curve + losses_of(learner, digits.task("two", (0, 9)))
    np.testing.assert_allclose(found[ORT_TRAINING], found[PORTABLE], rtol=0, atol=1e-4)


# --- one step


def random_step(bundle: Bundle, backend: str, classes: int) -> StepResult:
    """The same random images, head, channels and changes whatever the backend."""
    rng = np.random.default_rng(7)
    manifest, tensors = bundle.manifest, bundle.checkpoint()
    size = manifest.input
    images = rng.normal(size=(5, *size.shape)).astype(np.float32)
    targets = {LABEL: rng.integers(0, classes, 5), CLASS_MASK: np.arange(classes) != 1}
    targets[LABEL][targets[LABEL] == 1] = 0
    weight = rng.normal(scale=0.3, size=(classes, manifest.head.features)).astype(np.float32)
    head = weight, rng.normal(size=classes).astype(np.float32)
    selected, deltas = {}, {}
    for site in manifest.sites:
        tensors[f"center/{site.name}"] = tensors[f"center/{site.name}"] + np.float32(0.01)
        chosen = np.sort(rng.permutation(site.columns)[: max(1, site.columns // 2)])
        selected[site.name] = chosen
        deltas[site.name] = rng.normal(scale=0.1, size=(site.rows, len(chosen))).astype(np.float32)
    step = open_step(backend, bundle, tensors, threads=1)
    # A step at other parameters before must not matter.
    step.run(images, targets, (weight + 1, head[1]), selected, {name: 3 * d for name, d in deltas.items()})
    return step.run(images, targets, head, selected, deltas)


@pytest.mark.parametrize("network", [*NETWORKS, *REWRITTEN], ids=lambda network: network.name)
def test_gradients_of_every_site_and_the_head_agree(tmp_path: Path, network: Network) -> None:
    """Kernels of every geometry, groups, depthwise; ops that are rewritten; centers that a generation has moved."""
    onnx.save(network.proto(), tmp_path / "model.onnx")
    require_equal_gradients(tmp_path, BuildOptions(backend="both", trainable="all"))


def test_gradients_through_root_mean_squares_agree(tmp_path: Path) -> None:
    """`--features wide`: the one op that only they bring."""
    import networks

    onnx.save(networks.RESNET.proto(), tmp_path / "model.onnx")
    require_equal_gradients(tmp_path, BuildOptions(backend="both", trainable="all", features="wide"))


def require_equal_gradients(tmp_path: Path, options: BuildOptions) -> None:
    build_artifacts(tmp_path / "model.onnx", tmp_path / "b", options)
    bundle = Bundle.open(tmp_path / "b")
    ours, theirs = (random_step(bundle, backend, 5) for backend in BACKENDS)
    assert theirs.loss == pytest.approx(ours.loss, rel=1e-5)
    assert len(theirs.centers) == len(bundle.manifest.sites) >= 2
    for site in bundle.manifest.sites:
        np.testing.assert_allclose(
            theirs.centers[site.name], ours.centers[site.name],
            rtol=1e-4, atol=1e-5 * np.abs(ours.centers[site.name]).max(),
        )  # fmt: skip
        assert np.abs(ours.centers[site.name]).max() > 0
    np.testing.assert_allclose(theirs.weight, ours.weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(theirs.bias, ours.bias, rtol=1e-4, atol=1e-6)
    assert theirs.weight.shape == (5, bundle.manifest.head.features)


# --- states


def test_a_state_of_one_backend_is_continued_by_the_other(both: Path, tmp_path: Path, digits: Digits) -> None:
    for name, chosen in TASKS[:2]:
        opened(both, tmp_path / "portable", PORTABLE).learn(digits.task(name, chosen))
    for backend, (name, chosen) in zip((ORT_TRAINING, PORTABLE), TASKS[:2], strict=True):
        opened(both, tmp_path / "mixed", backend).learn(digits.task(name, chosen))
    alone, mixed = (opened(both, tmp_path / state, PORTABLE) for state in ("portable", "mixed"))
    tensors = alone.generation.tensors
    assert mixed.generation.tensors.keys() == tensors.keys()
    for name, tensor in mixed.generation.tensors.items():
        if tensor.dtype.kind == "f":
            np.testing.assert_allclose(
                tensor, tensors[name], rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(tensors[name]).max()))
            )
    images, labels = digits.arrays(tuple(range(8)), 100, 140)
    truth = np.array(NAMES)[labels]
    assert np.mean(mixed.predict(images).labels == truth) > 0.85


class Interrupted(BaseException):
    """Like KeyboardInterrupt: nothing may catch it."""


def interrupt(learner: Learner, task: Task, step: int) -> None:
    def stop(progress: Progress) -> None:
        if progress.phase == "train" and progress.step == step:
            raise Interrupted

    with pytest.raises(Interrupted):
        learner.learn(task, on_progress=stop)


def test_an_interrupted_task_is_resumed_to_the_bit(both: Path, tmp_path: Path, digits: Digits) -> None:
    task = digits.task("01", (4, 5), test=0)
    resumed, twin = (
        opened(both, tmp_path / state, ORT_TRAINING, epochs=3, checkpoint_seconds=0.0)
        for state in ("resumed", "twin")
    )
    interrupt(resumed, task, step=7)
    assert resumed.learn(task).resumed_at_step == 6
    twin.learn(task)
    expected = twin.generation.tensors
    for name, tensor in resumed.generation.tensors.items():
        assert tensor.tobytes() == expected[name].tobytes(), name


def test_half_a_task_of_the_other_backend_is_not_gone_on_with(
    both: Path, tmp_path: Path, digits: Digits
) -> None:
    task = digits.task("01", (4, 5), test=0)
    interrupt(opened(both, tmp_path / "state", PORTABLE, checkpoint_seconds=0.0), task, step=7)
    assert opened(both, tmp_path / "state", ORT_TRAINING).learn(task).resumed_at_step == 0


@pytest.mark.parametrize("pays", [False, True])
def test_whether_training_pays_is_found_with_it(
    both: Path, tmp_path: Path, digits: Digits, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pays:
        monkeypatch.setattr(gain, "SURE", -np.inf)
        monkeypatch.setattr(gain, "WORTH", -np.inf)
    task, rate = digits.task("01", (4, 5), test=0), 0.05 if pays else 1e-7
    same, auto = (
        opened(both, tmp_path / train, ORT_TRAINING, train=train, learning_rate=rate, max_forgetting=100.0)
        for train in ("centers" if pays else "heads", "auto")
    )
    same.learn(task)
    assert auto.learn(task).heads_only is not pays
    for name, tensor in auto.generation.tensors.items():
        np.testing.assert_array_equal(tensor, same.generation.tensors[name], err_msg=name)


def test_a_stream_learns_with_it(ort_only: Path, tmp_path: Path, digits: Digits) -> None:
    learner = opened(ort_only, tmp_path / "state", "auto", sensitivity_batches=2)
    images, labels = digits.arrays((4, 5), 0, 40)
    order = np.random.default_rng(0).permutation(len(images))
    with learner.stream("01", ("four", "five")) as stream:
        for part in np.array_split(order, 5):
            stream.observe(images[part], labels[part])
    held_out, truth = digits.arrays((4, 5), 100, 140)
    assert np.mean(learner.predict(held_out, "01").labels == np.array(NAMES)[[4, 5]][truth]) > 0.8


def test_a_bundle_for_ort_training_only_does_all_that_the_other_does(
    ort_only: Path, tmp_path: Path, digits: Digits
) -> None:
    learner = opened(ort_only, tmp_path / "state", "auto")
    assert learner.backend == ORT_TRAINING
    assert not (ort_only / "training_model.onnx").exists()
    task = digits.task("01", (4, 5))
    learner.learn(task)
    assert learner.evaluate([task], "class").accuracy > 85.0
    learner.export(tmp_path / "exported.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "exported.onnx"), full_check=True)
    Image.fromarray(digits.of(4, 100, 101)[0]).save(tmp_path / "four.png")
    assert learner.predict(digits.of(4, 100, 110)).labels.tolist().count("four") >= 8
