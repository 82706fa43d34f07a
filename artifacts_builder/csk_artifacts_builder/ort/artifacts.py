"""The artifacts of onnxruntime-training: its own gradients, for centers and head only.

docs/decisions/0007-ort-training.md.

The forward graph has every site's frozen convolution with zeros at the kernel's center, and beside it a 1x1
convolution over the center-sampled input, whose weight is the whole center: one trainable parameter per site. So a
device writes a generation's centers into the parameters, and nothing else in the artifacts ever changes.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.bundle_writer import large_weights
from csk_artifacts_builder.emit import Emitter, constant_array
from csk_artifacts_builder.graphs.center import add_whole_center, site_node
from csk_artifacts_builder.graphs.head import SplitHead, split_head
from csk_artifacts_builder.graphs.models import IMAGE, LOGITS, finish
from csk_artifacts_builder.ort.check import wrong_gradients, wrong_logits
from csk_artifacts_builder.ort.dialect import speak_ort
from csk_artifacts_builder.prepare.opset import TARGET_IR_VERSION
from csk_sdk.bundle.folder import center_of
from csk_sdk.contract.manifest import UNUSED_CLASS, Head, Site
from csk_sdk.errors import ConfigError, ModelError, UnsupportedOpError
from csk_sdk.runtime.reasons import reason_of
from csk_sdk.runtime.sessions import import_training

# A task has as many classes as the head has rows, or fewer; the rows are fixed in the artifacts.
SMALLEST_CAPACITY = 128


def head_capacity(wanted: int | None, base_classes: int) -> int:
    """Rows of the artifacts' head: the wanted number, or 128, or as many as the base has classes.

    Raises ConfigError for fewer than the base has.
    """
    if wanted is None:
        return max(base_classes, SMALLEST_CAPACITY)
    if wanted < max(base_classes, 2):
        raise ConfigError(
            f"--head-capacity is {wanted}; it must be {max(base_classes, 2)} or more, room for the base classes."
        )
    return wanted


def write_ort_artifacts(
    prepared: ir.Model, sites: Sequence[Site], head: Head, capacity: int, folder: Path, where: str
) -> tuple[str, ...]:
    """Write training_model.onnx, eval_model.onnx, optimizer_model.onnx and checkpoint into `folder`; warnings.

    Gradients are those of the sites' centers and the head; every other tensor is a frozen parameter.
    Raises RuntimeMissingError without the training package, ModelError where it has no gradient for an op, or
    where its artifacts compute something else than the model, or another gradient than the portable one, OSError for a
    disk that refuses.
    """
    artifacts = import_training("artifacts")
    model = forward_model(prepared, sites, head, capacity, where)
    trainable = [*(site.center for site in sites), head.weight, head.bias]
    frozen = [name for name in large_weights(model, sites) if name not in trainable]
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        try:
            artifacts.generate_artifacts(
                ir.to_proto(model),
                requires_grad=trainable,
                frozen_params=frozen,
                loss=artifacts.LossType.CrossEntropyLoss,
                optimizer=artifacts.OptimType.AdamW,
                artifact_directory=folder,
                additional_output_names=[LOGITS],
            )
            _readable(folder / "optimizer_model.onnx")
            problem = None
        except OSError:
            raise
        except Exception as error:
            # C++ exceptions arrive as RuntimeError and as classes of the package's own.
            problem = reason(error)
    warnings: tuple[str, ...] = ()
    if problem is None:
        problem, warnings = _checked(prepared, sites, head, folder, where)
    if problem is not None:
        raise ModelError(
            f"onnxruntime-training cannot train {where} ({problem}). Build it with --backend portable, or train only "
            "later layers with --trainable from:NODE."
        )
    return warnings


def _checked(
    prepared: ir.Model, sites: Sequence[Site], head: Head, folder: Path, where: str
) -> tuple[str | None, tuple[str, ...]]:
    """What is wrong with the artifacts' training step, or None; what could not be checked."""
    try:
        with quiet():
            problem = wrong_logits(prepared, folder, where)
            return problem or wrong_gradients(prepared, sites, head, folder, where), ()
    except UnsupportedOpError as error:
        unchecked = f"The gradients of onnxruntime-training could not be compared with others: {error}"
        return None, (unchecked,)
    except Exception as error:
        return reason(error), ()


def forward_model(
    prepared: ir.Model, sites: Sequence[Site], head: Head, capacity: int, where: str
) -> ir.Model:
    """In: image; out: logits of `capacity` classes. Centers and head are initializers of their own.

    Raises ModelError for a BatchNormalization that was not folded: onnxruntime-training would silently use the
    statistics of the batch.
    """
    model = ir.external_data.load_to_model(prepared.clone())
    for node in model.graph:
        if node.op_type == "BatchNormalization":
            raise ModelError(
                f"onnxruntime-training cannot train {where}: it would use batch statistics in '{node.name}', a "
                "BatchNormalization that could not be folded. Build it with --backend portable."
            )
    emit = Emitter(model.graph)
    split = split_head(model, where)
    model.graph.outputs.clear()
    model.graph.inputs[0].name = IMAGE
    for site in sites:
        node = site_node(model, site)
        kernel = node.inputs[1]
        assert kernel is not None
        array = constant_array(kernel)
        assert array is not None
        frozen = array.copy()
        center = array[center_of(site)].reshape(*site.shape[:2], *[1] * len(site.output_size))
        frozen[center_of(site)] = 0.0
        kernel.const_value = ir.tensor(frozen, name=kernel.name)
        add_whole_center(emit, node, emit.initializer(center, site.center))
    weight, bias = _with_room(split, capacity)
    logits = emit.op(
        "Gemm", split.features, emit.initializer(weight, head.weight), emit.initializer(bias, head.bias), transB=1
    )  # fmt: skip
    emit.output(logits, LOGITS, ["N", capacity])
    return speak_ort(finish(model, "csk_forward"), [site.center for site in sites])


def _readable(path: Path) -> None:
    """The package writes its optimizer with the newest IR version of the onnx library, and cannot read it then."""
    model = onnx.load(path)
    model.ir_version = TARGET_IR_VERSION
    onnx.save(model, path)


def _with_room(split: SplitHead, capacity: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The base's head in the first rows, and rows that softmax gives exactly 0."""
    classes, features = split.weight.shape
    weight, bias = np.zeros((capacity, features), np.float32), np.full(capacity, UNUSED_CLASS, np.float32)
    weight[:classes], bias[:classes] = split.weight, split.bias
    return weight, bias


def reason(error: Exception) -> str:
    """What a C++ exception says, and in words of our own where a gradient is missing."""
    missing = no_gradient(error)
    if missing:
        return f"it has no gradient for op '{missing[0]}' (node '{missing[1]}')"
    return reason_of(error)


def no_gradient(error: Exception) -> tuple[str, str] | None:
    """The op and the node that the package said it has no gradient for."""
    missing = re.search(
        r"gradient builder has not been registered: (\w+) for node (\S*)", str(error)
    ) or re.search(
        r"Could not find an implementation for (\w+)Grad\(\d+\) node with name '(.+?)_Grad/", str(error)
    )
    return (missing[1], missing[2]) if missing else None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the package's C++ code logs, whatever its log level, off the terminal."""
    with tempfile.TemporaryFile() as log:
        kept = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
