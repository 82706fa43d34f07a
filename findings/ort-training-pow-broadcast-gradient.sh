#!/usr/bin/env bash
# The gradient of Pow by its base, where the exponent is wider than the base (an exponent for each pixel or channel, a base
# for each image): onnxruntime-training-cpu 1.19.2 does not sum it over the places that the base went to, and says nothing.
# Expected: the sum, as for Mul and Add, which central differences of the same package's own loss confirm.
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

model = onnx.parser.parse_model("""
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,2,3] weight) => (float loss) {
    base = ReduceMean <axes = [2]> (pixels)
    raised = Pow (base, exponent)
    weighted = Mul (raised, weight)
    loss = ReduceSum <keepdims = 0> (weighted)
}""")
rng = np.random.default_rng(0)
pixels = rng.uniform(0.5, 1.5, (1, 2, 3)).astype(np.float32)
exponent = np.array([[[1.0, 2.0, 3.0]]], np.float32)
weight = rng.normal(size=(1, 2, 3)).astype(np.float32)
for name, array in (("pixels", pixels), ("exponent", exponent)):
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
onnx.checker.check_model(model, full_check=True)
artifacts.generate_artifacts(model, requires_grad=["pixels"], frozen_params=[], artifact_directory=".")
state = api.CheckpointState.load_checkpoint("checkpoint")
module = api.Module("training_model.onnx", state, "eval_model.onnx")
module.train()
loss = float(module(weight))
got = state.parameters["pixels"].grad.copy()


def value(x):
    return float(np.sum(weight.astype(np.float64) * x.mean(axis=2, keepdims=True) ** exponent.astype(np.float64)))


right, x = np.zeros_like(pixels, np.float64), pixels.astype(np.float64)
for place in np.ndindex(x.shape):
    step = np.zeros_like(x)
    step[place] = 1e-5
    right[place] = (value(x + step) - value(x - step)) / 2e-5
off = np.linalg.norm(got - right) / np.linalg.norm(right)
print("onnxruntime-training-cpu", onnxruntime.__version__, "on Python", sys.version.split()[0])
print(f"loss {loss:.6f}, by NumPy in float64 {value(x):.6f}")
print("gradient, right:", right.round(4).tolist())
print("gradient, there:", got.round(4).tolist())
print(f"off by {off:.2f} of its norm, with no error")
sys.exit(0 if off > 0.1 and abs(loss - value(x)) < 1e-4 else 1)
PYTHON
