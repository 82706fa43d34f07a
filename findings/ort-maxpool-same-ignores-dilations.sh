#!/usr/bin/env bash
# MaxPool with auto_pad SAME_UPPER or SAME_LOWER and dilations: onnxruntime 1.32.0 (and 1.17.0 to 1.31.1) pads as if the
# window were not dilated, so 8 values become 6 and not ceil(8 / stride) = 8, which the operator's text, onnx's and
# onnxruntime's own shape inference say; the only sign is a warning in the log. The same padding written as numbers is
# right, and Conv refuses the combination in words. So a network with a few of them computes other maxima, without an error.
# Expected: what the operator's text says, or a refusal as of Conv. Exits 1 where that is no longer so.
set -euo pipefail
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
"${PYTHON:-python3}" -m venv "$at/venv"
"$at/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$at"
"$at/venv/bin/python" - 2> "$at/log" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnx.parser
import onnxruntime

x = np.arange(8, dtype=np.float32).reshape(1, 1, 8)


def run(attributes, op="MaxPool", weight=""):
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[1,1,8] x) => (float[1,1,a] y) {{ y = {op} <{attributes}> (x{weight}) }}'
    model = onnx.parser.parse_model(text)
    if weight:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1, 3), np.float32), "w"))
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape.dim[2].dim_value
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0].ravel().tolist(), inferred
    except Exception as error:
        return str(error).rsplit("Status Message: ", 1)[-1], inferred


print("onnxruntime", onnxruntime.__version__)
same, inferred = run('kernel_shape=[3], dilations=[2], auto_pad="SAME_UPPER"')
print(f"SAME_UPPER, kernel 3, dilation 2: {same}, where shape inference says {inferred} values")
written, _ = run("kernel_shape=[3], dilations=[2], pads=[2, 2]")
print(f"the same padding as numbers:      {written}")
refused, _ = run('dilations=[2], auto_pad="SAME_UPPER"', "Conv", ", w")
print(f"Conv: {refused}")
known = same == [3, 4, 5, 6, 7, 6] and inferred == 8 and written == [2, 3, 4, 5, 6, 7, 6, 7] and isinstance(refused, str)
sys.exit(0 if known else 1)
PYTHON
