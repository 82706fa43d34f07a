"""The reference says of every public name what a caller must know: shapes, dtypes, errors, and who may share it.

`make docs` fails where a docstring is missing at all; this one looks into them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import csk_artifacts_builder
import csk_sdk
from csk_sdk import errors, fleet

ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type)}
NAMES = [(module, name) for module in (csk_sdk, csk_artifacts_builder, fleet) for name in module.__all__]
CLASSES = [
    pytest.param(value, id=name)
    for module, name in NAMES
    if isinstance(value := getattr(module, name), type) and not issubclass(value, errors.CskError)
]
# These read attributes that are there, and nothing that was handed over: they have nothing to raise.
CANNOT_FAIL = {
    "ApplyReport.to_json",
    "Bundle.graph_file",
    "Bundle.path",
    "Bundle.session",
    "Evaluation.to_json",
    "ExportReport.to_json",
    "Adapted.to_json",
    "Forgotten.to_json",
    "Inspection.to_json",
    "LearnReport.to_json",
    "MergeReport.to_json",
    "Status.to_json",
    "TrainingConfig.to_json",
    "Trial.to_json",
    "UpgradeReport.to_json",
    "Verification.to_json",
}
SHAPE = re.compile(r"`\([\w *+./,]*\)`")
DTYPE = re.compile(r"\b(uint8|int16|int64|float32|float64|floats?|integers?|ints|dtypes)\b")


def functions() -> Iterator[Any]:
    """Every public function, and every public method that is written in a public class: its name and itself."""
    for module, name in NAMES:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield pytest.param(name, value, id=name)
        elif isinstance(value, type) and not issubclass(value, errors.CskError):
            for own, member in vars(value).items():
                written = member.__func__ if isinstance(member, classmethod | staticmethod) else member
                if not own.startswith("_") and inspect.isfunction(written):
                    yield pytest.param(f"{name}.{own}", written, id=f"{name}.{own}")


FUNCTIONS = list(functions())


@pytest.mark.parametrize("value", CLASSES)
def test_a_class_says_who_may_share_it(value: type) -> None:
    text = inspect.getdoc(value) or ""
    if "mmutable" not in text:
        assert re.search(r"\b[Tt]hread", text), "neither immutable nor a word about threads"
        return
    frozen = dataclasses.is_dataclass(value) and getattr(value, "__dataclass_params__").frozen  # noqa: B009
    assert frozen or issubclass(value, tuple), "says that it is immutable, and is not"


@pytest.mark.parametrize(("name", "function"), FUNCTIONS)
def test_a_function_says_what_it_raises(name: str, function: Callable[..., Any]) -> None:
    text = inspect.getdoc(function) or ""
    named = set(re.findall(r"\b\w+Error\b", text))
    assert named <= ERRORS, "an error that csk-sdk does not have"
    if name in CANNOT_FAIL:
        assert not named
    else:
        assert named, "not a word about errors"
        assert re.search(r"\bRaises?\b", text)


@pytest.mark.parametrize(("name", "function"), FUNCTIONS)
def test_arrays_have_shapes_and_dtypes(name: str, function: Callable[..., Any]) -> None:
    if not any("NDArray" in str(annotation) for annotation in inspect.get_annotations(function).values()):
        return
    text = " ".join((inspect.getdoc(function) or "").split())
    assert DTYPE.search(text), "no dtype"
    assert SHAPE.search(text) or "docs/bundle.md" in text, "no shape"


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_every_error_is_raised_by_something_public(name: str) -> None:
    """Or by what inherits from it: the tree of errors has no dead branch."""
    texts = " ".join(inspect.getdoc(function.values[1]) or "" for function in FUNCTIONS)
    below = {other for other in ERRORS if issubclass(getattr(errors, other), getattr(errors, name))}
    assert any(re.search(rf"\b{other}\b", texts) for other in below)


@pytest.mark.parametrize(
    "name", ["Learner", "Learner.predict", "TaskStream.observe", "Task.from_arrays", "Task.from_npz"]
)
def test_images_are_rgb(name: str) -> None:
    """An array does not tell: with BGR from OpenCV accuracy falls without a word."""
    value: Any = csk_sdk
    for part in name.split("."):
        value = getattr(value, part)
    assert "RGB" in (inspect.getdoc(value) or "")
