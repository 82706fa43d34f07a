"""Networks and tasks whose labels are tables: the digits network with another head, fitted by scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.linear_model import LogisticRegression, Ridge

from conftest import REPOSITORY, Digits
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner, Task
from csk_sdk.contract.manifest import BINARY_CROSS_ENTROPY, MSE

MODEL = REPOSITORY / "examples" / "digits" / "digits-base4.onnx"
NORMALIZE = json.loads(MODEL.with_suffix(".json").read_text())["normalize"]
BASE = (0, 1, 2, 3)
# What is true of a digit, as it is written.
ATTRIBUTES = {
    "even": {0, 2, 4, 6, 8},
    "round": {0, 3, 6, 8, 9},
    "loop": {0, 6, 8, 9},
    "stem": {1, 4, 7, 9},
    "above five": {6, 7, 8, 9},
    "prime": {2, 3, 5, 7},
}


def attributes(labels: NDArray, names: tuple[str, ...]) -> NDArray[np.float32]:
    """`(n, names)` of 0 and 1: which of the attributes each digit has."""
    return np.array([[digit in ATTRIBUTES[name] for name in names] for digit in labels], np.float32)


def tilted(images: NDArray[np.uint8], angles: NDArray) -> NDArray[np.uint8]:
    """Each image, turned counterclockwise by so many degrees."""
    turned = []
    for image, angle in zip(images, angles, strict=True):
        large = Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)
        turned.append(
            large.rotate(float(angle), Image.Resampling.BICUBIC).resize((8, 8), Image.Resampling.BOX)
        )
    return np.stack([np.asarray(one) for one in turned])


def raised(images: NDArray[np.uint8], rows: NDArray) -> NDArray[np.uint8]:
    """Each image, moved up by so many eighths of a row."""
    moved = []
    for image, eighths in zip(images, rows, strict=True):
        large = Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)
        shift = (1, 0, 0, 0, 1, float(eighths))
        moved.append(
            large.transform((64, 64), Image.Transform.AFFINE, shift).resize((8, 8), Image.Resampling.BOX)
        )
    return np.stack([np.asarray(one) for one in moved])


def chosen(digits: Digits, wanted: tuple[int, ...], begin: int, end: int) -> tuple[NDArray, NDArray]:
    """Images `begin` to `end` of some digits, shuffled, and which digit each is."""
    images, labels = digits.arrays(wanted, begin, end)
    order = np.random.default_rng(begin).permutation(len(images))
    return images[order], np.array(wanted)[labels][order]


def attribute_task(digits: Digits, name: str, wanted: tuple[int, ...], names: tuple[str, ...]) -> Task:
    """Tell attributes of some digits; 40 training and 40 other test images of each."""
    (images, labels), (held_out, truth) = (chosen(digits, wanted, begin, begin + 40) for begin in (0, 100))
    return Task.from_arrays(
        name, images, attributes(labels, names), names, held_out, attributes(truth, names)
    )


def angle_task(digits: Digits, name: str, wanted: tuple[int, ...], train: int = 80) -> Task:
    """Tell by how many degrees, up to 40 either way, a digit is turned."""
    return _drawn(digits, name, wanted, "angle", tilted, 40.0, train)


def height_task(digits: Digits, name: str, wanted: tuple[int, ...], train: int = 80) -> Task:
    """Tell by how many eighths of a row, up to 16 either way, a digit is raised."""
    return _drawn(digits, name, wanted, "height", raised, 16.0, train)


def _drawn(digits, name, wanted, target, change, most, train):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(len(wanted))
    parts = []
    for begin, end in ((0, train), (100, 160)):
        images, _ = chosen(digits, wanted, begin, end)
        values = rng.uniform(-most, most, len(images))
        parts += [change(images, values), values]
    return Task.from_arrays(name, parts[0], parts[1], [target], parts[2], parts[3])


def write_table(folder: Path, images: NDArray[np.uint8], names: tuple[str, ...], labels: NDArray) -> Path:
    """`folder/*.png` and a metadata.csv beside them."""
    folder.mkdir(parents=True)
    lines = [",".join(["file_name", *names])]
    for index, (image, row) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / f"{index:04d}.png")
        lines.append(",".join([f"{index:04d}.png", *(f"{value:g}" for value in row)]))
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def attribute_bundle(digits: Digits, folder: Path) -> Path:
    """A bundle of a network that knows of the digits 0 to 3 whether they are even and whether round; protected."""
    names = ("even", "round")
    images, labels = chosen(digits, BASE, 0, 100)
    table = attributes(labels, names)
    head = fitted(features(images), table, binary=True)
    model = with_head(*head, folder / "attributes.onnx", sigmoid=True)
    data = write_table(folder / "base-data", images[:160], names, table[:160])
    return _build(model, folder / "bundle", names, BINARY_CROSS_ENTROPY, data)


def angle_bundle(digits: Digits, folder: Path) -> Path:
    """A bundle of a network that knows by how much the digits 0 to 3 are turned; protected."""
    images, _ = chosen(digits, BASE, 0, 100)
    angles = np.random.default_rng(0).uniform(-40, 40, len(images))
    images = tilted(images, angles)
    model = with_head(*fitted(features(images), angles[:, None], binary=False), folder / "angle.onnx")
    data = write_table(folder / "base-data", images[:160], ("angle",), angles[:160, None])
    return _build(model, folder / "bundle", ("angle",), MSE, data)


def _build(model: Path, out: Path, names: tuple[str, ...], loss: str, data: Path) -> Path:
    build_artifacts(
        model,
        out,
        BuildOptions(
            classes=names,
            mean=NORMALIZE["mean"],
            std=NORMALIZE["std"],
            flip=False,
            loss=loss,
            base_data=data,
            # What trained centers add shows where the head has less to go by.
            features="last",
        ),
    )
    return out


def with_head(weight: NDArray, bias: NDArray, path: Path, sigmoid: bool = False) -> Path:
    """The digits network with another last layer."""
    model = onnx.load(str(MODEL))
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    for name, array in zip(gemm.input[1:], (weight, bias), strict=True):
        old = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        old.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
    output = model.graph.output[0]
    output.type.tensor_type.shape.dim[1].dim_value = len(weight)
    del model.graph.value_info[:]
    if sigmoid:
        gemm.output[0] = "scores"
        model.graph.node.append(helper.make_node("Sigmoid", ["scores"], [output.name]))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the digits network's last layer sees of images `(n, 8, 8)`."""
    model = onnx.load(str(MODEL))
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    model.graph.output.append(helper.make_tensor_value_info(gemm.input[0], TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    mean, std = NORMALIZE["mean"][0], NORMALIZE["std"][0]
    x = ((images[:, None] / 255 - mean) / std).astype(np.float32)
    return session.run([gemm.input[0]], {session.get_inputs()[0].name: x})[0]


def fitted(x: NDArray, y: NDArray, binary: bool) -> tuple[NDArray, NDArray]:
    """A head for `y` `(n, outputs)` by scikit-learn."""
    if not binary:
        ridge = Ridge(1.0).fit(x, y)
        return np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_)
    models = [LogisticRegression(max_iter=2000).fit(x, column) for column in y.T]
    return np.concatenate([model.coef_ for model in models]), np.concatenate(
        [model.intercept_ for model in models]
    )


def check_that_interrupting_changes_nothing(whole: Learner, halved: Learner, task: Task) -> None:
    """Learn `task` with both, once stopped in the middle and resumed: the same bits come out."""
    whole.learn(task)

    def stop(progress: object) -> None:
        if getattr(progress, "step", 0) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        halved.learn(task, on_progress=stop)
    assert halved.learn(task).resumed_at_step > 0
    for name, tensor in whole.generation.tensors.items():
        assert halved.generation.tensors[name].tobytes() == tensor.tobytes(), name
