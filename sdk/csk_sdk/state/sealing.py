"""Small JSON files with a checksum in them: damage is noticed, not believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk.errors import StateError
from csk_sdk.formats.opening import LARGEST_TEXT, RefusedError, read_file
from csk_sdk.state.atomic import unreadable


def seal(record: Mapping[str, Any]) -> bytes:
    """`record` as JSON with a checksum in its field `check`, so that damage is noticed, not believed.

    NumPy scalars become plain numbers. Raises TypeError for what JSON cannot hold.
    """
    return seal_texts({name: json_texts(value) for name, value in record.items()})


def seal_texts(texts: Mapping[str, tuple[str, str]]) -> bytes:
    """`seal` of an object by what `json_texts` gave of each of its values."""
    ordered = ", ".join(f"{json.dumps(name)}: {texts[name][1]}" for name in sorted(texts))
    written = {name: text for name, (text, _) in texts.items()} | {
        "check": f'"{_sha256("{" + ordered + "}")}"'
    }
    pairs = ",".join(f"{json.dumps(name)}:{text}" for name, text in written.items())
    return f"{{{pairs}}}\n".encode()


def json_texts(value: Any) -> tuple[str, str]:
    """A value as JSON: as its file has it, and as its checksum is of. Raises TypeError for what JSON cannot hold."""
    # A record grows with every task, so without spaces; `csk-sdk tasks --json` is for people.
    short = json.dumps(value, default=_plain, separators=(",", ":"))
    # Names are in the order of what they are as texts.
    return short, json.dumps(json.loads(short), sort_keys=True)


def lists_of(texts: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """`json_texts` of a list by those of its entries."""
    pairs = list(texts)
    return f"[{','.join(one for one, _ in pairs)}]", f"[{', '.join(one for _, one in pairs)}]"


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
