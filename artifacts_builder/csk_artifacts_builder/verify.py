"""Checks that the builder makes on its own work before it writes anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import static_shape
from csk_artifacts_builder.interface import Interface
from csk_sdk.errors import ModelError
from csk_sdk.runtime import load_onnxruntime

_TOLERANCE = 1e-3
# A float16 source rounds to 11 bits after every layer, and the prepared graph does not.
_TOLERANCE_OF_HALF = 3e-2


def same_logits(source: onnx.ModelProto, prepared: ir.Model, interface: Interface) -> None:
    """Run the source model on random pictures, batch by batch, and the prepared graph on two batches at once.

    Raises ModelError where their outputs differ by more than 1e-3 of the largest (3e-2 for a float16 source), or one
    does not run.
    """
    initializers = {tensor.name for tensor in source.graph.initializer}
    image = next(value for value in source.graph.input if value.name not in initializers)
    dims = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    batch = dims[0] if dims[0] > 0 else 2
    picture = [int(size) for size in static_shape(prepared.graph.inputs[0])[1:]]
    x = np.random.default_rng(0).normal(size=(2, batch, *picture)).astype(np.float32)
    shown = [interface.source_input(pictures) for pictures in x]
    expected = np.concatenate(_outputs(source, shown, "the source model")).astype(np.float32)
    both = x.reshape(1, -1, *x.shape[2:])
    got = _outputs(ir.to_proto(prepared), both, "the model after preparation")[0]
    if got.size != expected.size:
        raise ModelError(
            f"The model is written for one batch size: for {2 * batch} pictures it gives outputs {list(got.shape)}. "
            "Export it again with a dynamic batch."
        )
    difference = float(np.abs(expected - got.reshape(expected.shape)).max())
    tolerance = _TOLERANCE_OF_HALF if interface.half else _TOLERANCE
    if not difference <= tolerance * max(1.0, float(np.abs(expected).max())):
        raise ModelError(
            f"After preparation the model's outputs differ by {difference:.2g} from the source model's. "
            "Please report this model: it must not happen."
        )


def _outputs(
    model: onnx.ModelProto, batches: Iterable[NDArray[Any]], which: str
) -> list[NDArray[np.float32]]:
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return [session.run(None, {name: batch})[0] for batch in batches]
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot run {which} ({reason}).") from None


def standard_ops_only(name: str, model: ir.Model) -> None:
    """Raise ModelError where a graph holds an op outside the `ai.onnx` domain."""
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{name} would need op '{node.domain}.{node.op_type}', which is not a standard op."
            )
