#!/usr/bin/env bash
# A pool with ceil_mode whose last window would begin behind the image, at opset 17 to 21: onnxruntime 1.32.0 leaves the
# window out, as torch does, but counts it when it infers shapes. So no linear layer fits behind a Flatten: the one that
# torch.onnx.export(dynamo=False) writes, for the 3x3 windows that there are, is refused when the model is opened, and one
# for the 4x4 that inference tells opens and fails when it runs. At opset 22 the same nodes work.
# Expected: a runtime opens the model whose numbers it computes. Exits 1 where that is no longer so.
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

POOL = "p = MaxPool <kernel_shape=[2,2], strides=[3,3], pads=[1,1,1,1], ceil_mode=1> (x)"
x = np.random.default_rng(0).normal(size=(1, 2, 8, 8)).astype(np.float32)


def outcome(opset, features):
    """The shape of what comes out, or where it fails: a pool alone, or with a linear layer for so many features."""
    ir = 10 if opset > 20 else 8
    layer = "f = Flatten (p) y = Gemm <transB=1> (f, w)" if features else "y = Identity (p)"
    kind = "float[1,3]" if features else "float[1,2,a,b]"
    text = f'<ir_version: {ir}, opset_import: ["" : {opset}]> g (float[1,2,8,8] x) => ({kind} y) {{ {POOL} {layer} }}'
    model = onnx.parser.parse_model(text)
    if features:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, features), np.float32), "w"))
    onnx.checker.check_model(model)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:
        return "refused"
    try:
        return session.run(None, {"x": x})[0].shape
    except Exception:
        return "fails when it runs"


print("onnxruntime", onnxruntime.__version__)
found = {}
for opset in (17, 21, 22):
    found[opset] = [outcome(opset, features) for features in (0, 2 * 3 * 3, 2 * 4 * 4)]
    alone, fitting, inferred = found[opset]
    print(f"opset {opset}: the pool alone {alone}; a layer for 3x3 windows: {fitting}; for 4x4: {inferred}")
seen = [(1, 2, 3, 3), "refused", "fails when it runs"]
sys.exit(0 if found[17] == found[21] == seen and found[22][:2] == [(1, 2, 3, 3), (1, 3)] else 1)
PYTHON
