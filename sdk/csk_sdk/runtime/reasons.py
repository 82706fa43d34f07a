"""What ONNX Runtime's exceptions say, as part of a sentence."""

from __future__ import annotations

import re

_MOST = 300


def reason_of(error: Exception) -> str:
    """The first line of an error without its code, and without the C++ line and signature in front of what it says."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = re.sub(r"^.*?\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^(Failed to load model with error: |Load model from .*? failed: ?)", "", text)
    text = re.sub(r"^/\S+:\d+ .*?\) (const )?(?=\S)", "", text)
    known = re.search(r"Opset (\d+) is under development .* is till opset (\d+)", text)
    if known:
        return f"it knows opsets up to {known[2]}, and this is opset {known[1]}"
    text = text.rstrip(". ")
    return text if len(text) <= _MOST else f"{text[:_MOST].rsplit(' ', 1)[0]} ..."
