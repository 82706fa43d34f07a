"""Measuring how far activations reach, and dividing those by powers of two that reach beyond float16."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.measure.running import PREPARED, open_graph, run_all
from csk_artifacts_builder.prepare.exponents import may_grow
from csk_artifacts_builder.prepare.level import level
from csk_artifacts_builder.prepare.model import SourceModel
from csk_artifacts_builder.prepare.source_file import require_writable
from csk_sdk.errors import ModelError

# The largest number that float32 has a square of.
_SQUARED = float(np.sqrt(np.finfo(np.float32).max))


def leveled(source: SourceModel, images: NDArray[np.float32]) -> SourceModel:
    """The source with its activations within float16 for these images, where powers of two bring them there.

    With the same images a file gets the same powers, so that a bundle that is built anew has the same features. The
    very source where none of them lies beyond, where it is quantised, and where nothing runs, which is said when it is
    compared with its file.
    """
    if source.quantised is not None:
        return source
    try:
        largest = reached(source.model, images)
    except ModelError:
        return source
    model = source.model.clone()
    smaller = level(model, largest)
    if not smaller:
        return source
    most = max(largest[name] for name in smaller if name in largest)
    beyond = (
        "more than float16 and squares in float32 hold"
        if most > _SQUARED
        else "near or beyond what float16 holds"
    )
    said = (
        f"activations of {source.path.name} reach {most:.1e}, {beyond}: layers give them divided by powers "
        "of two, which the classifier multiplies by again, so the scores are the same numbers."
    )
    return replace(source, model=model, notes=(*source.notes, said))


def reached(model: ir.Model, images: NDArray[np.float32]) -> dict[str, float]:
    """The largest absolute number of every activation, by name; ops that only move numbers are left out.

    Raises ModelError where the graph does not run.
    """
    measured = model.clone()
    emit = Emitter(measured.graph)
    values = [value for node in measured.graph for value in may_grow(node) if value.name]
    tensors = [value.const_value for value in measured.graph.initializers.values()]
    require_writable(sum(tensor.nbytes for tensor in tensors if tensor is not None), "The model")
    measured.graph.outputs.clear()
    for number, value in enumerate(values):
        with emit.behind(value.producer()):
            emit.output(emit.op("ReduceMax", emit.op("Abs", value), keepdims=0), f"csk.reached.{number}", [])
    graph = open_graph(ir.to_proto(measured).SerializeToString(), PREPARED)
    found = run_all(graph, images, PREPARED)
    return {str(value.name): float(one) for value, one in zip(values, found, strict=True)}
