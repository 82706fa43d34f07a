"""csk-sdk's workstation side: from a trained ONNX classifier to a bundle."""

import logging

from csk_artifacts_builder.build import BuildReport, build_artifacts
from csk_artifacts_builder.frameworks.keras_model import from_keras
from csk_artifacts_builder.frameworks.torch_module import from_torch
from csk_artifacts_builder.options import BuildOptions
from csk_artifacts_builder.planning.trial import Trial, try_model

__all__ = ["BuildOptions", "BuildReport", "Trial", "build_artifacts", "from_keras", "from_torch", "try_model"]

# What these libraries log is no sentence for a user: it is there for who sets a handler of their own.
for _library in ("onnx_ir", "onnxscript"):
    logging.getLogger(_library).addHandler(logging.NullHandler())
