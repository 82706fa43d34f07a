"""Classifiers that end in a convolution, rewritten as a linear layer: same outputs, and a head to train."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_text import in_float64, model
from preparing import outputs
from quantised_models import quantised_weights

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.prepare.model import prepare
from csk_sdk import Learner
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, TRAINING_MODEL
from csk_sdk.runtime.sessions import Graph

CLASSES, WIDTH = 4, 6
RNG = np.random.default_rng(0)
TENSORS = {
    "w": RNG.normal(0, 0.3, (WIDTH, 3, 3, 3)),
    "one": RNG.normal(0, 0.5, (CLASSES, WIDTH, 1, 1)),
    "three": RNG.normal(0, 0.3, (CLASSES, WIDTH, 3, 3)),
    "all": RNG.normal(0, 0.2, (CLASSES, WIDTH, 7, 7)),
    "b": RNG.normal(0, 0.5, CLASSES),
}


@dataclass(frozen=True)
class Row:
    """`nodes` lead from the last features `r` `(N, 6, 7, 7)` to `y`; `features` is the new layer's input width."""

    case: str
    nodes: str
    features: int
    tensors: dict[str, NDArray] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.case.replace(" ", "-")

    def proto(self) -> onnx.ModelProto:
        used = {name: array for name, array in TENSORS.items() if name in ("w", "b") or name in self.nodes}
        return model(
            f"(float[N,3,9,9] x) => (float[N,{CLASSES}] y) {{ [site] c = Conv(x, w) \n r = Relu(c) \n {self.nodes} }}",
            **used,
            **self.tensors,
        )


BOTH = CLASSES + WIDTH
ROWS = [
    Row("mean then 1x1", "p = GlobalAveragePool(r) \n k = Conv(p, one, b) \n y = Flatten(k)", WIDTH),
    Row("no bias", "p = GlobalAveragePool(r) \n k = Conv(p, one) \n y = Flatten(k)", WIDTH),
    Row(
        "its bias added behind",
        "k = Conv(r, one) \n a = Add(k, apart) \n p = GlobalAveragePool(a) \n y = Flatten(p)",
        WIDTH,
        {"apart": TENSORS["b"].reshape(1, -1, 1, 1)},
    ),
    Row(
        "a bias added in front of a bend",
        "k = Conv(r, one, half) \n a = Add(apart, k) \n u = Relu(a) \n p = GlobalAveragePool(u) \n y = Flatten(p)",
        BOTH,
        {"half": TENSORS["b"] / 2, "apart": TENSORS["b"].reshape(1, -1, 1, 1) / 2},
    ),
    Row("1x1 then mean", "k = Conv(r, one, b) \n p = GlobalAveragePool(k) \n y = Flatten(p)", WIDTH),
    Row("1x1 then ReduceMean", "k = Conv(r, one, b) \n y = ReduceMean<axes=[2,3], keepdims=0>(k)", WIDTH),
    Row(
        "1x1 then AveragePool and Squeeze",
        "k = Conv(r, one, b) \n p = AveragePool<kernel_shape=[7,7]>(k) \n y = Squeeze(p, axes)",
        WIDTH,
        {"axes": np.array([2, 3])},
    ),
    Row("kernel as large as the image", "k = Conv(r, all, b) \n y = Flatten(k)", WIDTH * 49),
    Row(
        "channels last at the end",
        "p = GlobalAveragePool(r) \n k = Conv(p, one, b) \n t = Transpose<perm=[0,2,3,1]>(k) \n y = Reshape(t, s)",
        WIDTH,
        {"s": np.array([-1, CLASSES])},
    ),
    Row(
        "softmax behind",
        "k = Conv(r, one, b) \n p = GlobalAveragePool(k) \n f = Flatten(p) \n y = Softmax(f)",
        WIDTH,
    ),
    Row(
        "softmax before Flatten",
        "k = Conv(r, one, b) \n p = GlobalAveragePool(k) \n f = Softmax<axis=1>(p) \n y = Flatten(f)",
        WIDTH,
    ),
    Row(
        "Relu before the mean, as SqueezeNet",
        "k = Conv(r, one, b) \n a = Relu(k) \n p = GlobalAveragePool(a) \n y = Flatten(p)",
        BOTH,
    ),
    Row(
        "Relu, softmax before Flatten",
        "k = Conv(r, one, b) \n a = Relu(k) \n p = GlobalAveragePool(a) \n s = Softmax<axis=1>(p) \n y = Flatten(s)",
        BOTH,
    ),
    Row(
        "Relu, then a mean that is the output",
        "k = Conv(r, one, b) \n a = Relu(k) \n y = ReduceMean<axes=[2,3], keepdims=0>(a)",
        BOTH,
    ),
    Row("3x3 then mean", "k = Conv(r, three, b) \n p = GlobalAveragePool(k) \n y = Flatten(p)", BOTH),
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    built = {}
    for row in ROWS:
        folder = tmp_path_factory.mktemp(str(row))
        onnx.save(row.proto(), folder / "model.onnx")
        build_artifacts(
            folder / "model.onnx", folder / "bundle", BuildOptions(features="last", trainable="from:site")
        )
        built[row.case] = Bundle.open(folder / "bundle")
    return built


def pictures() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(5, 3, 9, 9)).astype(np.float32)


def feeds_of(bundle: Bundle, head: dict[str, NDArray]) -> dict[str, NDArray]:
    feeds = {"image": pictures(), **head}
    for site in bundle.manifest.sites:
        feeds[site.delta] = np.zeros((site.rows, site.columns), np.float32)
        feeds[site.indices] = np.arange(site.columns)
    return feeds


def base_head(bundle: Bundle) -> dict[str, NDArray]:
    start = bundle.checkpoint()
    return {"head.weight": start["head/base/weight"], "head.bias": start["head/base/bias"]}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_base_predictions_stay_what_they_were(row: Row, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    bundle = bundles[row.case]
    assert bundle.manifest.head.features == row.features
    assert len(bundle.manifest.classes) == CLASSES
    expected = ReferenceEvaluator(in_float64(row.proto())).run(None, {"x": pictures().astype(np.float64)})[0]
    Learner.open(bundle.folder, tmp_path / "state").export(tmp_path / "base.onnx", "base")
    onnx.checker.check_model(str(tmp_path / "base.onnx"), full_check=True)
    got = Graph(tmp_path / "base.onnx", 1).run({"x": pictures()})["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    logits = Graph(bundle.path(EVAL_MODEL), 1).run(feeds_of(bundle, base_head(bundle)), ["logits"])["logits"]
    if "softmax" in row.case:
        logits = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", [row for row in ROWS if row.features == BOTH], ids=str)
def test_features_are_the_logits_and_the_means(row: Row, bundles: dict[str, Bundle]) -> None:
    """The new layer starts as `[identity, 0]`."""
    bundle = bundles[row.case]
    head = base_head(bundle)
    np.testing.assert_array_equal(head["head.weight"], np.eye(CLASSES, BOTH))
    np.testing.assert_array_equal(head["head.bias"], 0)
    got = Graph(bundle.path(EVAL_MODEL), 1).run(feeds_of(bundle, head), ["features"])["features"]
    evaluator = ReferenceEvaluator(in_float64(with_output(row.proto(), "r")))
    means = evaluator.run(None, {"x": pictures().astype(np.float64)})[0].mean(axis=(2, 3))
    np.testing.assert_allclose(got[:, CLASSES:], means, rtol=1e-5, atol=1e-6)


def test_a_head_that_quantize_dynamic_took_apart(tmp_path: Path) -> None:
    """Its bias stands behind the product and its scales: the network was said to end in a Flatten."""
    row = next(row for row in ROWS if row.case == "1x1 then mean")
    onnx.save(row.proto(), tmp_path / "source.onnx")
    deployed = quantised_weights(tmp_path / "source.onnx", tmp_path / "model.onnx")
    assert "Add" in [node.op_type for node in onnx.load(deployed).graph.node]
    model = ir.to_proto(prepare(deployed).model)
    expected = outputs(onnx.load(deployed), pictures())
    assert model.graph.node[-1].op_type == "Gemm"
    assert np.abs(outputs(model, pictures()) - expected).max() <= 0.03 * np.ptp(expected)


def with_output(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    del proto.graph.output[:]
    proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return proto


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_gradients_equal_central_differences(row: Row, bundles: dict[str, Bundle]) -> None:
    """With another head than the base's, so that every feature counts; the loss is that of the source in float64."""
    bundle = bundles[row.case]
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(3, row.features)).astype(np.float32)
    head = {"head.weight": weight, "head.bias": np.zeros(3, np.float32)}
    label = np.array([0, 2, 1, 1, 0])
    got = Graph(bundle.path(TRAINING_MODEL), 1).run(feeds_of(bundle, head) | {"label": label})
    site = bundle.manifest.sites[0]
    gradient = got[site.gradient].astype(np.float64)
    evaluator = ReferenceEvaluator(in_float64(with_output(row.proto(), "r")))
    kernel = evaluator.rt_inits_["w"]

    def loss(moved: NDArray) -> float:
        evaluator.rt_inits_["w"] = moved
        r = evaluator.run(None, {"x": pictures().astype(np.float64)})[0]
        means = r.mean(axis=(2, 3))
        if row.features == BOTH:
            raw = logits_of(row, r)
            features = np.concatenate([raw, means], axis=1)
        else:
            features = means if row.features == WIDTH else r.reshape(len(r), -1)
        logits = features @ weight.T.astype(np.float64)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float(-log_p[np.arange(5), label].mean())

    for direction in (gradient, rng.normal(size=gradient.shape)):
        direction = direction / np.linalg.norm(direction)
        values = []
        for step in (1e-6, -1e-6):
            moved = kernel.copy()
            moved[:, :, 1, 1] += step * direction
            values.append(loss(moved))
        slope = (values[0] - values[1]) / 2e-6
        assert float((direction * gradient).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-5)


def logits_of(row: Row, r: NDArray) -> NDArray:
    """By hand: convolution, perhaps Relu, mean over the image."""
    if "three" in row.nodes:
        windows = np.lib.stride_tricks.sliding_window_view(r, (3, 3), axis=(2, 3))
        k = np.einsum("nchwij,ocij->nohw", windows, TENSORS["three"].astype(np.float32).astype(np.float64))
    else:
        k = np.einsum("nchw,oc->nohw", r, TENSORS["one"][:, :, 0, 0].astype(np.float32).astype(np.float64))
    k = k + TENSORS["b"].astype(np.float32).astype(np.float64)[:, None, None]
    return (np.maximum(k, 0) if "Relu" in row.nodes else k).mean(axis=(2, 3))


@pytest.mark.parametrize("stem", [("head.weight", "c"), ("w", "head.bias"), ("head.weight", "head.bias")])
@pytest.mark.parametrize("size", [1, 64])
def test_tensors_that_are_called_as_the_heads(tmp_path: Path, stem: tuple[str, str], size: int) -> None:
    """A first layer in a module called `head`, and a classifier elsewhere."""
    weight, bias = stem
    rng = np.random.default_rng(0)
    width = 3 * size
    proto = model(
        "(float[N,3,9,9] x) => (float[N,4] y) { c0 = Conv(x, w0, b0) \n r = Relu(c0) \n c1 = Conv(r, v) \n"
        "p = GlobalAveragePool(c1) \n f = Flatten(p) \n y = Gemm<transB=1>(f, h, b) }",
        w0=rng.normal(0, 0.3, (width, 3, 3, 3)),
        b0=rng.normal(0, 0.3, width),
        v=rng.normal(0, 0.3, (5, width, 3, 3)),
        h=rng.normal(0, 0.3, (4, 5)),
        b=TENSORS["b"],
    )
    for one in (*proto.graph.initializer, *proto.graph.node):
        names = {"w0": weight, "b0": bias}
        if isinstance(one, onnx.TensorProto):
            one.name = names.get(one.name, one.name)
        else:
            one.input[:] = [names.get(name, name) for name in one.input]
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    build_artifacts(path, tmp_path / "bundle", BuildOptions(trainable="all"))
    Learner.open(tmp_path / "bundle", tmp_path / "state").export(tmp_path / "exported.onnx")
    x = rng.normal(size=(3, 3, 9, 9)).astype(np.float32)
    got, expected = (outputs(onnx.load(one), x) for one in (tmp_path / "exported.onnx", path))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
