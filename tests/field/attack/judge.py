"""An independent judge: reads a state or a bundle with json, hashlib and safetensors only, as the docs describe them.

Nothing of csk_sdk is imported here. What csk_sdk says of its own files is no evidence.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

Bits = dict[str, str]


class Damaged(AssertionError):
    """A file is not what its checksum says, or missing."""


@dataclass(frozen=True)
class Look:
    """What a state folder holds: the current generation, the last number, and all intact ones' bits by number."""

    head: int
    last: int
    tasks: tuple[str, ...]
    intact: dict[int, Bits]
    records: dict[int, dict[str, Any]]


def sealed_json(path: Path) -> dict[str, Any]:
    """A record, as docs/state.md says: `check` is the sha256 of the other fields as JSON with sorted keys."""
    try:
        raw = json.loads(path.read_bytes())
        check = raw.pop("check")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise Damaged(f"{path.name}: {error!r}") from error
    if hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest() != check:
        raise Damaged(f"{path.name}: its check does not match")
    return dict(raw)


def bits(path: Path) -> Bits:
    """The tensors of a file, each as a hash of dtype, shape and bytes."""
    return hashed(load_file(path))


def hashed(tensors: Mapping[str, np.ndarray]) -> Bits:
    """Each tensor as a hash of dtype, shape and bytes."""
    return {
        name: hashlib.sha256(f"{tensor.dtype} {tensor.shape} ".encode() + tensor.tobytes()).hexdigest()
        for name, tensor in tensors.items()
    }


def generation(state: Path, number: int) -> tuple[dict[str, Any], Bits]:
    """Record and tensors of one generation. Raises Damaged where either is not whole."""
    record = sealed_json(state / "generations" / f"{number:06d}.json")
    path = state / "generations" / f"{number:06d}.safetensors"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path.name}: {error}") from error
    if (len(content), hashlib.sha256(content).hexdigest()) != (record["size"], record["sha256"]):
        raise Damaged(f"{path.name}: its size or sha256 is not its record's")
    if record["number"] != number or not 0 <= record["parent"] < number:
        raise Damaged(f"{path.name}: its record is that of another generation")
    return record, bits(path)


def numbers(state: Path, suffix: str = "json") -> list[int]:
    """Which generations have a file of that suffix."""
    found = (re.fullmatch(rf"(\d{{6}})\.{suffix}", path.name) for path in (state / "generations").glob("*"))
    return sorted(int(match[1]) for match in found if match)


def look(state: Path, complete: bool = True) -> Look:
    """The whole state. Raises Damaged where HEAD, its generation, or any record up to `last` is not whole.

    A folder without HEAD and without records is one in which nothing is learned yet. Not `complete`: records may be
    lost, as where the disk lost both files of a generation and nothing is left to tell of it.
    """
    if not (state / "HEAD").exists():
        if numbers(state):
            raise Damaged("HEAD is missing although there are records")
        return Look(0, 0, (), {}, {})
    head = sealed_json(state / "HEAD")
    identity = sealed_json(state / "state.json")
    if identity["bundle_id"] != head["bundle_id"]:
        raise Damaged("state.json and HEAD name two bundles")
    intact: dict[int, Bits] = {}
    records: dict[int, dict[str, Any]] = {}
    stored = numbers(state, "safetensors")
    for number in numbers(state):
        if number > head["last"]:
            continue  # of a commit that never ended
        records[number] = sealed_json(state / "generations" / f"{number:06d}.json")
        if number in stored:
            intact[number] = generation(state, number)[1]
    missing = set(range(1, head["last"] + 1)) - records.keys()
    if complete and missing:
        raise Damaged(f"the records {sorted(missing)} are missing")
    if head["head"] and head["head"] not in intact:
        raise Damaged(f"the current generation {head['head']} is not there")
    tasks = tuple(task["name"] for task in records[head["head"]]["tasks"]) if head["head"] else ()
    return Look(head["head"], head["last"], tasks, intact, records)


def intact_generations(state: Path) -> dict[int, Bits]:
    """Those of which record and tensors are whole, whatever else is damaged."""
    found = {}
    for number in numbers(state):
        try:
            found[number] = generation(state, number)[1]
        except Damaged:
            continue
    return found


def bundle(folder: Path) -> str:
    """A hash of all files that a bundle lists; raises Damaged where one of them is not whole."""
    try:
        files = json.loads((folder / "manifest.json").read_bytes())["files"]
        for name, entry in files.items():
            content = (folder / name).read_bytes()
            if (len(content), hashlib.sha256(content).hexdigest()) != (entry["size"], entry["sha256"]):
                raise Damaged(f"{name} is not the file that was built")
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"{folder}: {error!r}") from error
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def tree(folder: Path, leave: tuple[str, ...] = ("lock",)) -> dict[str, str]:
    """Every file below a folder, as a hash; temporary files and those named in `leave` aside."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in leave and not path.name.endswith(".csk-tmp")
    }


def one_sentence(text: str) -> None:
    """What a refused command prints: `Error: ` and one line that ends in a full stop."""
    lines = [line for line in text.splitlines() if line and not line.startswith("Warning: ")]
    assert len(lines) == 1, f"not one sentence: {text[-800:]!r}"
    assert lines[0].startswith("Error: "), lines[0]
    assert lines[0].endswith("."), lines[0]
    assert "Traceback" not in text
