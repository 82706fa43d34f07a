"""What an ONNX file would have a runtime do, read from its protobuf before a runtime sees it.

Only what matters for trust is read: the domains of its ops, and the files that it refers to. Field numbers are those
of onnx.proto.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from csk_sdk.opening import open_file
from csk_sdk.protobuf import MalformedError, fields

STANDARD_DOMAIN = "ai.onnx"
"""How the domain of ONNX's own ops is called here; in a file it is the empty string, too."""

_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_NODE_ATTRIBUTE, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_TENSOR_EXTERNAL = 13
_SPARSE_PARTS = (1, 2)
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
# Subgraphs in subgraphs. No exporter comes near, and each level costs this walk a level of Python's stack.
_DEEPEST = 32


@dataclass
class OnnxContents:
    """`domains` of all ops, for an import alone runs nothing; `external`: where tensors' data are.

    Of `external`, each is (location, offset, length).

    `functions` is the number of local functions, which could give an op's name another meaning. A length of None is
    "to the end of the file".
    """

    domains: set[str] = field(default_factory=set)
    external: set[tuple[str, int, int | None]] = field(default_factory=set)
    functions: int = 0


def read_onnx(path: Path) -> OnnxContents:
    """Walk the ONNX file `path`, without loading its tensors. Raises MalformedError for what is none, and OSError."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise MalformedError("it is empty")
        # Closed when the last view of it is gone, which may be in a traceback.
        return contents(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def contents(message: memoryview) -> OnnxContents:
    """What a ModelProto holds. Raises MalformedError."""
    found = OnnxContents()
    for number, value in fields(message):
        if number == _MODEL_FUNCTIONS:
            found.functions += 1
        elif number == _MODEL_GRAPH:
            _graph(_message(value), found, 0)
    return found


def _graph(message: memoryview, found: OnnxContents, depth: int) -> None:
    if depth > _DEEPEST:
        raise MalformedError(f"graphs are nested more than {_DEEPEST} deep")
    for number, value in fields(message):
        if number == _GRAPH_NODE:
            node = _message(value)
            found.domains.add(_domain(node, _NODE_DOMAIN))
            for attribute in _messages(node, _NODE_ATTRIBUTE):
                _attribute(attribute, found, depth)
        elif number == _GRAPH_INITIALIZER:
            _tensor(_message(value), found)
        elif number == _GRAPH_SPARSE_INITIALIZER:
            _sparse(_message(value), found)


def _attribute(message: memoryview, found: OnnxContents, depth: int) -> None:
    for number, value in fields(message):
        if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _tensor(_message(value), found)
        elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            _graph(_message(value), found, depth + 1)
        elif number in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
            _sparse(_message(value), found)


def _sparse(message: memoryview, found: OnnxContents) -> None:
    for number, value in fields(message):
        if number in _SPARSE_PARTS:
            _tensor(_message(value), found)


def _tensor(message: memoryview, found: OnnxContents) -> None:
    entries = dict(_entry(entry) for entry in _messages(message, _TENSOR_EXTERNAL))
    if entries:
        length = entries.get("length")
        found.external.add(
            (
                entries.get("location", ""),
                _count(entries.get("offset", "0")),
                None if length is None else _count(length),
            )
        )


def _entry(message: memoryview) -> tuple[str, str]:
    texts = {
        number: _text(value) for number, value in fields(message) if number in (_ENTRY_KEY, _ENTRY_VALUE)
    }
    return texts.get(_ENTRY_KEY, ""), texts.get(_ENTRY_VALUE, "")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise MalformedError(f"{text[:40]!r} is no offset or length")
    return int(text)


def _domain(message: memoryview, field_number: int) -> str:
    # The last one counts, as everywhere in protobuf.
    texts = [_text(value) for number, value in fields(message) if number == field_number]
    return texts[-1] if texts and texts[-1] else STANDARD_DOMAIN


def _messages(message: memoryview, field_number: int) -> Iterator[memoryview]:
    return (_message(value) for number, value in fields(message) if number == field_number)


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise MalformedError("a number stands where a message should")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode()
    except UnicodeDecodeError:
        raise MalformedError("a name is not UTF-8") from None
