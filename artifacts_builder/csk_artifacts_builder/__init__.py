"""csk-sdk's workstation side: from a trained ONNX classifier to a bundle."""

from csk_artifacts_builder.build import BuildReport, build_artifacts
from csk_artifacts_builder.frameworks.torch_module import from_torch
from csk_artifacts_builder.options import BuildOptions
from csk_artifacts_builder.planning.trial import Trial, try_model

__all__ = ["BuildOptions", "BuildReport", "Trial", "build_artifacts", "from_torch", "try_model"]
