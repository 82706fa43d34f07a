#!/usr/bin/env bash
# A model of two Slices, the two halves of the channels, of which one is only compared with a number (a mask, a gate that is
# on or off): onnxruntime-training-cpu 1.19.2 makes one Split of them while it builds the gradient, and the gradient of a Split
# whose second part has none goes to wrong places, without an error. The model itself has no Split.
# Expected: the same gradient as with any other way to read the second half, here Gather; zeros but for the first half.
# Exits 1 where that is no longer so. Needs Python 3.11 or 3.12.
set -euo pipefail
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
"${PYTHON:-python3}" -m venv "$at/venv"
"$at/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnxruntime-training-cpu==1.19.2 onnx==1.23.2 numpy==2.4.6
cd "$at"
"$at/venv/bin/python" - 2> "$at/log" <<'PYTHON'
import pathlib, sys, types

import numpy as np
import onnx
import onnx.parser
import onnxruntime

# The package's own __init__ wants torch for parts that are not used here.
package = types.ModuleType("onnxruntime.training")
package.__path__ = [str(pathlib.Path(onnxruntime.__file__).parent / "training")]
sys.modules["onnxruntime.training"] = package
from onnxruntime.training import api, artifacts

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2,4] x) => (float loss) {
    [product] all = MatMul (x, w)
    [slice_a] left = Slice (all, zero, two, one)
    %s
    [compare] on = Greater (right, level)
    [cast] gate = Cast <to = 1> (on)
    [multiply] gated = Mul (left, gate)
    [sum] loss = ReduceSum <keepdims = 0> (gated)
}"""
SLICE, GATHER = "[slice_b] right = Slice (all, two, four, one)", "[gather] right = Gather <axis = 1> (all, behind)"
rng = np.random.default_rng(0)
x, w = rng.normal(size=(2, 4)).astype(np.float32), rng.normal(size=(4, 4)).astype(np.float32)
constants = {
    "w": w, "level": np.array(0.0, np.float32), "behind": np.array([2, 3]),
    "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "four": np.array([4]),
}


def gradient(line, folder):
    model = onnx.parser.parse_model(TEXT % line)
    for name, array in constants.items():
        if name in TEXT % line:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    pathlib.Path(folder).mkdir()
    artifacts.generate_artifacts(model, requires_grad=["w"], frozen_params=[], artifact_directory=folder)
    state = api.CheckpointState.load_checkpoint(folder + "/checkpoint")
    module = api.Module(folder + "/training_model.onnx", state, folder + "/eval_model.onnx")
    module.train()
    return float(module(x)), state.parameters["w"].grad.copy()


gate = (x @ w)[:, 2:] > 0
right = np.concatenate([x.T @ gate.astype(np.float32), np.zeros((4, 2), np.float32)], axis=1)
(loss, sliced), (same, gathered) = gradient(SLICE, "slices"), gradient(GATHER, "gather")
off = [float(np.abs(found - right).max()) for found in (sliced, gathered)]
print("onnxruntime-training-cpu", onnxruntime.__version__, "on Python", sys.version.split()[0])
print(f"losses {loss:.6f} with two Slices, {same:.6f} with Slice and Gather")
print("right gradient:", right.round(3).tolist())
print("with two Slices:", sliced.round(3).tolist())
print(f"largest difference: {off[0]:.3g} with two Slices, {off[1]:.3g} with Slice and Gather; no error")
sys.exit(0 if off[0] > 0.1 and off[1] < 1e-4 and abs(loss - same) < 1e-5 else 1)
PYTHON
