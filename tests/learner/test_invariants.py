"""What learning must leave alone, checked from the outside: committed tensors and exported files only.

The oracles are NumPy in float64, onnx.reference and a plain ONNX Runtime session; nothing of csk_sdk.method.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from conftest import NAMES, Digits, build_digits_bundle, open_learner, write_pictures
from csk_sdk import Learner, Task
from csk_sdk.contract.manifest import Site
from csk_sdk.method.selection import select_channels
from csk_sdk.network.knowledge import FeatureExtractor
from csk_sdk.state import Generation

TASKS = {"01": (4, 5), "02": (6, 7), "03": (8, 9, 0)}

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-3},
    "weight decay": {"weight_decay": 0.05, "momentum": 0.5},
    "half the channels": {"channel_ratio": 0.5, "energy": 0.95},
    "all channels": {"channel_ratio": 1.0, "energy": 0.8, "optimizer": "adamw", "weight_decay": 0.1},
    "one batch": {"batch_size": 500, "epochs": 2},
    "whole kernels": {"train": "kernels", "learning_rate": 0.02},
}


@dataclass(frozen=True)
class History:
    """Generations 0, 1, 2, ... of one learner, each exported over all classes, and the tasks that led there.

    `selections` are the channels that were chosen, by number of the generation and name of the site.
    """

    learner: Learner
    generations: list[Generation]
    selections: dict[tuple[int, str], np.ndarray]
    exports: list[onnx.ModelProto]
    tasks: list[Task]
    settings: dict[str, Any]

    @property
    def steps(self) -> list[tuple[Generation, Generation, Site]]:
        sites = self.learner.bundle.manifest.sites
        pairs = zip(self.generations, self.generations[1:], strict=False)
        return [(parent, child, site) for parent, child in pairs for site in sites]


def history(bundle: Path, folder: Path, digits: Digits, settings: dict[str, Any]) -> History:
    learner = open_learner(bundle, folder / "state", **settings)
    tasks = [digits.task(name, chosen) for name, chosen in TASKS.items()]
    generations, exports = [learner.generation], [exported(learner, folder)]
    selections = {}
    for task in tasks:
        with chosen_channels() as chosen:
            learner.learn(task)
        generations.append(learner.generation)
        exports.append(exported(learner, folder))
        for site, channels in zip(learner.bundle.manifest.sites, chosen, strict=True):
            selections[learner.generation.number, site.name] = channels
    return History(learner, generations, selections, exports, tasks, settings)


@contextmanager
def chosen_channels() -> Iterator[list[np.ndarray]]:
    """What `select_channels` returns inside the block; where a delta is zero, no file tells."""
    chosen: list[np.ndarray] = []

    def recorded(*arguments: Any) -> np.ndarray:
        chosen.append(select_channels(*arguments))
        return chosen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("csk_sdk.learning.training.select_channels", recorded)
        yield chosen


def exported(learner: Learner, folder: Path, task: str | None = None) -> onnx.ModelProto:
    learner.export(folder / "exported.onnx", task)
    return onnx.load(folder / "exported.onnx")


@pytest.fixture(scope="module", params=SETTINGS)
def learned(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    digits_bundle: Path,
    kernels_bundle: Path,
    digits: Digits,
) -> History:
    settings = SETTINGS[request.param]
    bundle = kernels_bundle if settings.get("train") == "kernels" else digits_bundle
    return history(bundle, tmp_path_factory.mktemp("invariants"), digits, settings)


def delta_of(parent: Generation, child: Generation, site: Site) -> np.ndarray:
    """dC over all columns, `(c_out, width)` float64."""
    before, after = (generation.tensors[f"center/{site.name}"] for generation in (parent, child))
    return after.astype(np.float64) - before.astype(np.float64)


def changed_columns(parent: Generation, child: Generation, site: Site) -> list[int]:
    before, after = (generation.tensors[f"center/{site.name}"] for generation in (parent, child))
    return [c for c in range(site.columns) if before[:, c].tobytes() != after[:, c].tobytes()]


def protected(parent: Generation, site: Site, selection: np.ndarray, energy: float) -> np.ndarray:
    """B: leading eigenvectors of K[S, S] that hold `energy` of its trace; of whole kernels, the root of it."""
    if site.whole:
        energy **= 1 / np.prod(site.shape[2:])
    moment = parent.tensors[f"moment/{site.name}"][0].astype(np.float64)
    values, vectors = np.linalg.eigh(moment[np.ix_(selection, selection)])
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int(np.argmax(np.cumsum(values) >= energy * values.sum())) + 1
    return vectors[:, :rank]


def leak(learned: History, parent: Generation, child: Generation, site: Site, energy: float) -> float:
    """||dC B|| / ||dC||; 0 where nothing changed."""
    selection = learned.selections[child.number, site.name]
    delta = delta_of(parent, child, site)[:, selection]
    along = np.linalg.norm(delta @ protected(parent, site, selection, energy))
    return float(along / np.linalg.norm(delta)) if np.any(delta) else 0.0


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def seen_by(
    model: onnx.ModelProto, sites: tuple[Site, ...], images: np.ndarray
) -> dict[str, list[np.ndarray]]:
    """Per site, its convolution's input and output in a model, `(n, c, h, w)`."""
    nodes = {node.input[1]: node for node in model.graph.node if node.op_type == "Conv"}
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = {site.name: (nodes[site.weight].input[0], nodes[site.weight].output[0]) for site in sites}
    del watched.graph.output[:]
    for name in dict.fromkeys(name for pair in names.values() for name in pair):
        watched.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(watched.SerializeToString())
    outputs = [value.name for value in session.get_outputs()]
    values = dict(zip(outputs, session.run(outputs, {"image": images}), strict=True))
    return {site: [values[name] for name in pair] for site, pair in names.items()}


def moment_of(x: np.ndarray, site: Site) -> np.ndarray:
    """K = sum of x_c^T x_c, with x_c sampled from the convolution's input as in the paper; or of whole patches."""
    if site.whole:
        return patch_moment_of(x, site)
    begin = [d * (k // 2) - p for d, k, p in zip(site.dilation, site.shape[2:], site.pads[:2], strict=True)]
    end = [b + s * o for b, s, o in zip(begin, site.stride, site.output_size, strict=True)]
    sampled = x[:, :, begin[0] : end[0] : site.stride[0], begin[1] : end[1] : site.stride[1]]
    assert sampled.shape[2:] == tuple(site.output_size)
    rows = sampled.transpose(0, 2, 3, 1).reshape(-1, site.columns).astype(np.float64)
    return rows.T @ rows


def patch_moment_of(x: np.ndarray, site: Site) -> np.ndarray:
    """K = sum of x_p^T x_p over all that the kernel sees, channel by channel; no dilation, one group."""
    assert (site.groups, set(site.dilation)) == (1, {1})
    padded = np.pad(x, [(0, 0), (0, 0), *zip(site.pads[:2], site.pads[2:], strict=True)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, site.shape[2:], axis=(2, 3))
    seen = windows[:, :, :: site.stride[0], :: site.stride[1]]
    assert seen.shape[2:4] == tuple(site.output_size)
    rows = seen.transpose(0, 2, 3, 1, 4, 5).reshape(-1, site.columns).astype(np.float64)
    return rows.T @ rows


def images_of(task: Task) -> np.ndarray:
    assert task.train is not None
    return np.stack([task.train.images.read(index) for index in range(len(task.train))])


# After every task


@pytest.mark.slow
def test_no_step_goes_along_a_protected_direction(learned: History) -> None:
    energy = learned.learner.config.energy
    for parent, child, site in learned.steps:
        changed = np.linalg.norm(delta_of(parent, child, site))
        # What rounding of the center itself to float32 puts along them is nobody's step.
        rounding = 2.0**-24 * np.linalg.norm(child.tensors[f"center/{site.name}"])
        along = leak(learned, parent, child, site, energy) * changed
        assert along <= 1e-5 * changed + rounding, (child.number, site.name)


def test_tiny_changes_leak_no_more_than_their_rounding(
    digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    # A center plus a change of a millionth is rounded to float32: 2^-24 of the *center*, in any direction.
    tiny = history(digits_bundle, tmp_path, digits, {"learning_rate": 1e-6})
    for parent, child, site in tiny.steps:
        delta = delta_of(parent, child, site)[:, tiny.selections[child.number, site.name]]
        size = np.linalg.norm(child.tensors[f"center/{site.name}"])
        along = leak(tiny, parent, child, site, tiny.learner.config.energy) * np.linalg.norm(delta)
        assert along <= 1e-5 * np.linalg.norm(delta) + 2.0**-24 * size


def test_selected_channels_change_and_the_others_keep_their_bits(learned: History) -> None:
    free = 0
    for parent, child, site in learned.steps:
        selection = learned.selections[child.number, site.name]
        directions = protected(parent, site, selection, learned.learner.config.energy).shape[1]
        # Few channels may be protected in every direction: then the site stays as it is.
        expected = selection.tolist() if directions < len(selection) else []
        assert changed_columns(parent, child, site) == expected
        free += bool(expected)
    assert free >= 0.6 * len(learned.steps)


def test_as_many_channels_are_selected_as_the_ratio_says(learned: History) -> None:
    ratio = learned.settings.get("channel_ratio", learned.learner.bundle.manifest.channel_ratio)
    for _, child, site in learned.steps:
        selection = learned.selections[child.number, site.name]
        assert len(set(selection.tolist())) == len(selection) == round(ratio * site.columns)
    # Chosen again for every task.
    if ratio < 1.0:
        names = [site.name for site in learned.learner.bundle.manifest.sites]
        assert any(
            learned.selections[1, name].tolist() != learned.selections[2, name].tolist() for name in names
        )


def test_an_export_differs_from_the_one_before_in_centers_and_head_only(learned: History) -> None:
    manifest = learned.learner.bundle.manifest
    weights = {site.weight: site for site in manifest.sites}
    for before, after in zip(learned.exports, learned.exports[1:], strict=False):
        old, new = initializers(before), initializers(after)
        assert old.keys() == new.keys()
        assert any(not np.array_equal(old[name], new[name]) for name in weights)
        for name in old.keys() - {manifest.head.weight, manifest.head.bias}:
            if name in weights and weights[name].whole:
                continue
            if name in weights:
                middle = tuple(size // 2 for size in weights[name].shape[2:])
                outside = np.ones(old[name].shape[2:], bool)
                outside[middle] = False
                old[name], new[name] = old[name][..., outside], new[name][..., outside]
            assert old[name].tobytes() == new[name].tobytes(), name


def test_exported_centers_are_the_committed_ones(learned: History) -> None:
    for generation, model in zip(learned.generations, learned.exports, strict=True):
        stored = initializers(model)
        for site in learned.learner.bundle.manifest.sites:
            kernel = stored[site.weight]
            center = kernel if site.whole else kernel[:, :, site.shape[2] // 2, site.shape[3] // 2]
            assert center.tobytes() == generation.tensors[f"center/{site.name}"].tobytes()


def test_moments_grow_by_what_the_new_network_sees_of_the_new_task(learned: History) -> None:
    learner = learned.learner
    for task, parent, child, model in zip(
        learned.tasks, learned.generations, learned.generations[1:], learned.exports[1:], strict=False
    ):
        seen = seen_by(model, learner.bundle.manifest.sites, learner.bundle.preprocessing(images_of(task)))
        for site in learner.bundle.manifest.sites:
            before, after = (g.tensors[f"moment/{site.name}"][0].astype(np.float64) for g in (parent, child))
            expected = before + moment_of(seen[site.name][0], site)
            np.testing.assert_allclose(after, expected, rtol=0, atol=1e-6 * expected.max())


def test_heads_of_earlier_tasks_and_of_the_base_follow_the_drift(learned: History) -> None:
    bundle = learned.learner.bundle
    for task, parent, child in zip(learned.tasks, learned.generations, learned.generations[1:], strict=False):
        heads = [name for name in parent.tensors if name.startswith("head/")]
        assert len(heads) == 2 * (1 + len(parent.tasks))
        images = bundle.preprocessing(images_of(task))
        before, after = (
            FeatureExtractor(bundle, g.tensors, 1)(images).astype(float) for g in (parent, child)
        )
        back = np.eye(before.shape[1])
        if learned.settings.get("energy", 0.8) > 0.0:
            # Ridge towards the identity, as ordinary least squares on rows that ask for it.
            pull = np.sqrt(0.01 * np.sum(after**2) / len(back)) * np.eye(len(back))
            solved = np.linalg.lstsq(np.vstack([after, pull]), np.vstack([before, pull]), rcond=None)
            back = solved[0].T
        for name in heads:
            old, new = parent.tensors[name], child.tensors[name]
            if name.endswith("/bias") or learned.settings.get("energy", 0.8) == 0.0:
                assert old.tobytes() == new.tobytes()
            else:
                np.testing.assert_allclose(new, old @ back, atol=1e-4 * np.abs(old).max())


def test_statistics_count_every_picture_once(learned: History) -> None:
    counts = [generation.tensors["statistics.counts"].sum() for generation in learned.generations]
    assert np.diff(counts).tolist() == [80, 80, 120]


# Exported files


@pytest.mark.parametrize("task", [None, "01", "02", "base"])
def test_exported_models_say_what_the_learner_says(
    learned: History, tmp_path: Path, digits: Digits, task: str | None
) -> None:
    learner = learned.learner
    images = np.concatenate([digits.of(digit, 100, 104) for digit in range(10)])
    path = tmp_path / "exported.onnx"
    learner.export(path, task)
    head = learner.head(task)
    expected = learner.features(images) @ head.weight.T + head.bias
    x = learner.bundle.preprocessing(images)

    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    (by_runtime,) = session.run(None, {"image": x})
    (by_reference,) = ReferenceEvaluator(str(path)).run(None, {"image": x})
    scale = np.abs(expected).max()
    np.testing.assert_allclose(by_runtime, expected, rtol=0, atol=1e-4 * max(1.0, scale))
    np.testing.assert_allclose(by_reference, expected, rtol=0, atol=1e-4 * max(1.0, scale))

    prediction = learner.predict(images, task)
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    assert tuple(classes) == prediction.classes == head.classes
    assert [classes[best] for best in by_runtime.argmax(axis=1)] == prediction.labels.tolist()
    np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1.0, atol=1e-5)


def test_what_an_exported_model_is_called_and_made_of(learned: History) -> None:
    model = learned.exports[-1]
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits"]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["csk_sdk_generation"] == "3"
    assert json.loads(metadata["classes"]) == list(NAMES)


def test_before_the_first_task_the_base_export_is_the_source_model(learner: Learner, tmp_path: Path) -> None:
    learner.export(tmp_path / "exported.onnx", task="base")
    source = Path(__file__).parents[2] / "examples" / "digits" / "digits-base4.onnx"
    x = np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32)
    (got,) = onnxruntime.InferenceSession(tmp_path / "exported.onnx").run(None, {"image": x})
    (expected,) = onnxruntime.InferenceSession(source).run(None, {"image": x})
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


# The two ends of the scale


def test_energy_0_protects_nothing(digits_bundle: Path, tmp_path: Path, digits: Digits) -> None:
    free = history(digits_bundle, tmp_path, digits, {"energy": 0.0})
    for parent, child, site in free.steps:
        assert leak(free, parent, child, site, energy=0.9) > 1e-2


@pytest.fixture(scope="module")
def little_known(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    """A bundle with two images per base class: so little that even energy 1 leaves directions free."""
    folder = tmp_path_factory.mktemp("little")
    pictures = write_pictures(folder / "base", digits, (0, 1, 2, 3), 0, 2)
    return build_digits_bundle(folder / "bundle", base_data=pictures)


@pytest.mark.slow
def test_energy_1_leaves_every_sites_output_on_old_data_unchanged(
    little_known: Path, tmp_path: Path, digits: Digits
) -> None:
    learner = open_learner(little_known, tmp_path / "state", energy=1.0, channel_ratio=1.0, epochs=8)
    before = exported(learner, tmp_path)
    report = learner.learn(digits.task("01", (4, 5)))
    after = exported(learner, tmp_path)
    sites = learner.bundle.manifest.sites
    old = learner.bundle.preprocessing(digits.arrays((0, 1, 2, 3), 0, 2)[0])
    new = learner.bundle.preprocessing(digits.arrays((4, 5), 0, 40)[0])

    def largest_change(images: np.ndarray) -> float:
        first, second = seen_by(before, sites, images), seen_by(after, sites, images)
        return max(
            float(
                np.abs(first[site.name][1] - second[site.name][1]).max() / np.abs(first[site.name][1]).max()
            )
            for site in sites
        )

    assert largest_change(old) < 2e-3
    assert largest_change(new) > 5e-3
    assert report.leak <= 1e-5


def test_without_base_data_nothing_is_protected_before_the_first_task(tmp_path: Path, digits: Digits) -> None:
    bundle = build_digits_bundle(tmp_path / "bundle")
    learner = open_learner(bundle, tmp_path / "state")
    assert not any(
        np.any(learner.generation.tensors[f"moment/{s.name}"]) for s in learner.bundle.manifest.sites
    )
    assert learner.classes == NAMES[:4]
    for name in ("01", "02"):
        learner.learn(digits.task(name, TASKS[name]))
    assert learner.classes == NAMES[4:8]
    assert learner.predict(digits.of(1, 100, 120), "base").classes == NAMES[:4]


@pytest.mark.slow
def test_the_temperature_is_measured_once_by_whoever_sees_pictures_first(
    tmp_path: Path, digits_bundle: Path, digits: Digits
) -> None:
    key = "statistics.temperature"
    bare = build_digits_bundle(tmp_path / "bundle")
    assert key not in open_learner(bare, tmp_path / "bare").generation.tensors
    assert key in open_learner(digits_bundle, tmp_path / "known").generation.tensors
    for bundle, state in ((bare, "bare"), (digits_bundle, "known")):
        learner = open_learner(bundle, tmp_path / state, few_shot=100)
        measured = []
        for name in ("01", "02"):
            learner.learn(digits.task(name, TASKS[name]))
            measured.append(learner.generation.tensors[key].tolist())
        assert measured[0] == measured[1]
    assert measured[0] == Learner.open(digits_bundle, tmp_path / "other").generation.tensors[key].tolist()
