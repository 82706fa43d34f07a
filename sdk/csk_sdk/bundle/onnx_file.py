"""What an ONNX file would have a runtime do, read from its protobuf before a runtime sees it.

Only what matters for trust is read: its ops and their domains, the files that it refers to, what goes in and comes out,
and how large its tensors say they are. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from csk_sdk.formats.opening import open_file
from csk_sdk.formats.protobuf import MalformedError, as_message, as_text, fields, messages, varints

STANDARD_DOMAIN = "ai.onnx"
"""How the domain of ONNX's own ops is called here; in a file it is the empty string, too."""

_MODEL_VERSION, _MODEL_GRAPH, _MODEL_FUNCTIONS = 1, 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE = 11, 12, 13
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_ATTRIBUTE_PARTS = (5, 6, 10, 11, 22, 23)
_TENSOR_DIMS, _TENSOR_EXTERNAL = 1, 13
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_TYPE, _TENSOR_SHAPE = 1, 2, 1, 1, 2
_SHAPE_DIM, _DIM_VALUE = 1, 1
_SPARSE_PARTS = (1, 2)
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
# Subgraphs in subgraphs. No exporter comes near, and each level costs this walk a level of Python's stack.
_DEEPEST = 32


@dataclass(frozen=True)
class End:
    """An input or output: its element type (TensorProto.DataType; 0 for what is no tensor), and its shape.

    A size is None where it is free, the whole shape where nothing is said of it.
    """

    type: int
    shape: tuple[int | None, ...] | None


@dataclass
class OnnxContents:
    """`domains` of all ops, for an import alone runs nothing; `external`: where tensors' data are.

    Of `external`, each is (location, offset, length); a length of None is "to the end of the file". `branching` are
    the ops that run a graph of their own (If, Loop, Scan). `functions` is the number of local functions, which could
    give an op's name another meaning. `numbers` is how many elements all tensors and values of known shape claim to
    have, where a free size counts as 1.
    """

    domains: set[str] = field(default_factory=set)
    branching: set[str] = field(default_factory=set)
    external: set[tuple[str, int, int | None]] = field(default_factory=set)
    inputs: dict[str, End] = field(default_factory=dict)
    outputs: dict[str, End] = field(default_factory=dict)
    functions: int = 0
    numbers: int = 0


def read_onnx(path: Path) -> OnnxContents:
    """Walk the ONNX file `path`, without loading its tensors. Raises MalformedError for what is none, and OSError."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise MalformedError("it is empty")
        # Closed when the last view of it is gone, which may be in a traceback.
        return contents(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def is_onnx(file: BinaryIO) -> bool:
    """Whether an open file, which is not empty, is an ONNX model: a ModelProto with a version and a graph.

    Raises MalformedError, a ValueError, for what is no message of protobuf's at all.
    """
    found = {}
    for number, value in fields(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))):
        found[number] = isinstance(value, int)
    return found.get(_MODEL_VERSION) is True and found.get(_MODEL_GRAPH) is False


def contents(message: memoryview) -> OnnxContents:
    """What a ModelProto holds. Raises MalformedError."""
    found = OnnxContents()
    for number, value in fields(message):
        if number == _MODEL_FUNCTIONS:
            found.functions += 1
        elif number == _MODEL_GRAPH:
            _graph(as_message(value), found, 0)
    return found


def _graph(message: memoryview, found: OnnxContents, depth: int) -> None:
    if depth > _DEEPEST:
        raise MalformedError(f"graphs are nested more than {_DEEPEST} deep")
    for number, value in fields(message):
        if number == _GRAPH_NODE:
            _node(as_message(value), found, depth)
        elif number == _GRAPH_INITIALIZER:
            _tensor(as_message(value), found)
        elif number == _GRAPH_SPARSE_INITIALIZER:
            _sparse(as_message(value), found)
        elif number in (_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE):
            name, end = _value(as_message(value))
            found.numbers += math.prod(max(size or 1, 0) for size in end.shape or ())
            if depth == 0 and number != _GRAPH_VALUE:
                (found.inputs if number == _GRAPH_INPUT else found.outputs)[name] = end


def _node(message: memoryview, found: OnnxContents, depth: int) -> None:
    op = domain = ""
    attributes = []
    for number, value in fields(message, (_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN)):
        if number == _NODE_OP:
            op = as_text(value)
        elif number == _NODE_ATTRIBUTE:
            attributes.append(as_message(value))
        else:
            domain = as_text(value)
    found.domains.add(domain or STANDARD_DOMAIN)
    for attribute in attributes:
        _attribute(attribute, found, depth, op)


def _value(message: memoryview) -> tuple[str, End]:
    """A ValueInfoProto: a name, and the type and shape of a tensor. What is repeated is merged, as protobuf has it."""
    name, kind, shape = _last_text(message, _VALUE_NAME), 0, None
    for outer in messages(message, _VALUE_TYPE):
        for tensor in messages(outer, _TYPE_TENSOR):
            for number, value in fields(tensor):
                if number == _TENSOR_TYPE and isinstance(value, int):
                    kind = value
                elif number == _TENSOR_SHAPE:
                    sizes = (_size(dim) for dim in messages(as_message(value), _SHAPE_DIM))
                    shape = (*(shape or ()), *sizes)
    return name, End(kind, shape)


def _size(message: memoryview) -> int | None:
    """A size, or None for one that has a name instead, or nothing."""
    found = None
    for number, value in fields(message):
        found = _signed(value) if number == _DIM_VALUE and isinstance(value, int) else None
    return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _attribute(message: memoryview, found: OnnxContents, depth: int, op: str) -> None:
    for number, value in fields(message, _ATTRIBUTE_PARTS):
        if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _tensor(as_message(value), found)
        elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            found.branching.add(op)
            _graph(as_message(value), found, depth + 1)
        else:
            _sparse(as_message(value), found)


def _sparse(message: memoryview, found: OnnxContents) -> None:
    for _, value in fields(message, _SPARSE_PARTS):
        _tensor(as_message(value), found)


def _tensor(message: memoryview, found: OnnxContents) -> None:
    found.numbers += math.prod(max(size, 0) for size in _dims(message))
    entries = dict(_entry(entry) for entry in messages(message, _TENSOR_EXTERNAL))
    if entries:
        length = entries.get("length")
        found.external.add(
            (
                entries.get("location", ""),
                _count(entries.get("offset", "0")),
                None if length is None else _count(length),
            )
        )


def _dims(message: memoryview) -> Iterator[int]:
    """One by one, or packed into one field: readers take both."""
    for _, value in fields(message, (_TENSOR_DIMS,)):
        yield from (_signed(size) for size in ([value] if isinstance(value, int) else varints(value)))


def _entry(message: memoryview) -> tuple[str, str]:
    texts = {number: as_text(value) for number, value in fields(message, (_ENTRY_KEY, _ENTRY_VALUE))}
    return texts.get(_ENTRY_KEY, ""), texts.get(_ENTRY_VALUE, "")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise MalformedError(f"{text[:40]!r} is no offset or length")
    return int(text)


def _last_text(message: memoryview, field_number: int) -> str:
    """A text field, "" where there is none. The last one counts, as everywhere in protobuf."""
    texts = [as_text(value) for _, value in fields(message, (field_number,))]
    return texts[-1] if texts else ""
