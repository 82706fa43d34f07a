"""ONNX Runtime's inference of the source model, with its default settings but for the threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from bench import data
from bench.cases import Case


def prepare(case: Case, folder: Path) -> None:
    """torch wrote the model."""


def open_method(case: Case, method: str, folder: Path) -> Callable[[], object]:
    """A forward pass."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    images, _ = data.batch(case, folder)
    return lambda: session.run(None, {"image": images})


def versions() -> dict[str, str]:
    """What was measured."""
    return {"onnxruntime": ort.__version__}
