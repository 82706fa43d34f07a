"""Frozen convolutions in int8: what the graphs are made of, and how near they come to the exact network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import networks
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import small_network
from networks import NETWORKS
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx_text import Erf, in_float64, model
from small_network import Network, Witness

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.graphs.choice import choose_sites
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.graphs.models import eval_model, memory_model, training_model
from csk_artifacts_builder.int8.calibrate import calibrations, compare
from csk_artifacts_builder.int8.quantize import Calibration, Range, frozen_convolutions, quantize
from csk_artifacts_builder.measure.verify import standard_ops_only
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.sites import find_sites
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import (
    DOMAIN_MODEL,
    DOMAIN_STATISTICS,
    EVAL_MODEL,
    EXPORT_TEMPLATE,
    MEMORY_MODEL,
    TRAINING_MODEL,
    Head,
    InputSpec,
    Manifest,
    PreprocessingSpec,
    exact_twin,
)
from csk_sdk.errors import ConfigError
from csk_sdk.runtime.sessions import open_session

BATCHES, IMAGES = 6, 16
Feeds = dict[str, NDArray]


@dataclass(frozen=True)
class Case:
    """A network's graphs, exact and in int8, and the batches that int8 was calibrated on."""

    network: Network
    manifest: Manifest
    exact: dict[str, ir.Model]
    rounded: dict[str, ir.Model]
    calibration: Calibration
    feeds: list[Feeds]


def make_case(network: Network, folder: Path) -> Case:
    onnx.save(network.proto(), folder / "model.onnx")
    source = prepare(folder / "model.onnx")
    split = split_head(source.model, "model.onnx")
    head = Head(split.weight.shape[1], source_weight=split.weight_name, source_bias=split.bias_name)
    order = [str(node.name) for node in source.model.graph]
    sites = choose_sites(find_sites(source.model, "model.onnx"), "all", order, "model.onnx").sites
    makers = {TRAINING_MODEL: training_model, EVAL_MODEL: eval_model, MEMORY_MODEL: memory_model}
    exact, rounded = (
        {name: make(source.model, sites, head, "model.onnx") for name, make in makers.items()}
        for _ in range(2)
    )
    rng = np.random.default_rng(0)
    fixed: Feeds = {head.weight: split.weight, head.bias: split.bias}
    for site in sites:
        fixed[site.indices] = np.arange(site.columns)
        fixed[site.delta] = np.zeros((site.rows, site.columns), np.float32)
    feeds = [
        {
            "image": small_network.pictures(network, IMAGES, seed),
            "label": rng.integers(network.classes, size=IMAGES),
            **fixed,
        }
        for seed in range(BATCHES)
    ]
    calibration, _ = calibrations(exact[TRAINING_MODEL], feeds, head.weight)
    for graph in rounded.values():
        quantize(graph, calibration, head.weight)
    manifest = Manifest(
        model="model.onnx",
        classes=("a", "b", "c"),
        input=InputSpec("image", network.image[0], network.image[1:]),
        preprocessing=PreprocessingSpec((0.0,) * 3, (1.0,) * 3),
        head=head,
        sites=tuple(sites),
        base_protected=False,
        channel_ratio=0.25,
        batch_size=IMAGES,
    )
    return Case(network, manifest, exact, rounded, calibration, feeds)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {network.name: make_case(network, tmp_path_factory.mktemp(network.name)) for network in NETWORKS}


def run(graph: ir.Model | onnx.ModelProto, feeds: Feeds) -> Feeds:
    proto = graph if isinstance(graph, onnx.ModelProto) else ir.to_proto(graph)
    session = open_session(proto.SerializeToString(), ort.SessionOptions())
    taken = {value.name: feeds[value.name] for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, taken), strict=True))


class DequantizeLinear(OpRun):
    """onnx.reference (1.23) has none before opset 19."""

    op_domain = ""

    def _run(self, x: NDArray, scale: NDArray, zero: NDArray, **_: object) -> tuple[NDArray]:
        return ((x.astype(np.int32) - zero.astype(np.int32)).astype(np.float32) * scale,)


def relative(value: NDArray, truth: NDArray) -> float:
    return float(np.linalg.norm(value.astype(np.float64) - truth) / np.linalg.norm(truth))


# --- what the graphs are made of


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_every_frozen_convolution_is_in_int8_and_all_is_standard(
    cases: dict[str, Case], network: Network
) -> None:
    case = cases[network.name]
    for name, graph in case.rounded.items():
        standard_ops_only(name, graph)
        onnx.checker.check_model(ir.to_proto(graph), full_check=True)
        found = frozen_convolutions(case.exact[name], case.manifest.head.weight)
        ops = Counter(node.op_type for node in graph.graph)
        assert ops["QLinearConv"] == len(found) > 0
        # What is left in float are center branches: their kernels are graph inputs.
        assert frozen_convolutions(graph, case.manifest.head.weight) == []


def test_forward_and_backward_are_told_apart(cases: dict[str, Case]) -> None:
    case = cases["resnet"]
    found = frozen_convolutions(case.exact[TRAINING_MODEL], case.manifest.head.weight)
    assert [conv.node.name for conv in found if not conv.backward] == ["stem", "first", "second", "short"]
    # The stem is the first site, so nothing is differentiated in front of it. Behind it lie "second", "first" as four
    # phases, and "short" as one, because three of its phases are empty.
    assert sum(conv.backward for conv in found) == 1 + 4 + 1
    # Depthwise convolutions are put into int8 forward only.
    depthwise = cases["mobilenet"]
    found = frozen_convolutions(depthwise.exact[TRAINING_MODEL], depthwise.manifest.head.weight)
    groups = {(conv.node.attributes.get_int("group", 1) > 1, conv.backward) for conv in found}
    assert groups == {(False, False), (True, False), (False, True)}
    evaluated = frozen_convolutions(case.exact[EVAL_MODEL], case.manifest.head.weight)
    assert not any(conv.backward for conv in evaluated)


CHAIN = """(float[N,3,8,8] x, float[C,5] weight) => (float[N,C] y) {
    [one] a = Conv <pads=[1,1,1,1]> (x, one_w, one_b)
    r = Relu(a)
    p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r)
    [two] b = Conv <strides=[2,2]> (p, two_w)
    c = Clip(b, zero, six)
    [three] d = Conv (c, three_w)
    m = GlobalAveragePool(d)
    f = Flatten(m)
    y = Gemm <transB=1> (f, weight)
}"""


def chain() -> tuple[onnx.ModelProto, Calibration, NDArray]:
    rng = np.random.default_rng(3)
    tensors = {
        "one_w": 0.3 * rng.normal(size=(4, 3, 3, 3)), "one_b": rng.normal(size=4),
        "two_w": 0.5 * rng.normal(size=(6, 4, 1, 1)), "three_w": 0.5 * rng.normal(size=(5, 6, 2, 2)),
        "zero": np.array(0.0), "six": np.array(6.0),
    }  # fmt: skip
    calibration = Calibration(
        {"one": Range(-3.0, 3.2), "two": Range(0.0, 7.0), "three": Range(0.0, 6.0)},
        {"one": Range(-7.0, 7.0), "two": Range(-9.0, 11.0), "three": Range(-14.0, 16.0)},
        {},
    )
    return model(CHAIN, **tensors), calibration, rng.normal(size=(2, 3, 8, 8)).astype(np.float32)


def test_a_chain_stays_in_integers_from_the_first_convolution_to_the_last() -> None:
    proto, calibration, _ = chain()
    graph = ir.from_proto(proto)
    quantize(graph, calibration, "weight")
    constants = {
        "Abs",
        "ReduceMax",
        "ReduceMin",
        "Neg",
        "Mul",
        "Max",
        "Div",
        "Shape",
        "Expand",
        "Round",
        "Cast",
    }
    path = [node.op_type for node in graph.graph if node.op_type not in constants]
    kernel = "QuantizeLinear"
    assert path == [
        *("QuantizeLinear", kernel, "QLinearConv", "MaxPool"),
        *(kernel, "QLinearConv"),
        *(kernel, "QLinearConv", "DequantizeLinear", "GlobalAveragePool", "Flatten", "Gemm"),
    ]


def rounded(x: NDArray, scale: float, zero: int) -> NDArray:
    """What a u8 tensor with this scale and zero point stands for."""
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale


def rounded_kernel(w: NDArray) -> NDArray:
    scale = np.abs(w).max(axis=(1, 2, 3), keepdims=True) / 127
    return np.rint(w / scale) * scale


def test_the_numbers_are_those_of_rounding_by_hand() -> None:
    """Inputs, kernels and outputs rounded in float64 around exact convolutions: the same to within one step."""
    proto, calibration, x = chain()
    weight = np.eye(5, dtype=np.float32)
    graph = ir.from_proto(proto)
    quantize(graph, calibration, "weight")
    got = run(graph, {"x": x, "weight": weight})["y"]

    tensors = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}
    first = rounded(x.astype(np.float64), 6.2 / 255, round(3.0 / (6.2 / 255)))
    a = (
        convolution(first, rounded_kernel(tensors["one_w"]), pads=[1, 1, 1, 1])
        + tensors["one_b"][:, None, None]
    )
    r = rounded(a, 7 / 255, 0)  # Relu is the rounding's lower end
    p = r.reshape(2, 4, 4, 2, 4, 2).max(axis=(3, 5))
    c = rounded(convolution(p, rounded_kernel(tensors["two_w"]), strides=[2, 2]), 6 / 255, 0)  # and Clip both
    d = rounded(convolution(c, rounded_kernel(tensors["three_w"])), 30 / 255, round(14 / (30 / 255)))
    np.testing.assert_allclose(got, d.mean(axis=(2, 3)), atol=30 / 255 / 2)
    exact = ReferenceEvaluator(in_float64(proto)).run(None, {"x": x.astype(np.float64), "weight": weight})[0]
    assert 1e-3 < relative(got, exact) < 0.05


def test_zeros_in_front_of_a_pool_stay_zeros_in_int8(tmp_path: Path) -> None:
    """The convolution gives only less than 0, and a pool pads u8 with its lowest number, which is less still."""
    text = """(float[N,2,6,6] x) => (float[N,3] y) {
    [one] a = Conv <pads=[1,1,1,1]> (x, w, b)  q = Pad(a, around)
    p = MaxPool <kernel_shape=[3,3], strides=[2,2]> (q)
    [two] c = Conv <pads=[1,1,1,1]> (p, v)  m = GlobalAveragePool(c)  f = Flatten(m)  y = Gemm <transB=1> (f, h) }"""
    rng = np.random.default_rng(4)
    tensors = {
        "w": 0.1 * rng.normal(size=(4, 2, 3, 3)),
        "b": np.full(4, -2.0),
        "v": rng.normal(size=(3, 4, 3, 3)),
    }
    proto = model(text, **tensors, h=np.eye(3), around=np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    onnx.save(proto, tmp_path / "model.onnx")
    graph = prepare(tmp_path / "model.onnx").model
    calibration = Calibration(
        {"one": Range(-3.0, 3.0), "two": Range(-3.0, 0.0)},
        {"one": Range(-4.0, 1.0), "two": Range(-20.0, 20.0)},
        {},
    )
    quantize(graph, calibration, "")
    (pool,) = [node for node in graph.graph if node.op_type == "MaxPool"]
    assert pool.inputs[0].producer().op_type == "QLinearConv"
    x = rng.normal(size=(2, 2, 6, 6)).astype(np.float32)
    exact = ReferenceEvaluator(in_float64(proto)).run(None, {"x": x.astype(np.float64)})[0]
    # Steps of 5 / 255 and 40 / 255; with the lowest number for the zeros it would be off by more than 1.
    np.testing.assert_allclose(run(graph, {"x": x})["y"], exact, atol=0.3)


def convolution(x: NDArray, w: NDArray, **attributes: object) -> NDArray:
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    return ReferenceEvaluator(node).run(None, {"x": x, "w": w})[0]


def test_a_relu_that_is_not_the_only_reader_stays_a_relu() -> None:
    text = """(float[N,3,8,8] x, float[C,4] weight) => (float[N,C] y) {
        [one] a = Conv (x, one_w)
        r = Relu(a)
        s = Add(a, r)
        m = GlobalAveragePool(s)
        f = Flatten(m)
        y = Gemm <transB=1> (f, weight)
    }"""
    proto = model(text, one_w=np.random.default_rng(0).normal(size=(4, 3, 1, 1)))
    graph = ir.from_proto(proto)
    quantize(graph, Calibration({"one": Range(-3, 3)}, {"one": Range(-9, 9)}, {}), "weight")
    assert Counter(node.op_type for node in graph.graph)["Relu"] == 1
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    feeds = {"x": x, "weight": np.eye(4, dtype=np.float32)}
    assert relative(run(graph, feeds)["y"], run(proto, feeds)["y"]) < 0.02


SUM = """(float[N,3,8,8] x, float[C,4] weight) => (float[N,C] y) {
    [one] a = Conv <pads=[1,1,1,1]> (x, one_w)
    ra = Relu(a)
    [two] b = Conv <pads=[1,1,1,1]> (ra, two_w)
    s = Add(b, SKIPPED)
    r = Relu(s)
    [three] c = Conv <pads=[1,1,1,1]> (r, three_w)
    t = Add(c, r)
    m = GlobalAveragePool(t)
    f = Flatten(m)
    y = Gemm <transB=1> (f, weight)
}"""


@pytest.mark.parametrize(("skipped", "in_integers"), [("ra", True), ("float", False)])
def test_a_sum_of_what_is_in_integers_is_one_too(skipped: str, in_integers: bool, tmp_path: Path) -> None:
    """The runtime adds u8 to u8, and all that reads the sum reads what was rounded of it."""
    rng = np.random.default_rng(0)
    kernels = {name: rng.normal(size=(4, 4, 3, 3)) / 6 for name in ("two_w", "three_w")}
    text = SUM.replace("SKIPPED", "ra" if skipped == "ra" else "e")
    if skipped == "float":
        text = text.replace("s = Add", "e = Neg(ra)\n    s = Add")
    proto = model(text, one_w=rng.normal(size=(4, 3, 3, 3)) / 5, **kernels)
    inputs = {"one": Range(-4, 4), "two": Range(0, 4), "three": Range(0, 8)}
    outputs = {name: Range(-5, 5) for name in inputs}
    graph = ir.from_proto(proto)
    quantize(graph, Calibration(inputs, outputs, {}), "weight")
    total = [node for node in graph.graph if node.op_type == "Add"][-1]
    producers = [value.producer() for value in total.inputs if value is not None]
    read = Counter(node.op_type for node in producers if node is not None)
    assert read == ({"DequantizeLinear": 2} if in_integers else {"DequantizeLinear": 1, "Relu": 1})
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    open_session(ir.to_proto(graph).SerializeToString(), options)
    made = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert made["QLinearAdd"] == int(in_integers)
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    feeds = {"x": x, "weight": np.eye(4, dtype=np.float32)}
    assert relative(run(graph, feeds)["y"], run(proto, feeds)["y"]) < 0.03


def test_signals_stay_in_integers_as_pictures_do() -> None:
    text = """(float[N,3,16] x, float[C,6] weight) => (float[N,C] y) {
        [one] a = Conv <pads=[2,2]> (x, one_w, one_b)
        r = Relu(a)
        p = MaxPool <kernel_shape=[2], strides=[2]> (r)
        [two] b = Conv <group=2> (p, two_w)
        m = GlobalAveragePool(b)
        f = Flatten(m)
        y = Gemm <transB=1> (f, weight)
    }"""
    rng = np.random.default_rng(4)
    proto = model(
        text, one_w=rng.normal(size=(4, 3, 5)), one_b=rng.normal(size=4), two_w=rng.normal(size=(6, 2, 3))
    )
    graph = ir.from_proto(proto)
    spans = Calibration(
        {"one": Range(-3.0, 3.0), "two": Range(0.0, 12.0)},
        {"one": Range(-12.0, 12.0), "two": Range(-30, 30)},
        {},
    )
    quantize(graph, spans, "weight")
    ops = Counter(node.op_type for node in graph.graph)
    assert (ops["QLinearConv"], ops["DequantizeLinear"], ops["Conv"]) == (2, 1, 0)
    feeds = {"x": rng.normal(size=(4, 3, 16)).astype(np.float32), "weight": np.eye(6, dtype=np.float32)}
    assert relative(run(graph, feeds)["y"], run(proto, feeds)["y"]) < 0.05


# --- how near they come


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_logits_are_near_those_of_the_source_network_in_float64(
    cases: dict[str, Case], network: Network
) -> None:
    case = cases[network.name]
    unseen = case.feeds[0] | {"image": small_network.pictures(network, IMAGES, seed=99)}
    expected = Witness(network, case.manifest).logits(unseen["image"])
    for name in (TRAINING_MODEL, EVAL_MODEL):
        error = relative(run(case.rounded[name], unseen)["logits"], expected)
        assert 1e-5 < error < 0.08, (name, error)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_gradients_carried_in_int8_point_where_the_exact_ones_do(
    cases: dict[str, Case], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward in float32, so that no Relu decides otherwise: tiny networks have few elements to average over."""
    case = cases[network.name]
    monkeypatch.setattr(
        "csk_artifacts_builder.int8.quantize.frozen_convolutions",
        lambda *given: [conv for conv in frozen_convolutions(*given) if conv.backward],
    )
    backward = case.exact[TRAINING_MODEL].clone()
    quantize(backward, case.calibration, case.manifest.head.weight)
    unseen = case.feeds[0] | {"image": small_network.pictures(network, IMAGES, seed=98)}
    exact, got = (run(graph, unseen) for graph in (case.exact[TRAINING_MODEL], backward))
    np.testing.assert_array_equal(exact["logits"], got["logits"])
    for site in case.manifest.sites:
        a, b = exact[site.gradient].ravel(), got[site.gradient].ravel()
        cosine = float(a @ b / np.sqrt((a @ a) * (b @ b)))
        assert cosine >= 0.99, (site.name, cosine)
        assert 0.95 < np.linalg.norm(b) / np.linalg.norm(a) < 1.05, site.name


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_the_runtime_computes_what_the_specification_says(cases: dict[str, Case], network: Network) -> None:
    """onnx.reference runs the same graph; rounding may fall the other way in single elements."""
    case = cases[network.name]
    if network.name in WRONG_IN_REFERENCE:
        pytest.skip(WRONG_IN_REFERENCE[network.name])
    few = case.feeds[0] | {"image": case.feeds[0]["image"][:2]}
    proto = ir.to_proto(case.rounded[EVAL_MODEL])
    taken = {value.name: few[value.name] for value in proto.graph.input}
    logits, features = ReferenceEvaluator(proto, new_ops=[DequantizeLinear, Erf]).run(
        ["logits", "features"], taken
    )
    got = run(proto, few)
    assert relative(got["features"], features) < 0.01
    assert relative(got["logits"], logits) < 0.01


WRONG_IN_REFERENCE = {
    "audio": "onnx.reference scales QLinearConv per channel in two dimensions only",
    "sensors": "onnx.reference scales QLinearConv per channel in two dimensions only",
}


def test_compare_sees_what_int8_costs(cases: dict[str, Case]) -> None:
    case = cases["resnet"]
    exact, got = case.exact[TRAINING_MODEL], case.rounded[TRAINING_MODEL]
    same = compare(exact, exact, case.feeds, case.manifest)
    assert (same.logits, same.worst_gradient) == (0.0, pytest.approx(1.0))
    found = compare(exact, got, case.feeds, case.manifest)
    assert 1e-3 < found.logits < 0.05
    assert 0.98 < found.worst_gradient < 1.0 - 1e-6
    assert set(found.gradients) == {site.name for site in case.manifest.sites}


def test_no_where_has_a_dequantised_value_and_a_scalar() -> None:
    """ONNX Runtime 1.25.0 dies opening such a graph."""
    text = """(float[N,3,8,8] x, float[C,4] weight) => (float[N,C] y) {
        [one] a = Conv (x, one_w, one_b)
        b = Greater(a, zero)
        s = Where(b, a, zero)
        m = GlobalAveragePool(s)
        f = Flatten(m)
        y = Gemm <transB=1> (f, weight)
    }"""
    kernel = np.random.default_rng(0).normal(size=(4, 3, 3, 3))
    graph = ir.from_proto(model(text, one_w=kernel, one_b=np.zeros(4), zero=np.array(0.0)))
    quantize(graph, Calibration({"one": Range(-3, 3)}, {"one": Range(-15, 15)}, {}), "weight")
    (chosen,) = [node for node in graph.graph if node.op_type == "Where"]
    value, zero = chosen.inputs[1:]
    assert value is not None
    assert value.producer().op_type == "DequantizeLinear"
    assert zero is not None
    assert zero.const_value.numpy().shape == (1,)


def test_kernels_and_gradients_of_zeros_stay_zeros(cases: dict[str, Case]) -> None:
    """A pruned channel with a large bias, and a batch whose gradient vanishes."""
    text = """(float[N,3,8,8] x, float[C,4] weight) => (float[N,C] y) {
        [one] a = Conv (x, one_w, one_b)
        m = GlobalAveragePool(a)
        f = Flatten(m)
        y = Gemm <transB=1> (f, weight)
    }"""
    kernel = np.random.default_rng(0).normal(size=(4, 3, 3, 3))
    kernel[1:3] = 0.0
    proto = model(text, one_w=kernel, one_b=np.array([0.1, 7.5, 0.0, -8.0]))
    graph = ir.from_proto(proto)
    quantize(graph, Calibration({"one": Range(-3, 3)}, {"one": Range(-15, 15)}, {}), "weight")
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    feeds = {"x": x, "weight": np.eye(4, dtype=np.float32)}
    np.testing.assert_allclose(run(graph, feeds)["y"], run(proto, feeds)["y"], atol=60 / 255)

    case = cases["resnet"]
    silent = case.feeds[0] | {"head.weight": np.zeros_like(case.feeds[0]["head.weight"])}
    outputs = run(case.rounded[TRAINING_MODEL], silent)
    for site in case.manifest.sites:
        assert not outputs[site.gradient].any()


# --- building


def pictures(folder: Path) -> Path:
    from PIL import Image

    rng = np.random.default_rng(2)
    for name in "abc":
        (folder / "base" / name).mkdir(parents=True)
        for index in range(8):
            pixels = rng.integers(256, size=(9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "base" / name / f"{index}.png")
    return folder / "base"


def test_an_int8_bundle_says_so_and_gives_every_network_its_kernels(tmp_path: Path) -> None:
    onnx.save(networks.RESNET.proto(), tmp_path / "model.onnx")
    base = pictures(tmp_path)
    for precision in ("exact", "int8"):
        options = BuildOptions(
            classes=("a", "b", "c"), base_data=base, precision=precision, trainable="all",
            mean=(0.5,) * 3, std=(0.25,) * 3,
        )  # fmt: skip
        report = build_artifacts(tmp_path / "model.onnx", tmp_path / precision, options)
        assert (report.agreement is None) == (precision == "exact")
        assert not any("int8" in text for text in report.warnings)
    exact, got = (Bundle.open(tmp_path / precision) for precision in ("exact", "int8"))
    assert (exact.manifest.precision, got.manifest.precision) == ("exact", "int8")
    assert (exact.manifest.precisions, got.manifest.precisions) == (("exact",), ("int8", "exact"))
    alone = (EXPORT_TEMPLATE, DOMAIN_MODEL, DOMAIN_STATISTICS)
    for name, kernels in exact.manifest.kernels.items():
        assert got.manifest.kernels[name] == kernels
        if name not in alone:
            # The same exact graph, beside the one in int8.
            twin = exact_twin(name)
            assert got.manifest.kernels[twin] == kernels
            assert (tmp_path / "int8" / twin).read_bytes() == (tmp_path / "exact" / name).read_bytes()
    assert len(got.manifest.kernels) == 2 * len(exact.manifest.kernels) - len(alone)
    assert (tmp_path / "exact/weights.safetensors").read_bytes() == (
        tmp_path / "int8/weights.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"precision": "int8"},
            "--precision int8 needs --base-data: the ranges of the network's activations are measured on images of "
            "the base classes. Pass a folder with some images of each, or build with --precision exact.",
        ),
        ({"precision": "int4"}, "--precision is 'int4'; it must be exact or int8."),
    ],
)
def test_a_precision_that_cannot_be_built_is_refused(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    onnx.save(networks.RESNET.proto(), tmp_path / "model.onnx")
    with pytest.raises(ConfigError) as refused:
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(**options))  # type: ignore[arg-type]
    assert str(refused.value) == message
    assert not (tmp_path / "bundle").exists()
