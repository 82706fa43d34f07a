"""from_torch with torch itself; with timm and torchvision, where they are installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csk_artifacts_builder import BuildOptions, build_artifacts, from_torch
from csk_sdk import Learner
from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import ConfigError, ModelError

torch = pytest.importorskip("torch", reason="needs torch: pip install csk-sdk[benchmarks]")
nn = torch.nn
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CONFIG = {
    "mean": MEAN,
    "std": STD,
    "input_size": (3, 24, 24),
    "architecture": "small/net",
    "label_names": None,
}


class Small(nn.Module):  # type: ignore[misc, name-defined]
    """Two convolutions with what behaves otherwise while training."""

    def __init__(self, classes: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(12, classes)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(nn.functional.max_pool2d(x, 2)))
        return self.fc(self.drop(x.mean((2, 3))))


def small(config: dict[str, Any] | None = None, **options: int) -> Small:
    torch.manual_seed(0)
    module = Small(**options)
    with torch.no_grad():
        module.norm.running_mean.normal_()
        module.norm.running_var.uniform_(0.5, 2)
    if config is not None:
        module.pretrained_cfg = config
    return module


def exported_like(module: Any, bundle: Path, folder: Path) -> None:
    """The exported model of the bundle says what the module says in eval mode, for five images."""
    import onnxruntime as ort

    Learner.open(bundle, state=folder / "state").export(folder / "exported.onnx")
    shape = Bundle.open(bundle).manifest.input.shape
    x = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    session = ort.InferenceSession(str(folder / "exported.onnx"), providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: x})[0]
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_in_one_call(tmp_path: Path) -> None:
    module = small(CONFIG).train()
    module.drop.eval()
    report = from_torch(module, None, tmp_path / "bundle")
    assert module.training
    assert module.norm.training
    assert not module.drop.training
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.model == "small_net.onnx"
    assert manifest.input.shape == (3, 24, 24)
    np.testing.assert_allclose(manifest.preprocessing.mean, MEAN)
    np.testing.assert_allclose(manifest.preprocessing.std, STD)
    assert len(report.sites) == 2
    assert "mean and std are those of the module's pretrained_cfg." in report.notes
    assert not any("--mean" in said for said in report.warnings)
    exported_like(module, tmp_path / "bundle", tmp_path)


@pytest.mark.parametrize("example", [np.zeros((2, 3, 16, 20), np.float32), "tensor"])
def test_an_example_says_the_size_and_options_come_first(tmp_path: Path, example: Any) -> None:
    x = torch.zeros(2, 3, 16, 20) if isinstance(example, str) else example
    labelled = CONFIG | {"label_names": ["a", "b", "c", "d"]}
    options = BuildOptions(mean=(0.1,) * 3, std=(1.0,) * 3)
    report = from_torch(small(labelled), x, tmp_path / "bundle", options)
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.input.size == (16, 20)
    np.testing.assert_allclose(manifest.preprocessing.mean, (0.1,) * 3)
    assert manifest.classes == ("a", "b", "c", "d")
    assert "class names are those of the module's pretrained_cfg." in report.notes


def test_a_config_of_other_channels_and_classes_is_not_taken(tmp_path: Path) -> None:
    """As timm leaves it behind `in_chans=1, num_classes=3`."""
    labelled = CONFIG | {"label_names": ["a", "b", "c", "d"]}
    module = small(labelled, classes=3, channels=1)
    report = from_torch(module, torch.zeros(1, 1, 16, 16), tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.classes == ("0", "1", "2")
    assert manifest.preprocessing.mean == (0.0,)
    assert any("no --mean/--std given" in said for said in report.warnings)


def test_half_precision(tmp_path: Path) -> None:
    from_torch(small(CONFIG).half(), None, tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle").manifest.input.shape == (3, 24, 24)


class Dreaming(Small):
    """Says something else each time."""

    def forward(self, x: Any) -> Any:
        return super().forward(x) + torch.rand(1)


class Branching(Small):
    """Decides by its numbers, which torch.export does not follow."""

    def forward(self, x: Any) -> Any:
        return super().forward(x if float(x.sum()) > 0 else -x)


@pytest.mark.parametrize(
    ("make", "example", "error", "said"),
    [
        (lambda: "model.pt", None, ConfigError, "takes a torch.nn.Module, and not 'str'"),
        (small, None, ConfigError, "Nothing tells the input's size: pass an example"),
        (small, np.zeros((3, 16, 16), np.float64)[0], ConfigError, "The example has shape (16, 16); it must be"),
        (small, np.zeros((1, 1, 16, 16), np.float32), ModelError, "does not run on an example (1, 1, 16, 16)"),
        (Dreaming, np.zeros((1, 3, 16, 16), np.float32), ModelError, "does it draw random numbers"),
        (Branching, np.zeros((1, 3, 16, 16), np.float32), ModelError, "does not export Branching"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 3)),
            np.zeros((1, 3, 16, 16), np.float32),
            ModelError,
            "Sequential.onnx has no convolution",
        ),
    ],
)  # fmt: skip
def test_refused(
    tmp_path: Path, capfd: Any, make: Any, example: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        from_torch(make(), example, tmp_path / "bundle")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().out == ""


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("external", [False, True])
def test_what_torch_writes_unoptimised(tmp_path: Path, external: bool) -> None:
    """Every operator as its decomposition: Expand, Range, CastLike, sizes computed; and tensors in a file beside."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GELU(),
        nn.GroupNorm(2, 8),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    ).eval()
    path, example = tmp_path / "model.onnx", (torch.randn(1, 3, 16, 16),)
    torch.onnx.export(
        module, example, path, dynamo=True, optimize=False, external_data=external, verbose=False
    )
    assert path.with_name("model.onnx.data").exists() == external
    assert len(build_artifacts(path, tmp_path / "bundle").sites) == 2
    exported_like(module, tmp_path / "bundle", tmp_path)


def test_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    module = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=7)
    report = from_torch(module, torch.zeros(1, 3, 64, 64), tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.model == "mobilenetv3_small_050.onnx"
    np.testing.assert_allclose(manifest.preprocessing.mean, (0.485, 0.456, 0.406))
    assert "mean and std are those of the module's pretrained_cfg." in report.notes
    exported_like(module, tmp_path / "bundle", tmp_path)


def test_torchvision(tmp_path: Path) -> None:
    os.environ.setdefault("TORCH_HOME", str(tmp_path / "unused"))
    models = pytest.importorskip("torchvision").models
    module = models.mobilenet_v3_small(weights=None)
    weights = models.MobileNet_V3_Small_Weights.DEFAULT
    report = from_torch(module, torch.zeros(1, 3, 64, 64), tmp_path / "bundle", weights=weights)
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.classes[:2] == ("tench", "goldfish")
    assert any(
        "mean, std and class names are those of MobileNet_V3_Small_Weights" in said for said in report.notes
    )
    exported_like(module, tmp_path / "bundle", tmp_path)
