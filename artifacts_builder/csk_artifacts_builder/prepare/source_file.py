"""Reading the file that somebody has, and saying what it is where it is no ONNX model."""

from __future__ import annotations

from pathlib import Path

import onnx

from csk_sdk.errors import ModelError
from csk_sdk.formats.opening import open_file
from csk_sdk.formats.protobuf import MAX_BYTES

# An op of which onnx's inference reads the definition, without the default of this attribute.
_WITHOUT_DEFAULT = {"MeanVarianceNormalization": "axes"}
# What other files begin with: offset, bytes, and what they are.
_OTHERS = (
    (
        4,
        b"ORTM",
        "is in ONNX Runtime's own format (.ort), whose graph is made for one runtime and cannot be changed. Give the "
        ".onnx that it was converted from.",
    ),
    (4, b"TFL3", "is a TensorFlow Lite model. Convert it to ONNX first, with tf2onnx --tflite."),
    (
        0,
        b"\x89HDF",
        "is a Keras file (HDF5). Export it to ONNX first, with model.export(..., format='onnx').",
    ),
    (
        0,
        b"PK\x03\x04",
        "is a zip archive, as torch and Keras save models. Export the model to ONNX first, with torch.onnx.export or "
        "model.export(..., format='onnx').",
    ),
)


def load_source(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with its external data.

    Raises ModelError when there is none, it is no valid ONNX model, tensors lie in files that are not there, or it is
    one of 2 GiB or more.
    """
    if not path.is_file():
        raise ModelError(f"There is no model file {path}. Give the path of a trained ONNX classifier.")
    _refuse_others(path)
    require_writable(path.stat().st_size, path.name)
    try:
        _require_data(path)
        # By path, and first: the checker makes copies of its own, which are gone before ours is made.
        onnx.checker.check_model(str(path))
        proto = onnx.load(str(path), load_external_data=False)
    except ModelError:
        raise
    except Exception as error:
        raise _invalid(path, error) from None
    require_writable(path.stat().st_size + _external_bytes(proto, path.parent), path.name)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:
        raise _invalid(path, error) from None
    _write_defaults(proto)
    return proto


def _write_defaults(proto: onnx.ModelProto) -> None:
    """Write out the default that onnx's own shape inference stumbles over where it is left away."""
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        for node in nodes:
            wanted = _WITHOUT_DEFAULT.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            if wanted is not None and not any(given.name == wanted for given in node.attribute):
                default = onnx.defs.get_schema(node.op_type).attributes[wanted].default_value
                node.attribute.append(default)


def require_writable(count: int, where: str) -> None:
    """Raise ModelError where `count` bytes of weights do not fit into one ONNX file: protobuf ends at 2 GiB."""
    if count >= MAX_BYTES:
        raise ModelError(
            f"{where} has {count / 2**30:.1f} GiB of weights, and the model that a device exports must stay below "
            f"{MAX_BYTES >> 30} GiB, the most that an ONNX file holds. Take a smaller network of the same family."
        )


def _refuse_others(path: Path) -> None:
    with open_file(path) as file:
        begin = file.read(16)
    for offset, mark, what in _OTHERS:
        if begin[offset:].startswith(mark):
            raise ModelError(f"{path} {what}")


def _require_data(path: Path) -> None:
    """Raise ModelError naming the file with weights that is not beside the model."""
    missing: dict[str, int] = {}
    for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
        location = {entry.key: entry.value for entry in tensor.external_data}.get("location")
        if location is not None and not (path.parent / location).exists():
            missing[location] = missing.get(location, 0) + 1
    if missing:
        name, count = next(iter(missing.items()))
        raise ModelError(
            f"{path} keeps {count} of its tensors in '{name}', and there is no such file in {path.parent}. Copy it "
            "there: the two belong together, under these names."
        )


def _invalid(path: Path, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return ModelError(f"{path} is not a valid ONNX model ({reason}).")


def _external_bytes(proto: onnx.ModelProto, folder: Path) -> int:
    """Bytes of the tensors that lie in other files; a tensor without a length takes its whole file."""
    count = 0
    for tensor in proto.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if "length" in entries:
            count += int(entries["length"])
        elif "location" in entries and (folder / entries["location"]).is_file():
            count += (folder / entries["location"]).stat().st_size
    return count
