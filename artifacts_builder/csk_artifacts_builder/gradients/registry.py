"""The table of gradient rules: one small function for each op.

A rule is called as `rule(emit, node, g)` with the gradient `g` of the node's first output, and returns one
gradient for each input, or None where that input has none or needs none. It may skip work for inputs that are not
in `needed`, which the driver hands over as `node.meta["needed"]`, a tuple of bools.

    @vjp("Tanh")
    def tanh(emit, node, g):
        \"\"\"dx = g * (1 - y^2)\"\"\"

An op with several smooth outputs registers with `vjp_of_all_outputs`: its rule is called as `rule(emit, node, gs)` with
one gradient for each output, None where nobody uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter

Rule = Callable[[Emitter, ir.Node, ir.Value], Sequence[ir.Value | None]]

RuleOfAllOutputs = Callable[[Emitter, ir.Node, Sequence[ir.Value | None]], Sequence[ir.Value | None]]

_RULES: dict[str, Rule] = {}
_RULES_OF_ALL_OUTPUTS: dict[str, RuleOfAllOutputs] = {}
# Ops through which no gradient flows: their outputs are indices, sizes or truth values.
NOT_DIFFERENTIABLE = frozenset(
    {
        *("Shape", "Size", "ArgMax", "ArgMin", "NonZero", "ConstantOfShape"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsInf", "IsNaN"),
        *("And", "Not", "Or", "Xor"),
    }
)


def vjp(*op_types: str) -> Callable[[Rule], Rule]:
    """Register the decorated function as the gradient rule of these ops; registering one twice fails."""

    def register(rule: Rule) -> Rule:
        for op_type in op_types:
            _refuse_second(op_type)
            _RULES[op_type] = rule
        return rule

    return register


def vjp_of_all_outputs(*op_types: str) -> Callable[[RuleOfAllOutputs], RuleOfAllOutputs]:
    """The same for ops whose rule needs the gradients of all their outputs."""

    def register(rule: RuleOfAllOutputs) -> RuleOfAllOutputs:
        for op_type in op_types:
            _refuse_second(op_type)
            _RULES_OF_ALL_OUTPUTS[op_type] = rule
        return rule

    return register


def _refuse_second(op_type: str) -> None:
    if op_type in registered_ops():
        raise ValueError(f"a gradient rule for '{op_type}' exists already")


def pull_back(
    emit: Emitter, node: ir.Node, gs: Sequence[ir.Value | None]
) -> Sequence[ir.Value | None] | None:
    """The gradients of a node's inputs from those of its outputs, or None where no rule covers that."""
    if node.domain != "":
        return None
    if node.op_type in _RULES_OF_ALL_OUTPUTS:
        return _RULES_OF_ALL_OUTPUTS[node.op_type](emit, node, gs)
    rule, (g, *others) = _RULES.get(node.op_type), gs
    if rule is None or g is None or any(other is not None for other in others):
        return None
    return rule(emit, node, g)


def registered_ops() -> frozenset[str]:
    """All ops with a rule."""
    return frozenset(_RULES) | frozenset(_RULES_OF_ALL_OUTPUTS)


def needed(node: ir.Node, position: int) -> bool:
    """Whether the driver wants the gradient of this input."""
    flags = node.meta.get("needed", ())
    return position < len(flags) and bool(flags[position])
