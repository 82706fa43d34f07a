"""Gradients of whole kernels, and the knowledge intensity of their positions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
import small_network
from numpy.typing import NDArray
from small_network import Network, Witness

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.analysis.analyze import (
    Analysis,
    AnalysisOptions,
    analyze_model,
    center_rank,
    rank_correlation,
)
from csk_artifacts_builder.analysis.intensity import (
    IntensityEstimate,
    KernelGraph,
    NewTask,
    fit_head,
    measure_intensity,
    open_kernel_graph,
)
from csk_artifacts_builder.analysis.position_training import train_positions
from csk_artifacts_builder.describe import describe
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.sites import find_sites
from csk_sdk.contract.manifest import Manifest
from csk_sdk.data.preprocess_signals import preprocessing_of
from csk_sdk.data.tasks import Task
from csk_sdk.errors import ConfigError, TaskError

STEP = 1e-5
CLASSES = 4
LABELS = np.array([2, 0, 3, 1, 1])
DIRECTIONS = 12
PAIR = networks.chain("pair", "Tanh", ((4, 3, 3, 3), "<pads=[1,1,1,1]>"), ((5, 4, 3, 3), "<pads=[1,1,1,1]>"))


class Opened:
    """A network's kernel graph, and the same network in float64."""

    def __init__(self, network: Network, folder: Path, kinds: str = "all") -> None:
        onnx.save(network.proto(), folder / "model.onnx")
        source = prepare(folder / "model.onnx")
        head = split_head(source.model, "model.onnx")
        sites = find_sites(source.model, "model.onnx", kinds)
        self.manifest: Manifest = describe(source, head, sites, BuildOptions())
        self.network = network
        self.witness = Witness(network, self.manifest)
        self.context = open_kernel_graph(source.model, sites, self.manifest.head, "model.onnx", 1)

    def loss(self, name: str, kernel: NDArray, images: NDArray, head: tuple[NDArray, NDArray]) -> float:
        """The loss in float64 with one (folded) kernel changed by `kernel`."""
        site = next(site for site in self.manifest.sites if site.name == name)
        scale = self.network.batch_norm_scale(site.weight).reshape(-1, *[1] * (kernel.ndim - 1))
        weights = self.witness._evaluator.rt_inits_
        before = weights[site.weight]
        weights[site.weight] = before + kernel / scale
        weight = head[0].T if "MatMul" in self.network.nodes else head[0]
        loss = self.witness.loss(images, LABELS[: len(images)], weight, head[1])
        weights[site.weight] = before
        return loss


def smooth_point(network: Network) -> tuple[Network, NDArray[np.float32]]:
    for seed in range(40):
        images = small_network.pictures(network, len(LABELS), seed)
        smoothed = small_network.smooth(network, images)
        if small_network.room(smoothed, images) > small_network.MARGIN:
            return smoothed, images
    raise AssertionError(f"{network.name} has no smooth point among 40")


@pytest.mark.slow
@pytest.mark.parametrize("network", networks.NETWORKS, ids=lambda network: network.name)
def test_kernel_gradients_equal_central_differences(tmp_path: Path, network: Network) -> None:
    network, images = smooth_point(network)
    opened = Opened(network, tmp_path)
    rng = np.random.default_rng(3)
    features = opened.manifest.head.features
    head = rng.normal(0, 1, (CLASSES, features)), rng.normal(0, 0.3, CLASSES)
    single = head[0].astype(np.float32), head[1].astype(np.float32)
    exact = single[0].astype(np.float64), single[1].astype(np.float64)
    with opened.context as graph:
        got = graph.run((images, LABELS), single)
    for site in opened.manifest.sites:
        gradient = got[site.gradient].astype(np.float64)
        assert gradient.shape == site.shape
        random = rng.normal(size=(DIRECTIONS, *site.shape)) / np.sqrt(gradient.size)
        # One tap at a time, so that two taps cannot be mistaken for each other.
        taps = [np.zeros(site.shape) for _ in np.ndindex(*site.shape[2:])]
        for tap, place in zip(taps, np.ndindex(*site.shape[2:]), strict=True):
            at = (slice(None), slice(None), *place)
            tap[at] = gradient[at] / max(np.linalg.norm(gradient[at]), 1e-12)
        directions = [*random, *taps]
        expected = np.array(
            [
                (
                    opened.loss(site.name, STEP * d, images, exact)
                    - opened.loss(site.name, -STEP * d, images, exact)
                )
                / (2 * STEP)
                for d in directions
            ]
        )
        along = np.array([np.sum(d * gradient) for d in directions])
        assert np.linalg.norm(expected) > 1e-6, f"{site.name}: a gradient of zero proves nothing"
        assert np.linalg.norm(expected - along) <= 2e-4 * np.linalg.norm(expected), site.name
        # A tap that only ever sees padding has no gradient at all.
        blind = [along[DIRECTIONS + i] == 0.0 for i in range(len(taps))]
        np.testing.assert_allclose(expected[DIRECTIONS:][blind], 0.0, atol=1e-9)


def test_only_what_is_asked_for_is_computed_the_same(tmp_path: Path) -> None:
    network, images = smooth_point(PAIR)
    with Opened(network, tmp_path).context as graph:
        head = np.ones((2, 5), np.float32), np.zeros(2, np.float32)
        batch = images, LABELS % 2
        everything = graph.run(batch, head)
        for name in everything:
            np.testing.assert_array_equal(graph.run(batch, head, [name])[name], everything[name])
        np.testing.assert_array_equal(graph.features(images), everything["features"])


# --- the estimate


def test_the_estimate_is_the_mean_squared_norm_of_each_position() -> None:
    gradients = np.random.default_rng(0).normal(size=(3, 4, 2, 3, 5)).astype(np.float32)
    estimate = IntensityEstimate()
    for gradient in gradients:
        estimate.add(gradient)
    expected = [
        [
            np.mean([np.linalg.norm(g[:, :, i, j].astype(np.float64)) ** 2 for g in gradients])
            for j in range(5)
        ]
        for i in range(3)
    ]
    np.testing.assert_allclose(estimate.values, expected, rtol=1e-12)


def test_small_gradients_do_not_underflow() -> None:
    estimate = IntensityEstimate()
    estimate.add(np.full((2, 2, 3, 3), 1e-30, np.float32))
    np.testing.assert_allclose(estimate.values, 4e-60, rtol=1e-6)


# --- measuring


def new_task(network: Network, manifest: Manifest, count: int = 24, **settings: int) -> NewTask:
    """Images of two classes, one brighter in its middle."""
    rng = np.random.default_rng(1)
    labels = np.arange(count) % 2
    images = rng.integers(0, 120, (count, *network.image[1:], 3))
    images[labels == 1, 3:6, 3:6] += 100
    task = Task.from_arrays("new", images.astype(np.uint8), labels, ["dark", "bright"])
    assert task.train is not None
    preprocessing = preprocessing_of(manifest)
    return NewTask(task.train, preprocessing, 2, **{"images": count, "batch_size": 8, **settings})


def test_intensity_is_the_squared_gradient_under_the_fitted_head(tmp_path: Path) -> None:
    opened = Opened(PAIR, tmp_path)
    with opened.context as graph:
        data = new_task(PAIR, opened.manifest)
        found = measure_intensity(graph, data)
        head = fit_head(graph, data)
        batches = list(data.batches())
    assert (found.images, found.batches, len(batches)) == (24, 3, 3)
    exact = head[0].astype(np.float64), head[1].astype(np.float64)
    site = opened.manifest.sites[1]
    # One position's gradient, number by number, in float64.
    expected = []
    for images, labels in batches:
        gradient = np.zeros(site.shape[:2])
        for at in np.ndindex(*site.shape[:2]):
            change = np.zeros(site.shape)
            change[(*at, 2, 0)] = STEP
            up, down = (_loss(opened, site.weight, sign * change, images, labels, exact) for sign in (1, -1))
            gradient[at] = (up - down) / (2 * STEP)
        expected.append(np.sum(gradient**2))
    assert found.values[site.name][2, 0] == pytest.approx(np.mean(expected), rel=1e-3)


def _loss(
    opened: Opened, weight: str, change: NDArray, images: NDArray, labels: NDArray, head: tuple
) -> float:
    weights = opened.witness._evaluator.rt_inits_
    before = weights[weight]
    weights[weight] = before + change
    loss = opened.witness.loss(images, labels, *head)
    weights[weight] = before
    return loss


def test_every_batch_is_whole_and_no_picture_comes_twice(tmp_path: Path) -> None:
    opened = Opened(PAIR, tmp_path)
    data = new_task(PAIR, opened.manifest, images=23)
    batches = list(data.batches())
    assert [len(labels) for _, labels in batches] == [8, 8]
    pictures = {images[i].tobytes() for images, labels in batches for i in range(len(labels))}
    assert len(pictures) == 16
    assert all(0 < labels.sum() < 8 for _, labels in batches)


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    opened = Opened(PAIR, tmp_path)
    with pytest.raises(TaskError) as caught:
        new_task(PAIR, opened.manifest, batch_size=25)
    assert str(caught.value) == (
        "Knowledge intensity is measured on a whole batch of 25, and there is no more than 24 images: give more images."
    )


def test_gradients_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(PAIR, tmp_path)
    with opened.context as graph:
        data = new_task(PAIR, opened.manifest)
        kernel = graph.kernels["c2_w"].copy()
        graph.kernels["c2_w"] = kernel * np.float32(np.nan)
        # Of the features, which are not finite either, something else is said: see below.
        monkeypatch.setattr(
            graph,
            "features",
            lambda images: np.eye(len(images), opened.manifest.head.features, dtype=np.float32),
        )
        with pytest.raises(
            TaskError, match=r"The gradient of 'c1_w' is not finite on these images: check them"
        ):
            measure_intensity(graph, data)


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    opened = Opened(PAIR, tmp_path)
    with opened.context as graph:
        data = new_task(PAIR, opened.manifest)
        graph.kernels["c2_w"] = graph.kernels["c2_w"] * np.float32(np.nan)
        with pytest.raises(
            TaskError, match=r"The network's features are not finite on these images: check them"
        ):
            fit_head(graph, data)


# --- training each position alone


def test_a_position_trained_alone_is_all_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened(PAIR, tmp_path)
    with opened.context as graph:
        data = new_task(PAIR, opened.manifest)
        start = {name: kernel.copy() for name, kernel in graph.kernels.items()}
        touched = set()
        run = KernelGraph.run

        def watched(self: KernelGraph, *arguments: object) -> dict:
            for name, kernel in self.kernels.items():
                places = np.argwhere(np.any(kernel != start[name], axis=(0, 1)))
                touched.add((name, tuple(map(tuple, places.tolist()))))
            return run(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(KernelGraph, "run", watched)
        found = train_positions(graph, data, data, steps=3)
    positions = {(name, ((i, j),)) for name in start for i in range(3) for j in range(3)}
    assert touched == positions | {("c1_w", ()), ("c2_w", ())}
    for name, kernel in graph.kernels.items():
        np.testing.assert_array_equal(kernel, start[name])
    # Tested on the very images that were trained on, both decreases are the same.
    for name in found.learned:
        np.testing.assert_allclose(found.learned[name], found.held_out[name], atol=1e-7)


def test_a_small_step_gains_what_intensity_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One plain step on one batch lowers its loss by learning rate x intensity, to first order."""
    from csk_artifacts_builder.analysis import position_training
    from csk_sdk.config import TrainingConfig

    opened, gains, rate = Opened(PAIR, tmp_path), [], 1e-2
    with opened.context as graph:
        data = new_task(PAIR, opened.manifest, batch_size=24)
        measured = measure_intensity(graph, data)
        for step in (rate, rate / 2):
            plain = TrainingConfig(learning_rate=step, momentum=0.0)
            monkeypatch.setattr(position_training, "TrainingConfig", lambda plain=plain: plain)
            gains.append(train_positions(graph, data, data, steps=1).learned)
    for name, values in measured.values.items():
        # Two step sizes, and so the part of the gain that is linear in the step (the rest is curvature).
        slope = (4 * gains[1][name] - gains[0][name]) / rate
        np.testing.assert_allclose(slope, values, rtol=0.15, atol=0.05 * values.max())


# --- the whole of it


def save_task(folder: Path, count: int = 40, **more: NDArray) -> Path:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 255, (count, 9, 9, 3)).astype(np.uint8)
    np.savez(
        folder / "new.npz",
        images=images,
        labels=np.arange(count) % 2,
        class_names=np.array(["a", "b"]),
        **more,
    )
    return folder / "new.npz"


def analyze(folder: Path, network: Network = PAIR, **options: object) -> Analysis:
    onnx.save(network.proto(), folder / "model.onnx")
    model = options.pop("model", BuildOptions())
    return analyze_model(
        folder / "model.onnx",
        save_task(folder),
        AnalysisOptions(model, **{"batch_size": 8, "images": 32, "threads": 1, **options}),  # type: ignore[arg-type]
    )


def test_analysis_of_a_model_in_which_only_the_center_sees_the_picture(tmp_path: Path) -> None:
    """1x1 images: all other positions read padding, and can learn nothing."""
    network = networks.chain("dot", "Tanh", ((4, 3, 3, 3), "<pads=[1,1,1,1]>"), image=(3, 1, 1))
    found = analyze(tmp_path, network)
    (site,) = found.sites
    assert site.center_rank == 1
    assert site.center_ratio == pytest.approx(9.0)
    assert np.count_nonzero(site.intensity) == 1
    assert (found.center_first, found.depth_correlation) == (1, None)


def test_held_out_pictures_are_those_left_over(tmp_path: Path) -> None:
    found = analyze(tmp_path, train_steps=2)
    assert (found.images, found.held_out_images, found.train_steps) == (32, 8, 2)
    assert found.agreement is not None
    assert set(found.to_json()["sites"][0]) >= {"loss_decrease", "held_out_loss_decrease", "intensity"}


def test_by_training_without_pictures_to_test_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        analyze(tmp_path, train_steps=2, images=40)
    assert str(caught.value) == (
        "--by-training needs images to test on, and 40 of 40 are trained on: lower --images, or give the task test "
        "images."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "--images is 0; it must be 1 or more."),
        ({"batch_size": 0}, "--batch-size is 0; it must be 1 or more."),
        ({"images": 8, "batch_size": 9}, "--images is 8, less than one batch of 9 images."),
        ({"train_steps": -1}, "--by-training is -1; it must be 0 or more."),
        ({"model": BuildOptions(sites="3x3")}, "--sites is '3x3'; it must be center, 1x1, all or kernels."),
        ({"model": BuildOptions(mean=(0.5,))}, "--mean has 1 number, but the model's input has 3 channels."),
    ],
)
def test_options_out_of_range(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        analyze(tmp_path, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("values", "others", "expected"),
    [
        ([1, 2, 3, 4], None, 1.0),
        ([4, 3, 2, 1], None, -1.0),
        ([1, 2, 2, 3], [1, 3, 2, 4], 0.9486833),  # 4.5 / sqrt(4.5 * 5)
        ([1, 5, 2, 9, 7], [3, 1, 2, 5, 4], 0.6),  # 1 - 6 * 8 / (5 * 24)
        ([1, 2], None, None),
        ([1, 1, 1], None, None),
    ],
)
def test_rank_correlation(values: list, others: list | None, expected: float | None) -> None:
    got = rank_correlation(np.array(values, float), None if others is None else np.array(others, float))
    assert got is None if expected is None else got == pytest.approx(expected)


def test_center_rank() -> None:
    grid = np.arange(9.0).reshape(3, 3)
    assert [center_rank(grid), center_rank(-grid), center_rank(np.ones((1, 5)))] == [5, 5, 1]


def test_intensity_of_the_chosen_and_the_others_is_in_the_manifest(tmp_path: Path) -> None:
    onnx.save(networks.RESNET.proto(), tmp_path / "model.onnx")
    data = save_task(tmp_path, 64)
    options = BuildOptions(intensity_data=data, trainable="from:second", features="last")
    build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", options)
    from csk_sdk.network.inspection import inspect_bundle

    inspected = inspect_bundle(tmp_path / "bundle")
    candidates = {one.name: one for one in inspected.manifest.candidates}
    assert {name: one.chosen for name, one in candidates.items()} == {
        "stem_w": False, "first_w": False, "second_w": True,
    }  # fmt: skip
    analysis = analyze_model(
        tmp_path / "model.onnx", data, AnalysisOptions(replace(options, intensity_data=None))
    )
    expected = {one.site.name: float(one.intensity[1, 1]) for one in analysis.sites}
    assert {name: one.intensity for name, one in candidates.items()} == pytest.approx(expected, rel=1e-3)
    assert inspected.manifest.choice == "the sites from node 'second' on"
    assert [site.intensity for site in inspected.sites] == [candidates["second_w"].intensity]
