"""TypeScript's `src/contract`, for runtimes that cannot import JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tools.contract.shared import HOW, Raw, camel, kind_of, sentences

from csk_sdk.contract.settings import settings_of

BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def settings_module(settings: Raw) -> str:
    """`settings.ts`: interface, defaults, and the rules that values are held against."""
    described = settings_of(settings["properties"])
    own = {name: raw for name, raw in settings["properties"].items() if raw.get("javascript", True) is True}
    fields, defaults, table = [], [], []
    for name, raw in own.items():
        kind, optional = kind_of(raw)
        typed = (
            " | ".join(map(_quoted, raw["enum"]))
            if "enum" in raw
            else "number"
            if kind == "integer"
            else kind
        )
        typed += " | null" if optional else ""
        text = re.sub(
            r"`(\w+)`",
            lambda found: f"`{camel(found[1])}`",
            sentences(raw, described[name].rule, raw.get("unset", "")),
        )
        fields.append(f"  /** {text} */\n  readonly {camel(name)}: {typed};")
        defaults.append(f"  {camel(name)}: {value_of(raw['default'])},")
        parts = {"record": name, "type": kind, "optional": optional, "rule": described[name].rule}
        parts |= {bound: raw[bound] for bound in BOUNDS if bound in raw}
        parts |= {"choices": raw["enum"]} if "enum" in raw else {}
        table.append(
            f"  {camel(name)}: {{ {', '.join(f'{key}: {value_of(value)}' for key, value in parts.items())} }},"
        )
    constants = value_of(settings["properties"]["optimizer"]["constants"])
    refused = {
        name: raw for name, raw in settings["properties"].items() if isinstance(raw.get("javascript"), str)
    }
    return (
        "\n".join(
            [
                f"/** {HOW.format('settings.json')} */",
                "",
                "/** How a task is learned: every setting. docs/settings.md has them as a table. */",
                "export interface TrainingConfig {",
                *fields,
                "}",
                "",
                "/** What is meant where nothing is set. */",
                "export const DEFAULTS: TrainingConfig = {",
                *defaults,
                "};",
                "",
                "/** Of one setting: its name in a state's record, its type, and what a value must be. */",
                "export interface Setting {",
                "  readonly record: string;",
                "  readonly type: 'integer' | 'number' | 'boolean' | 'string';",
                "  readonly optional: boolean;",
                "  readonly rule: string;",
                *(f"  readonly {bound}?: number;" for bound in BOUNDS),
                "  readonly choices?: readonly string[];",
                "}",
                "",
                "export const SETTINGS: { readonly [Name in keyof TrainingConfig]: Setting } = {",
                *table,
                "};",
                "",
                "/** What the Python SDK has and this runner refuses: why, and its default, which a record states. */",
                "export const REFUSED: Readonly<Record<string, { why: string; record: string; default: number }>> = {",
                *(
                    f"  {camel(name)}: {{ why: {_quoted(raw['javascript'].replace(name, camel(name)))}, "
                    f"record: {_quoted(name)}, default: {value_of(raw['default'])} }},"
                    for name, raw in refused.items()
                ),
                "};",
                "",
                "/** What each optimizer comes with. */",
                f"export const OPTIMIZER_CONSTANTS = {constants} as const;",
                "",
                "/** The sentence about a value that is not allowed. */",
                f"export const SENTENCE = {_quoted(settings['sentence'])};",
            ]
        )
        + "\n"
    )


def thresholds_module(groups: Raw) -> str:
    """`thresholds.ts`: an object for each group."""
    lines = [f"/** {HOW.format('thresholds.json')} */"]
    for group, values in groups.items():
        # What Python alone does is told in Python alone.
        if group.startswith("$") or not values.get("javascript", True):
            continue
        source = f" docs/decisions/{values['source']}.md." if values["source"] else ""
        lines += ["", f"/** What {group.replace('_', ' ')} goes by.{source} */"]
        lines.append(f"export const {group.upper()} = {{")
        for name, one in values.items():
            if name != "source":
                lines += [f"  /** {one['description']} */", f"  {camel(name)}: {value_of(one['value'])},"]
        lines.append("} as const;")
    return "\n".join(lines) + "\n"


def sentences_module(sentences: Raw) -> str:
    """`sentences.ts`: settings by their properties' names."""
    lines = [f"/** {HOW.format('sentences.json')} */", "", "export const SENTENCES = {"]
    for name, text in sentences.items():
        if not name.startswith("$"):
            named = re.sub(r"`(\w+)(?: = ([\w{}-]+))?`", _property, text)
            lines.append(f"  {camel(name)}: {_quoted(named)},")
    return "\n".join([*lines, "} as const;"]) + "\n"


def _property(found: re.Match[str]) -> str:
    value = found[2]
    if value is None:
        return camel(found[1])
    plain = value in ("true", "false") or value.isdigit()
    return f"{camel(found[1])}: {value}" if plain else f"{camel(found[1])}: '{value}'"


def _quoted(text: str) -> str:
    return json.dumps(text) if "'" in text else f"'{text}'"


def value_of(value: Any) -> str:
    """A value of JSON in TypeScript."""
    if isinstance(value, dict):
        return (
            f"{{ {', '.join(f'{key}: {value_of(one)}' for key, one in value.items())} }}" if value else "{}"
        )
    if isinstance(value, list):
        return f"[{', '.join(map(value_of, value))}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, float):
        return re.sub(r"e\+?(-?)0*", r"e\1", repr(value))
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def schema_module(path: Path) -> str:
    """A schema as a module."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path.name.split(".")[0]).upper()
    text = (
        json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=1)
        .replace("\\", "\\\\")
        .replace("`", "\\`")
    )
    assert "${" not in text
    json_type = "import type { Json } from '../formats/json.js';\n" if name == "RECORD" else ""
    return (
        f"/** {HOW.format(path.name)} */\n\n{json_type}"
        "import type { Schema } from '../formats/schema.js';\n\n"
        f"export const {name}_SCHEMA = JSON.parse(`{text}`) as Schema;\n"
        + (recorded_task(json.loads(path.read_text(encoding="utf-8"))) if name == "RECORD" else "")
    )


def recorded_task(record: Raw) -> str:
    """What a record says of a task, as an interface, and under which name it says each of it."""
    task = record["properties"]["tasks"]["items"]
    properties = task["properties"]

    def _mark(name: str) -> str:
        return "" if name in task["required"] or "default" in properties[name] else "?"

    fields = [
        f"  /** {raw['description'][0].upper()}{raw['description'][1:]}. */\n"
        f"  readonly {camel(name)}{_mark(name)}: {_typed(raw)};"
        for name, raw in properties.items()
    ]
    names = [f"  {camel(name)}: '{name}'," for name in properties]
    unset = {camel(name): raw["default"] for name, raw in properties.items() if "default" in raw}
    picked = f"Pick<RecordedTask, {' | '.join(map(_quoted, unset))}>"
    return "\n".join(
        [
            *(
                "",
                "/** A task that was learned, and what it took. */",
                "export interface RecordedTask {",
                *fields,
                "}",
            ),
            *("", "/** How a record calls each of that. */"),
            *(
                "export const TASK_NAMES: { readonly [Name in keyof RecordedTask]: string } = {",
                *names,
                "};",
            ),
            *("", "/** What a task of an older csk-sdk is taken to say where it says nothing. */"),
            *(f"export const UNRECORDED: {picked} = {value_of(unset)};", ""),
        ]
    )


def _typed(raw: Raw) -> str:
    """The type of a value that a schema describes."""
    if raw["type"] == "array":
        return f"readonly {_typed(raw['items'])}[]"
    if raw["type"] == "object":
        inner = raw["additionalProperties"]
        return (
            "{ readonly [name: string]: Json }"
            if inner is True
            else f"Readonly<Record<string, {_typed(inner)}>>"
        )
    return {"integer": "number", "boolean": "boolean"}.get(raw["type"], raw["type"])
