"""`make bench`: csk-sdk's training step beside those of other runtimes, in one interleaved run."""

import os

# In front of onnxruntime, whose telemetry would leave files in the home of whoever measures: its peer has no csk_sdk.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
