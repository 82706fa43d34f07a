"""Settings of a training run as `settings.json` has them: types, defaults, bounds, the sentence about a wrong one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any

from csk_sdk.formats.schema import is_finite

_RAW: dict[str, Any] = json.loads(
    (resources.files("csk_sdk.contract") / "settings.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Setting:
    """One setting: `type` is "integer", "number", "boolean" or "string"; `optional` whether it may be None.

    `bounds` are by JSON Schema's words ("minimum", "exclusiveMaximum", ...), `choices` of texts. `constants` are what a
    choice comes with. `unset` says what None stands for, `source` is the decision page that measured the default.
    """

    name: str
    type: str
    optional: bool
    default: Any
    bounds: Mapping[str, float]
    choices: tuple[str, ...]
    description: str
    constants: Mapping[str, Mapping[str, float]]
    unset: str
    unit: str
    source: str
    javascript: bool | str

    @property
    def rule(self) -> str:
        """What a value must be, such as "a whole number, 1 or more"."""
        if self.type == "boolean":
            return "true or false"
        if self.choices:
            return " or ".join(filter(None, [", ".join(self.choices[:-1]), self.choices[-1]]))
        return _rule(self.type == "integer", self.bounds)

    @property
    def shown_default(self) -> str:
        """The default as one writes it in a file or on a command line."""
        if self.default is None:
            return self.unset
        return f"{self.default:g}" if isinstance(self.default, float) else json.dumps(self.default).strip('"')

    def allows(self, value: Any) -> bool:
        """Whether `value` has the right type and lies within the bounds."""
        if value is None:
            return self.optional
        # To Python a bool is an int; nobody who writes `epochs = true` means 1.
        if self.type == "boolean" or isinstance(value, bool):
            return self.type == "boolean" and isinstance(value, bool)
        if self.type == "string":
            return isinstance(value, str) and value in self.choices
        if not isinstance(value, int if self.type == "integer" else (int, float)):
            return False
        if self.type == "number" and not is_finite(value):
            return False
        return all(_HOLDS[word](value, bound) for word, bound in self.bounds.items())

    def problem(self, value: Any) -> str | None:
        """The sentence about a value that is not allowed, else None."""
        if self.allows(value):
            return None
        shown = repr(value) if isinstance(value, str) else str(value)
        return SENTENCE.format(name=self.name, value=shown, rule=self.rule)


# The same sentence in both languages.
SENTENCE: str = _RAW["sentence"]
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "minimum": lambda value, bound: value >= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
}


def _rule(whole: bool, bounds: Mapping[str, float]) -> str:
    least, above = bounds.get("minimum"), bounds.get("exclusiveMinimum")
    most, below = bounds.get("maximum"), bounds.get("exclusiveMaximum")
    if most is None and below is None:
        low = f"above {above:g}" if least is None else f"{least:g} or more"
        return f"a whole number, {low}" if whole else f"{low}, and finite"
    if least is not None and most is not None:
        return f"a whole number from {least:g} to {most:g}" if whole else f"between {least:g} and {most:g}"
    low = f"above {above:g}" if least is None else f"at least {least:g}"
    return f"{low} and at most {most:g}" if below is None else f"{low} and below {below:g}"


def _setting(name: str, raw: Mapping[str, Any]) -> Setting:
    kinds = [raw["type"]] if isinstance(raw["type"], str) else raw["type"]
    return Setting(
        name=name,
        type=kinds[0],
        optional="null" in kinds,
        default=raw["default"],
        bounds={word: raw[word] for word in _HOLDS if word in raw},
        choices=tuple(one for one in raw.get("enum", ()) if one is not None),
        description=raw["description"],
        constants=raw.get("constants", {}),
        unset=raw.get("unset", ""),
        unit=raw.get("unit", ""),
        source=raw.get("source", ""),
        javascript=raw.get("javascript", True),
    )


def settings_of(properties: Mapping[str, Any]) -> dict[str, Setting]:
    """Settings by name, from the `properties` of `settings.json`."""
    return {name: _setting(name, raw) for name, raw in properties.items()}


SETTINGS: Mapping[str, Setting] = MappingProxyType(settings_of(_RAW["properties"]))
