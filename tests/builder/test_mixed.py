"""Convolutions that stay in float32 by themselves, where int8 is too coarse for a network."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import NETWORKS
from numpy.typing import NDArray
from small_network import Network, Witness
from test_quantize import Case, make_case, pictures, run

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.int8.calibrate import calibrations
from csk_artifacts_builder.int8.mixed import LEAST_COSINE, Mixed, first_that, mix
from csk_artifacts_builder.int8.quantize import quantize
from csk_sdk import Learner, Task
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import INT8, PREFIX_MODEL, TRAINING_MODEL, exact_twin
from csk_sdk.learning.prefix_cache import feature_dtype

# So small, since what c3 reads is up to two thousand.
STEP = 1e-8


def uneven() -> Network:
    """One channel between c2 and c3 is two thousand times larger than the others, which alone decide."""
    rng = np.random.default_rng(0)
    scales = np.array([2e3, 1.0, 1.0, 1.0]).reshape(4, 1)
    third = rng.normal(size=(5, 4, 3, 3)) * 0.3
    third[:, 0] *= 1e-6
    second = (rng.normal(size=(4, 27)) * 0.2 * scales).reshape(4, 3, 3, 3)
    tensors = {
        **networks.VGG.tensors,
        "c2_w": second.astype(np.float32),
        "c3_w": third.astype(np.float32),
    }
    return replace(networks.VGG, name="uneven", tensors=tensors)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(uneven(), tmp_path_factory.mktemp("uneven"))


def cosine(a: NDArray, b: NDArray) -> float:
    return float(a.ravel() @ b.ravel() / (np.linalg.norm(a) * np.linalg.norm(b)))


def mixed_of(case: Case) -> Mixed:
    exact, head = case.exact[TRAINING_MODEL], case.manifest.head.weight
    return mix(exact, calibrations(exact, case.feeds, head), lambda: case.feeds, case.manifest)


def shown(graph: ir.Model) -> list[str]:
    return [node.op_type for node in graph.graph]


def measured_gradient(case: Case, name: str) -> NDArray[np.float64]:
    """Central differences of the source network's loss in float64, summed over the batches."""
    witness = Witness(case.network, case.manifest)
    (site,) = [site for site in case.manifest.sites if site.name == name]
    head = case.manifest.head
    found = np.zeros((site.rows, site.columns))
    for row, column in np.ndindex(found.shape):
        for sign in (1, -1):
            delta = np.zeros((site.rows, site.columns))
            delta[row, column] = sign * STEP
            deltas = {one.name: np.zeros((one.rows, one.columns)) for one in case.manifest.sites}
            channels = {one.name: np.arange(one.columns) for one in case.manifest.sites}
            witness.change({**deltas, name: delta}, channels)
            for feeds in case.feeds[:2]:
                loss = witness.loss(
                    feeds["image"],
                    feeds["label"],
                    feeds[head.weight].T.astype(np.float64),
                    feeds[head.bias].astype(np.float64),
                )
                found[row, column] += sign * loss / (2 * STEP)
    return found


def test_a_network_that_int8_is_too_coarse_for_keeps_its_gradients(case: Case) -> None:
    """Held against the loss itself in float64, which knows neither rounding nor our rules."""
    mixed = mixed_of(case)
    assert mixed.unmixed.worst_gradient < 0.9
    assert mixed.agreement.worst_gradient >= LEAST_COSINE
    # What is made of the large channel, and what reads it. The stem stays in int8.
    assert mixed.calibration.in_float == {"c2", "c3"}
    assert not mixed.nothing
    expected = measured_gradient(case, "c3_w")
    (site,) = [site for site in case.manifest.sites if site.name == "c3_w"]
    reached = {}
    for name, calibration in {"int8": case.calibration, "mixed": mixed.calibration}.items():
        graph = case.exact[TRAINING_MODEL].clone()
        quantize(graph, calibration, case.manifest.head.weight)
        ops = Counter(node.op_type for node in graph.graph)
        assert ops["QLinearConv"] > 0
        got = np.sum([run(graph, feeds)[site.gradient] for feeds in case.feeds[:2]], axis=0)
        reached[name] = cosine(got, expected)
    assert reached["int8"] < 0.9 < reached["mixed"]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_nothing_changes_where_int8_is_near(network: Network, tmp_path: Path) -> None:
    case = make_case(network, tmp_path)
    mixed = mixed_of(case)
    if mixed.unmixed.worst_gradient < LEAST_COSINE:
        assert mixed.agreement.worst_gradient >= LEAST_COSINE
        return
    assert mixed.calibration == case.calibration
    assert mixed.agreement == mixed.unmixed
    graph = case.exact[TRAINING_MODEL].clone()
    quantize(graph, mixed.calibration, case.manifest.head.weight)
    assert shown(graph) == shown(case.rounded[TRAINING_MODEL])


def test_a_rare_image_is_not_cut_off(tmp_path: Path) -> None:
    """One of many images is far brighter: beyond the usual range, its gradient would turn around."""
    case = make_case(networks.RESNET, tmp_path)
    feeds = [dict(batch) for batch in case.feeds]
    feeds[0]["image"] = feeds[0]["image"].copy()
    feeds[0]["image"][:1] *= 6
    exact, head = case.exact[TRAINING_MODEL], case.manifest.head.weight
    usual, widest = calibrations(exact, feeds, head)
    mixed = mix(exact, (usual, widest), lambda: feeds, case.manifest)
    assert mixed.unmixed.worst_gradient < LEAST_COSINE <= mixed.agreement.worst_gradient
    assert mixed.calibration == widest
    assert widest.inputs["stem"].high == max(float(batch["image"].max()) for batch in feeds)


def test_where_nothing_is_near_enough_all_stays_in_float32(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csk_artifacts_builder.int8.mixed.LEAST_COSINE", 1.0 - 1e-9)
    mixed = mixed_of(case)
    assert mixed.nothing
    assert mixed.agreement.worst_gradient == pytest.approx(1.0)
    graph = case.exact[TRAINING_MODEL].clone()
    quantize(graph, mixed.calibration, case.manifest.head.weight)
    assert shown(graph) == shown(case.exact[TRAINING_MODEL])


@pytest.mark.parametrize(("least", "low", "high"), [(1, 1, 9), (5, 1, 9), (9, 1, 9), (3, 3, 3), (12, 1, 9)])
def test_the_least_number_that_holds(least: int, low: int, high: int) -> None:
    tried: list[int] = []

    def holds(number: int) -> bool:
        tried.append(number)
        return number >= least

    assert first_that(holds, low, high) == min(least, high)
    assert high not in tried
    assert len(tried) <= 4


def test_a_bundle_says_what_stays_in_float32_and_lives(tmp_path: Path) -> None:
    onnx.save(uneven().proto(), tmp_path / "model.onnx")
    base = pictures(tmp_path)
    options = BuildOptions(
        classes=("a", "b", "c"),
        base_data=base,
        precision="int8",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        trainable="from:c3",
        features="last",
    )
    report = build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", options)
    assert report.agreement is not None
    assert report.agreement.worst_gradient >= LEAST_COSINE
    bundle = Bundle.open(tmp_path / "bundle")
    names = bundle.manifest.in_float
    assert names[-2:] == ("c2", "c3")
    (warning,) = [text for text in report.warnings if "int8" in text]
    assert warning.startswith(
        "int8 is too coarse for parts of this network: with every convolution in int8, the"
    )
    assert (
        f"So {len(names)} convolutions, from '{names[0]}' to 'c3', stay in float32, and the smallest"
        in warning
    )
    for name in (TRAINING_MODEL, PREFIX_MODEL):
        graph = onnx.load(tmp_path / "bundle" / name, load_external_data=False).graph
        kept = {node.name for node in graph.node if node.op_type == "Conv"}
        assert kept >= {"c2"} if name == PREFIX_MODEL else kept >= {"c2", "c3"}
    assert onnx.load(tmp_path / "bundle" / exact_twin(TRAINING_MODEL), load_external_data=False).graph.node
    # Features at the cut are not rounded to eight bits, and training from them works.
    assert bundle.view(INT8).precision == INT8
    assert feature_dtype(bundle.view(INT8)) == np.float16
    learner = Learner.open(
        tmp_path / "bundle", tmp_path / "state", {"prefix_cache": "memory", "few_shot": 0, "train": "centers"}
    )
    rng = np.random.default_rng(5)
    images = rng.integers(0, 60, (24, 9, 9, 3), np.uint8)
    images[12:] += 150
    learner.learn(Task.from_arrays("new", images, np.repeat([0, 1], 12), ("dark", "light")))
    assert learner.predict(images, "new").labels.tolist() == ["dark"] * 12 + ["light"] * 12
