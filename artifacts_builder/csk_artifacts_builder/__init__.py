"""csk-sdk's workstation side: from a trained ONNX classifier to a bundle."""

from csk_artifacts_builder.build import BuildReport, build_artifacts
from csk_artifacts_builder.options import BuildOptions

__all__ = ["BuildOptions", "BuildReport", "build_artifacts"]
