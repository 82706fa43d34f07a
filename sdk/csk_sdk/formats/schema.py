"""JSON from outside, held against a schema of `csk_sdk/contract`: JSON Schema 2020-12, as far as those schemas use it.

Python and TypeScript read the same schemas and must say the same sentences, so what is found first is fixed: properties
in the schema's order, then all others in order of their names. Numbers are what JSON says: `1.0` is no integer, and a
number that is not finite is none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
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


@cache
def load_schema(name: str) -> Schema:
    """`csk_sdk/contract/NAME.schema.json`."""
    file = resources.files("csk_sdk.contract") / f"{name}.schema.json"
    schema: Schema = json.loads(file.read_text(encoding="utf-8"))
    return schema


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


def violation(value: Any, schema: Schema, path: str = "") -> str | None:
    """What is first wrong with a value, as "PATH what", such as "sites[0].groups must be a whole number"; or None."""
    kinds = schema.get("type")
    if kinds is not None:
        allowed = [kinds] if isinstance(kinds, str) else kinds
        kind = next((kind for kind in allowed if _is(value, kind)), None)
        if kind is None:
            return f"{path} must be {' or '.join(_NAMES[one] for one in allowed)}"
        check = _CHECKS.get(kind)
        return check(value, schema, path) if check else None
    if value not in schema["enum"] or not isinstance(value, str):
        shown = f"is {quoted(value)}, and " if isinstance(value, str) else ""
        return f"{path} {shown}must be one of {', '.join(schema['enum'])}"
    return None


def quoted(text: str) -> str:
    """A text as JSON, cut after 80 characters: the same in both languages."""
    return json.dumps(text[:_SHOWN])


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return type(value) is int
    if kind == "number":
        return type(value) in (int, float) and math.isfinite(value)
    if kind == "null":
        return value is None
    types = {"object": dict, "array": list, "string": str, "boolean": bool}
    return type(value) is types[kind]


def _object(value: dict[str, Any], schema: Schema, path: str) -> str | None:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    if len(value) > schema.get("maxProperties", math.inf):
        return f"{path} has more than {schema['maxProperties']} entries"
    for name, inner in properties.items():
        there = f"{path}.{name}" if path else name
        if name not in value:
            if name in schema.get("required", ()):
                return f"{there} is missing"
            continue
        if (wrong := violation(value[name], inner, there)) is not None:
            return wrong
    if others is True:
        return None
    for name in sorted(value.keys() - properties.keys()):
        there = f"{path}[{quoted(name)}]"
        if others is False:
            return f"{there} is not known"
        if (wrong := violation(value[name], others, there)) is not None:
            return wrong
    return None


def _array(value: list[Any], schema: Schema, path: str) -> str | None:
    if (wrong := _outside(len(value), schema, "Items", f"{path} must have", " entries")) is not None:
        return wrong
    found = (violation(one, schema["items"], f"{path}[{index}]") for index, one in enumerate(value))
    return next((wrong for wrong in found if wrong is not None), None)


def _string(value: str, schema: Schema, path: str) -> str | None:
    if (wrong := _outside(len(value), schema, "Length", f"{path} must have", " characters")) is not None:
        return wrong
    if "pattern" in schema and not re.search(schema["pattern"], value, re.ASCII):
        return f"{path} must be {schema['description']}"
    return None


def _outside(count: int, schema: Schema, what: str, says: str, unit: str) -> str | None:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}", math.inf)
    if least <= count <= most:
        return None
    bounds = f"from {least} to {most}" if math.isfinite(most) else f"at least {least}"
    return f"{says} {bounds}{unit}"


def _integer(value: int, schema: Schema, path: str) -> str | None:
    least, most = schema["minimum"], schema["maximum"]
    return None if least <= value <= most else f"{path} is {value}, and must be from {least} to {most}"


def _number(value: float, schema: Schema, path: str) -> str | None:
    above, least, most = (schema.get(name) for name in ("exclusiveMinimum", "minimum", "maximum"))
    fits = (above is None or value > above) and (least is None or value >= least)
    if fits and (most is None or value <= most):
        return None
    parts = [("above", above), ("at least", least), ("at most", most)]
    return f"{path} must be {' and '.join(f'{word} {bound}' for word, bound in parts if bound is not None)}"


_CHECKS: dict[str, Callable[[Any, Schema, str], str | None]] = {
    "object": _object, "array": _array, "string": _string, "integer": _integer, "number": _number,
}  # fmt: skip
