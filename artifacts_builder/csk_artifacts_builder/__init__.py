"""csk-sdk's workstation side: from a trained ONNX classifier to a bundle."""

from csk_artifacts_builder.build import BuildOptions, BuildReport, build_artifacts

__all__ = ["BuildOptions", "BuildReport", "build_artifacts"]
