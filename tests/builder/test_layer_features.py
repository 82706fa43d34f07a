"""`--features layers`: what layers see is pooled, and is features too; the logits stay the source's.

Means of the last two stages, root mean squares in front of them; with `--features wide` both of all, and with
`--features all` both of all layers, from the first one on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_text import in_float64, model

from conftest import Digits, build_digits_bundle, open_learner
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.graphs.layer_features import _FEATURES_IN_ALL, ALL, LAYERS, WIDE
from csk_sdk import Learner
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, MEMORY_MODEL, PREFIX_MODEL, TRAINING_MODEL
from csk_sdk.errors import ConfigError
from csk_sdk.runtime.sessions import Graph

CLASSES = 4


def drawn(name: str, *shape: int) -> NDArray:
    return np.random.default_rng(sum(name.encode())).normal(0, 0.4, shape)


@dataclass(frozen=True)
class Row:
    """A network of three stages, `x` -> `a` -> `b` -> `c` -> `d`; the last two see `a`, `b` and `c`.

    With `early` the first stage has two layers more, `x` -> `e` -> `g` -> `a`.
    `tail` leads from the features `f` `(N, 7)` to `y`; `kept` are those columns of all wide features that become
    features when no more than `most` may.
    """

    case: str
    tail: str
    axes: tuple[int, ...] = (2, 3)
    most: int = 1024
    kept: tuple[int, ...] = tuple(range(22))
    features: str = LAYERS
    early: bool = False

    def __str__(self) -> str:
        return self.case.replace(" ", "-")

    @property
    def image(self) -> tuple[int, ...]:
        return (3, *(12 for _ in self.axes))

    def proto(self) -> onnx.ModelProto:
        kernel = (3,) * len(self.axes)
        pads = f"pads={[1] * 2 * len(self.axes)}"
        strides = f"strides={[2] * len(self.axes)}"
        tensors = {
            name: drawn(name, *shape, *kernel)
            for name, shape in {"w1": (4, 3), "w2": (5, 4), "w3": (6, 5), "w4": (7, 6)}.items()
        }
        first = f"k1 = Conv<{pads}>(x, w1)"
        if self.early:
            tensors |= {"w5": drawn("w5", 4, 3, *kernel), "w6": drawn("w6", 3, 4, *kernel)}
            first = f"""k5 = Conv<{pads}>(x, w5)
            e = Softplus(k5)
            [n6] k6 = Conv<{pads}>(e, w6)
            g = Softplus(k6)
            [n1] k1 = Conv<{pads}>(g, w1)"""
        tensors["fc"] = drawn("fc", *((7, CLASSES) if "MatMul" in self.tail else (CLASSES, 7)))
        tensors["fb"] = drawn("fb", CLASSES)
        image = ",".join(map(str, self.image))
        return model(
            f"""(float[N,{image}] x) => (float[N,{CLASSES}] y) {{
            {first}
            a = Softplus(k1)
            [n2] k2 = Conv<{pads}, {strides}>(a, w2)
            b = Softplus(k2)
            [n3] k3 = Conv<{pads}>(b, w3)
            c = Softplus(k3)
            [n4] k4 = Conv<{pads}, {strides}>(c, w4)
            d = Softplus(k4)
            p = GlobalAveragePool(d)
            f = Flatten(p)
            {self.tail} }}""",
            **tensors,
        )


GEMM = "y = Gemm<transB=1>(f, fc, fb)"
ROWS = [
    Row("Gemm", GEMM),
    Row("MatMul and Add", "m = MatMul(f, fc) \n y = Add(m, fb)"),
    Row("softmax behind", "m = Gemm<transB=1>(f, fc, fb) \n y = Softmax<axis=-1>(m)"),
    Row("signals", GEMM, axes=(2,)),
    Row("too many", GEMM, most=12, kept=(*range(7), 7, 11, 14, 17, 21)),
    Row("the least", GEMM, most=4, kept=(*range(7), 7, 14, 21)),
    Row("wide", GEMM, kept=tuple(range(37)), features=WIDE),
    Row("wide signals", GEMM, axes=(2,), kept=tuple(range(37)), features=WIDE),
    Row(
        "too many and wide",
        GEMM,
        most=12,
        kept=(*range(7), 7, 14, 21, 29, 36),
        features=WIDE,
    ),
    Row("early layers", GEMM, kept=(*range(22), *range(37, 44)), early=True),
    Row("early layers of signals", GEMM, axes=(2,), kept=(*range(22), *range(37, 44)), early=True),
    Row("room for the nearest", GEMM, most=26, kept=(*range(22), *range(37, 40)), early=True),
    Row("room for none", GEMM, most=24, early=True),
    Row("early and wide", GEMM, kept=tuple(range(51)), features=WIDE, early=True),
    Row(
        "all",
        GEMM,
        kept=(
            *range(7),
            *range(22, 26),
            *range(7, 11),
            *range(26, 31),
            *range(11, 16),
            *range(31, 37),
            *range(16, 22),
        ),
        features=ALL,
    ),
    Row(
        "room for the first of all",
        GEMM,
        most=20,
        kept=(*range(7), *range(40, 44), *range(47, 51), *range(37, 40)),
        features=ALL,
        early=True,
    ),
]
WIDTHS = (7, 4, 5, 6)  # of d, a, b and c


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    built = {}
    for row in ROWS:
        folder = tmp_path_factory.mktemp(str(row))
        onnx.save(row.proto(), folder / "model.onnx")
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(_FEATURES_IN_ALL, row.features, row.most)
            patch.setattr("csk_artifacts_builder.graphs.layer_features._ADDED_AT_LEAST", 3)
            build_artifacts(folder / "model.onnx", folder / "bundle", BuildOptions(features=row.features))
        built[row.case] = Bundle.open(folder / "bundle")
    return built


def pictures(row: Row) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(5, *row.image)).astype(np.float32)


def feeds_of(bundle: Bundle, row: Row, weight: NDArray, bias: NDArray) -> dict[str, NDArray]:
    feeds = {"image": pictures(row), "head.weight": weight, "head.bias": bias}
    for site in bundle.manifest.sites:
        feeds[site.delta] = np.zeros((site.rows, site.columns), np.float32)
        feeds[site.indices] = np.arange(site.columns)
    return feeds


def features_of(row: Row, evaluator: ReferenceEvaluator) -> NDArray[np.float64]:
    """Those of the source model's maps that are features.

    Means of d, a, b and c, root mean squares of a, b, c, g and e, means of g and e.
    """
    maps = evaluator.run(None, {"x": pictures(row).astype(np.float64)})
    means = [array.mean(axis=row.axes) for array in maps]
    roots = [np.sqrt((array**2).mean(axis=row.axes)) for array in maps[1:]]
    return np.concatenate(means[:4] + roots + means[4:], axis=1)[:, row.kept]


def maps_of(row: Row) -> ReferenceEvaluator:
    proto = row.proto()
    del proto.graph.output[:]
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in ("dabcge" if row.early else "dabc")
    )
    return ReferenceEvaluator(in_float64(proto))


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_base_predictions_stay_what_they_were(row: Row, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    bundle = bundles[row.case]
    assert bundle.manifest.head.features == len(row.kept)
    start = bundle.checkpoint()
    assert not start["head/base/weight"][:, WIDTHS[0] :].any()
    expected = ReferenceEvaluator(in_float64(row.proto())).run(None, {"x": pictures(row).astype(np.float64)})[
        0
    ]
    Learner.open(bundle.folder, tmp_path / "state").export(tmp_path / "base.onnx", "base")
    onnx.checker.check_model(str(tmp_path / "base.onnx"), full_check=True)
    got = Graph(tmp_path / "base.onnx", 1).run({"x": pictures(row)})["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_features_are_those_of_what_layers_see(row: Row, bundles: dict[str, Bundle]) -> None:
    bundle = bundles[row.case]
    head = np.zeros((2, len(row.kept)), np.float32), np.zeros(2, np.float32)
    got = Graph(bundle.path(EVAL_MODEL), 1).run(feeds_of(bundle, row, *head), ["features"])["features"]
    np.testing.assert_allclose(got, features_of(row, maps_of(row)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_gradients_equal_central_differences(row: Row, bundles: dict[str, Bundle]) -> None:
    """With a head that reads every feature; the loss is that of the source's own maps in float64."""
    bundle = bundles[row.case]
    rng = np.random.default_rng(2)
    weight, bias = rng.normal(size=(3, len(row.kept))).astype(np.float32), np.zeros(3, np.float32)
    label = np.array([0, 2, 1, 1, 0])
    got = Graph(bundle.path(TRAINING_MODEL), 1).run(feeds_of(bundle, row, weight, bias) | {"label": label})
    evaluator = maps_of(row)

    def loss() -> float:
        logits = features_of(row, evaluator) @ weight.T.astype(np.float64)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float(-log_p[np.arange(5), label].mean())

    for site in bundle.manifest.sites:
        gradient = got[site.gradient].astype(np.float64)
        direction = gradient / np.linalg.norm(gradient)
        kernel, values = evaluator.rt_inits_[site.weight], []
        for step in (1e-6, -1e-6):
            moved = kernel.copy()
            moved[(..., *(1 for _ in row.axes))] += step * direction
            evaluator.rt_inits_[site.weight] = moved
            values.append(loss())
        evaluator.rt_inits_[site.weight] = kernel
        assert float(np.linalg.norm(gradient)) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "features"), [("exact", LAYERS), ("int8", LAYERS), ("int8", WIDE)])
def test_a_device_learns_and_exports_with_them(
    precision: str, features: str, base_data: Path, digits: Digits, tmp_path: Path
) -> None:
    """The exported model decides as the device does, which has learned."""
    bundle = build_digits_bundle(
        tmp_path / "bundle", base_data=base_data, features=features, precision=precision
    )
    learner = open_learner(bundle, tmp_path / "state", epochs=2)
    learner.learn(digits.task("new", (4, 5, 6)))
    images, labels = digits.arrays((0, 1, 2, 3, 4, 5, 6), 100, 140)
    said = learner.predict(images)
    right = said.labels == np.array(learner.predictor().head().classes)[labels]
    assert np.mean(right) > 0.8
    learner.export(tmp_path / "exported.onnx")
    exported = Graph(tmp_path / "exported.onnx", 1)
    (logits,) = exported.run({"image": learner.bundle.preprocessing(images)}).values()
    assert np.mean(np.array(said.classes)[logits.argmax(axis=1)] == said.labels) >= (
        1.0 if precision == "exact" else 0.98
    )


def test_stored_features_of_a_white_image_are_those_of_the_whole_network(
    base_data: Path, tmp_path: Path
) -> None:
    """What is pooled of it lies far beyond what base images show: no head is fitted on features that were cut short."""
    folder = build_digits_bundle(tmp_path / "bundle", base_data=base_data, precision="int8")
    bundle = Bundle.open(folder)
    checkpoint = bundle.checkpoint()
    feeds = {site.delta: np.zeros((site.rows, 1), np.float32) for site in bundle.manifest.sites}
    feeds |= {site.indices: np.zeros(1, np.int64) for site in bundle.manifest.sites}
    white = bundle.preprocessing(np.full((1, 8, 8), 255, np.uint8))
    (stored,) = bundle.graph(PREFIX_MODEL, checkpoint, 1).run({"image": white}).values()
    suffix = bundle.view(from_prefix=True).graph(MEMORY_MODEL, checkpoint, 1)
    whole = bundle.graph(MEMORY_MODEL, checkpoint, 1)
    got, expected = (
        graph.run({"image": x, **feeds}, ["features"])["features"]
        for graph, x in ((suffix, stored), (whole, white))
    )
    np.testing.assert_allclose(got, expected, atol=0.02)


def test_another_word_is_refused(tmp_path: Path) -> None:
    onnx.save(ROWS[0].proto(), tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=r"--features is 'first'; it must be last, layers, wide or all\."):
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(features="first"))
