"""Reverse mode on ONNX graphs, in standard ONNX ops."""

from csk_artifacts_builder.gradients import activations, arithmetic, convolution, layout, linear, pooling
from csk_artifacts_builder.gradients.registry import registered_ops, vjp
from csk_artifacts_builder.gradients.reverse import Segment, differentiate

__all__ = ["Segment", "differentiate", "registered_ops", "vjp"]

_RULE_MODULES = (activations, arithmetic, convolution, layout, linear, pooling)
