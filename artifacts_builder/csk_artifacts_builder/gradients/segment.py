"""Parts of a graph with a gradient rule of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter

SegmentRule = Callable[[Emitter, ir.Value, Sequence[bool]], Sequence[ir.Value | None]]


@dataclass(frozen=True)
class Segment:
    """Several nodes with one gradient rule of their own, such as a site with its center branch.

    `rule(emit, g, needed)` returns one gradient for each of `inputs`; `name` is for messages.
    """

    nodes: frozenset[ir.Node]
    inputs: tuple[ir.Value, ...]
    output: ir.Value
    rule: SegmentRule
    name: str = ""
