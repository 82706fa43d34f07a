"""Writing an ordinary inference model on the device, without an ONNX library.

An ONNX file is a protobuf message, and protobuf messages concatenate: fields of a second `ModelProto` behind the
first are merged into it (protobuf encoding specification, "Last One Wins", where embedded messages merge). So the
bundle's template, which holds every node and no large tensor, is completed by appending the tensors. Field numbers
are those of onnx.proto.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.bundle.onnx_file import is_onnx
from csk_sdk.contract.manifest import EXACT, EXPORT_TEMPLATE, INT8, PRECISIONS, QUANTISED_TEMPLATE
from csk_sdk.errors import ConfigError, StorageError
from csk_sdk.formats.opening import read_file
from csk_sdk.formats.places import require_place
from csk_sdk.formats.protobuf import LENGTH_DELIMITED, MAX_BYTES, VARINT, field, tag, varint
from csk_sdk.network.export_quantised import quantised_tensors
from csk_sdk.network.export_rejection import rejection
from csk_sdk.network.predicting import Doubt, LinearHead
from csk_sdk.state import Generation
from csk_sdk.state.atomic import clear_temporaries, make_folder, replace_file

_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_INITIALIZER = 5
_TENSOR_DIMS, _TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_RAW_DATA = 1, 2, 8, 9
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
# TensorProto.DataType, and the bytes of a number.
_TYPES = {"float32": (1, "<f4"), "int8": (3, "|i1"), "int32": (6, "<i4")}
# What an export that was killed left behind; no export takes that long.
_ABANDONED_SECONDS = 3600.0


def complete(
    template: bytes,
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str],
    pieces: Sequence[bytes] = (),
) -> Iterator[bytes]:
    """The complete model, piece by piece: template, `pieces` of more, tensors as initializers, metadata properties."""
    yield template
    yield from pieces
    for name, array in tensors.items():
        head, data = _tensor(name, array)
        size = len(head) + len(data)
        initializer = tag(_GRAPH_INITIALIZER, LENGTH_DELIMITED) + varint(size)
        yield tag(_MODEL_GRAPH, LENGTH_DELIMITED) + varint(len(initializer) + size) + initializer + head
        yield data
    for key, value in metadata.items():
        entry = field(_ENTRY_KEY, key.encode()) + field(_ENTRY_VALUE, value.encode())
        yield field(_MODEL_METADATA, entry)


def _tensor(name: str, array: NDArray[Any]) -> tuple[bytes, bytes]:
    """A TensorProto as its small fields and its raw bytes (little-endian, as the specification asks)."""
    kind, layout = _TYPES[array.dtype.name]
    data = np.ascontiguousarray(array, layout).tobytes()
    head = b"".join(tag(_TENSOR_DIMS, VARINT) + varint(size) for size in array.shape)
    head += tag(_TENSOR_DATA_TYPE, VARINT) + varint(kind) + field(_TENSOR_NAME, name.encode())
    return head + tag(_TENSOR_RAW_DATA, LENGTH_DELIMITED) + varint(len(data)), data


def export_model(
    bundle: Bundle,
    generation: Generation,
    head: LinearHead,
    path: Path,
    doubt: Doubt | None = None,
    precision: str = EXACT,
) -> None:
    """Write the generation's network with `head` folded in to `path`, atomically; a float32 ONNX model.

    In `precision` int8 it is quantised as the model was that the bundle was built from.

    Class names, in the order of the outputs, are in its metadata as JSON under "classes"; for a regression they are
    target names, under "targets". With a `doubt`, there are the outputs `known` and `distance` beside the model's own,
    and the share to reject is in the metadata under "csk_sdk_reject".
    Raises StorageError where it cannot be written, or would be larger than protobuf allows; ConfigError where it would
    lie in a bundle or a state, or replace a file that is no ONNX model, and for a precision that the bundle has no form
    for.
    """
    require_place(path, "an ONNX model", is_onnx)
    manifest = bundle.manifest
    require_form(bundle, precision)
    tensors = bundle.weights(manifest.weights_in_export)
    tensors.update(bundle.folded_kernels(generation.tensors))
    tensors[manifest.head.weight], tensors[manifest.head.bias] = head.weight, head.bias
    metadata = {
        head.objective.outputs: json.dumps(head.classes),
        "csk_sdk_generation": str(generation.number),
    }
    form = QUANTISED_TEMPLATE if precision == INT8 else EXPORT_TEMPLATE
    template = read_file(bundle.path(form), MAX_BYTES, bundle.folder)
    pieces: tuple[bytes, ...] = ()
    if doubt is not None:
        more = rejection(template, manifest.head.weight, doubt.distance, doubt.distance.limit(doubt.reject))
        tensors.update(more.tensors)
        metadata["csk_sdk_reject"] = f"{doubt.reject:g}"
        pieces = more.pieces
    written = quantised_tensors(manifest.quantised, tensors) if precision == INT8 else tensors
    count = len(template) + sum(array.nbytes for array in written.values())
    if count >= MAX_BYTES:
        raise StorageError(
            f"{path} cannot be written: the model has {count / 1e6:.0f} MB, and an ONNX file holds less than 2 GiB. "
            "Nothing was changed; build the bundle from a smaller network."
        )
    make_folder(path.parent)
    clear_temporaries(path.parent, _ABANDONED_SECONDS, of=path.name)
    replace_file(path, b"".join(complete(template, written, metadata, pieces)))


def require_form(bundle: Bundle, precision: str) -> None:
    """Raise ConfigError where the bundle has no export template for a precision."""
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision is '{precision}'; an export's must be {' or '.join(PRECISIONS)}.")
    if precision == INT8 and not bundle.manifest.quantised:
        raise ConfigError(
            f"--precision int8 is for bundles of quantised models, whose scales the export takes, and {bundle.folder} "
            "was built from a model without them. Export in float32, and quantise that with onnxruntime.quantization."
        )
