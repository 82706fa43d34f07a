"""A kink within the step of a difference is no fault of the gradient; a wrong gradient is one, kinks or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_device_runners import check, check_bundle

STEEP = 8.0


def steep(folder: Path, seed: int, trainable: str = "all") -> Path:
    """Four convolutions with a steep ramp behind each: at every step of a difference many are on its kinks."""
    rng = np.random.default_rng(seed)
    width, size = 32, 12
    tensors, nodes, x, channels = {}, [], "x", 3
    for number in range(4):
        tensors[f"w{number}"] = rng.normal(0, np.sqrt(2.5 / (channels * 9)), (width, channels, 3, 3))
        tensors[f"b{number}"] = rng.normal(0, 0.1, width)
        weights = [x, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Conv", weights, [f"c{number}"], f"conv{number}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("HardSigmoid", [f"c{number}"], [f"r{number}"], alpha=STEEP))
        x, channels = f"r{number}", width
    tensors["h"] = rng.normal(0, 0.3, (4, width))
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["g"]))
    nodes.append(helper.make_node("Flatten", ["g"], ["f"]))
    nodes.append(helper.make_node("Gemm", ["f", "h"], ["y"], transB=1))
    graph = helper.make_graph(
        nodes,
        "steep",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    build_artifacts(
        folder / "model.onnx", folder / "bundle", BuildOptions(features="last", trainable=trainable)
    )
    return folder / "bundle"


@pytest.fixture(scope="module")
def steep_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steep(tmp_path_factory.mktemp("steep"), 4)


def failed(bundle: Path) -> list[str]:
    return [f"{result.name}: {result.detail}" for result in check_bundle(bundle) if not result.passed]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 6, 11])
def test_a_network_of_kinks_passes(tmp_path: Path, seed: int) -> None:
    """Each was called wrong: off by 0.011 to 0.022 along the gradient of w0, where 0.01 is allowed."""
    assert failed(steep(tmp_path, seed)) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_rounding_of_stored_features_crosses_kinks(tmp_path: Path, seed: int) -> None:
    """Each was called wrong: off by 0.012 to 0.049 on batches of four, and by 0.0001 where no kink is crossed."""
    assert failed(steep(tmp_path, seed, "from:conv1")) == []


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.05, 0.9, -1.0, 0.0])
def test_its_wrong_gradient_is_found(
    steep_bundle: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    step = check._Check._step

    def scaled(self: check._Check, batch: check.Feeds) -> check.Feeds:
        outputs = step(self, batch)
        return {name: value * factor if name == "w0.gradient" else value for name, value in outputs.items()}

    monkeypatch.setattr(check._Check, "_step", scaled)
    assert [line for line in failed(steep_bundle) if "gradient of w0.delta" in line]


def stack(folder: Path, depth: int, weight: float) -> Path:
    """Convolutions of one number everywhere and a classifier of it, as in onnx's light models: no output differs."""
    shapes = {f"w{n}": (16, 16 if n else 3, 3, 3) for n in range(depth)} | {"h": (3, 16)}
    nodes, x = [], "x"
    for n in range(depth):
        nodes.append(f"c{n} = Conv<pads=[1,1,1,1]>({x}, w{n}, b) \n r{n} = Relu(c{n})")
        x = f"r{n}"
    tail = f"p = GlobalAveragePool({x}) \n f = Flatten(p) \n y = Gemm<transB=1>(f, h)"
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,12,12] x) => (float[N,3] y) '
        f"{{ {' '.join(nodes)} {tail} }}"
    )
    tensors = {name: np.full(shape, weight, np.float32) for name, shape in shapes.items()}
    for name, array in (tensors | {"b": np.zeros(16, np.float32)}).items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, folder / "model.onnx")
    build_artifacts(folder / "model.onnx", folder / "bundle", BuildOptions(trainable="all"))
    return folder / "bundle"


@pytest.fixture(scope="module")
def stack_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stack(tmp_path_factory.mktemp("stack"), 6, 0.5)


@pytest.mark.parametrize(("depth", "weight"), [(2, 0.02), (6, 0.5)], ids=["small", "features of 1e10"])
def test_a_network_of_one_number_is_checked(tmp_path: Path, depth: int, weight: float) -> None:
    """Its own head tells nothing apart, and rounding against rounding was a relative error of 1e13."""
    results = {result.name: result for result in check_bundle(stack(tmp_path, depth, weight))}
    assert [name for name, result in results.items() if not result.passed] == []
    assert "cosine" in results["gradient of w1.delta"].detail


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.06, 0.9, -1.0, 0.0])
@pytest.mark.parametrize("name", ["w1.gradient", "head.weight.gradient"])
def test_its_wrong_gradient_is_found_too(
    stack_bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str, factor: float
) -> None:
    step = check._Check._step

    def scaled(self: check._Check, batch: check.Feeds) -> check.Feeds:
        return {
            output: value * factor if output == name else value for output, value in step(self, batch).items()
        }

    monkeypatch.setattr(check._Check, "_step", scaled)
    parameter = name.replace("w1.gradient", "w1.delta").removesuffix(".gradient")
    wrong = [line for line in failed(stack_bundle) if line.startswith(f"gradient of {parameter}")]
    assert len(wrong) == 1


def levelled(folder: Path) -> Path:
    """A mean behind what takes means away: nothing that is trained in front of it is seen."""
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,12,12] x) => (float[N,3] y) {
            c = Conv<pads=[1,1,1,1]>(x, w) r = Relu(c) i = InstanceNormalization(r, s, b)
            p = GlobalAveragePool(i) f = Flatten(p) y = Gemm<transB=1>(f, h)
        }"""
    )
    tensors = {"w": rng.normal(0, 0.4, (8, 3, 3, 3)), "h": rng.normal(0, 0.7, (3, 8))}
    for name, array in (tensors | {"s": np.ones(8), "b": rng.normal(0, 1, 8)}).items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.save(proto, folder / "model.onnx")
    options = BuildOptions(features="last", trainable="all")
    build_artifacts(folder / "model.onnx", folder / "bundle", options)
    return folder / "bundle"


def test_a_gradient_of_zero_is_one(tmp_path: Path) -> None:
    results = {result.name: result for result in check_bundle(levelled(tmp_path))}
    assert [name for name, result in results.items() if not result.passed] == []
    assert "zero but for rounding" in results["gradient of w.delta"].detail


# Without the others' weights a whole layer is at its kink, and a difference sees half of one side.
DEAD = {
    "Relu, a whole layer": ("r = Relu(c)", 8, 0),
    "Relu, the second": ("r = Relu(c)", 0, 8),
    "Relu, both and one channel": ("r = Relu(c)", 8, 7),
    "Relu, half": ("r = Relu(c)", 4, 4),
    "Clip": ("r = Clip(c, z, six)", 8, 0),
    "LeakyRelu": ("r = LeakyRelu(c)", 8, 4),
    "MaxPool of equal places": ("p1 = MaxPool<kernel_shape=[3,3]>(c) r = Relu(p1)", 8, 0),
    "Min": ("r = Min(c, z)", 8, 0),
}


@pytest.mark.parametrize("case", DEAD)
def test_channels_without_weights_pass(tmp_path: Path, case: str) -> None:
    """As pruning leaves them: with no bias they are exactly at the kink of what follows, where a gradient is a rule."""
    between, first, second = DEAD[case]
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,12,12] x) => (float[N,3] y) {{
            c = Conv<pads=[1,1,1,1]>(x, w) {between} t = Conv<pads=[1,1,1,1]>(r, v) s = Relu(t)
            p = GlobalAveragePool(s) f = Flatten(p) y = Gemm<transB=1>(f, h)
        }}"""
    )
    tensors = {"w": rng.normal(0, 0.4, (8, 3, 3, 3)), "v": rng.normal(0, 0.3, (8, 8, 3, 3))}
    tensors["w"][:first], tensors["v"][:second] = 0, 0
    tensors |= {"h": rng.normal(0, 0.7, (3, 8)), "z": np.array(0.0), "six": np.array(6.0)}
    for name, array in tensors.items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.save(proto, tmp_path / "model.onnx")
    build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(trainable="all"))
    assert failed(tmp_path / "bundle") == []


@pytest.mark.slow
def test_a_gradient_where_there_is_none_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = check._Check._step

    def moved(self: check._Check, batch: check.Feeds) -> check.Feeds:
        return {
            name: value + 1e-3 if name == "w.gradient" else value for name, value in step(self, batch).items()
        }

    monkeypatch.setattr(check._Check, "_step", moved)
    assert [line for line in failed(levelled(tmp_path)) if "gradient of w.delta" in line]


TRUTH = np.array([2.0, 0.3, -0.2, 0.1, 0.25, -0.3, 0.15, 0.2, -0.1])


def slopes(kinks: dict[int, float], steps: int = 3) -> np.ndarray:
    """Of all directions at all steps; where a kink lies, one side's is another one's."""
    found = np.repeat(np.repeat(TRUTH[:, None, None], steps, axis=1), 2, axis=2)
    for direction, change in kinks.items():
        found[direction, :, 1] *= 1 + change
    return found


def test_what_is_judged() -> None:
    right = check.judged("d", TRUTH, slopes({}))
    assert right is not None
    assert right.passed
    assert not check.judged("d", TRUTH * 1.03, slopes({})).passed  # type: ignore[union-attr]
    one = check.judged("d", TRUTH, slopes({3: 2.0, 5: -1.0}))
    assert one is not None
    assert one.passed
    assert "in 6 of 8 directions" in one.detail
    assert not check.judged("d", TRUTH * 1.06, slopes({3: 2.0, 5: -1.0})).passed  # type: ignore[union-attr]
    assert check.judged("d", TRUTH, slopes({0: 0.1})) is None
    assert check.judged("d", TRUTH, slopes(dict.fromkeys(range(1, 6), 2.0))) is None


def test_a_step_without_the_kink_is_found() -> None:
    """It lies within the longer steps only."""
    found = slopes({0: 0.5, 1: 1.0})
    found[:, 2] = TRUTH[:, None]
    result = check.judged("d", TRUTH, found)
    assert result is not None
    assert result.passed
