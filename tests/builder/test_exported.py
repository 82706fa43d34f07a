"""Files that TensorFlow's and Paddle's exporters wrote, with the outputs of the frameworks themselves.

`exported/` holds the files and the scripts that made them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_text import in_float64

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.bundle.folder import Bundle, center_of
from csk_sdk.contract.manifest import EVAL_MODEL, TRAINING_MODEL
from csk_sdk.runtime.sessions import Graph

EXPORTED = Path(__file__).parent / "exported"
FILES = sorted(EXPORTED.glob("*.onnx"))
SITES = {"keras-conv-head": 3, "keras-gray": 2, "keras-mobile": 4, "paddle-mobile": 3, "paddle-squeeze": 2}
# The network scales pixels from 0..255 itself: undone here, where a bundle scales them to 0..1 first.
STD = {"keras-mobile": 1 / 255}
STEP = 1e-6

files = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("exported")
    for file in FILES:
        std = (STD.get(file.stem, 1.0),) * (1 if file.stem == "keras-gray" else 3)
        build_artifacts(
            file,
            folder / file.stem,
            BuildOptions(features="last", trainable="all", mean=(0.0,) * len(std), std=std),
        )
    return {file.stem: Bundle.open(folder / file.stem) for file in FILES}


def example(file: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images as the source model takes them, and the framework's outputs."""
    stored = np.load(file.with_suffix(".npz"))
    return stored["x"], stored["y"]


def channels_first(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.shape[3] in (1, 3) else x


def feeds_of(bundle: Bundle, x: NDArray[np.float32], every: bool) -> dict[str, NDArray]:
    """The base itself: no center changed, with all channels selected or one."""
    start = bundle.checkpoint()
    feeds = {"image": channels_first(x)}
    feeds |= {"head.weight": start["head/base/weight"], "head.bias": start["head/base/bias"]}
    for site in bundle.manifest.sites:
        count = site.columns if every else 1
        feeds[site.delta], feeds[site.indices] = np.zeros((site.rows, count), np.float32), np.arange(count)
    return feeds


def softmax(logits: NDArray) -> NDArray:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def run(path: Path, x: NDArray) -> NDArray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_every_file_is_known() -> None:
    assert {file.stem for file in FILES} == set(SITES)


@pytest.mark.slow
@files
def test_logits_are_the_frameworks(file: Path, bundles: dict[str, Bundle]) -> None:
    x, y = example(file)
    bundle = bundles[file.stem]
    assert len(bundle.manifest.sites) == SITES[file.stem]
    logits = Graph(bundle.path(EVAL_MODEL), 1).run(feeds_of(bundle, x, every=False), ["logits"])["logits"]
    got = softmax(logits) if np.allclose(y.sum(axis=1), 1) else logits
    np.testing.assert_allclose(got, y, rtol=1e-4, atol=1e-6)


@files
def test_the_export_has_the_sources_interface_and_the_frameworks_outputs(
    file: Path, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    x, y = example(file)
    exported = exported_base(bundles[file.stem], tmp_path)
    source = onnx.load(str(file))
    assert exported.graph.input[0].name == source.graph.input[0].name
    assert exported.graph.output[0].name == source.graph.output[0].name
    assert _sizes(exported.graph.input[0]) == _sizes(source.graph.input[0])
    np.testing.assert_allclose(run(tmp_path / "base.onnx", x), y, rtol=1e-4, atol=1e-6)


def exported_base(bundle: Bundle, folder: Path) -> onnx.ModelProto:
    Learner.open(bundle.folder, folder / "state").export(folder / "base.onnx", "base")
    onnx.checker.check_model(str(folder / "base.onnx"), full_check=True)
    return onnx.load(str(folder / "base.onnx"))


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]


@files
def test_gradients_equal_central_differences(file: Path, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    """Those of the exported model, which is another graph and was compared with the framework above, in float64."""
    x, _ = example(file)
    label = np.array([2, 4])
    bundle = bundles[file.stem]
    got = Graph(bundle.path(TRAINING_MODEL), 1).run(feeds_of(bundle, x, every=True) | {"label": label})
    exported = in_float64(exported_base(bundle, tmp_path))
    ends_in_softmax = exported.graph.node[-1].op_type == "Softmax"
    evaluator = ReferenceEvaluator(exported)
    weights = evaluator.rt_inits_

    def loss() -> float:
        y = evaluator.run(None, {exported.graph.input[0].name: x.astype(np.float64)})[0]
        p = y if ends_in_softmax else softmax(y)
        return float(-np.log(p[np.arange(2), label]).mean())

    assert got["loss"] == pytest.approx(loss(), rel=1e-5)
    rng = np.random.default_rng(0)
    for site in bundle.manifest.sites:
        gradient = np.concatenate(  # (c_out // groups, c_in) -> (c_out, c_in // groups)
            np.split(got[site.gradient].astype(np.float64), site.groups, axis=1)
        )
        frozen = weights[site.weight]
        slopes, along = [], []
        for direction in (gradient, *rng.normal(size=(3, *gradient.shape))):
            direction = direction / np.linalg.norm(direction)
            values = []
            for step in (STEP, -STEP):
                moved = frozen.copy()
                moved[center_of(site)] += step * direction
                weights[site.weight] = moved
                values.append(loss())
            slopes.append((values[0] - values[1]) / (2 * STEP))
            along.append(float((direction * gradient).sum()))
        weights[site.weight] = frozen
        assert np.linalg.norm(slopes) > 1e-6, site.name
        np.testing.assert_allclose(
            along, slopes, rtol=2e-4, atol=2e-4 * np.abs(slopes).max(), err_msg=site.name
        )


@files
def test_a_device_learns_and_exports(file: Path, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    """Two classes of noise, dark and bright; the exported model says what the learner says."""
    bundle = bundles[file.stem]
    size = bundle.manifest.input
    rng = np.random.default_rng(0)
    shape = (12, *size.size, size.channels)
    images = np.concatenate([rng.integers(0, 120, shape), rng.integers(130, 256, shape)]).astype(np.uint8)
    labels = np.repeat([0, 1], 12)
    learner = Learner.open(bundle.folder, tmp_path / "state", TrainingConfig(epochs=2, threads=1, shift=0))
    learner.learn(Task.from_arrays("01-light", images, labels, ["dark", "bright"]))
    found, probabilities, _ = learner.predict(images, "01-light")
    assert [str(name) for name in found] == ["dark"] * 12 + ["bright"] * 12
    learner.export(tmp_path / "updated.onnx", "01-light")
    scaled = images.astype(np.float32) / np.float32(255 * STD.get(file.stem, 1.0))
    shown = scaled if file.stem.startswith("keras") else channels_first(scaled)
    y = run(tmp_path / "updated.onnx", shown)
    ends_in_softmax = onnx.load(str(tmp_path / "updated.onnx")).graph.node[-1].op_type == "Softmax"
    np.testing.assert_allclose(y if ends_in_softmax else softmax(y), probabilities, rtol=1e-3, atol=1e-4)
