"""What from_torch and from_keras do around a framework's exporter: here stand-ins export a model that lies ready.

With the frameworks themselves: tests/benchmarks.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from networks import VGG
from numpy.typing import NDArray
from preparing import outputs

from csk_artifacts_builder import BuildOptions, from_keras, from_torch
from csk_artifacts_builder.frameworks import keras_model, torch_module
from csk_sdk.errors import ConfigError, ModelError

MODEL = VGG.proto()
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CONFIG = {"mean": MEAN, "std": STD, "input_size": (3, 9, 9), "architecture": "small/net"}


@dataclass(frozen=True)
class Built:
    """What is to be built of what was exported."""

    name: str
    options: BuildOptions
    notes: tuple[str, ...] = ("as it was built",)


def built(path: Path, out: Path, options: BuildOptions, on_progress: object) -> Built:
    onnx.checker.check_model(str(path))
    return Built(path.name, options)


# torch


class Tensor:
    """As much of a tensor as is asked of one."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = np.asarray(array)
        self.ndim, self.shape, self.dtype = self.array.ndim, self.array.shape, self.array.dtype
        self.device = "cpu"

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, place: Any) -> Tensor:
        return Tensor(self.array[place])

    def to(self, device: str, dtype: Any) -> Tensor:
        return Tensor(self.array.astype(dtype))

    def is_floating_point(self) -> bool:
        return self.array.dtype.kind == "f"

    def element_size(self) -> int:
        return self.array.itemsize

    def float(self) -> Tensor:
        return Tensor(self.array.astype(np.float32))

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> NDArray[Any]:
        return self.array


class Module:
    """The model as a module with one part, which is in another mode."""

    def __init__(
        self, config: dict[str, Any] | None = None, off: float = 0.0, dtype: Any = np.float32
    ) -> None:
        self.training, self.part = True, SimpleNamespace(training=False)
        self.off = off
        if config is not None:
            self.pretrained_cfg = config

    def parameters(self) -> Any:
        return iter([Tensor(np.zeros(1, np.float32))])

    def modules(self) -> list[Any]:
        return [self, self.part]

    def eval(self) -> None:
        self.training = self.part.training = False

    def __call__(self, x: Tensor) -> dict[str, Any]:
        assert not self.training
        if x.array.shape[1] != 3:
            raise RuntimeError("expected input to have 3 channels\nand a trace")
        return {"scores": Tensor(outputs(MODEL, x.array.astype(np.float32)) + self.off), "said": "nothing"}


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in that exports `MODEL`."""

    def export(module: Module, x: Any, path: Path, **how: Any) -> None:
        assert how["dynamo"]
        assert logging.root.manager.disable >= logging.CRITICAL
        print("exporting ...")
        onnx.save(MODEL, path)

    found = SimpleNamespace(
        __version__="2.99",
        Tensor=Tensor,
        as_tensor=lambda one: one if isinstance(one, Tensor) else Tensor(one),
        no_grad=contextlib.nullcontext,
        nn=SimpleNamespace(Module=Module),
        onnx=SimpleNamespace(export=export),
        utils=SimpleNamespace(_pytree=SimpleNamespace(tree_leaves=lambda given: list(given.values()))),
    )
    monkeypatch.setitem(sys.modules, "torch", found)
    monkeypatch.setattr(torch_module, "build_artifacts", built)
    return found


def test_a_module_is_exported_for_inference_and_left_as_it_was(
    torch: SimpleNamespace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = Module({**CONFIG, "label_names": ["a", "b", "c"]})
    level = logging.root.manager.disable
    report: Any = from_torch(module, None, tmp_path / "bundle")
    assert (module.training, module.part.training) == (True, False)
    assert logging.root.manager.disable == level
    assert capfd.readouterr().out == ""
    assert report.name == "small_net.onnx"
    assert (report.options.mean, report.options.std) == (MEAN, STD)
    assert report.options.classes == ("a", "b", "c")
    said = "mean, std and class names are those of the module's pretrained_cfg."
    assert report.notes == (said, "as it was built")


def test_options_come_first_and_names_that_are_twice_are_told(torch: SimpleNamespace, tmp_path: Path) -> None:
    module = Module({**CONFIG, "label_names": ["crane", "b", "Crane"]})
    options = BuildOptions(mean=(0.1,) * 3, std=(1.0,) * 3)
    report: Any = from_torch(module, np.zeros((2, 3, 9, 9)), tmp_path / "bundle", options)
    assert report.options.mean == (0.1,) * 3
    assert report.options.classes == ("crane (0)", "b", "Crane (2)")
    assert report.notes[0] == "class names are those of the module's pretrained_cfg."
    assert report.notes[1].endswith("have their class's number behind them: 'crane (0)', 'Crane (2)'.")


def test_what_a_configuration_says_of_other_channels_and_classes_is_not_taken(
    torch: SimpleNamespace, tmp_path: Path
) -> None:
    config = {**CONFIG, "mean": (0.5,), "std": (0.2,), "label_names": ["a", "b"]}
    report: Any = from_torch(Module(config), np.zeros((1, 3, 9, 9)), tmp_path / "bundle")
    assert (report.options.mean, report.options.classes) == (None, None)
    assert report.notes == ("as it was built",)


def test_a_module_that_says_something_else_than_its_file(torch: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="What torch exported gives other outputs than the module for the same"
    ):
        from_torch(Module(off=1.0), np.zeros((1, 3, 9, 9)), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "example", "error", "said"),
    [
        ("model.pt", None, ConfigError, "from_torch takes a torch.nn.Module, and not 'str'."),
        (Module(), None, ConfigError, "Nothing tells the input's size: pass an example, such as"),
        (Module(), np.zeros((9, 9)), ConfigError, "The example has shape (9, 9); it must be (n, channels,"),
        (Module(), np.zeros((0, 3, 9, 9)), ConfigError, "The example has shape (0, 3, 9, 9); it must be"),
        (
            Module(),
            np.zeros((1, 1, 9, 9)),
            ModelError,
            "does not run on an example (1, 1, 9, 9) (RuntimeError: expected input to have 3 channels).",
        ),
    ],
)
def test_what_is_no_module_of_images(
    torch: SimpleNamespace, tmp_path: Path, module: Any, example: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        from_torch(module, example, tmp_path / "bundle")
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_torch_does_not_export(torch: SimpleNamespace, tmp_path: Path) -> None:
    def export(*_: object, **__: object) -> None:
        raise NotImplementedError("data-dependent\nand a trace")

    torch.onnx.export = export
    module, level = Module(), logging.root.manager.disable
    with pytest.raises(ModelError) as caught:
        from_torch(module, np.zeros((1, 3, 9, 9)), tmp_path / "bundle")
    said = "torch 2.99 does not export Module (NotImplementedError: data-dependent). Export it yourself with torch."
    assert str(caught.value).startswith(said)
    assert (module.training, logging.root.manager.disable) == (True, level)


# Keras


class Model:
    """`MODEL` as a Keras model, whose layers say how channels lie."""

    name = "small net"

    def __init__(self, shape: Any, layout: str | None = "channels_first") -> None:
        self.input_shape = shape
        self.layers = [SimpleNamespace(), SimpleNamespace(data_format=layout)]
        self.seen: list[NDArray[np.float32]] = []
        self.fails = False

    def __call__(self, x: NDArray[np.float32], training: bool) -> list[NDArray[np.float32]]:
        assert not training
        self.seen.append(x)
        if x.shape[1:] != (3, 9, 9):
            raise ValueError("another shape\nand a trace")
        return [outputs(MODEL, x)]

    def export(self, path: str, format: str, verbose: bool) -> None:
        if self.fails:
            raise NotImplementedError("this backend has no exporter")
        assert (format, verbose) == ("onnx", False)
        onnx.save(MODEL, path)


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(
        __version__="3.99",
        Model=Model,
        ops=SimpleNamespace(convert_to_numpy=np.asarray),
        tree=SimpleNamespace(flatten=list),
        backend=SimpleNamespace(backend=lambda: "jax"),
    )
    monkeypatch.setitem(sys.modules, "keras", found)
    monkeypatch.setattr(keras_model, "build_artifacts", built)
    return found


def test_a_keras_model_is_compared_on_pixels(keras: SimpleNamespace, tmp_path: Path) -> None:
    model = Model((None, 3, 9, 9))
    report: Any = from_keras(model, tmp_path / "bundle")
    assert (report.name, report.notes) == ("small_net.onnx", ("as it was built",))
    (x,) = model.seen
    assert x.shape == (1, 3, 9, 9)
    assert 0 <= x.min() < 10 < 240 < x.max() <= 255


def test_the_size_of_a_keras_model_is_its_own_or_the_one_that_is_given(
    keras: SimpleNamespace, tmp_path: Path
) -> None:
    model = Model((None, 3, None, None))
    with pytest.raises(ConfigError, match=r"takes images of any size: give one, BuildOptions\(input_size="):
        from_keras(model, tmp_path / "bundle")
    from_keras(model, tmp_path / "bundle", BuildOptions(input_size=(9, 9)))
    assert model.seen[0].shape == (1, 3, 9, 9)


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        ("model.keras", ConfigError, "from_keras takes a keras.Model, and not 'str'."),
        (
            Model((None, 5)),
            ConfigError,
            "The model's input has shape (None, 5); from_keras takes models of one image",
        ),
        (Model([(None, 9, 9, 3)] * 2), ConfigError, "Call the model once if it was never built"),
        (
            Model((None, 9, 9, 3), None),
            ModelError,
            "The model does not run on an example (1, 9, 9, 3) (ValueError: another shape).",
        ),
    ],
)
def test_what_is_no_keras_model_of_images(
    keras: SimpleNamespace, tmp_path: Path, model: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        from_keras(model, tmp_path / "bundle")
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_keras_does_not_export(keras: SimpleNamespace, tmp_path: Path) -> None:
    model, level = Model((None, 3, 9, 9)), logging.root.manager.disable
    model.fails = True
    with pytest.raises(ModelError) as caught:
        from_keras(model, tmp_path / "bundle")
    said = "Keras 3.99 does not export 'small net' with the backend jax (NotImplementedError: this backend has no"
    assert str(caught.value).startswith(said)
    assert logging.root.manager.disable == level
