"""Checks that the builder makes on its own work before it writes anything."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from csk_sdk.errors import ModelError
from csk_sdk.runtime import load_onnxruntime

_TOLERANCE = 1e-3


def same_logits(source: onnx.ModelProto, prepared: ir.Model) -> None:
    """Run the source model and the prepared graph on the same random pictures.

    Raises ModelError where their outputs differ by more than 1e-3 of the largest, or one does not run.
    """
    initializers = {tensor.name for tensor in source.graph.initializer}
    image = next(value for value in source.graph.input if value.name not in initializers)
    dims = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    batch = dims[0] if dims[0] > 0 else 2
    x = np.random.default_rng(0).normal(size=(batch, *dims[1:])).astype(np.float32)
    expected = _output(source, x, "the source model")
    got = _output(ir.to_proto(prepared), x, "the model after preparation")
    difference = float(np.abs(expected - got.reshape(expected.shape)).max())
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ModelError(
            f"After preparation the model's outputs differ by {difference:.2g} from the source model's. "
            "Please report this model: it must not happen."
        )


def _output(model: onnx.ModelProto, x: NDArray[np.float32], which: str) -> NDArray[np.float32]:
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        output: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: x})[0]
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot run {which} ({reason}).") from None
    return output


def standard_ops_only(name: str, model: ir.Model) -> None:
    """Raise ModelError where a graph holds an op outside the `ai.onnx` domain."""
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{name} would need op '{node.domain}.{node.op_type}', which is not a standard op."
            )
