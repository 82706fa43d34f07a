#!/usr/bin/env bash
# Two QLinearConv that read the same int8 kernel (a layer used twice, or the phases of a strided kernel's gradient):
# onnxruntime 1.32.0 opens the model, but refuses it once session.x64quantprecision = 1 asks for int8 sums that do not
# saturate on x86 ("Attempt to replace the existing tensor"). One shared zero point is enough; it need not be shared in
# the file either, since the default optimisation merges equal nodes first. A kernel and a zero point for each works.
# Expected: a setting about precision opens every model that opens without it. Exits 1 where that is no longer so.
# x86-64 only: elsewhere the setting does nothing.
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

KERNEL = ", ".join(str(value) for value in np.random.default_rng(0).integers(-127, 128, 16))


def model(kernel, zero):
    """Two layers; the second reads kernel and zero point of these names."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (uint8[1,4,3,3] x) => (uint8[1,4,3,3] y)
      <float one = {{1.0}}, float unit = {{1000.0}}, uint8 z = {{0}}, int8 m1 = {{0}}, int8 m2 = {{0}},
       int8[4,4,1,1] k1 = {{{KERNEL}}}, int8[4,4,1,1] k2 = {{{KERNEL}}}> {{
        a = QLinearConv (x, one, z, k1, one, m1, unit, z)
        y = QLinearConv (a, one, z, {kernel}, one, {zero}, unit, z)
    }}"""
    found = onnx.parser.parse_model(text)
    onnx.checker.check_model(found, full_check=True)
    return found.SerializeToString()


def opens(content, wide):
    options = onnxruntime.SessionOptions()
    if wide:
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception:
        return False
    return True


print("onnxruntime", onnxruntime.__version__)
found = {}
for what, names in {"nothing": ("k2", "m2"), "the zero point": ("k2", "m1"), "kernel and zero point": ("k1", "m1")}.items():
    found[what] = [opens(model(*names), wide) for wide in (False, True)]
    print(f"two layers share {what}: opens {found[what][0]}, with wide sums {found[what][1]}")
shared = [found["the zero point"], found["kernel and zero point"]]
sys.exit(0 if found["nothing"] == [True, True] and shared == [[True, False], [True, False]] else 1)
PYTHON
