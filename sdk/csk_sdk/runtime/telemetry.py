"""ONNX Runtime's telemetry stays off; csk_sdk/__init__.py imports this before anything else.

Since 1.29.0 its packages for Linux have telemetry, on by default: the first session of a user leaves a device id and a
database of events under the cache folder. `onnxruntime.disable_telemetry_events()` does not prevent that; this variable
does, read once when onnxruntime is imported. An application that wants telemetry sets it to 0 itself.
"""

from __future__ import annotations

import os

VARIABLE = "ORT_DISABLE_TELEMETRY"

os.environ.setdefault(VARIABLE, "1")


def is_off() -> bool:
    """Whether the application left telemetry off."""
    return os.environ.get(VARIABLE) != "0"
