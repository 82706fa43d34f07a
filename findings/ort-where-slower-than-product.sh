#!/usr/bin/env bash
# Where(mask, x, 0), the usual mask of a gradient: onnxruntime 1.32.0's CPU kernel takes several times as long for it as for the
# same by a product, Mul(x, Cast(mask)), though the product reads and writes more: it selects from either side into a tensor
# of its own, element by element, and then merges them. 0.5 ms where 0.06 are enough, for 131,072 numbers on one thread.
# Expected: one pass over memory is no slower than two. Exits 1 where the product is no longer three times as fast, or
# where the two differ.
set -euo pipefail
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
"${PYTHON:-python3}" -m venv "$at/venv"
"$at/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import sys
import time

import numpy as np
import onnx
import onnx.parser
import onnxruntime

SHAPE = (16, 128, 8, 8)
BODY = {"Where": "y = Where (mask, x, zero)", "product": "one = Cast <to = 1> (mask)\n y = Mul (x, one)"}
rng = np.random.default_rng(0)
given = {"mask": rng.random(SHAPE) < 0.5, "x": rng.normal(size=SHAPE).astype(np.float32)}


def session(body):
    zero = "<float zero = {0.0}>" if "zero" in body else ""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (bool[N,C,H,W] mask, float[N,C,H,W] x) => (float[N,C,H,W] y) {zero} {{ {body} }}"""
    found = onnx.parser.parse_model(text)
    onnx.checker.check_model(found, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(found.SerializeToString(), options, providers=["CPUExecutionProvider"])


sessions = {name: session(body) for name, body in BODY.items()}
answers = {name: one.run(None, given)[0] for name, one in sessions.items()}
best = dict.fromkeys(sessions, float("inf"))
for _ in range(20):
    for name, one in sessions.items():
        begun = time.process_time()
        for _ in range(20):
            one.run(None, given)
        best[name] = min(best[name], (time.process_time() - begun) / 20)
print("onnxruntime", onnxruntime.__version__)
print(", ".join(f"{name} {1e3 * seconds:.3f} ms" for name, seconds in best.items()))
same = np.array_equal(*answers.values())
print("the same numbers" if same else "other numbers")
sys.exit(not (same and best["Where"] > 3 * best["product"]))
PYTHON
