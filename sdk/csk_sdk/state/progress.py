"""The checkpoint of a task that is being learned: one file, replaced as a whole, never believed when torn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk.errors import StateError
from csk_sdk.state.atomic import UnreadableError, replace_file
from csk_sdk.state.tensorfile import checksum, decode, encode


def write_progress(path: Path, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Replace `path` by `tensors` (any shapes) and `meta` (JSON values).

    The folder is not fsynced: progress is written often, and the worst case is the checkpoint before.
    Raises StorageError when it cannot be written, StateError for a dtype that a state does not hold.
    """
    text = json.dumps(dict(meta))
    header = {"meta": text, "sha256": checksum(tensors, text)}
    replace_file(path, encode(tensors, header), durable=False)


def read_progress(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The tensors and meta last written to `path`; None when there are none, or they are damaged.

    Raises UnreadableError where the disk does not give them back.
    """
    try:
        tensors, header = decode(path)
        text = header["meta"]
        meta = json.loads(text)
    except UnreadableError:
        raise
    except (StateError, KeyError, ValueError, RecursionError):
        return None
    if header.get("sha256") != checksum(tensors, text) or not isinstance(meta, dict):
        return None
    return tensors, meta
