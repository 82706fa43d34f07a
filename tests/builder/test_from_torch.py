"""from_torch where there is no torch, and what it reads of a configuration; the rest: tests/benchmarks."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from csk_artifacts_builder import from_keras, from_torch
from csk_artifacts_builder.frameworks.torch_module import ModuleConfig, module_config, told_apart
from csk_sdk.errors import ConfigError, RuntimeMissingError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        RuntimeMissingError, match="from_torch needs torch in this environment: pip install torch"
    ):
        from_torch(object(), None, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_the_builder_imports_no_framework() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, timm=None, torchvision=None, keras=None)\n"
        "import csk_artifacts_builder; print('torch' in sys.modules and sys.modules['torch'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_a_module_that_says_nothing() -> None:
    assert module_config(SimpleNamespace()) == ModuleConfig()
    assert module_config(SimpleNamespace(pretrained_cfg={"url": ""}, default_cfg=None)) == ModuleConfig()


def test_timm_says_it_in_a_mapping_or_in_a_dataclass() -> None:
    said = {"mean": MEAN, "std": list(STD), "input_size": (3, 176, 176), "label_names": None, "url": "x"}
    expected = ModuleConfig("the module's pretrained_cfg", MEAN, STD, (3, 176, 176), None)
    assert module_config(SimpleNamespace(pretrained_cfg=said)) == expected

    @dataclass
    class Config:
        mean: tuple[float, ...] = MEAN
        std: tuple[float, ...] = STD
        input_size: tuple[int, ...] = (3, 32, 32)
        label_names: tuple[str, ...] | None = ("a", "b")

    found = module_config(SimpleNamespace(default_cfg=Config()))
    assert found == ModuleConfig("the module's default_cfg", MEAN, STD, (3, 32, 32), ("a", "b"))


Weights = namedtuple("Weights", "transforms meta")


@pytest.mark.parametrize(("crop", "size"), [([224], (3, 224, 224)), ([96, 128], (3, 96, 128)), (None, None)])
def test_torchvision_says_it_in_its_weights(crop: list[int] | None, size: tuple[int, ...] | None) -> None:
    how = SimpleNamespace(mean=list(MEAN), std=list(STD), crop_size=crop)
    found = module_config(SimpleNamespace(), Weights(lambda: how, {"categories": ["tench", "goldfish"]}))
    assert (found.mean, found.std, found.size, found.classes) == (MEAN, STD, size, ("tench", "goldfish"))


def test_weights_of_something_else() -> None:
    with pytest.raises(ConfigError, match="is none of torchvision's"):
        module_config(SimpleNamespace(), "IMAGENET1K_V1")


def test_without_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(RuntimeMissingError, match="from_keras needs Keras 3 and one of its backends"):
        from_keras(object(), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_names_that_are_twice_get_their_number() -> None:
    """As ImageNet's are: a dog and a jacket, a bird and a machine."""
    given = ["tench", "crane", "Cardigan", "crane", "cardigan"]
    names, renamed = told_apart(given)
    assert names == ("tench", "crane (1)", "Cardigan (2)", "crane (3)", "cardigan (4)")
    assert renamed == names[1:]
    assert told_apart(["a", "b"]) == (("a", "b"), ())
