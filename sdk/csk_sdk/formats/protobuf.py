"""Just enough of protobuf's wire format to write and to read an ONNX file without an ONNX library.

A message is a sequence of fields, each a tag (field number and wire type, as one varint) and a value. Reading is by
walking: nothing is copied, nothing is believed about a length before it was compared with what is there.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

# No message may be larger: sizes are signed 32-bit numbers in most readers.
MAX_BYTES = 2 << 30
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
# A varint holds 64 bits, 7 in a byte.
_LONGEST_VARINT = 10


class MalformedError(ValueError):
    """Bytes that are no protobuf message."""


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field: a string, bytes, or a message inside the message."""
    return tag(number, LENGTH_DELIMITED) + varint(len(content)) + content


def tag(number: int, wire_type: int) -> bytes:
    """What a field begins with."""
    return varint(number << 3 | wire_type)


def varint(value: int) -> bytes:
    """A number, 7 bits in a byte, the lowest first."""
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


def fields(
    message: memoryview, wanted: Container[int] | None = None
) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message in their order: number, and value; fixed-size and delimited ones as views.

    Only those of `wanted` numbers, where some are given. Raises MalformedError for what is no message.
    """
    position, end = 0, len(message)
    while position < end:
        # Nearly all numbers are of one byte, and a graph of a thousand nodes has ten thousands of them: read in place.
        if (key := message[position]) < 0x80:
            position += 1
        else:
            key, position = _read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise MalformedError("a field has number 0")
        if wire_type in _FIXED:
            length = _FIXED[wire_type]
        elif wire_type in (LENGTH_DELIMITED, VARINT):
            if position < end and (length := message[position]) < 0x80:
                position += 1
            else:
                length, position = _read_varint(message, position)
            if wire_type == VARINT:
                if wanted is None or number in wanted:
                    yield number, length
                continue
        else:
            raise MalformedError(f"wire type {wire_type} is not known")
        if length > end - position:
            raise MalformedError(f"a field of {length} bytes is longer than what is left")
        if wanted is None or number in wanted:
            yield number, message[position : position + length]
        position += length


def messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """The sub-messages, texts or bytes in all fields `number`. Raises MalformedError for a number there."""
    return (as_message(value) for _, value in fields(message, (number,)))


def as_message(value: int | memoryview) -> memoryview:
    """A field's content. Raises MalformedError where a number stands."""
    if isinstance(value, int):
        raise MalformedError("a number stands where a message should")
    return value


def as_text(value: int | memoryview) -> str:
    """A field's content as text. Raises MalformedError where it is none."""
    try:
        return bytes(as_message(value)).decode()
    except UnicodeDecodeError:
        raise MalformedError("a name is not UTF-8") from None


def varints(packed: memoryview) -> Iterator[int]:
    """The numbers of a packed field. Raises MalformedError for what is none."""
    position = 0
    while position < len(packed):
        value, position = _read_varint(packed, position)
        yield value


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[position : position + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise MalformedError("a number has no end")
