"""Why a target has no gradient: what stands between it and the loss."""

from __future__ import annotations

from collections.abc import Container, Sequence

import onnx_ir as ir

from csk_artifacts_builder.gradients.registry import NOT_DIFFERENTIABLE
from csk_artifacts_builder.gradients.segment import Segment

_REMEDY = "Train only later layers with --trainable from:NODE."


def explain_missing(
    nodes: Sequence[ir.Node],
    target: ir.Value,
    seeds: Container[ir.Value],
    segments: Sequence[Segment],
    where: str,
) -> str:
    """One sentence on a target that reaches the seeds on no smooth path; `nodes` in graph order."""
    site = next((segment.name for segment in segments if target in segment.inputs and segment.name), None)
    who = f"site '{site}'" if site else f"'{target.name}'"
    path = _way(nodes, target, seeds)
    if path is None:
        return f"{who} of {where} does not reach the loss. {_REMEDY}"
    barrier = next((node for node in path if node.op_type in NOT_DIFFERENTIABLE), path[-1])
    return (
        f"{who} of {where} reaches the loss only through op '{barrier.op_type}' (node '{barrier.name}'), which has no "
        f"gradient. {_REMEDY}"
    )


def _way(nodes: Sequence[ir.Node], target: ir.Value, seeds: Container[ir.Value]) -> list[ir.Node] | None:
    """The nodes of one path from the target to a seed, smooth or not."""
    came_from: dict[ir.Value, tuple[ir.Node, ir.Value]] = {}
    reached = {target}
    for node in nodes:
        source = next((value for value in node.inputs if value is not None and value in reached), None)
        if source is None:
            continue
        for value in node.outputs:
            reached.add(value)
            came_from[value] = node, source
            if value in seeds:
                return _back(value, came_from)
    return None


def _back(value: ir.Value, came_from: dict[ir.Value, tuple[ir.Node, ir.Value]]) -> list[ir.Node]:
    path = []
    while value in came_from:
        node, value = came_from[value]
        path.append(node)
    return path[::-1]
