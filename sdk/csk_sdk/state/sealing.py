"""Small JSON files with a checksum in them: damage is noticed, not believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk.errors import StateError
from csk_sdk.formats.opening import LARGEST_TEXT, RefusedError, read_file
from csk_sdk.state.atomic import unreadable
from csk_sdk.state.settings import ordered_json, parse_shared

# A value as JSON: as its file has it, and as its checksum is of.
Texts = tuple[bytes, bytes]


def seal(record: Mapping[str, Any]) -> bytes:
    """`record` as JSON with a checksum in its field `check`, so that damage is noticed, not believed.

    NumPy scalars become plain numbers. Raises TypeError for what JSON cannot hold.
    """
    return seal_texts({name: json_texts(value) for name, value in record.items()})


def seal_texts(texts: Mapping[str, Texts], lists: Mapping[str, Iterable[Texts]] | None = None) -> bytes:
    """`seal` of an object by what `json_texts` gave of each of its values; of `lists`, of each of their entries."""
    # A record is as long as all tasks together: no copy of it is made but the one that is written.
    parts = _parts_of(texts, lists or {})
    written = [(name, short) for name, (short, _) in parts.items() if name != "check"]
    written.append(("check", [f'"{_check_of(parts)}"'.encode()]))
    return b"".join([*_object(written, b",", b":"), b"\n"])


def check_of_texts(texts: Mapping[str, Texts], lists: Mapping[str, Iterable[Texts]]) -> str:
    """The checksum that `seal_texts` writes."""
    return _check_of(_parts_of(texts, lists))


# Both texts of a value, in parts that are not put together.
_Parts = tuple[list[bytes], list[bytes]]


def _parts_of(texts: Mapping[str, Texts], lists: Mapping[str, Iterable[Texts]]) -> dict[str, _Parts]:
    parts = {name: ([short], [ordered]) for name, (short, ordered) in texts.items()}
    return parts | {name: _list_of(entries) for name, entries in lists.items()}


def _check_of(parts: Mapping[str, _Parts]) -> str:
    check = hashlib.sha256()
    for part in _object([(name, parts[name][1]) for name in sorted(parts)], b", ", b": "):
        check.update(part)
    return check.hexdigest()


def _object(pairs: Sequence[tuple[str, Iterable[bytes]]], between: bytes, behind: bytes) -> Iterator[bytes]:
    """The parts of a JSON object of these names and values."""
    yield b"{"
    for index, (name, value) in enumerate(pairs):
        if index:
            yield between
        yield json.dumps(name).encode() + behind
        yield from value
    yield b"}"


def _list_of(entries: Iterable[Texts]) -> _Parts:
    """The parts of both texts of a list."""
    short, ordered = [b"["], [b"["]
    for one, other in entries:
        short += (one, b",")
        ordered += (other, b", ")
    # Behind the last entry there is nothing to part it from.
    if len(short) > 1:
        short.pop(), ordered.pop()
    return [*short, b"]"], [*ordered, b"]"]


def json_texts(value: Any) -> Texts:
    """A value as JSON: as its file has it, and as its checksum is of. Raises TypeError for what JSON cannot hold."""
    # A record grows with every task, so without spaces; `csk-sdk tasks --json` is for people.
    short = _SHORT(value)
    # Names are in the order of what they are as texts.
    return short.encode(), _ORDERED(json.loads(short)).encode()


def unseal(path: Path) -> dict[str, Any]:
    """Read what `seal` wrote to `path`.

    Raises StateError, naming the file, when it is missing or damaged; UnreadableError where the disk does not give it
    back.
    """
    try:
        raw, shared = parse_shared(read_file(path, LARGEST_TEXT))
    except FileNotFoundError:
        raise StateError(f"{path} is missing.") from None
    except (RefusedError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StateError(f"{path} cannot be read ({reason}).") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not isinstance(raw, dict) or raw.pop("check", None) != _check(ordered_json(raw, shared)):
        raise StateError(f"{path} is damaged: its checksum does not match.")
    return raw


def _check(ordered: Iterable[str]) -> str:
    check = hashlib.sha256()
    for part in ordered:
        check.update(part.encode())
    return check.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


_SHORT = json.JSONEncoder(default=_plain, separators=(",", ":")).encode
_ORDERED = json.JSONEncoder(sort_keys=True).encode
