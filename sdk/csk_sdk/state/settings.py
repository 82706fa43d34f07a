"""The settings that the tasks of a record were learned with: mostly the same, and more than half of its text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

# As a record's file has a task's settings, and as its checksum is of.
_SHORT, _ORDERED = '"config":', '"config": '
_DECODER = json.JSONDecoder()


class Settings(dict[str, Any]):
    """Those of all tasks that were learned with them: one object, whose JSON is made once."""

    @cached_property
    def short(self) -> str:
        """As JSON without spaces."""
        return json.dumps(self, separators=(",", ":"))

    @cached_property
    def ordered(self) -> str:
        """As JSON, the names in order."""
        return json.dumps(self, sort_keys=True)

    def put_into(self, texts: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
        """Both texts of a task that has these settings, of those with "" in their place; None where more has that."""
        found = []
        for text, name, own in zip(texts, (_SHORT, _ORDERED), (self.short, self.ordered), strict=True):
            parts = text.split(f'{name}""'.encode())
            if len(parts) != 2:
                return None
            found.append(f"{name}{own}".encode().join(parts))
        return found[0], found[1]


def parse_shared(data: bytes) -> tuple[Any, list[Settings]]:
    """A record's JSON, and the settings of its tasks, parsed once where they are the same; `ordered_json` is next.

    That puts the settings where their number is now. There are none of JSON that is not as a record is written: all of
    that is in its place. Raises ValueError, or RecursionError, for what is no JSON.
    """
    try:
        first, *others = data.decode().split(f",{_SHORT}")
        if others and (found := _parse(first, others)) is not None:
            return found
    except (ValueError, RecursionError):
        # The whole is to say what is wrong with it, and where.
        pass
    return json.loads(data), []


def _parse(first: str, others: Sequence[str]) -> tuple[Any, list[Settings]] | None:
    """Of the text before the first settings, and those that begin with settings; None where others than tasks have any.

    A JSON object ends where its text does, so text that begins with the same has the same one there. Nothing that is
    no JSON becomes JSON by having a text, with its quotes, in an object's place.
    """
    parts, shared = [first], []
    known: dict[str, Settings] = {}
    text = ""
    for place, other in enumerate(others):
        if not (text and other.startswith(text)):
            value, end = _DECODER.raw_decode(other)
            if not isinstance(value, dict):
                return None
            text = other[:end]
            known.setdefault(text, Settings(value))
        shared.append(known[text])
        parts += (f',{_SHORT}"{place}"', other[len(text) :])
    raw = json.loads("".join(parts))
    tasks = raw.get("tasks") if isinstance(raw, dict) else None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        return None
    placed = [task.get("config") for task in tasks]
    return (raw, shared) if placed == [str(place) for place in range(len(shared))] else None


def put_back(raw: Any, shared: Sequence[Settings]) -> None:
    """Put the settings that `parse_shared` found back."""
    for task, settings in zip(raw["tasks"] if shared else (), shared, strict=True):
        task["config"] = settings


def ordered_json(raw: Any, shared: Sequence[Settings]) -> Iterable[str]:
    """Put the settings that `parse_shared` found back. The parts of the JSON of all that, its names in order."""
    parts = json.dumps(raw, sort_keys=True).split(_ORDERED) if shared else []
    put_back(raw, shared)
    # Something else may have that name, too.
    if len(parts) != len(shared) + 1:
        return [json.dumps(raw, sort_keys=True)]
    found = parts[:1]
    for place, (settings, part) in enumerate(zip(shared, parts[1:], strict=True)):
        found += (_ORDERED, settings.ordered, part.removeprefix(f'"{place}"'))
    return found
