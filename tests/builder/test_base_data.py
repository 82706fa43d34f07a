"""Base data that does not fit is refused, and what fits protects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from small_models import WEIGHTS, classifier, saved

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.describe import warnings_about
from csk_artifacts_builder.measure.base_knowledge import BaseKnowledge, base_split
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import BINARY_CROSS_ENTROPY, CROSS_ENTROPY
from csk_sdk.errors import ModelError, TaskError


def pictures(folder: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("folders", "fragments"),
    [
        (
            {"a": 1, "b": 1, "c": 1, "zebra": 1},
            ("has a folder 'zebra'", "not one of the model's 3 classes", "--classes"),
        ),
        ({"a": 1, "b": 1}, ("has no images of class 'c'. Put some into",)),
        ({"a": 1, "b": 0, "c": 1}, ("has no images of class 'b'. Put some into",)),
    ],
    ids=["foreign", "missing", "empty"],
)
def test_base_data_that_does_not_fit(
    tmp_path: Path, folders: dict[str, int], fragments: tuple[str, ...]
) -> None:
    options = BuildOptions(classes=("a", "b", "c"), base_data=pictures(tmp_path / "base", **folders))
    with pytest.raises(TaskError) as caught:
        build_artifacts(saved(tmp_path), tmp_path / "bundle", options)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_no_base_data_folder(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="There is no folder"):
        build_artifacts(saved(tmp_path), tmp_path / "bundle", BuildOptions(base_data=tmp_path / "absent"))


def test_a_damaged_picture_in_the_base_data(tmp_path: Path) -> None:
    base = pictures(tmp_path / "base", a=1, b=1, c=1)
    (base / "b" / "0.png").write_bytes(b"no image")
    options = BuildOptions(classes=("a", "b", "c"), base_data=base)
    with pytest.raises(TaskError, match=r"0\.png"):
        build_artifacts(saved(tmp_path), tmp_path / "bundle", options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "model.onnx"]


def test_base_data_protects_and_warnings_say_what_is_missing(tmp_path: Path) -> None:
    options = BuildOptions(classes=("a", "b", "c"), base_data=pictures(tmp_path / "base", a=2, b=1, c=1))
    seen: list[tuple[int, int]] = []
    report = build_artifacts(
        saved(tmp_path), tmp_path / "bundle", options, lambda done, total: seen.append((done, total))
    )
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.base_protected
    assert seen[-1] == (4, 4)
    assert report.base_accuracy is not None
    assert all(np.trace(bundle.checkpoint()[f"moment/{site.name}"][0]) > 0 for site in bundle.manifest.sites)
    unprotected = build_artifacts(saved(tmp_path), tmp_path / "other")
    assert "UNPROTECTED" in unprotected.warnings[0]
    assert unprotected.base_accuracy is None


@pytest.mark.parametrize(
    ("loss", "images", "accuracy", "warned"),
    [
        (CROSS_ENTROPY, 600, 100.0, True),
        (CROSS_ENTROPY, 200, 99.5, True),
        (CROSS_ENTROPY, 199, 100.0, False),
        (CROSS_ENTROPY, 600, 99.4, False),
        (BINARY_CROSS_ENTROPY, 600, 100.0, False),
    ],
)
def test_base_data_that_look_like_training_images(
    digits_bundle: Path, loss: str, images: int, accuracy: float, warned: bool
) -> None:
    manifest = replace(Bundle.open(digits_bundle).manifest, loss=loss)
    said = warnings_about(BuildOptions(), manifest, BaseKnowledge({}, images, accuracy), None)
    assert any("which is usual of images that it was trained on" in one for one in said) is warned
    assert not warned or f"gets {accuracy:.1f} % of the {images} base images right" in said[-1]


@pytest.mark.parametrize("filled", [True, False])
def test_a_model_without_trained_weights_is_called_one(tmp_path: Path, filled: bool) -> None:
    """Its mean, std and class names are not to blame."""
    proto = onnx.load(saved(tmp_path))
    for tensor in proto.graph.initializer if filled else ():
        constant = np.full_like(numpy_helper.to_array(tensor), 0.02)
        tensor.CopyFrom(numpy_helper.from_array(constant, tensor.name))
    onnx.save(proto, tmp_path / "filled.onnx")
    options = BuildOptions(classes=("a", "b", "c"), base_data=pictures(tmp_path / "base", a=2, b=2, c=2))
    said = " ".join(build_artifacts(tmp_path / "filled.onnx", tmp_path / "bundle", options).warnings)
    assert ("all classes are equally likely on each of the 6 base images" in said) is filled
    assert ("check --mean/--std and the order of --classes" in said) is not filled


def test_activations_whose_squares_overflow(tmp_path: Path) -> None:
    """Finite themselves, they gave a bundle that nobody could open: its checkpoint had infinity in it.

    Behind a Relu they would be divided by a power of two; a Softplus of less is another number.
    """
    tensors = {"w": WEIGHTS["w"] * 1e25, "h": WEIGHTS["h"] * 1e-25}
    proto = classifier()
    for tensor in proto.graph.initializer:
        if tensor.name in tensors:
            array = tensors[tensor.name].astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    (relu,) = (node for node in proto.graph.node if node.op_type == "Relu")
    relu.op_type = "Softplus"
    onnx.save(proto, tmp_path / "large.onnx")
    options = BuildOptions(classes=("a", "b", "c"), base_data=pictures(tmp_path / "base", a=2, b=2, c=2))
    with pytest.raises(ModelError) as caught:
        build_artifacts(tmp_path / "large.onnx", tmp_path / "bundle", options)
    assert "large.onnx: what convolution 'second' reads is so large that sums of its squares" in str(
        caught.value
    )
    assert not (tmp_path / "bundle").exists()


def test_a_task_s_folder_is_base_data_with_its_train_folder(tmp_path: Path) -> None:
    classes = ("a", "b", "c")
    pictures(tmp_path / "task" / "train", a=2, b=1, c=1)
    pictures(tmp_path / "task" / "test", a=3)
    split = base_split(tmp_path / "task", classes)
    assert [Path(split.images.name(index)).parent.parent.name for index in range(len(split))] == ["train"] * 4
    pictures(tmp_path / "base", train=1, b=1, c=1)
    assert len(base_split(tmp_path / "base", ("train", "b", "c"))) == 3, "and a class may be called so"
