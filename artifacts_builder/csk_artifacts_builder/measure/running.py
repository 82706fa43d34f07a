"""The source model and the prepared one in ONNX Runtime, and why one does not run there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from csk_artifacts_builder.prepare.constant_sizes import infer_where_possible
from csk_artifacts_builder.prepare.ending import choose_output, cut_labels
from csk_artifacts_builder.prepare.inference import to_inference
from csk_artifacts_builder.prepare.model import SourceModel
from csk_artifacts_builder.prepare.pools import write_windows
from csk_artifacts_builder.prepare.quantized_ending import bare_scores, scores_as_float
from csk_artifacts_builder.prepare.source_file import load_source
from csk_sdk.errors import ModelError
from csk_sdk.runtime.allocator import returning_memory
from csk_sdk.runtime.reasons import reason_of
from csk_sdk.runtime.sessions import has_training_package, load_onnxruntime, open_session

# What messages call the two graphs.
SOURCE, PREPARED = "the source model", "the model after preparation"
# From here on ONNX Runtime divides and counts the windows of pools as torch does (decision 0025): 1.25 did not.
_ONE_READING = (1, 30)


def open_source(source: SourceModel) -> Any:
    """The source model as it is, or written as this runtime computes it by the standard.

    Of opsets below 22 every release counts windows that torch leaves out, and refuses the classifier behind them.
    """
    version = tuple(map(int, load_onnxruntime().__version__.split(".")[:2]))
    path = source.path
    rewritten = rewritten_source(source) if source.rewritten or version < _ONE_READING else None
    try:
        return open_graph(rewritten or _inlined(path) or str(path), SOURCE)
    except ModelError:
        rewritten = rewritten_source(source)
        if rewritten is None:
            raise
        return open_graph(rewritten, SOURCE)


def rewritten_source(source: SourceModel) -> bytes | None:
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


def open_graph(model: str | bytes, which: str) -> Any:
    """A session for a few runs of a file or of bytes; `which` is what a ModelError calls it."""
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


def scores_of(source: SourceModel, session: Any) -> str:
    """The source's output that is compared; where labels are cut off, the only one."""
    names = [output.name for output in session.get_outputs()]
    return source.output if source.output in names else names[0]


def run(
    session: Any, batches: Sequence[NDArray[Any]], which: str, output: str | None = None
) -> list[NDArray[np.float32]]:
    """The output `output`, the first by default, for each batch; `which` is what a ModelError calls the graph."""
    name = session.get_inputs()[0].name
    try:
        return [session.run(output and [output], {name: batch})[0] for batch in batches]
    except Exception as error:
        raise _cannot_run(which, error) from None


def run_all(session: Any, batch: NDArray[Any], which: str) -> list[NDArray[np.float32]]:
    """Every output for one batch; `which` is what a ModelError calls the graph."""
    try:
        return list(session.run(None, {session.get_inputs()[0].name: batch}))
    except Exception as error:
        raise _cannot_run(which, error) from None


def _cannot_run(which: str, error: Exception) -> ModelError:
    what = " Another release may, or export the model again with opset 17." if which == SOURCE else ""
    return ModelError(
        f"ONNX Runtime {load_onnxruntime().__version__} cannot run {which} ({reason_of(error)}).{what}"
    )
