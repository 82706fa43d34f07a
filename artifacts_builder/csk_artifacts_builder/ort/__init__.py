"""The artifacts of onnxruntime-training."""
