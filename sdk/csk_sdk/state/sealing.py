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

# A value as JSON: as its file has it, and as its checksum is of.
Texts = tuple[bytes, bytes]


def seal(record: Mapping[str, Any]) -> bytes:
    """`record` as JSON with a checksum in its field `check`, so that damage is noticed, not believed.

    NumPy scalars become plain numbers. Raises TypeError for what JSON cannot hold.
    """
    return seal_texts({name: json_texts(value) for name, value in record.items()})


def seal_texts(texts: Mapping[str, Texts]) -> bytes:
    """`seal` of an object by what `json_texts` gave of each of its values."""
    # A record is as long as all tasks together: no copy of it is made but the one that is written.
    check = hashlib.sha256()
    for part in _object([(name, texts[name][1]) for name in sorted(texts)], b", ", b": "):
        check.update(part)
    written = [(name, short) for name, (short, _) in texts.items() if name != "check"]
    written.append(("check", f'"{check.hexdigest()}"'.encode()))
    return b"".join([*_object(written, b",", b":"), b"\n"])


def _object(pairs: Sequence[tuple[str, bytes]], between: bytes, behind: bytes) -> Iterator[bytes]:
    """The parts of a JSON object of these names and values."""
    yield b"{"
    for index, (name, text) in enumerate(pairs):
        if index:
            yield between
        yield json.dumps(name).encode() + behind
        yield text
    yield b"}"


def json_texts(value: Any) -> Texts:
    """A value as JSON: as its file has it, and as its checksum is of. Raises TypeError for what JSON cannot hold."""
    # A record grows with every task, so without spaces; `csk-sdk tasks --json` is for people.
    short = json.dumps(value, default=_plain, separators=(",", ":"))
    # Names are in the order of what they are as texts.
    return short.encode(), json.dumps(json.loads(short), sort_keys=True).encode()


def lists_of(texts: Iterable[Texts]) -> Texts:
    """`json_texts` of a list by those of its entries."""
    pairs = list(texts)
    short, ordered = ([pair[which] for pair in pairs] for which in (0, 1))
    return b"[%s]" % b",".join(short), b"[%s]" % b", ".join(ordered)


def unseal(path: Path) -> dict[str, Any]:
    """Read what `seal` wrote to `path`.

    Raises StateError, naming the file, when it is missing or damaged; UnreadableError where the disk does not give it
    back.
    """
    try:
        raw = json.loads(read_file(path, LARGEST_TEXT))
    except FileNotFoundError:
        raise StateError(f"{path} is missing.") from None
    except (RefusedError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StateError(f"{path} cannot be read ({reason}).") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not isinstance(raw, dict) or raw.pop("check", None) != _check(raw):
        raise StateError(f"{path} is damaged: its checksum does not match.")
    return raw


def _check(plain: Any) -> str:
    return _sha256(json.dumps(plain, sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")
