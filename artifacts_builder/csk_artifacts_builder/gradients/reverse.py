"""The driver: walks the graph backwards from the loss to the trainable parts, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, static_shape
from csk_artifacts_builder.gradients.barriers import explain_missing
from csk_artifacts_builder.gradients.registry import NOT_DIFFERENTIABLE, pull_back
from csk_artifacts_builder.gradients.segment import Segment
from csk_sdk.errors import UnsupportedOpError


def differentiate(
    emit: Emitter,
    seeds: Mapping[ir.Value, ir.Value],
    targets: Iterable[ir.Value],
    segments: Sequence[Segment] = (),
    where: str = "the model",
) -> dict[ir.Value, ir.Value]:
    """Gradients of the loss with respect to `targets`.

    `seeds` holds the loss's gradient at some values. Only nodes on a path from a target to a seed are
    differentiated; what lies upstream of every target costs nothing.
    Raises UnsupportedOpError naming the first op on such a path that has no rule, and for a target that reaches no
    seed on a smooth path.
    """
    targets = list(targets)
    by_output = {segment.output: segment for segment in segments}
    inside = {node for segment in segments for node in segment.nodes}
    forward = list(emit.graph)
    active = _downstream(forward, targets, segments)
    gradients: dict[ir.Value, ir.Value] = dict(seeds)
    for node in reversed(forward):
        segment = next((by_output[value] for value in node.outputs if value in by_output), None)
        if segment is not None:
            g = gradients.get(segment.output)
            if g is not None:
                flags = [value in active for value in segment.inputs]
                _add_all(emit, gradients, segment.inputs, segment.rule(emit, g, flags), flags)
        elif node not in inside:
            _visit(emit, node, gradients, active, where, targets)
    for target in targets:
        if target not in gradients:
            raise UnsupportedOpError(explain_missing(forward, target, seeds, segments, where))
    return {target: gradients[target] for target in targets}


def _visit(
    emit: Emitter,
    node: ir.Node,
    gradients: dict[ir.Value, ir.Value],
    active: set[ir.Value],
    where: str,
    targets: Sequence[ir.Value],
) -> None:
    flags = tuple(value in active for value in node.inputs)
    if not any(flags) or node.op_type in NOT_DIFFERENTIABLE:
        return
    gs = [gradients.get(value) for value in node.outputs]
    if all(g is None for g in gs):
        return
    node.meta["needed"] = flags
    contributions = pull_back(emit, node, gs)
    if contributions is None:
        raise UnsupportedOpError(
            f"no gradient rule for '{node.op_type}' (node '{node.name}' of {where}, between the first site and "
            "the loss). Train only later layers with --trainable from:NODE, or add a rule: docs/adding-an-op.md"
        )
    _add_all(emit, gradients, node.inputs, contributions, flags)


def _add_all(
    emit: Emitter,
    gradients: dict[ir.Value, ir.Value],
    inputs: Sequence[ir.Value | None],
    contributions: Sequence[ir.Value | None],
    flags: Sequence[bool],
) -> None:
    for value, contribution, wanted in zip(inputs, contributions, flags, strict=False):
        if value is None or contribution is None or not wanted:
            continue
        contribution = _unbroadcast(emit, contribution, value)
        known = gradients.get(value)
        gradients[value] = contribution if known is None else emit.op("Add", known, contribution)


def _unbroadcast(emit: Emitter, g: ir.Value, x: ir.Value) -> ir.Value:
    """Sum `g` over the axes along which `x` was broadcast.

    Elementwise rules leave the output's shape on `g` (see `elementwise`); all others give `x`'s own shape and
    leave none.
    """
    if g.shape is None or x.shape is None:
        return g
    wide, narrow = static_shape(g), static_shape(x)
    if wide == narrow:
        return g
    extra = len(wide) - len(narrow)
    axes = [
        axis for axis in range(len(wide)) if axis < extra or (narrow[axis - extra] == 1 and wide[axis] != 1)
    ]
    if axes:
        g = emit.op("ReduceSum", g, emit.ints(*axes), keepdims=1)
    if extra:
        g = emit.op("Squeeze", g, emit.ints(*range(extra)))
    return g


def _downstream(
    nodes: Sequence[ir.Node], targets: Sequence[ir.Value], segments: Sequence[Segment]
) -> set[ir.Value]:
    """The targets and every value that changes smoothly with one of them."""
    active = set(targets)
    for node in nodes:
        if node.op_type not in NOT_DIFFERENTIABLE and any(value in active for value in node.inputs):
            active.update(node.outputs)
    return active
