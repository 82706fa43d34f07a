"""ONNX Runtime: found, opened in one way, and what it computes on this CPU."""
