#!/usr/bin/env bash
# A graph input with a default (an initializer of the same name, which ONNX lets a caller override): OpenVINO's execution provider
# in onnxruntime-openvino 1.24.1 computes with the default and ignores the value that was fed, without an error. It lists the input
# as one that can be overridden. In csk-sdk's training graphs these are the class mask and the label smoothing.
# Expected: 3 * x on both providers, since 3 is fed. The CPU's own kernels give that, OpenVINO gives 1 * x.
# Exits 1 where that is no longer so. Needs Python 3.11 or newer, on x86-64 Linux.
set -euo pipefail
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
"${PYTHON:-python3}" -m venv "$at/venv"
"$at/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnxruntime-openvino==1.24.1 onnx==1.23.2 numpy==2.4.6
cd "$at"
ORT_DISABLE_TELEMETRY=1 "$at/venv/bin/python" - 2> "$at/log" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

graph = helper.make_graph(
    [helper.make_node("Mul", ["x", "gain"], ["y"])],
    "g",
    [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]),
        helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1]),
    ],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
    [helper.make_tensor("gain", TensorProto.FLOAT, [1], [1.0])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
x, gain = np.arange(4, dtype=np.float32), np.array([3], np.float32)
found = {}
for provider in ("CPUExecutionProvider", "OpenVINOExecutionProvider"):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[provider])
    assert provider in session.get_providers()
    assert [one.name for one in session.get_overridable_initializers()] == ["gain"]
    found[provider] = session.run(None, {"x": x, "gain": gain})[0].tolist()
print(f"onnxruntime-openvino {onnxruntime.__version__}: gain 3 is fed, its default is 1")
for provider, y in found.items():
    print(f"  {provider}: {y}")
same = found["OpenVINOExecutionProvider"] == x.tolist() and found["CPUExecutionProvider"] == (3 * x).tolist()
print("as described" if same else "no longer as described")
sys.exit(not same)
PYTHON
