"""Activations beyond float16 are divided by powers of two: the same scores, to the bit, of numbers with squares."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_text import in_float64, model
from PIL import Image

from conftest import NAMES, REPOSITORY, Digits, open_learner
from csk_artifacts_builder import BuildOptions, build_artifacts, try_model
from csk_artifacts_builder.measure.running import PREPARED, open_graph, run_all
from csk_artifacts_builder.planning.leveling import leveled, reached
from csk_artifacts_builder.prepare.exponents import LARGEST
from csk_artifacts_builder.prepare.level import level
from csk_artifacts_builder.prepare.model import SourceModel, prepare
from csk_device_runners.check import check_bundle
from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import ModelError

RNG = np.random.default_rng(0)
PAD = "pads=[1,1,1,1]"


@dataclass(frozen=True)
class Kind:
    """What leads from `{x}` to `{y}`, both `(N, 4, 8, 8)`, with such tensors; `stays` where it is a border."""

    text: str
    tensors: dict[str, tuple[int, ...]]
    stays: bool = False


def kernels(*names: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names, (4, 4, 3, 3))
    return shapes | {f"{name}b": (4,) for name in names}


def layer(x: str, y: str, kernel: str = "k{n}") -> str:
    return f"{y} = Conv<{PAD}>({x}, {kernel}, {kernel}b)"


KINDS = {
    "relu": Kind(f"{layer('{x}', 'c{n}')} \n {{y}} = Relu(c{{n}})", kernels("k")),
    "leaky": Kind(f"{layer('{x}', 'c{n}')} \n {{y}} = LeakyRelu<alpha=0.1>(c{{n}})", kernels("k")),
    "no bias": Kind(f"{{y}} = Conv<{PAD}>({{x}}, k{{n}})", {"k": (4, 4, 3, 3)}),
    "largest": Kind(f"{{y}} = MaxPool<kernel_shape=[3,3], {PAD}>({{x}})", {}),
    "mean": Kind(f"{{y}} = AveragePool<kernel_shape=[3,3], {PAD}, count_include_pad=1>({{x}})", {}),
    "shortcut": Kind(f"{layer('{x}', 'c{n}')} \n {{y}} = Add(c{{n}}, {{x}})", kernels("k")),
    "branches": Kind(
        f"{layer('{x}', 'c{n}')} \n {layer('{x}', 'd{n}', 'l{n}')} \n j{{n}} = Concat<axis=1>(c{{n}}, d{{n}}) \n"
        "{y} = Conv(j{n}, one{n})",
        {**kernels("k", "l"), "one": (4, 8, 1, 1)},
    ),
    "affine": Kind("m{n} = Mul({x}, f{n}) \n {y} = Add(m{n}, s{n})", {"f": (4, 1, 1), "s": (4, 1, 1)}),
    "divided": Kind("{y} = Div({x}, f{n})", {"f": (4, 1, 1)}),
    "subtracted": Kind("{y} = Sub(s{n}, {x})", {"s": (1, 4, 1, 1)}),
    "floor": Kind("{y} = Max({x}, s{n})", {"s": (1, 4, 1, 1)}),
    "clipped": Kind("{y} = Clip({x}, low, high)", {}),
    "padded": Kind("p{n} = Pad({x}, around, high) \n {y} = Conv(p{n}, k{n}, k{n}b)", kernels("k")),
    "zeros": Kind("p{n} = Pad({x}, around) \n {y} = MaxPool<kernel_shape=[3,3]>(p{n})", {}),
    "moved": Kind("t{n} = Transpose<perm=[0,1,3,2]>({x}) \n {y} = Reshape(t{n}, sizes)", {}),
    "halves": Kind("a{n}, b{n} = Split<axis=1>({x}, two) \n {y} = Concat<axis=1>(b{n}, a{n})", {}),
    "shared": Kind(f"{layer('{x}', 'c{n}', 'three')} \n {layer('c{n}', '{y}', 'three')}", {}),
    "by its batch": Kind(
        "n{n} = Shape<start=0, end=1>({x}) \n o{n} = Concat<axis=0>(n{n}, rest) \n {y} = Reshape({x}, o{n})",
        {},
    ),
    "filled": Kind(
        "n{n} = Shape({x}) \n u{n} = ConstantOfShape<value: tensor = float[1] {{3.0}}>(n{n}) \n {y} = Add({x}, u{n})",
        {},
    ),
    "gate": Kind(
        "g{n} = GlobalAveragePool({x}) \n h{n} = Conv(g{n}, e{n}) \n i{n} = Sigmoid(h{n}) \n {y} = Mul({x}, i{n})",
        {"e": (4, 4, 1, 1)},
    ),
    "softplus": Kind("{y} = Softplus({x})", {}, stays=True),
    "hard swish": Kind("{y} = HardSwish({x})", {}, stays=True),
    "silu": Kind("i{n} = Sigmoid({x}) \n {y} = Mul({x}, i{n})", {}, stays=True),
}
COMMON = {
    "low": np.float32(-np.inf),
    "high": np.float32(6.0),
    "around": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "sizes": np.array([0, 4, 8, 8]),
    "two": np.array([2, 2]),
    "rest": np.array([4, 8, 8]),
}


def network(kinds: list[str], gains: list[int], seed: int = 0) -> onnx.ModelProto:
    """A chain of such parts whose tensors are multiplied by powers of two, and a classifier."""
    rng = np.random.default_rng(seed)
    parts, tensors, x = [], {}, "x"
    for n, (name, gain) in enumerate(zip([*kinds, "relu"], [*gains, 0], strict=False)):
        kind, y = KINDS[name], f"y{n}"
        parts.append(kind.text.format(n=n, x=x, y=y))
        for tensor, shape in kind.tensors.items():
            scale = 1.0 if name == "gate" else 2.0**gain
            tensors[f"{tensor}{n}" if not tensor.endswith("b") else f"{tensor[:-1]}{n}b"] = (
                scale * rng.normal(0, 0.4, shape)
            )
        x = y
    text = "\n".join(parts)
    if "three" in text:
        tensors |= {"three": rng.normal(0, 1, (4, 4, 3, 3)), "threeb": rng.normal(0, 1, 4)}
    tensors |= {name: array for name, array in COMMON.items() if f" {name}" in text}
    tensors |= {"h": rng.normal(0, 0.5, (3, 4)), "hb": rng.normal(0, 0.5, 3)}
    tail = f"p = GlobalAveragePool({x}) \n f = Flatten(p) \n [head] z = Gemm<transB=1>(f, h, hb)"
    return model(f"(float[N,4,8,8] x) => (float[N,3] z) {{ {text} \n {tail} }}", **tensors)


def within(largest: dict[str, float]) -> dict[str, float]:
    """Without the scores, and what a Sigmoid reads, which are what they are."""
    return {name: most for name, most in largest.items() if name[0] not in "zh"}


def prepared(proto: onnx.ModelProto, folder: Path) -> SourceModel:
    onnx.save(proto, folder / "model.onnx")
    return prepare(folder / "model.onnx")


def scores(graph: ir.Model, images: NDArray[np.float32]) -> NDArray[np.float32]:
    return run_all(open_graph(ir.to_proto(graph).SerializeToString(), PREPARED), images, PREPARED)[0]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(-6, 24)), min_size=1, max_size=6),
    st.integers(0, 99),
)
def test_scores_are_the_same_bits(parts: list[tuple[str, int]], seed: int) -> None:
    # A shortcut from the image would be one from a border.
    kinds, gains = ["relu", *(kind for kind, _ in parts)], [0, *(gain for _, gain in parts)]
    images = np.random.default_rng(seed).normal(size=(4, 4, 8, 8)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source = prepared(network(kinds, gains, seed), Path(folder))
    before = reached(source.model, images)
    even = leveled(source, images)
    own = scores(source.model, images)
    # Where the network's own numbers overflow, at the latest in a sum over 8x8 pixels, those of the even one need not.
    held = np.isfinite(own).all(axis=1)
    assert held.all() or max(within(before).values()) > np.finfo(np.float32).max / 64
    assert np.array_equal(scores(even.model, images)[held], own[held])
    after = reached(even.model, images)
    inside = within(after)
    assert set(before) == set(after)
    if max(within(before).values()) <= LARGEST:
        assert even is source
    elif not any(KINDS[kind].stays for kind in kinds):
        assert max(inside.values()) <= LARGEST, inside
        assert "are the same numbers" in even.notes[-1]
    assert [(node.op_type, node.name) for node in even.model.graph] == [
        (node.op_type, node.name) for node in source.model.graph
    ]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_alone(kind: str, tmp_path: Path) -> None:
    """Between layers that grow by 2^15 each; the scores are those of the file in float64."""
    proto = network(["relu", kind, "relu"], [15, 3, 15])
    images = RNG.normal(size=(3, 4, 8, 8)).astype(np.float32)
    source = prepared(proto, tmp_path)
    even = leveled(source, images)
    after = within(reached(even.model, images))
    assert even is not source or KINDS[kind].stays
    assert (max(after.values()) <= LARGEST) == (not KINDS[kind].stays)
    with np.errstate(all="ignore"):  # in a Sigmoid of large numbers
        (exact,) = ReferenceEvaluator(in_float64(proto)).run(None, {"x": images.astype(np.float64)})
    got = scores(even.model, images)
    assert np.abs(got - exact).max() <= 1e-4 * np.abs(exact).max()


def test_nothing_is_touched_where_nothing_is_large(tmp_path: Path) -> None:
    images = RNG.normal(size=(2, 4, 8, 8)).astype(np.float32)
    source = prepared(network(["relu", "gate", "shortcut"], [0, 0, 0]), tmp_path)
    before = ir.to_proto(source.model).SerializeToString(deterministic=True)
    assert leveled(source, images) is source
    assert ir.to_proto(source.model).SerializeToString(deterministic=True) == before


def test_the_prepared_model_stays_as_it_is(tmp_path: Path) -> None:
    """What is divided is a copy."""
    images = RNG.normal(size=(2, 4, 8, 8)).astype(np.float32)
    source = prepared(network(["relu", "relu"], [20, 20]), tmp_path)
    before = ir.to_proto(source.model).SerializeToString(deterministic=True)
    assert leveled(source, images) is not source
    assert ir.to_proto(source.model).SerializeToString(deterministic=True) == before


def test_exponents_are_the_least_that_are_enough(tmp_path: Path) -> None:
    """Kernels become smaller by what their layers magnify; the last one takes everything back."""
    proto = network(["no bias", "no bias", "no bias"], [0, 0, 0])
    source = prepared(proto, tmp_path)
    seen = {"y0": 4.0, "y1": 4.0 * 2**7, "y2": 4.0 * 2**14, "c3": 1.0}
    assert level(source.model, seen) == ("y1", "y2")
    for n, factor in enumerate((1.0, 2.0**-6, 2.0**-7, 2.0**13)):
        assert np.array_equal(kernel(ir.to_proto(source.model), n), factor * kernel(proto, n))


def test_behind_a_border_activations_become_smaller_step_by_step(tmp_path: Path) -> None:
    """Of 1000: the kernel that reads it is divided by the next power of two above the 700 of its layer."""
    proto = network(["no bias", "softplus", "no bias", "no bias"], [0, 0, 0, 0])
    source = prepared(proto, tmp_path)
    seen = {"y0": 1000.0, "y1": 1000.0, "y2": 1000.0 * 700, "y3": 1000.0 * 700 * 1500, "c4": 1.0}
    assert level(source.model, seen) == ("y2", "y3")
    for n, factor in ((0, 1.0), (2, 2.0**-10), (3, 2.0**-11), (4, 2.0**21)):
        assert np.array_equal(kernel(ir.to_proto(source.model), n), factor * kernel(proto, n))


def test_nothing_is_touched_where_it_would_not_help(tmp_path: Path) -> None:
    """What reads a border of a million, and gives four, becomes no smaller than half of it."""
    source = prepared(network(["no bias", "softplus", "no bias"], [0, 0, 0]), tmp_path)
    assert level(source.model, {"y0": 1e6, "y1": 1e6, "y2": 4e6, "c3": 1.0}) == ()


def kernel(proto: onnx.ModelProto, number: int) -> NDArray[np.float32]:
    return next(
        onnx.numpy_helper.to_array(one) for one in proto.graph.initializer if one.name == f"k{number}"
    )


def test_a_constant_that_would_not_survive_keeps_its_layer_as_it_is(tmp_path: Path) -> None:
    """Divided by 2^17, a bias of 2^-120 is smaller than float32 holds without loss."""
    proto = network(["relu"], [0])
    for tensor in proto.graph.initializer:
        if tensor.name == "k0b":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, 2.0**-120, np.float32), "k0b"))
    source = prepared(proto, tmp_path)
    assert level(source.model, {"c0": 2.0**30, "c1": 1.0}) == ()


def test_sizes_that_are_computed_stay(tmp_path: Path) -> None:
    """Preparation leaves some: they are no activations, and Concat, Add and Gather of them are none."""
    proto = network(["no bias", "by its batch", "no bias"], [0, 0, 0])
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    assert any(node.op_type == "Concat" for node in graph.graph)
    assert set(level(graph, {"y0": 1e6, "y1": 1e6, "y2": 1.0, "c3": 1.0})) == {"y0", "y1"}
    onnx.checker.check_model(ir.to_proto(graph), full_check=True)
    assert np.array_equal(kernel(ir.to_proto(graph), 0), 2.0**-16 * kernel(proto, 0))


def test_what_is_not_finite_is_no_measure(tmp_path: Path) -> None:
    source = prepared(network(["relu", "relu"], [0, 0]), tmp_path)
    assert level(source.model, {"c0": float("inf"), "c1": float("nan")}) == ()


# A whole life


def grown_digits(folder: Path, exponent: int) -> Path:
    """The demo's trained base model; all of its activations are 2^exponent times as large, and its scores the same."""
    source = prepare(REPOSITORY / "examples" / "digits" / "digits-base4.onnx")
    graph = source.model.graph
    convolutions = [node for node in graph if node.op_type == "Conv"]
    grown = {convolutions[0].inputs[1], *(node.inputs[2] for node in convolutions)}
    (head,) = [node for node in graph if node.op_type == "Gemm"]
    for value in (*grown, head.inputs[1]):
        assert value is not None
        factor = 2.0**exponent if value in grown else 2.0**-exponent
        value.const_value = ir.tensor(
            (value.const_value.numpy() * factor).astype(np.float32), name=value.name
        )
    path = folder / "grown.onnx"
    onnx.save(ir.to_proto(source.model), path)
    return path


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grown_digits(tmp_path_factory.mktemp("grown"), 70)


def test_a_network_of_too_large_activations_lives(
    grown: Path, base_data: Path, digits: Digits, digits_bundle: Path, tmp_path: Path
) -> None:
    """Built, taught, asked, exported and checked; squares of 1e21 overflow float32, so it was refused."""
    options = BuildOptions(classes=NAMES[:4], base_data=base_data, flip=False)
    report = build_artifacts(grown, tmp_path / "bundle", options)
    said = [one for one in report.notes if "grown.onnx reach" in one]
    assert len(said) == 1
    assert "more than float16 and squares in float32 hold" in said[0]
    assert not any("beyond float16, in which" in one for one in report.notes)
    assert [one.detail for one in check_bundle(tmp_path / "bundle") if not one.passed] == []
    bundle, demo = Bundle.open(tmp_path / "bundle"), Bundle.open(digits_bundle)
    assert bundle.manifest.prefix == demo.manifest.prefix != ()
    learner = open_learner(tmp_path / "bundle", tmp_path / "state")
    original = open_learner(digits_bundle, tmp_path / "other")
    pictures = digits.arrays((0, 1, 2, 3, 4, 5), 100, 130)[0]
    assert list(learner.predict(pictures[:120]).labels) == list(original.predict(pictures[:120]).labels)
    for one in (learner, original):
        one.learn(digits.task("01", (4, 5)))
    told = learner.predict(pictures)
    truth = [NAMES[digit] for digit in digits.arrays((0, 1, 2, 3, 4, 5), 100, 130)[1]]
    right = [
        np.mean([a == b for a, b in zip(one.predict(pictures).labels, truth, strict=True)])
        for one in (learner, original)
    ]
    assert right[0] > 0.8
    assert right[0] > right[1] - 0.05
    learner.export(tmp_path / "updated.onnx")
    inputs = bundle.preprocessing(pictures)
    (logits,) = run_all(open_graph(str(tmp_path / "updated.onnx"), PREPARED), inputs, PREPARED)
    assert [learner.classes[place] for place in logits.argmax(axis=1)] == list(told.labels)


def test_powers_are_the_files_whatever_the_base_images(grown: Path, base_data: Path, tmp_path: Path) -> None:
    """A device that is upgraded to the same network, built on other images, keeps its features."""
    dark = tmp_path / "dark"
    for path in base_data.glob("*/*.png"):
        (dark / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(path)) // 8).save(dark / path.parent.name / path.name)
    for number, images in enumerate((base_data, dark)):
        options = BuildOptions(classes=NAMES[:4], base_data=images, flip=False)
        build_artifacts(grown, tmp_path / str(number), options)
    first, second = ((tmp_path / str(number) / "weights.safetensors").read_bytes() for number in (0, 1))
    assert first == second


@pytest.mark.parametrize("size", [1e-36, 1e-37, 1e-38])
def test_the_smallest_numbers_of_a_kernel_grow_with_the_others(size: float, tmp_path: Path) -> None:
    proto = network(["no bias", "no bias", "no bias"], [0, 0, 0])
    for tensor in proto.graph.initializer:
        if tensor.name in ("k0", "k1", "k2"):
            factor = {"k0": 2.0**50, "k1": 2.0**68, "k2": size}[tensor.name]
            array = numpy_helper.to_array(tensor) * factor
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    images = np.abs(RNG.normal(size=(2, 4, 8, 8))).astype(np.float32)
    source = prepared(proto, tmp_path)
    even = leveled(source, images)
    assert even is not source
    exact = scores(source.model, images)
    assert np.abs(scores(even.model, images) - exact).max() <= 1e-6 * np.abs(exact).max()


def test_a_trial_says_the_same_sentence(grown: Path) -> None:
    trial = try_model(grown, BuildOptions(classes=NAMES[:4]))
    assert any("grown.onnx reach" in one for one in trial.prepared)


def test_where_a_border_keeps_them_large_the_refusal_stays(base_data: Path, tmp_path: Path) -> None:
    proto = onnx.load(grown_digits(tmp_path, 70))
    for node in proto.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Elu"
    onnx.save(proto, tmp_path / "grown.onnx")
    options = BuildOptions(classes=NAMES[:4], base_data=base_data, features="last")
    with pytest.raises(ModelError, match="so large that sums of its squares overflow float32"):
        build_artifacts(tmp_path / "grown.onnx", tmp_path / "bundle", options)
