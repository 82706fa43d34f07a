"""What `export --with-rejection` appends to the model: `known` and `distance` beside its own output, in standard ops.

As ONNX messages concatenate (export.py), nodes and outputs can be appended like tensors. They read the features, which
the template's classifier reads too. The formulas are those of csk_sdk/method/unknown.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import BundleError
from csk_sdk.formats.protobuf import (
    VARINT,
    MalformedError,
    as_message,
    as_text,
    field,
    fields,
    messages,
    tag,
    varint,
)
from csk_sdk.method.unknown import LEAST_MARGIN, MOST_SQUARED, STEEPNESS, Distance

_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_OUTPUT = 7, 1, 12
_GRAPH_NAMED = {5: 8, 11: 1, 12: 1, 13: 1}
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_INTS, _ATTRIBUTE_TYPE = 1, 3, 8, 20
_INT, _INTS = 2, 7
_FLOAT, _BOOL = 1, 9
_PREFIX = "csk_sdk.rejection/"


@dataclass(frozen=True)
class Rejection:
    """Appended to a template: `pieces` of ModelProto, and `tensors` by name, float32.

    `outputs` are the names of the two further outputs: `known` bool `(N,)`, `distance` float32 `(N,)`.
    """

    pieces: tuple[bytes, ...]
    tensors: dict[str, NDArray[np.float32]]
    outputs: tuple[str, str]


def rejection(template: bytes, head_weight: str, distance: Distance, limit: float) -> Rejection:
    """For a template whose classifier's weight is called `head_weight`; known is what is no further than `limit`.

    Raises BundleError where the template is no model with such a classifier.
    """
    try:
        features, taken = _features(memoryview(template), head_weight)
    except MalformedError as error:
        raise BundleError(
            f"the bundle's export template is damaged: {error}. Build the bundle again."
        ) from None
    known, far = (name if name not in taken else f"csk_sdk_{name}" for name in ("known", "distance"))
    tensors = {
        _PREFIX + name: np.asarray(value, np.float32)
        for name, value in {
            "weight": distance.weight / distance.margin,
            "bias": distance.bias / distance.margin,
            "mean": distance.mean,
            "scale": distance.scale,
            "most": MOST_SQUARED,
            "steep": STEEPNESS / distance.usual,
            "from": STEEPNESS,
            "least": LEAST_MARGIN,
            "limit": limit,
        }.items()
    }
    nodes = b"".join(field(_GRAPH_NODE, one) for one in _nodes(features, known, far))
    ends = b"".join(field(_GRAPH_OUTPUT, _end(*one)) for one in ((known, _BOOL), (far, _FLOAT)))
    return Rejection((field(_MODEL_GRAPH, nodes + ends),), tensors, (known, far))


def _nodes(features: str, known: str, distance: str) -> Iterator[bytes]:
    """The graph of the formulas, from the features `(N, f)`."""
    steps: Sequence[tuple[str, str, tuple[str, ...]]] = (
        ("Gemm", "logits", (features, "weight", "bias")),
        ("ReduceMax", "margin", ("logits",)),
        ("Max", "kept_margin", ("margin", "least")),
        ("Sub", "centered", (features, "mean")),
        ("Mul", "deviation", ("centered", "scale")),
        ("Mul", "square", ("deviation", "deviation")),
        ("Min", "winsorised", ("square", "most")),
        ("ReduceMean", "oddness", ("winsorised",)),
        ("Mul", "steeper", ("oddness", "steep")),
        ("Sub", "excess", ("steeper", "from")),
        ("Relu", "exponent", ("excess",)),
        ("Exp", "penalty", ("exponent",)),
        ("Div", distance, ("penalty", "kept_margin")),
        ("LessOrEqual", known, (distance, "limit")),
    )
    outside = {features, known, distance}
    for op, output, inputs in steps:
        named = [name if name in outside else _PREFIX + name for name in (*inputs, output)]
        yield _node(op, named[:-1], named[-1])


def _node(op: str, inputs: Sequence[str], output: str) -> bytes:
    attributes = b""
    if op == "Gemm":
        attributes = field(_NODE_ATTRIBUTE, _attribute("transB", _ATTRIBUTE_INT, _INT, 1))
    elif op.startswith("Reduce"):
        attributes = field(_NODE_ATTRIBUTE, _attribute("axes", _ATTRIBUTE_INTS, _INTS, 1))
        attributes += field(_NODE_ATTRIBUTE, _attribute("keepdims", _ATTRIBUTE_INT, _INT, 0))
    names = b"".join(field(_NODE_INPUT, name.encode()) for name in inputs)
    names += field(_NODE_OUTPUT, output.encode()) + field(_NODE_NAME, f"{_PREFIX}{op} {output}".encode())
    return names + field(_NODE_OP, op.encode()) + attributes


def _attribute(name: str, number: int, kind: int, value: int) -> bytes:
    head = field(_ATTRIBUTE_NAME, name.encode()) + tag(number, VARINT) + varint(value)
    return head + tag(_ATTRIBUTE_TYPE, VARINT) + varint(kind)


def _end(name: str, kind: int) -> bytes:
    """A ValueInfoProto of shape `(N,)`: 1 is the name, 2 a type with a tensor type of element type and shape."""
    shape = field(1, field(2, b"N"))
    tensor = tag(1, VARINT) + varint(kind) + field(2, shape)
    return field(1, name.encode()) + field(2, field(1, tensor))


def _features(model: memoryview, head_weight: str) -> tuple[str, set[str]]:
    """The name of what the classifier reads, and all names that the graph uses."""
    found: str | None = None
    taken: set[str] = set()
    for graph in messages(model, _MODEL_GRAPH):
        for number, value in fields(graph):
            if number == _GRAPH_NODE:
                inputs = [as_text(one) for one in messages(as_message(value), _NODE_INPUT)]
                taken.update(inputs, (as_text(one) for one in messages(as_message(value), _NODE_OUTPUT)))
                if head_weight in inputs[1:]:
                    found = inputs[0]
            elif number in _GRAPH_NAMED:
                taken.update(as_text(one) for one in messages(as_message(value), _GRAPH_NAMED[number]))
    if found is None:
        raise MalformedError(f"no node reads {head_weight!r}")
    return found, taken
