"""JSON from outside, held against a schema of `csk_sdk/contract`: JSON Schema 2020-12, as far as those schemas use it.

Python and TypeScript read the same schemas and must say the same sentences, so what is found first is fixed: properties
in the schema's order, then all others in order of their names. Numbers are what JSON says: `1.0` is no integer, and a
number that is not finite is none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from importlib import resources
from typing import Any

Schema = Mapping[str, Any]

# A manifest nests five deep. More costs a parser's stack, and each language's ends elsewhere.
DEEPEST = 32
_STRING, _BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL), re.compile(r"[\[\]{}]")
# More digits are no number that is counted with, and take Python long to read.
_MOST_DIGITS = 19
_SHOWN = 80

_NAMES = {
    "object": "an object", "array": "a list", "string": "a text", "boolean": "true or false",
    "integer": "a whole number", "number": "a finite number", "null": "null",
}  # fmt: skip


class LoadedSchema(dict[str, Any]):
    """A schema that is held against one value after the other."""

    @cached_property
    def check(self) -> Callable[[Any], tuple[str, str] | None]:
        """The path below a value and what is wrong there; None where nothing is."""
        return _check_of(self)


@cache
def load_schema(name: str) -> LoadedSchema:
    """`csk_sdk/contract/NAME.schema.json`."""
    file = resources.files("csk_sdk.contract") / f"{name}.schema.json"
    return LoadedSchema(json.loads(file.read_text(encoding="utf-8")))


def parse_json(text: str) -> Any:
    """JSON as RFC 8259 has it, nested at most 32 deep. Raises ValueError for anything else."""
    depth = 0
    for bracket in _BRACKETS.finditer(_STRING.sub("", text)):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")
    return json.loads(text, parse_int=_whole, parse_constant=_refused)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def violation(value: Any, schema: Schema) -> str | None:
    """What is first wrong with a value, as "PATH what", such as "sites[0].groups must be a whole number"; or None."""
    wrong = (schema.check if isinstance(schema, LoadedSchema) else _check_of(schema))(value)
    return None if wrong is None else "".join(wrong).removeprefix(".")


def is_finite(value: float) -> bool:
    """Whether a number is one that float64 holds: JSON's whole numbers may have more digits than that."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def quoted(text: str) -> str:
    """A text as JSON, cut after 80 characters: the same in both languages."""
    return json.dumps(text[:_SHOWN])


# What is wrong: the path below the value that was checked, and the rest of the sentence; None where nothing is. Records
# have thousands of values: a path is put together only where something is wrong, and a schema is looked through once.
_Wrong = tuple[str, str] | None
_Check = Callable[[Any], _Wrong]


def _check_of(schema: Schema) -> _Check:
    kinds = schema.get("type")
    if kinds is None:
        return _enumeration(schema["enum"])
    allowed = [kinds] if isinstance(kinds, str) else list(kinds)
    checks = [(_IS[kind], _CHECKS[kind](schema)) for kind in allowed]
    wrong = ("", f" must be {' or '.join(_NAMES[one] for one in allowed)}")
    if len(checks) == 1:
        fits, inner = checks[0]
        kind = _TYPES.get(allowed[0])
        if kind is None:
            return lambda value: inner(value) if fits(value) else wrong
        if inner is _nothing:
            return lambda value: None if isinstance(value, kind) else wrong
        return lambda value: inner(value) if isinstance(value, kind) else wrong

    def check(value: Any) -> _Wrong:
        for fits, inner in checks:
            if fits(value):
                return inner(value)
        return wrong

    return check


def _enumeration(values: Sequence[str]) -> _Check:
    def check(value: Any) -> _Wrong:
        if isinstance(value, str) and value in values:
            return None
        shown = f"is {quoted(value)}, and " if isinstance(value, str) else ""
        return "", f" {shown}must be one of {', '.join(values)}"

    return check


def _object(schema: Schema) -> _Check:
    required, most = schema.get("required", ()), schema.get("maxProperties", math.inf)
    properties = {
        name: (_check_of(inner), name in required) for name, inner in schema.get("properties", {}).items()
    }
    others = schema.get("additionalProperties", True)
    check_other = None if isinstance(others, bool) else _check_of(others)

    def check(value: dict[str, Any]) -> _Wrong:
        if len(value) > most:
            return "", f" has more than {most} entries"
        for name, (inner, needed) in properties.items():
            if name not in value:
                if needed:
                    return f".{name}", " is missing"
            elif (wrong := inner(value[name])) is not None:
                return f".{name}{wrong[0]}", wrong[1]
        if others is True:
            return None
        for name in sorted(value.keys() - properties.keys() if properties else value):
            if check_other is None:
                return f"[{quoted(name)}]", " is not known"
            if (wrong := check_other(value[name])) is not None:
                return f"[{quoted(name)}]{wrong[0]}", wrong[1]
        return None

    return check


def _array(schema: Schema) -> _Check:
    outside, check_item = _bounds(schema, "Items", "entries"), _check_of(schema["items"])

    def check(value: list[Any]) -> _Wrong:
        if (bounds := outside(len(value))) is not None:
            return "", bounds
        for index, one in enumerate(value):
            if (wrong := check_item(one)) is not None:
                return f"[{index}]{wrong[0]}", wrong[1]
        return None

    return check


def _string(schema: Schema) -> _Check:
    outside = _bounds(schema, "Length", "characters")
    pattern = re.compile(schema["pattern"], re.ASCII) if "pattern" in schema else None
    if pattern is None and not {"minLength", "maxLength"} & schema.keys():
        return _nothing

    def check(value: str) -> _Wrong:
        if (bounds := outside(len(value))) is not None:
            return "", bounds
        if pattern is not None and not pattern.search(value):
            return "", f" must be {schema['description']}"
        return None

    return check


def _bounds(schema: Schema, what: str, unit: str) -> Callable[[int], str | None]:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}", math.inf)
    bounds = f"from {least} to {most}" if math.isfinite(most) else f"at least {least}"
    return lambda count: None if least <= count <= most else f" must have {bounds} {unit}"


def _integer(schema: Schema) -> _Check:
    least, most = schema["minimum"], schema["maximum"]
    return lambda value: (
        None if least <= value <= most else ("", f" is {value}, and must be from {least} to {most}")
    )


def _number(schema: Schema) -> _Check:
    above, least, most = (schema.get(name) for name in ("exclusiveMinimum", "minimum", "maximum"))
    parts = [("above", above), ("at least", least), ("at most", most)]
    bounds = " and ".join(f"{word} {bound}" for word, bound in parts if bound is not None)

    def check(value: float) -> _Wrong:
        fits = (above is None or value > above) and (least is None or value >= least)
        return None if fits and (most is None or value <= most) else ("", f" must be {bounds}")

    return check


def _any(_: Schema) -> _Check:
    return _nothing


def _nothing(value: Any) -> _Wrong:
    """Any value of its kind is right."""
    return None


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


_TYPES: dict[str, type] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)
}  # fmt: skip
_IS: dict[str, Callable[[Any], bool]] = {
    **{name: _is(kind) for name, kind in _TYPES.items()},
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in (int, float) and is_finite(value),
}

_CHECKS: dict[str, Callable[[Schema], _Check]] = {
    "object": _object, "array": _array, "string": _string, "boolean": _any, "integer": _integer,
    "number": _number, "null": _any,
}  # fmt: skip
