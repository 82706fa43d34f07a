"""Checks that the builder makes on its own work before it writes anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from csk_artifacts_builder.emit import static_shape
from csk_artifacts_builder.prepare.constant_sizes import infer_where_possible
from csk_artifacts_builder.prepare.ending import choose_output, cut_labels
from csk_artifacts_builder.prepare.inference import to_inference
from csk_artifacts_builder.prepare.model import SourceModel
from csk_artifacts_builder.prepare.pixels import BYTES
from csk_artifacts_builder.prepare.pools import write_windows
from csk_artifacts_builder.prepare.quantized_ending import bare_scores, scores_as_float
from csk_artifacts_builder.prepare.source_file import load_source
from csk_sdk.errors import ModelError
from csk_sdk.runtime.allocator import returning_memory
from csk_sdk.runtime.sessions import has_training_package, load_onnxruntime, open_session

# Of how far the outputs of different images lie apart, and of the largest output at least.
_OF_SPREAD, _OF_LARGEST = 1e-3, 2e-5
# From here on ONNX Runtime divides and counts the windows of pools as torch does (decision 0025): 1.25 did not.
_ONE_READING = (1, 30)
# A float16 source rounds to 11 bits after every layer, and the prepared graph does not.
_OF_LARGEST_HALF = 3e-2
# A quantised source rounds after every layer, and the prepared graph only keeps its ranges: root mean square of the
# difference, of how far the logits of the classes lie apart (decision 0031: 0.02 to 0.08 were seen).
_OF_CLASSES_QUANTISED = 0.25
# How many batches of noise come before the real images.
_NOISES = 2
# Smaller probabilities say nothing in float32, and in float16.
_SMALLEST, _SMALLEST_HALF = 1e-20, 1e-4


def same_logits(
    source: SourceModel,
    prepared: Path | bytes,
    activation: str | None,
    real: NDArray[np.float32] | None = None,
) -> None:
    """Run the source model, at its own opset, on random and on `real` images, and the prepared graph on all of them.

    Files are opened one after the other, so that the weights are in memory once (more often if `prepared` are bytes).
    `real` are images for the prepared graph `(n, *image)`. Where `activation` makes probabilities of the logits, these
    are compared: among many classes all probabilities are small. Raises ModelError where outputs differ by more than
    1e-3 of their spread over images and 2e-5 of the largest (3 % of the largest for a float16 source; for a quantised
    one see below), or one does not run.
    """
    session = _open_source(source)
    batches = _batches(source, session, real)
    shown = [source.interface.source_input(pictures) for pictures in batches]
    answers = _run(session, shown, "the source model", _scores(source, session))
    expected = np.concatenate(answers).astype(np.float32)
    if not np.isfinite(np.concatenate(answers[:_NOISES])).all():
        raise ModelError(
            "The source model gives NaN or infinity for ordinary noise on this ONNX Runtime: nothing could be learned "
            "on it. Run it on real images first, and export it again."
        )
    del session
    got = _prepared_outputs(prepared, batches)
    if source.binary:
        got, activation = _one_number(got, activation)
    if got.size != expected.size:
        count = 2 * len(batches[0])
        raise _one_batch_size(f"for {count} images it gives outputs {list(got.shape)}")
    expected, got = expected.reshape(len(got), -1), got.reshape(len(got), -1)
    # A real image without an answer is named when the base data are measured.
    sure = np.isfinite(expected).all(axis=1)
    if source.quantised is not None:
        # As they are: of a probability that is rounded to 0 there is no logarithm.
        _require_close(source, expected[sure].astype(np.float64), got[sure].astype(np.float64))
        return
    logits, others = (
        _as_logits(values[sure], activation, source.interface.half) for values in (expected, got)
    )
    difference = float(np.abs(logits - others).max())
    if not difference <= _tolerance(logits, source.interface.half):
        raise _differing(source, shown, difference)


def _batches(
    source: SourceModel, session: Any, real: NDArray[np.float32] | None
) -> list[NDArray[np.float32]]:
    """Two of noise, and the real images, each as large as the source wants it."""
    dims = session.get_inputs()[0].shape
    size = dims[0] if isinstance(dims[0], int) and dims[0] > 0 else 2
    picture = [int(n) for n in static_shape(source.image)[1:]]
    rng, shape = np.random.default_rng(0), (_NOISES, size, *picture)
    pixels = source.pixels == BYTES
    noise = (rng.integers(0, 256, shape) if pixels else rng.normal(size=shape)).astype(np.float32)
    if real is None or not len(real):
        return list(noise)
    count = -(-len(real) // size) * size
    return [*noise, *np.resize(real, (count // size, size, *picture))]


def _prepared_outputs(prepared: Path | bytes, batches: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """What the prepared graph gives, for two batches at once."""
    session = _open(prepared if isinstance(prepared, bytes) else str(prepared), "the model after preparation")
    pairs = [np.concatenate(batches[place : place + 2]) for place in range(0, len(batches), 2)]
    try:
        return np.concatenate(_run(session, pairs, "the model after preparation"))
    except ModelError:
        # Or on no number of images at all, which is said first.
        _run(session, batches[:1], "the model after preparation")
        raise _one_batch_size(f"for {len(pairs[0])} images it does not run") from None


def _one_number(
    values: NDArray[np.float32], activation: str | None
) -> tuple[NDArray[np.float32], str | None]:
    """Of two outputs what the source has one of, and what makes a probability of it."""
    return (values[:, 1:], "Sigmoid") if activation else (values[:, 1:] - values[:, :1], None)


def _as_logits(values: NDArray[np.float32], activation: str | None, half: bool) -> NDArray[np.float64]:
    """`(n, classes)`: what stands in front of a Softmax, up to a number for each image, or of a Sigmoid."""
    smallest = _SMALLEST_HALF if half else _SMALLEST
    if activation == "Softmax":
        logs = np.log(np.maximum(values.astype(np.float64), smallest))
        return np.asarray(logs - logs.mean(axis=1, keepdims=True))
    if activation == "Sigmoid":
        p = np.clip(values.astype(np.float64), _SMALLEST_HALF, 1 - _SMALLEST_HALF)
        return np.asarray(np.log(p / (1 - p)))
    return values.astype(np.float64)


def _tolerance(logits: NDArray[np.float64], half: bool) -> float:
    largest = float(np.abs(logits).max())
    if half:
        return _OF_LARGEST_HALF * max(1.0, largest)
    return max(_OF_SPREAD * float(np.ptp(logits, axis=0).max()), _OF_LARGEST * largest)


def _require_close(source: SourceModel, expected: NDArray[np.float64], got: NDArray[np.float64]) -> None:
    """Raise ModelError where the scores of a quantised source are not those of the prepared graph but for rounding."""
    one = expected.shape[-1] == 1
    apart = float(np.std(expected)) if one else float(np.sqrt(np.mean(np.var(expected, axis=-1))))
    difference = float(np.sqrt(np.mean(np.square(expected - got)))) / max(apart, 1e-12)
    if not difference <= _OF_CLASSES_QUANTISED:
        most = f"{100 * _OF_CLASSES_QUANTISED:.0f} %"
        raise ModelError(
            f"The scores of {source.path.name} with its activations rounded and not rounded differ by "
            f"{100 * difference:.0f} % of how far its classes lie apart, where {most} is the most: it is quantised too "
            "coarsely to be trained, or csk-sdk has misread it. Give the float32 model that it was made from."
        )


def _differing(source: SourceModel, shown: Sequence[NDArray[Any]], difference: float) -> ModelError:
    """Why the outputs differ: chance, the images beside an image, or a fault of ours."""
    session = _open_source(source)
    scores = _scores(source, session)
    (first,) = _run(session, shown[:1], "the source model", scores)
    if not isinstance(session.get_inputs()[0].shape[0], int):
        alone = np.concatenate(_run(session, [one[None] for one in shown[0]], "the source model", scores))
        apart = (
            float(np.abs(first.reshape(alone.shape) - alone).max()) if first.size == alone.size else np.inf
        )
        if apart > _OF_SPREAD * max(float(np.abs(first).max()), 1e-6):
            return ModelError(
                f"{source.path.name} answers to an image by the others in its batch: alone, it gives outputs that "
                f"differ by {apart:.2g}. Export the model for inference (model.eval()), without ops over the batch."
            )
    return ModelError(
        f"After preparation the outputs of {source.path.name} differ by {difference:.2g} from the source model's: this "
        "is a fault of csk-sdk, please report the model. Exported with opset 17 it may build."
    )


def _one_batch_size(what: str) -> ModelError:
    return ModelError(
        f"The model is written for one batch size: {what}. Export it again with a dynamic batch."
    )


def _open_source(source: SourceModel) -> Any:
    """The source model as it is, or written as this runtime computes it by the standard.

    Of opsets below 22 every release counts windows that torch leaves out, and refuses the classifier behind them.
    """
    version = tuple(map(int, load_onnxruntime().__version__.split(".")[:2]))
    path = source.path
    rewritten = _rewritten(source) if source.rewritten or version < _ONE_READING else None
    try:
        return _open(rewritten or _inlined(path) or str(path), "the source model")
    except ModelError:
        rewritten = _rewritten(source)
        if rewritten is None:
            raise
        return _open(rewritten, "the source model")


def _rewritten(source: SourceModel) -> bytes | None:
    """The source with its pools' windows as numbers, for inference and without labels; None with nothing to write."""
    path = source.path
    model = ir.from_proto(load_source(path))
    passes.InlinePass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_where_possible(model)
    changed = bool(to_inference(model))
    choose_output(model, source.output or None, path.name)
    if source.quantised is not None:
        bare_scores(model)
    changed |= bool(cut_labels(model))
    if source.quantised is not None:
        scores_as_float(model)
    changed |= write_windows(model, path.name)
    passes.RemoveUnusedNodesPass()(model)
    model.ir_version = max(model.ir_version, 4)  # from here on initializers need not be inputs
    return bytes(ir.to_proto(model).SerializeToString()) if changed else None


def _inlined(path: Path) -> bytes | None:
    """A model whose tensors lie in other files as one piece: ONNX Runtime wants sizes and axes in the graph."""
    proto = onnx.load(str(path), load_external_data=False)
    if not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        return None
    onnx.load_external_data_for_model(proto, str(path.parent))
    return bytes(proto.SerializeToString())


def _open(model: str | bytes, which: str) -> Any:
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # As it is written: optimising would copy every weight, for a few runs.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    # An arena would outlive the session. In the training package all sessions share what the first of them sets.
    options.enable_cpu_mem_arena = has_training_package()
    try:
        with returning_memory():
            return open_session(model, options)
    except Exception as error:
        raise _cannot_run(which, error) from None


def _scores(source: SourceModel, session: Any) -> str:
    """The source's output that is compared; where labels are cut off, the only one."""
    names = [output.name for output in session.get_outputs()]
    return source.output if source.output in names else names[0]


def _run(
    session: Any, batches: Sequence[NDArray[Any]], which: str, output: str | None = None
) -> list[NDArray[np.float32]]:
    name = session.get_inputs()[0].name
    try:
        return [session.run(output and [output], {name: batch})[0] for batch in batches]
    except Exception as error:
        raise _cannot_run(which, error) from None


def _cannot_run(which: str, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0][:200]
    return ModelError(f"ONNX Runtime {load_onnxruntime().__version__} cannot run {which} ({reason}).")


def standard_ops_only(name: str, model: ir.Model) -> None:
    """Raise ModelError where a graph holds an op outside the `ai.onnx` domain."""
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{name} would need op '{node.domain}.{node.op_type}', which is not a standard op."
            )
