"""One small graph's gradients as onnxruntime-training computes them, beside those of the portable rules."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, constant_array, static_shape
from csk_artifacts_builder.gradients import differentiate
from csk_artifacts_builder.ort.dialect import speak_ort
from csk_sdk.runtime.sessions import import_training, open_session, session_options

Arrays = dict[str, NDArray[np.float32]]
_PARAMETER = "{}.parameter"
_BATCH = 2
_TINY = float(np.finfo(np.float32).tiny)


def ort_gradients(
    forward: ir.Model, feeds: Mapping[str, NDArray[np.float32]], g: NDArray[np.float32], raw: bool = False
) -> Arrays:
    """The gradient of `sum(g * y)` by every input of `forward`, y its first output, at `feeds`; by the input's name.

    With `raw`, ops are left as they are, and not first written in the package's dialect (`ort_dialect`).
    `forward` is changed. Axes that are open there (the batch) stay open, as they are in the artifacts. Raises whatever
    the package raises where it has no gradient.
    """
    artifacts, api = import_training("artifacts"), import_training("api")
    graph, names = forward.graph, [str(value.name) for value in forward.graph.inputs]
    emit = Emitter(graph)
    y = graph.outputs[0]
    taken = [_as_parameter(emit, value, feeds[str(value.name)]) for value in list(graph.inputs)]
    weights = emit.input("g", ir.DataType.FLOAT, list(y.shape or ()))  # type: ignore[arg-type]
    loss = emit.op("ReduceSum", emit.op("Mul", y, weights), keepdims=0)
    graph.outputs.clear()
    emit.output(loss, "loss", [])
    passes.TopologicalSortPass()(forward)
    trained = [_PARAMETER.format(name) for name in names]
    passes.NameFixPass()(forward) if raw else speak_ort(forward, trained)
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        artifacts.generate_artifacts(
            ir.to_proto(forward),
            requires_grad=trained,
            frozen_params=[],
            artifact_directory=folder,
        )
        state = api.CheckpointState.load_checkpoint(str(folder / "checkpoint"))
        module = api.Module(
            str(folder / "training_model.onnx"), state, str(folder / "eval_model.onnx"),
            session_options=session_options(),
        )  # fmt: skip
        module.train()
        module(*taken, g)
        return {
            name: state.parameters[_PARAMETER.format(name)].grad.reshape(feeds[name].shape).copy()
            for name in names
        }


def _as_parameter(emit: Emitter, x: ir.Value, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put a product of an input (fed with the identity that is returned) and a parameter in place of the graph input x.

    So x is a computed value as in a network, and its first axis stays open where it is.
    """
    graph, shape = emit.graph, static_shape(x)
    graph.inputs.remove(x)
    rows = values.reshape(values.shape[0] if values.ndim else 1, -1)
    first = shape[0] if shape else 1
    parameter = emit.initializer(rows, _PARAMETER.format(x.name))
    chosen = emit.input(f"{x.name}.rows", ir.DataType.FLOAT, [first, len(rows)])
    front = next(iter(graph))
    with emit.before(front):
        dims = [dim if isinstance(dim, int) else -1 for dim in shape]
        made = emit.op("Reshape", emit.op("MatMul", chosen, parameter), emit.ints(*dims))
    made.shape, made.dtype = x.shape, ir.DataType.FLOAT
    x.replace_all_uses_with(made, replace_graph_outputs=True)
    return np.eye(len(rows), dtype=np.float32)


def portable_gradients(
    forward: ir.Model, feeds: Mapping[str, NDArray[np.float32]], g: NDArray[np.float32]
) -> Arrays:
    """The same by the portable rules. Raises UnsupportedOpError where there is none."""
    graph, inputs = forward.graph, list(forward.graph.inputs)
    emit, y = Emitter(graph), graph.outputs[0]
    seed = emit.input("g", ir.DataType.FLOAT, list(y.shape or ()))  # type: ignore[arg-type]
    gradients = differentiate(emit, {y: seed}, inputs)
    graph.outputs.clear()
    for x in inputs:
        emit.output(gradients[x], f"{x.name}.gradient", list(x.shape or ()))  # type: ignore[arg-type]
    passes.TopologicalSortPass()(forward)
    found = _run(forward, {**feeds, "g": g})
    return {str(x.name): gradient for x, gradient in zip(inputs, found, strict=True)}


def relative_difference(right: NDArray[Any], got: NDArray[Any], least: float = 0.0) -> float:
    """The norm of the difference over that of what is right, or over `least` if that is more; 0 where both are 0."""
    if not right.size or np.array_equal(right, got):
        return 0.0
    norm = float(np.linalg.norm(right.astype(np.float64)))
    return float(np.linalg.norm(got.astype(np.float64) - right)) / max(norm, least, _TINY)


def wrong_by(node: ir.Node) -> float:
    """How far the package's gradient of one node by its computed inputs is off, relative to the portable rule's.

    At random inputs; infinite where it has not even the right shape, 0 where there is nothing to compare.
    """
    forward = _alone(node)
    if forward is None or not forward.graph.inputs:
        return 0.0
    rng = np.random.default_rng(0)
    feeds = {
        str(x.name): rng.normal(
            size=[dim if isinstance(dim, int) else _BATCH for dim in static_shape(x)]
        ).astype(np.float32)
        for x in forward.graph.inputs
    }
    try:
        (y,) = _run(forward.clone(), feeds)
        g = rng.normal(size=y.shape).astype(np.float32)
        ours = portable_gradients(forward.clone(), feeds, g)
    except Exception:
        return 0.0  # not on random numbers, or no rule
    try:
        theirs = ort_gradients(forward, feeds, g)
    except Exception:
        return float("inf")
    return max(relative_difference(ours[name], theirs[name]) for name in feeds)


def _alone(node: ir.Node) -> ir.Model | None:
    """A graph of this node, its constants, and its computed float inputs as the graph's; None for others."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 17}, name="alone")
    emit, taken = Emitter(graph), {}
    for x in node.inputs:
        array = constant_array(x)
        if x is None or x in taken:
            continue
        if array is not None:
            taken[x] = emit.initializer(array, str(x.name))
        elif x.dtype == ir.DataType.FLOAT and x.shape is not None:
            taken[x] = emit.input(str(x.name), ir.DataType.FLOAT, list(static_shape(x)))
        else:
            return None
    attributes = {name: value.value for name, value in node.attributes.items()}
    outputs = emit.ops(
        node.op_type, *(x and taken[x] for x in node.inputs), outputs=len(node.outputs), **attributes
    )
    for made, y in zip(outputs, node.outputs, strict=True):
        made.name, made.shape, made.dtype = y.name, y.shape, ir.DataType.FLOAT
    used = [made for made, y in zip(outputs, node.outputs, strict=True) if y.uses()] or list(outputs[:1])
    graph.outputs.append(used[0])
    return ir.Model(graph, ir_version=8)


def _run(model: ir.Model, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    session = open_session(ir.to_proto(model).SerializeToString(), session_options())
    found: list[NDArray[np.float32]] = session.run(None, dict(feeds))
    return found
