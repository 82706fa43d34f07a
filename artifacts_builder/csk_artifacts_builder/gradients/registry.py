"""The table of gradient rules: one small function for each op.

A rule is called as `rule(emit, node, g)` with the gradient `g` of the node's first output, and returns one
gradient for each input, or None where that input has none or needs none. It may skip work for inputs that are not
in `needed`, which the driver hands over as `node.meta["needed"]`, a tuple of bools.

    @vjp("Tanh")
    def tanh(emit, node, g):
        \"\"\"dx = g * (1 - y^2)\"\"\"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter

Rule = Callable[[Emitter, ir.Node, ir.Value], Sequence[ir.Value | None]]

_RULES: dict[str, Rule] = {}
# Ops through which no gradient flows: their outputs are indices, sizes or truth values.
NOT_DIFFERENTIABLE = frozenset(
    {"Shape", "Size", "ArgMax", "ArgMin", "Equal", "Greater", "Less", "Not", "NonZero", "ConstantOfShape"}
)


def vjp(*op_types: str) -> Callable[[Rule], Rule]:
    """Register the decorated function as the gradient rule of these ops; registering one twice fails."""

    def register(rule: Rule) -> Rule:
        for op_type in op_types:
            if op_type in _RULES:
                raise ValueError(f"a gradient rule for '{op_type}' exists already")
            _RULES[op_type] = rule
        return rule

    return register


def rule_for(op_type: str) -> Rule | None:
    """The rule of an op, or None."""
    return _RULES.get(op_type)


def registered_ops() -> frozenset[str]:
    """All ops with a rule."""
    return frozenset(_RULES)


def needed(node: ir.Node, position: int) -> bool:
    """Whether the driver wants the gradient of this input."""
    flags = node.meta.get("needed", ())
    return position < len(flags) and bool(flags[position])
