"""Does what came out of JSON have the types that a dataclass declares? JSON from outside may hold anything."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints


def mistyped(record: Any) -> str | None:
    """The path of the first field of a dataclass instance that is not of its declared type; None if all are.

    Known are Any, int, float (ints pass), str, bool, None, unions, `tuple[x, ...]`, `dict[str, x]` and dataclasses.
    """
    kind: Any = type(record)
    for name, hint in _hints(kind).items():
        problem = _mismatch(getattr(record, name), hint)
        if problem is not None:
            return f"{name}{problem}"
    return None


def _mismatch(value: Any, hint: Any) -> str | None:
    """Where in `value` something is not of type `hint`: "" for the value itself; None if nothing is."""
    origin, arguments = _parts(hint)
    if hint is Any:
        return None
    if origin in (Union, types.UnionType):
        return None if any(_mismatch(value, one) is None for one in arguments) else ""
    if origin is tuple:
        if not isinstance(value, tuple):
            return ""
        return _first(enumerate(value), arguments[0])
    if origin is dict:
        if not isinstance(value, Mapping):
            return ""
        if arguments[1] is Any:
            return None
        return _first(value.items(), arguments[1])
    if is_dataclass(hint):
        problem = mistyped(value) if isinstance(value, hint) else ""  # type: ignore[arg-type]
        return f".{problem}" if problem else problem
    if hint is float:
        return None if isinstance(value, int | float) and not isinstance(value, bool) else ""
    if hint is int:
        return None if type(value) is int else ""
    if hint in (str, bool, type(None)):
        return None if isinstance(value, hint) else ""
    raise TypeError(f"{hint} is no type that JSON can be checked for")


def _first(items: Iterable[tuple[Any, Any]], hint: Any) -> str | None:
    """The first of some items, by what leads to them, that is not of type `hint`."""
    for key, value in items:
        problem = _mismatch(value, hint)
        if problem is not None:
            return f"[{key if isinstance(key, int) else repr(str(key)[:80])}]{problem}"
    return None


@cache
def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(hint), get_args(hint)


@cache
def _hints(record: Any) -> dict[str, Any]:
    """Resolved once: a state's record has as many tasks as were ever learned."""
    hints = get_type_hints(record)
    return {field.name: hints[field.name] for field in fields(record)}
