"""A state as a csk-sdk that does not exist yet might leave it, made from one that does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk.state.atomic import replace_file
from csk_sdk.state.sealing import seal, unseal
from csk_sdk.state.tensorfile import decode, encode

# What nobody knows yet: beside the known fields of a record, of each task and of HEAD.
OF_RECORD = {"ledger": {"entries": [1, 2.0, None], "über": "ß"}, "stored": 7, "more": {"a": []}}
OF_TASK = {"consent": {"by": "owner", "until": 1e22}, "more": [True], "needs": "nothing"}
OF_HEAD = {"branch": "main", "at": 1.0}
TENSORS = {
    "ledger/rows": np.full((2, 3), np.nan, np.float32),
    "moment/of-a-later-site": np.arange(4.0),
    "statistics.kurtosis": np.array([1, 2, 3], np.int64),
    "head/01/temperature": np.array([7], np.uint8),
}


def hand_over(state: Path, min_reader: int | None = None, min_writer: int | None = None) -> Path:
    """Rewrite the newest generation of `state`, and HEAD, as a newer csk-sdk would; returns the folder."""
    number = max(int(path.stem) for path in (state / "generations").glob("*.json"))
    path, file = (state / "generations" / f"{number:06d}.{kind}" for kind in ("json", "safetensors"))
    data = encode({**decode(file)[0], **TENSORS})
    record = unseal(path)
    record |= {**OF_RECORD, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    record["tasks"] = [{**task, **OF_TASK, "name": task["name"]} for task in record["tasks"]]
    needs = {"min_reader": min_reader, "min_writer": min_writer}
    record |= {name: version for name, version in needs.items() if version is not None}
    replace_file(file, data)
    rewrite(path, record)
    rewrite(state / "HEAD", {**unseal(state / "HEAD"), **OF_HEAD})
    return state


def rewrite(path: Path, content: dict[str, Any]) -> None:
    """Replace sealed JSON."""
    replace_file(path, seal(content))


def bytes_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return dict(_files(folder))


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()
