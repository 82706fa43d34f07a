"""Checks that the builder makes on its own work before it writes anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.prepare.constant_sizes import infer_where_possible
from csk_artifacts_builder.prepare.interface import Interface
from csk_artifacts_builder.prepare.model import load_source
from csk_artifacts_builder.prepare.pools import write_windows
from csk_sdk.errors import ModelError
from csk_sdk.runtime.allocator import returning_memory
from csk_sdk.runtime.sessions import has_training_package, load_onnxruntime, open_session

_TOLERANCE = 1e-3
# From here on ONNX Runtime divides and counts the windows of pools as torch does (decision 0025): 1.25 did not.
_ONE_READING = (1, 30)
# A float16 source rounds to 11 bits after every layer, and the prepared graph does not.
_TOLERANCE_OF_HALF = 3e-2


def same_logits(source: Path, prepared: Path, interface: Interface, picture: Sequence[int]) -> None:
    """Run the source model on random pictures, batch by batch, and the prepared graph on two batches at once.

    Both are files, opened one after the other, so that the weights are in memory once; `picture` is the shape of one
    for the prepared graph. Raises ModelError where their outputs differ by more than 1e-3 of the largest (3e-2 for a
    float16 source), or one does not run.
    """
    session = _open_source(source)
    dims = session.get_inputs()[0].shape
    batch = dims[0] if isinstance(dims[0], int) and dims[0] > 0 else 2
    x = np.random.default_rng(0).normal(size=(2, batch, *picture)).astype(np.float32)
    shown = [interface.source_input(pictures) for pictures in x]
    expected = np.concatenate(_run(session, shown, "the source model")).astype(np.float32)
    if not np.isfinite(expected).all():
        raise ModelError(
            "The source model gives NaN or infinity for ordinary noise on this ONNX Runtime: nothing could be learned "
            "on it. Run it on real images first, and export it again."
        )
    del session
    session = _open(str(prepared), "the model after preparation")
    try:
        (got,) = _run(session, [x.reshape(-1, *picture)], "the model after preparation")
    except ModelError:
        # Or on no number of pictures at all, which is said first.
        _run(session, [x[0]], "the model after preparation")
        raise _one_batch_size(f"for {2 * batch} pictures it does not run") from None
    if got.size != expected.size:
        raise _one_batch_size(f"for {2 * batch} pictures it gives outputs {list(got.shape)}")
    difference = float(np.abs(expected - got.reshape(expected.shape)).max())
    tolerance = _TOLERANCE_OF_HALF if interface.half else _TOLERANCE
    if not difference <= tolerance * max(1.0, float(np.abs(expected).max())):
        raise ModelError(
            f"After preparation the model's outputs differ by {difference:.2g} from the source model's. "
            "Please report this model: it must not happen."
        )


def _one_batch_size(what: str) -> ModelError:
    return ModelError(
        f"The model is written for one batch size: {what}. Export it again with a dynamic batch."
    )


def _open_source(path: Path) -> Any:
    """The source model as it is, or with its pools' windows as numbers where this runtime reads them otherwise.

    Of opsets below 22 every release counts windows that torch leaves out, and refuses the classifier behind them.
    """
    version = tuple(map(int, load_onnxruntime().__version__.split(".")[:2]))
    rewritten = _with_windows(path) if version < _ONE_READING else None
    try:
        return _open(rewritten or _inlined(path) or str(path), "the source model")
    except ModelError:
        rewritten = _with_windows(path)
        if rewritten is None:
            raise
        return _open(rewritten, "the source model")


def _with_windows(path: Path) -> bytes | None:
    """The source with its pools' windows as numbers, or None where there is nothing to write."""
    model = ir.from_proto(load_source(path))
    infer_where_possible(model)
    return bytes(ir.to_proto(model).SerializeToString()) if write_windows(model, path.name) else None


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


def _run(session: Any, batches: Sequence[NDArray[Any]], which: str) -> list[NDArray[np.float32]]:
    name = session.get_inputs()[0].name
    try:
        return [session.run(None, {name: batch})[0] for batch in batches]
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
