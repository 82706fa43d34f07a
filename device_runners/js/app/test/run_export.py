"""An exported model on images, with ONNX Runtime and Pillow alone: prints the classes as JSON.

run_export.py MODEL DIGITS_JSON PICTURE...
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported
import onnxruntime as ort

model, described, *paths = sys.argv[1:]
session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
(given,) = session.get_inputs()
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
normalize = json.loads(Path(described).read_text())["normalize"]
_, channels, height, width = given.shape
said = []
for path in paths:
    picture = Image.open(path).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
    image = (pixels.reshape(height, width, channels) - normalize["mean"]) / normalize["std"]
    (logits,) = session.run(None, {given.name: image.transpose(2, 0, 1)[None].astype(np.float32)})
    said.append(classes[int(logits[0].argmax())])
print(json.dumps(said))
