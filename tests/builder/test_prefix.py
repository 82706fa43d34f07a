"""Graphs cut in front of the first site: the same network, in two pieces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
from small_network import Network

from conftest import Digits, build_digits_bundle
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.graphs.layer_features import with_features
from csk_artifacts_builder.graphs.models import eval_model, memory_model, training_model
from csk_artifacts_builder.graphs.prefix import Cut, find_cut, prefix_model, store_as_half, suffix_model
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.sites import find_sites
from csk_device_runners.check import check_bundle
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import MEMORY_MODEL, MEMORY_SUFFIX, PREFIX_MODEL, TRAINING_SUFFIX, Head, Site

DEEP = [network for network in NETWORKS if network.name not in ("thin",)]


class OneHot(OpRun):
    """onnx.reference's own (1.23) cannot take a depth that was computed."""

    op_domain = ""

    def _run(self, indices: NDArray, depth: NDArray, values: NDArray, axis: int = -1) -> tuple[NDArray]:
        assert axis == -1
        return (np.where(indices[..., None] == np.arange(depth.item()), values[1], values[0]),)


@dataclass(frozen=True)
class Case:
    """A network whose later half is trained, its whole graphs, and where it is cut."""

    network: Network
    prepared: ir.Model
    sites: list[Site]
    head: Head
    cut: Cut
    feeds: dict[str, NDArray]


CASES = [(network, features) for network in DEEP for features in ("last", "layers")]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].name}, {case[1]}", scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    network: Network = request.param[0]
    path = tmp_path_factory.mktemp(network.name) / "model.onnx"
    onnx.save(network.proto(), path)
    source = prepare(path)
    source = with_features(source, find_sites(source.model, "model.onnx"), request.param[1])
    split = split_head(source.model, "model.onnx")
    head = Head(split.weight.shape[1], source_weight=split.weight_name, source_bias=split.bias_name)
    sites = find_sites(source.model, "model.onnx")[-1:]
    cut = find_cut(source.model, sites)
    if cut is None:
        pytest.skip("its only site is the first layer, or the image is pooled beside it")
    rng = np.random.default_rng(0)
    feeds = {
        "image": small_network.pictures(network, 5, 0),
        "label": rng.integers(network.classes, size=5),
        head.weight: rng.normal(size=(network.classes, head.features)).astype(np.float32),
        head.bias: np.zeros(network.classes, np.float32),
    }
    for site in sites:
        feeds[site.indices] = np.arange(site.columns)[::2]
        shape = site.rows, len(feeds[site.indices])
        feeds[site.delta] = rng.normal(0, 0.1, shape).astype(np.float32)
    return Case(network, source.model, sites, head, cut, feeds)


def run(graph: ir.Model, feeds: dict[str, NDArray]) -> dict[str, NDArray]:
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString())
    wanted = {value.name: feeds[value.name] for value in session.get_inputs() if value.name in feeds}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, wanted), strict=True))


def in_doubles(graph: ir.Model, feeds: dict[str, NDArray]) -> dict[str, NDArray]:
    proto = in_float64(ir.to_proto(graph))
    names = [value.name for value in proto.graph.output]
    wanted = {
        value.name: feeds[value.name].astype(np.float64 if feeds[value.name].dtype.kind == "f" else np.int64)
        for value in proto.graph.input
        if value.name in feeds
    }
    return dict(zip(names, ReferenceEvaluator(proto, new_ops=[Erf, OneHot]).run(names, wanted), strict=True))


def from_the_cut(case: Case, features: dict[str, NDArray]) -> dict[str, NDArray]:
    return case.feeds | features | {"image": features["prefix"]}


@pytest.mark.parametrize("make", [training_model, eval_model, memory_model])
def test_prefix_and_suffix_give_what_the_whole_graph_gives(case: Case, make) -> None:
    whole = make(case.prepared, case.sites, case.head, "model.onnx")
    prefix, suffix = prefix_model(case.prepared, case.cut), suffix_model(whole, case.cut)
    features = run(prefix, case.feeds)
    assert features["prefix"].shape == (5, *case.cut.shape)
    expected, got = run(whole, case.feeds), run(suffix, from_the_cut(case, features))
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5 * np.abs(value).max(), err_msg=name)


def test_gradients_of_a_suffix_are_those_of_the_whole_network_in_float64(case: Case) -> None:
    """The witness is `onnx.reference` in float64, which knows nothing of ONNX Runtime's optimising."""
    if case.network.name == "vgg":
        pytest.skip("onnx.reference pools in float32; the test above has this network")
    whole = training_model(case.prepared, case.sites, case.head, "model.onnx")
    prefix, suffix = prefix_model(case.prepared, case.cut), suffix_model(whole, case.cut)
    features = in_doubles(prefix, case.feeds)
    expected, got = in_doubles(whole, case.feeds), in_doubles(suffix, from_the_cut(case, features))
    for site in case.sites:
        assert np.abs(expected[site.gradient]).max() > 0
        np.testing.assert_allclose(got[site.gradient], expected[site.gradient], rtol=1e-12, atol=1e-12)


def test_half_precision_in_between_costs_a_thousandth(case: Case) -> None:
    whole = memory_model(case.prepared, case.sites, case.head, "model.onnx")
    prefix, suffix = prefix_model(case.prepared, case.cut), suffix_model(whole, case.cut)
    store_as_half(prefix, [suffix])
    features = run(prefix, case.feeds)["prefix"]
    assert features.dtype == np.float16
    assert features.shape == (5, *case.cut.stored)
    got = run(suffix, {**case.feeds, "image": features})["features"]
    expected = run(whole, case.feeds)["features"]
    assert 0 <= np.linalg.norm(got - expected) < 2e-3 * np.linalg.norm(expected)


def test_no_layer_before_the_cut_is_computed_behind_it(case: Case) -> None:
    whole = eval_model(case.prepared, case.sites, case.head, "model.onnx")
    prefix, suffix = prefix_model(case.prepared, case.cut), suffix_model(whole, case.cut)

    def convolutions(graph: ir.Model) -> set[str]:
        return {str(node.name) for node in graph.graph if node.op_type == "Conv"}

    assert convolutions(prefix)
    assert not convolutions(prefix) & convolutions(suffix)
    assert {site.node for site in case.sites} <= convolutions(suffix)
    assert convolutions(prefix) <= convolutions(whole)


def cut_of(tmp_path: Path, text: str, site: str, **tensors: NDArray) -> Cut | None:
    onnx.save(model(text, **tensors), tmp_path / "model.onnx")
    prepared = prepare(tmp_path / "model.onnx").model
    return find_cut(prepared, [one for one in find_sites(prepared, "model.onnx") if one.node == site])


KERNELS = {
    name: np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for name, shape in {
        "k0": (4, 3, 3, 3),
        "k1": (4, 4, 3, 3),
        "k2": (4, 4, 3, 3),
        "wide": (32, 4, 1, 1),
        "deep": (8, 32, 3, 3),
        "w": (4, 2),
    }.items()
}


def kernels(*names: str) -> dict[str, NDArray]:
    return {name: KERNELS[name] for name in names}


def test_the_cut_lies_behind_the_last_op_in_front_of_the_first_site(tmp_path: Path) -> None:
    text = """(float[N,3,8,8] x) => (float[N,2] y) {
        a = Conv<pads=[1,1,1,1]>(x, k0)  r = Relu(a)  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
        [site] b = Conv<pads=[1,1,1,1]>(p, k1)  m = GlobalAveragePool(b)  f = Flatten(m)  y = MatMul(f, w)
    }"""
    cut = cut_of(tmp_path, text, "site", **kernels("k0", "k1", "w"))
    assert cut == Cut("p", (4, 4, 4))


def test_a_shortcut_around_the_site_starts_at_the_cut(tmp_path: Path) -> None:
    """Both branches read `r`; behind `a` alone the shortcut would be lost."""
    text = """(float[N,3,8,8] x) => (float[N,2] y) {
        a = Conv<pads=[1,1,1,1]>(x, k0)  r = Relu(a)  b = Conv<pads=[1,1,1,1]>(r, k1)
        [site] c = Conv<pads=[1,1,1,1]>(b, k2)  s = Add(c, r)
        m = GlobalAveragePool(s)  f = Flatten(m)  y = MatMul(f, w)
    }"""
    cut = cut_of(tmp_path, text, "site", **kernels("k0", "k1", "k2", "w"))
    assert cut == Cut("r", (4, 8, 8))


def test_a_much_smaller_tensor_is_taken_where_it_saves_nearly_as_much(tmp_path: Path) -> None:
    """Behind a cheap widening layer, features are eight times as large."""
    text = """(float[N,3,8,8] x) => (float[N,2] y) {
        a = Conv<pads=[1,1,1,1]>(x, k0)  r0 = Relu(a)  b = Conv<pads=[1,1,1,1]>(r0, k1)  r1 = Relu(b)
        c = Conv<pads=[1,1,1,1]>(r1, k2)  r2 = Relu(c)  d = Conv(r2, wide)  r3 = Relu(d)
        [site] e = Conv<pads=[1,1,1,1]>(r3, deep)  m = GlobalAveragePool(e)  f = Flatten(m)  y = MatMul(f, w)
    }"""
    tensors = kernels("k0", "k1", "k2", "wide", "deep") | {"w": np.ones((8, 2), np.float32)}
    worth = cut_of(tmp_path, text, "site", **tensors)
    assert worth is not None
    # 3 * 4 * 9 + 2 * 4 * 4 * 9 = 396 multiplications a pixel, 4 * 32 = 128 more of the widening: 76 % is too few.
    assert worth.name == "r3"
    tensors["wide"] = tensors["wide"][:8]  # 32 multiplications for twice the size: 93 % are
    tensors["deep"] = tensors["deep"][:, :8]
    assert cut_of(tmp_path, text, "site", **tensors) == Cut("r2", (4, 8, 8))


def test_where_the_first_layer_is_trained_there_is_nothing_to_keep(tmp_path: Path) -> None:
    text = """(float[N,3,8,8] x) => (float[N,2] y) {
        [site] a = Conv<pads=[1,1,1,1]>(x, k0)  r = Relu(a)
        m = GlobalAveragePool(r)  f = Flatten(m)  y = MatMul(f, w)
    }"""
    assert cut_of(tmp_path, text, "site", **kernels("k0", "w")) is None


@pytest.mark.parametrize(
    ("features", "joined", "prefix"),
    [("last", "c", (4, 8, 8)), ("layers", "c", ()), ("wide", "c", ()), ("last", "q", ())],
    ids=["the frozen layer", "features of layers", "wide ones", "a shortcut from the image"],
)
def test_where_everything_else_reads_the_image_there_is_no_cut(
    tmp_path: Path, features: str, joined: str, prefix: tuple[int, ...]
) -> None:
    """As docs/bundle.md says: features of layers of such a small network begin with the means of the image."""
    text = f"""(float[N,3,8,8] x) => (float[N,2] y) {{
        a = Conv<pads=[1,1,1,1]>(x, k0)  r = Relu(a)  [site] c = Conv<pads=[1,1,1,1]>(r, k1)
        o = Conv(x, past)  q = Add(c, o)  m = GlobalAveragePool({joined})  f = Flatten(m)  y = MatMul(f, w)
    }}"""
    past = np.ones((4, 3, 1, 1), np.float32)
    onnx.save(model(text, **kernels("k0", "k1", "w"), past=past), tmp_path / "model.onnx")
    options = BuildOptions(features=features, trainable="from:site")
    build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", options)
    bundle = Bundle.open(tmp_path / "bundle")
    assert tuple(bundle.manifest.prefix) == prefix
    for name in (PREFIX_MODEL, TRAINING_SUFFIX, MEMORY_SUFFIX):
        assert bundle.path(name).exists() == bool(prefix)


@pytest.mark.parametrize("precision", ["exact", "int8"])
def test_what_is_pooled_in_front_of_the_cut_comes_through(
    precision: str, base_data: Path, digits: Digits, tmp_path: Path
) -> None:
    """Of 240 features of the demo's network, the last 32 are of stage 1, which is never trained."""
    bundle = Bundle.open(build_digits_bundle(tmp_path / "bundle", base_data=base_data, precision=precision))
    manifest, tensors = bundle.manifest, bundle.checkpoint()
    assert manifest.prefix == (16 * 8 * 8 + 2 * 32,)
    images = bundle.preprocessing(digits.arrays((0, 5, 9), 0, 10)[0])
    deltas = {site.delta: np.zeros((site.rows, 0), np.float32) for site in manifest.sites}
    deltas |= {site.indices: np.zeros(0, np.int64) for site in manifest.sites}
    stored = bundle.graph(PREFIX_MODEL, tensors, 1).run({"image": images})["prefix"]
    assert stored.dtype == (np.float16 if precision == "exact" else np.uint8)
    suffix = bundle.view(from_prefix=True).graph(MEMORY_MODEL, tensors, 1)
    whole = bundle.graph(MEMORY_MODEL, tensors, 1).run({"image": images, **deltas}, ["features"])["features"]
    got = suffix.run({"image": stored, **deltas}, ["features"])["features"]
    scale = np.abs(whole[:, -32:]).max()
    np.testing.assert_allclose(got[:, -32:], whole[:, -32:], rtol=0, atol=1e-4 * scale)
    assert np.linalg.norm(got - whole) < (2e-3 if precision == "exact" else 5e-2) * np.linalg.norm(whole)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_features_beyond_float16_are_not_kept(tmp_path: Path, scale: float) -> None:
    """They would be cut off at 65504, and the suffix would compute something else; Softplus takes no smaller ones."""
    text = """(float[N,3,8,8] x) => (float[N,2] y) {
        a = Conv<pads=[1,1,1,1]>(x, k0)  r = Softplus(a)  [site] c = Conv<pads=[1,1,1,1]>(r, k1)
        m = GlobalAveragePool(c)  f = Flatten(m)  y = MatMul(f, w)
    }"""
    tensors = kernels("k0", "k1", "w")
    onnx.save(
        model(text, **tensors | {"k0": scale * tensors["k0"], "w": tensors["w"] / scale}), tmp_path / "m.onnx"
    )
    report = build_artifacts(
        tmp_path / "m.onnx", tmp_path / "b", BuildOptions(features="last", trainable="from:site")
    )
    kept = scale == 1.0
    assert bool(Bundle.open(tmp_path / "b").manifest.prefix) == kept
    assert any("beyond float16" in note for note in report.notes) == (not kept)
    assert [result.detail for result in check_bundle(tmp_path / "b") if not result.passed] == []


def test_a_network_that_scales_its_pixels_is_measured_with_pixels(tmp_path: Path) -> None:
    """Noise around 0, divided by 255, would reach a hundredth of what images do."""
    text = """(float[N,3,8,8] x) => (float[N,2] y) {
        d = Div(x, white)  a = Conv<pads=[1,1,1,1]>(d, k0)  r = Softplus(a)  [site] c = Conv<pads=[1,1,1,1]>(r, k1)
        m = GlobalAveragePool(c)  f = Flatten(m)  y = MatMul(f, w)
    }"""
    tensors = kernels("k0", "k1", "w")
    tensors |= {"k0": 1e5 * np.abs(tensors["k0"]), "w": tensors["w"] / 1e5, "white": np.float32(255)}
    onnx.save(model(text, **tensors), tmp_path / "m.onnx")
    options = BuildOptions(features="last", trainable="from:site")
    report = build_artifacts(tmp_path / "m.onnx", tmp_path / "b", options)
    assert Bundle.open(tmp_path / "b").manifest.prefix == ()
    assert any("beyond float16" in note for note in report.notes)
