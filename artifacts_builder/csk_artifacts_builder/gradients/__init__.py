"""Reverse mode on ONNX graphs, in standard ONNX ops."""

from csk_artifacts_builder.gradients import (
    activations,
    arithmetic,
    convolution,
    indexing,
    layout,
    linear,
    normalization,
    pooling,
    reductions,
)
from csk_artifacts_builder.gradients.registry import registered_ops, vjp, vjp_of_all_outputs
from csk_artifacts_builder.gradients.reverse import Segment, differentiate

__all__ = ["Segment", "differentiate", "registered_ops", "vjp", "vjp_of_all_outputs"]

_RULE_MODULES = (
    activations,
    arithmetic,
    convolution,
    indexing,
    layout,
    linear,
    normalization,
    pooling,
    reductions,
)
