"""onnxruntime-training: all weights through its own artifacts, and csk-sdk's ort-training backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench import data
from bench.cases import CENTERS, CHANNEL_RATIO, CLASSES, LEARNING_RATE, Case
from bench.peers.csk import open_training
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import ORT_TRAINING
from csk_sdk.runtime.sessions import import_training, load_onnxruntime, session_options

ort, api = load_onnxruntime(), import_training("api")


def prepare(case: Case, folder: Path) -> None:
    """The artifacts for all weights, and a bundle with those for the centers."""
    import onnx_ir as ir

    from csk_artifacts_builder import BuildOptions, build_artifacts
    from csk_artifacts_builder.ort.dialect import speak_ort
    from csk_artifacts_builder.prepare.model import prepare as prepared

    if (folder / "ort" / "manifest.json").exists():
        return
    # Batch norm is folded: the package would take the batch's statistics instead of the network's.
    model = ir.external_data.load_to_model(prepared(folder / "model.onnx").model)
    speak_ort(model, [*model.graph.initializers])
    weights = [
        name for name, value in model.graph.initializers.items()
        if value.uses() and value.dtype == ir.DataType.FLOAT and value.shape is not None and len(value.shape)
        and not name.startswith("csk.")
    ]  # fmt: skip
    artifacts = import_training("artifacts")
    full = folder / "ort-full"
    full.mkdir(exist_ok=True)
    artifacts.generate_artifacts(
        ir.to_proto(model), requires_grad=weights, loss=artifacts.LossType.CrossEntropyLoss,
        optimizer=artifacts.OptimType.SGD, artifact_directory=full,
    )  # fmt: skip
    readable(full / "optimizer_model.onnx")
    options = BuildOptions(
        base_data=folder / "base", backend="both", channel_ratio=CHANNEL_RATIO, head_capacity=CLASSES, features="last",
        mean=(0.5,) * 3, std=(0.25,) * 3, overwrite=True,
    )  # fmt: skip
    build_artifacts(folder / "model.onnx", folder / "ort", options)


def readable(path: Path) -> None:
    """The package writes its optimizer with an IR version that it cannot read."""
    import onnx

    model = onnx.load(path)
    model.ir_version = 8
    onnx.save(model, path)


def open_method(case: Case, method: str, folder: Path) -> Callable[[], object]:
    """A step of the package's SGD on all weights, or of csk-sdk's backend."""
    if method == CENTERS:
        return open_training(Bundle.open(folder / "ort"), data.batch(case, folder), ORT_TRAINING)
    full = folder / "ort-full"
    state = api.CheckpointState.load_checkpoint(str(full / "checkpoint"))
    module = api.Module(
        str(full / "training_model.onnx"),
        state,
        str(full / "eval_model.onnx"),
        session_options=session_options(1),
    )
    optimizer = api.Optimizer(str(full / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(LEARNING_RATE)
    module.train()
    images, labels = data.batch(case, folder)

    def step() -> None:
        module(images, labels.astype(np.int64))
        optimizer.step()
        module.lazy_reset_grad()

    return step


def versions() -> dict[str, str]:
    """What was measured."""
    return {"onnxruntime-training": ort.__version__}
