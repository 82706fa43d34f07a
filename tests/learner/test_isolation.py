"""The device side stands alone: no ONNX library, and nothing that executes what it reads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import csk_sdk
from conftest import Digits, write_pictures

PACKAGE = Path(csk_sdk.__file__).parent

BLOCKED = (
    "onnx",
    "onnx_ir",
    "onnxscript",
    "csk_artifacts_builder",
    "csk_device_runners",
    "sklearn",
    "scipy",
    "matplotlib",
    "torch",
)

ON_A_DEVICE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError("blocked: " + name, name=name)

sys.meta_path.insert(0, Blocker())
for name in {blocked}:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(name + " is not blocked")

import numpy as np
from csk_sdk import Inbox, Learner, TrainingConfig

bundle, folder = sys.argv[1:]
learner = Learner.open(bundle, folder + "/state", TrainingConfig(threads=1, shift=1, train="centers"))
task = Inbox(folder + "/tasks").open("01")
learner.learn(task)
with learner.stream("02", ["six", "seven"]) as stream:
    arrays = np.load(folder + "/stream.npz")
    stream.observe(arrays["images"], arrays["labels"])
learner.export(folder + "/exported.onnx")
print(learner.evaluate([task]).accuracy)
print(*learner.predict(arrays["images"][:3]).labels)
learner.rollback("01")
"""


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_a_device_needs_no_onnx_library(digits_bundle: Path, tmp_path: Path, digits: Digits) -> None:
    write_pictures(tmp_path / "tasks" / "01" / "train", digits, (4, 5), 0, 40)
    write_pictures(tmp_path / "tasks" / "01" / "test", digits, (4, 5), 100, 140)
    images, labels = digits.arrays((6, 7), 0, 40)
    np.savez(tmp_path / "stream.npz", images=images, labels=labels)
    accuracy, labels_line = python(
        ON_A_DEVICE.format(blocked=BLOCKED), str(digits_bundle), str(tmp_path)
    ).splitlines()
    assert float(accuracy) > 90.0
    assert labels_line == "six six six"
    onnx.checker.check_model(onnx.load(tmp_path / "exported.onnx"), full_check=True)


def test_importing_is_light() -> None:
    loaded = python("import sys; from csk_sdk import *; print(*sys.modules)").split()
    for module in ("onnxruntime", "typer", "rich", "tomllib", *BLOCKED):
        assert module not in loaded
    assert "csk_sdk.cli" not in loaded
    assert "csk_sdk.learner" in loaded


def test_what_is_not_used_is_not_imported() -> None:
    code = """
import sys
from csk_sdk.cli import app
try:
    app(["--version"], prog_name="csk-sdk")
except SystemExit:
    print(*sys.modules)
"""
    loaded = python(code).split()
    for module in ("numpy", "PIL", "rich", "csk_sdk.learner", "csk_sdk.cli.learning"):
        assert module not in loaded


def test_opening_a_bundle_needs_no_runtime(digits_bundle: Path, tmp_path: Path) -> None:
    code = """
import sys
sys.modules["onnxruntime"] = None
from csk_sdk import Learner
learner = Learner.open(*sys.argv[1:])
print(len(learner.classes), len(learner.tasks))
"""
    assert python(code, str(digits_bundle), str(tmp_path / "state")) == "4 0\n"
    assert not (tmp_path / "state").exists()


def test_all_is_exactly_the_public_names() -> None:
    # What a type checker reads, what is imported on first use, and what is listed: the same names of the same modules.
    told = next(
        node for node in ast.parse(Path(csk_sdk.__file__).read_text()).body if isinstance(node, ast.If)
    )
    imports = [node for node in told.body if isinstance(node, ast.ImportFrom)]
    assert {name.name: node.module for node in imports for name in node.names} == {
        name: f"csk_sdk.{module}" for name, module in csk_sdk._MODULES.items()
    }
    assert csk_sdk.__all__ == sorted(csk_sdk._MODULES)
    assert set(csk_sdk.__all__) <= set(dir(csk_sdk))
    with pytest.raises(AttributeError, match="module 'csk_sdk' has no attribute 'Lerner'"):
        csk_sdk.Lerner  # noqa: B018
    assert all(getattr(csk_sdk, name).__doc__ for name in csk_sdk.__all__)


def test_every_error_on_the_outside_is_a_csk_error() -> None:
    errors = [getattr(csk_sdk, name) for name in csk_sdk.__all__ if name.endswith("Error")]
    assert len(errors) >= 10
    assert all(issubclass(error, csk_sdk.CskError) for error in errors)


# Reading what is on disk must never execute it.
EXECUTING = {
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "torch",
    "yaml",
}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_nothing_that_is_read_is_executed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & EXECUTING
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in EXECUTING
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            assert name not in {"eval", "exec", "compile", "__import__"}
            for keyword in node.keywords:
                assert keyword.arg != "allow_pickle" or ast.literal_eval(keyword.value) is False
