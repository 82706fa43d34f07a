"""Checks that the builder makes on its own work before it writes anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import static_shape
from csk_artifacts_builder.measure.exact import outputs_in
from csk_artifacts_builder.measure.running import (
    PREPARED,
    SOURCE,
    open_graph,
    open_source,
    rewritten_source,
    run,
    scores_of,
)
from csk_artifacts_builder.prepare.model import SourceModel
from csk_artifacts_builder.prepare.opset import TARGET_OPSET
from csk_artifacts_builder.prepare.pixels import BYTES
from csk_artifacts_builder.prepare.source_file import load_source
from csk_sdk.errors import ModelError
from csk_sdk.runtime.sessions import load_onnxruntime

# Of how far the outputs of different images lie apart, and of the largest output at least.
_OF_SPREAD, _OF_LARGEST = 1e-3, 2e-5
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
) -> tuple[str, ...]:
    """Run the source model, at its own opset, on random and on `real` images, and the prepared graph on all of them.

    Files are opened one after the other, so that the weights are in memory once (more often if `prepared` are bytes).
    `real` are images for the prepared graph `(n, *image)`. Where `activation` makes probabilities of the logits, these
    are compared: among many classes all probabilities are small. A sentence where this runtime computes the source less
    exactly than the prepared graph. Raises ModelError where outputs differ by more than
    1e-3 of their spread over images and 2e-5 of the largest (3 % of the largest for a float16 source; for a quantised
    one see below), or one does not run.
    """
    session = open_source(source)
    batches = _batches(source, session, real)
    shown = [source.interface.source_input(pictures) for pictures in batches]
    scores = scores_of(source, session)
    answers = run(session, shown, SOURCE, scores)
    del session
    expected = np.concatenate(answers).astype(np.float32)
    finite = np.isfinite(np.concatenate(answers[:_NOISES])).all()
    got = _prepared_outputs(prepared, batches, source.path.name)
    if source.binary:
        got, activation = _one_number(got, activation)
    if got.size != expected.size:
        count = 2 * len(batches[0])
        raise _one_batch_size(source.path.name, f"for {count} images it gives outputs {list(got.shape)}")
    expected, got = expected.reshape(len(got), -1), got.reshape(len(got), -1)
    if finite and source.quantised is not None:
        # As they are: of a probability that is rounded to 0 there is no logarithm.
        sure = np.isfinite(expected).all(axis=1)
        _require_close(source, expected[sure].astype(np.float64), got[sure].astype(np.float64))
        return ()
    compared = partial(_compare, activation=activation, half=source.interface.half)
    theirs = compared(expected, got)
    if finite and theirs.close:
        return ()
    exact, single = (
        _by_definition(source, shown, scores, got.shape, kind) for kind in (np.float64, np.float32)
    )
    known = exact is not None and bool(np.isfinite(exact).all())
    if known and exact is not None and single is not None:
        ours, rounded = compared(exact, got), compared(exact, single)
        if ours.close and not (rounded.close and np.isfinite(single).all()):
            return (_less_exact(source, compared(exact, expected), ours),)
    if not finite:
        raise _no_number(known)
    raise _differing(source, shown, theirs.difference)


@dataclass(frozen=True)
class _Comparison:
    """How far the logits of two graphs lie apart, and how far they may."""

    difference: float
    tolerance: float

    @property
    def close(self) -> bool:
        return self.difference <= self.tolerance


def _compare(expected: NDArray[Any], got: NDArray[Any], activation: str | None, half: bool) -> _Comparison:
    # A real image without an answer is named when the base data are measured.
    sure = np.isfinite(expected).all(axis=1)
    if not sure.any():
        return _Comparison(np.inf, 0.0)
    logits, others = (_as_logits(values[sure], activation, half) for values in (expected, got))
    return _Comparison(float(np.abs(logits - others).max()), _tolerance(logits, half))


def _by_definition(
    source: SourceModel, shown: Sequence[NDArray[Any]], output: str, shape: tuple[int, ...], kind: Any
) -> NDArray[np.float64] | None:
    """The source's outputs for all images in one precision; None where they cannot be told."""
    if source.interface.half or source.quantised is not None:
        return None
    written = rewritten_source(source)
    proto = load_source(source.path) if written is None else onnx.load_from_string(written)
    found = outputs_in(kind, proto, shown, output)
    return found.reshape(shape) if found is not None and found.size == np.prod(shape) else None


def _no_number(known: bool) -> ModelError:
    remedy = (
        "by its definition it does not. Build it with another release"
        if known
        else "nothing could be learned on it. Run it on real images first, and export it again"
    )
    return ModelError(
        "The source model gives NaN or infinity for ordinary noise on this ONNX Runtime "
        f"({load_onnxruntime().__version__}): {remedy}."
    )


def _less_exact(source: SourceModel, theirs: _Comparison, ours: _Comparison) -> str:
    off = f"is off by {theirs.difference:.2g}" if np.isfinite(theirs.difference) else "gives NaN or infinity"
    return (
        f"ONNX Runtime {load_onnxruntime().__version__} does not compute {source.path.name} exactly: it {off}, and "
        f"the bundle by {ours.difference:.2g}, both compared with float64. Exports are as exact as the bundle."
    )


def _batches(
    source: SourceModel, session: Any, real: NDArray[np.float32] | None
) -> list[NDArray[np.float32]]:
    """Two of noise, and the real images, each as large as the source wants it."""
    dims = session.get_inputs()[0].shape
    size = dims[0] if isinstance(dims[0], int) and dims[0] > 0 else 2
    picture = [int(n) for n in static_shape(source.image)[1:]]
    noise = noise_for(source, (_NOISES, size, *picture))
    if real is None or not len(real):
        return list(noise)
    count = -(-len(real) // size) * size
    return [*noise, *np.resize(real, (count // size, size, *picture))]


def noise_for(source: SourceModel, shape: Sequence[int]) -> NDArray[np.float32]:
    """What the prepared graph takes for an image, drawn at random: pixels where the network scales them itself."""
    rng = np.random.default_rng(0)
    pixels = source.pixels == BYTES
    return (rng.integers(0, 256, shape) if pixels else rng.normal(size=shape)).astype(np.float32)


def _prepared_outputs(
    prepared: Path | bytes, batches: Sequence[NDArray[np.float32]], where: str
) -> NDArray[np.float32]:
    """What the prepared graph gives, for two batches at once."""
    session = open_graph(prepared if isinstance(prepared, bytes) else str(prepared), PREPARED)
    pairs = [np.concatenate(batches[place : place + 2]) for place in range(0, len(batches), 2)]
    try:
        return np.concatenate(run(session, pairs, PREPARED))
    except ModelError:
        # Or on no number of images at all, which is said first.
        run(session, batches[:1], PREPARED)
        raise _one_batch_size(where, f"for {len(pairs[0])} images it does not run") from None


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
    """Why the outputs differ: the images beside an image, or a fault of the runtime or of ours."""
    session = open_source(source)
    scores = scores_of(source, session)
    (first,) = run(session, shown[:1], SOURCE, scores)
    if not isinstance(session.get_inputs()[0].shape[0], int):
        alone = np.concatenate(run(session, [one[None] for one in shown[0]], SOURCE, scores))
        apart = (
            float(np.abs(first.reshape(alone.shape) - alone).max()) if first.size == alone.size else np.inf
        )
        if apart > _OF_SPREAD * max(float(np.abs(first).max()), 1e-6):
            return ModelError(
                f"{source.path.name} answers to an image by the others in its batch: alone, it gives outputs that "
                f"differ by {apart:.2g}. Export the model for inference (model.eval()), without ops over the batch."
            )
    remedy = " Exported with opset 17 it may build." if source.facts.opset < TARGET_OPSET else ""
    return ModelError(
        f"After preparation the outputs of {source.path.name} differ by {difference:.2g} from the source model's, and "
        "which of the two is wrong cannot be told here. Try another release of ONNX Runtime, and please report the "
        f"model.{remedy}"
    )


def _one_batch_size(where: str, what: str) -> ModelError:
    return ModelError(f"{where} is written for one batch size: {what}. Export it again with a dynamic batch.")


def standard_ops_only(name: str, model: ir.Model) -> None:
    """Raise ModelError where a graph holds an op outside the `ai.onnx` domain."""
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{name} would need op '{node.domain}.{node.op_type}', which is not a standard op."
            )
