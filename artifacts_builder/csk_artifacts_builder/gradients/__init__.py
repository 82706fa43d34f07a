"""Reverse mode on ONNX graphs, in standard ONNX ops."""

from importlib import import_module
from pkgutil import iter_modules

from csk_artifacts_builder.gradients.registry import registered_ops, vjp, vjp_of_all_outputs
from csk_artifacts_builder.gradients.reverse import differentiate
from csk_artifacts_builder.gradients.segment import Segment

__all__ = ["Segment", "differentiate", "registered_ops", "vjp", "vjp_of_all_outputs"]

# A module registers its rules when it is imported; a new one needs no entry anywhere.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
