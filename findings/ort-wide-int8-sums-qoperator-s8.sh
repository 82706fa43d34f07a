#!/usr/bin/env bash
# A QOperator model with int8 activations, as quantize_static writes it (QuantFormat.QOperator, QuantType.QInt8), opens in ONNX
# Runtime 1.32.0 at its defaults, and does not with session.x64quantprecision = 1, which is what x86 CPUs without VNNI need for
# right int8 sums: the kernel becomes uint8, and its op has no kernel for int8 beside uint8 any more ("NOT_IMPLEMENTED").
# 1.22.1 opens it. So such a model is either wrong or does not open on such a CPU; QDQ files are not concerned.
# Expected: a session setting that asks for accuracy opens the same models. Exits 1 where that is so (or on CPUs that are not x86).
set -euo pipefail
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
"${PYTHON:-python3}" -m venv "$at/venv"
"$at/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 sympy==1.14.0
cd "$at"
"$at/venv/bin/python" - <<'END'
import logging
import sys

import numpy as np
import onnx.parser
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

logging.disable(logging.WARNING)
rng = np.random.default_rng(0)
model = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,6] x) => (float[N,6,4,4] y) { y = Conv(x, k) }'
)
model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=(6, 4, 3, 3)).astype(np.float32), "k"))
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "float.onnx")

class Images(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"x": rng.normal(size=(8, 4, 6, 6)).astype(np.float32)}])

    def get_next(self):
        return next(self.batches, None)

settings = {"quant_format": QuantFormat.QOperator, "activation_type": QuantType.QInt8}
quantize_static("float.onnx", "quantised.onnx", Images(), **settings)
opens = []
for wide in ("0", "1"):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", wide)
    try:
        ort.InferenceSession("quantised.onnx", options, providers=["CPUExecutionProvider"])
        opens.append(True)
        said = "opens"
    except Exception as error:
        opens.append(False)
        said = str(error)[:110]
    print(f"{ort.__version__}, x64quantprecision {wide}: {said}")
sys.exit(0 if opens == [True, False] else 1)
END
