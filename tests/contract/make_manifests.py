"""Edits of a manifest, and what both languages must say of each: python tests/contract/make_manifests.py

Writes manifests.json: `manifest`, a good one, and `edits`, each a path in it with a value to put there, or without one
to take out what is there, and the sentence that refuses it (null: it is accepted). Edits are made from the schema, for
every field; those of parts that must fit each other are listed below. The sentences are Python's; that they are right
to refuse is judged by `jsonschema` in test_manifests.py, and TypeScript is held to them by manifests.test.ts.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csk_sdk.bundle.manifest_checks import check_manifest
from csk_sdk.contract.manifest import Manifest, sealed
from csk_sdk.errors import BundleError
from csk_sdk.formats.schema import Schema, load_schema

HERE = Path(__file__).parent
SOURCE = HERE.parent / "conformance" / "vectors" / "bundles" / "plain-int8" / "manifest.json"
WHERE = "manifest.json"
Edit = dict[str, Any]

# One of each type; what a field may have is left out by the schema.
OTHERS: dict[str, Any] = {"null": None, "boolean": True, "string": "x", "array": [], "object": {}}


def main() -> None:
    manifest = json.loads(SOURCE.read_text())
    del manifest["seal"]
    edits = [*edits_of(manifest, load_schema("manifest"), ()), *misfits(manifest)]
    for edit in edits:
        edit["refused"] = refusal(edited(manifest, edit))
    (HERE / "manifests.json").write_text(json.dumps({"manifest": manifest, "edits": edits}, indent=1) + "\n")
    print(f"{len(edits)} edits, {sum(edit['refused'] is not None for edit in edits)} of them refused")


def edited(manifest: Any, edit: Edit) -> Any:
    """A copy of a manifest with an edit made."""
    found = copy.deepcopy(manifest)
    *parents, last = edit["path"]
    place = found
    for step in parents:
        place = place[step]
    if "value" in edit:
        place[last] = edit["value"]
    else:
        del place[last]
    return found


def refusal(manifest: Any) -> str | None:
    """What Python says to a manifest that was sealed again; None where it is accepted."""
    try:
        check_manifest(Manifest.from_json(sealed(manifest), WHERE), Path())
    except BundleError as error:
        return str(error)
    return None


def edits_of(value: Any, schema: Schema, path: tuple[Any, ...]) -> Iterator[Edit]:
    """Edits of one value and of what is in it, from its schema."""
    here = {"path": list(path)}
    if path:
        for other in _others(schema):
            yield {**here, "value": other}
        yield from ({**here, "value": bound} for bound in _bounds(schema))
    for name, inner in schema.get("properties", {}).items():
        if name in ("seal", "schema_version"):
            continue
        if name in value:
            yield {"path": [*path, name]}
            yield from edits_of(value[name], inner, (*path, name))
        else:
            yield from ({"path": [*path, name], "value": other} for other in _others(inner)[:2])
    others = schema.get("additionalProperties")
    if others is False:
        yield {"path": [*path, "colour"], "value": 1}
    elif isinstance(others, dict) and value:
        yield from edits_of(value[min(value)], others, (*path, min(value)))
    if "items" in schema and value:
        yield from edits_of(value[0], schema["items"], (*path, 0))


def _others(schema: Schema) -> list[Any]:
    kinds = schema.get("type", "string")
    allowed = [kinds] if isinstance(kinds, str) else kinds
    found = [value for kind, value in OTHERS.items() if kind not in allowed]
    if "integer" not in allowed and "number" not in allowed:
        found.append(3)
    return [*found, 2.5] if "integer" in allowed else found


def _bounds(schema: Schema) -> Iterator[Any]:
    """Just within and just outside."""
    if "enum" in schema:
        yield from ("", schema["enum"][0].upper(), schema["enum"][-1])
    if schema.get("type") == "integer":
        yield from (schema["minimum"] - 1, schema["minimum"], schema["maximum"] + 1)
    for name in ("minimum", "exclusiveMinimum"):
        if schema.get("type") == "number" and name in schema:
            yield from (schema[name], -0.5)
    if schema.get("minItems"):
        yield []
    if schema.get("minLength"):
        yield ""
    if "pattern" in schema:
        yield "no digest"


def misfits(manifest: Any) -> Iterator[Edit]:
    """Each fulfils the schema, and does not fit the rest; or looks odd, and is fine."""
    sites, files, kernels = manifest["sites"], manifest["files"], manifest["kernels"]
    first = sites[0]
    for name in ("../x", "a/../b", "/etc/x", "C:\\x", "..\\x", "a\0b", "", "a//b", "./a", "a/", "ort/x", "ü"):
        yield {"path": ["files", name], "value": {"sha256": "0" * 64, "size": 1}}
    # Of what it then asks for, nothing is there.
    for channels in (-1, 22, 1 << 21):
        yield {"path": ["domain_channels"], "value": channels}
    for name in files:
        yield {"path": ["files", name]}
    for name in kernels:
        yield {"path": ["kernels", name]}
        yield {"path": ["kernels", name], "value": ["nothing"]}
    yield {"path": ["kernels"], "value": {}}
    for value in ([65536, 65536], [8192, 8192], [2731, 8192], [9], [9, 9]):
        yield {"path": ["input", "size"], "value": value}
    for name in ("mean", "std"):
        for count in (1, 2, 4):
            yield {"path": ["preprocessing", name], "value": [0.5] * count}
    for name in ("mean", "std"):
        for count in (1, 3, 4):
            yield {"path": ["probe"], "value": {"mean": [0.5] * 3, "std": [0.5] * 3, name: [0.5] * count}}
    for spec in ({"mean": [0.5] * 3}, {"mean": [0.0] * 3, "std": [0.0, 1.0, -0.5]}):
        yield {"path": ["probe"], "value": spec}
    for resize in ("crop", "none"):
        yield {"path": ["preprocessing", "resize"], "value": resize}
    for value in (["exact"], ["exact", "int8"], [], ["int8"], ["int8", "int8"]):
        yield {"path": ["precisions"], "value": value}
    for value in ([5], [1 << 30, 1 << 30], [8, 8, 8]):
        yield {"path": ["prefix"], "value": value}
    for name, count in (("stride", 1), ("dilation", 3), ("pads", 2), ("input_size", 1), ("output_size", 3)):
        yield {"path": ["sites", 0, name], "value": [1] * count}
    for shape in ([1 << 30, 4, 3, 3], [4, 3, 3], [4, 3, 3, 3, 3], [4, 3], [7, 3, 3, 3]):
        yield {"path": ["sites", 0, "shape"], "value": shape}
    yield {"path": ["sites", 0, "groups"], "value": 3}
    names = ("name", "weight", "delta", "indices", "gradient", "moment")
    for name in names:
        yield {"path": ["sites", 1, name], "value": first[name]}
    for taken in ("image", "label", "loss", "features", manifest["head"]["weight"], first["indices"]):
        yield {"path": ["sites", 0, "delta"], "value": taken}
    yield {"path": ["head", "weight"], "value": manifest["head"]["bias"]}
    for name in (
        " ",
        "\u00a0",
        "\ufeff",
        "\x1b[2J",
        "\x85",
        "a\nb",
        "x" * 1024,
        "x" * 1025,
        "ﬀ",
        "\U0001f600" * 1024,
    ):
        yield {"path": ["classes", 0], "value": name}
    yield {"path": ["classes", 0], "value": manifest["classes"][1]}
    yield {"path": ["sites", 0, "node"], "value": ""}
    yield {"path": ["sites", 0, "weight"], "value": "x" * 4097}
    yield {"path": ["sites", 0, "whole"], "value": True}
    for domains in ([], ["com.microsoft"], ["ai.onnx", "ai.onnx.ml"]):
        yield {"path": ["op_domains"], "value": domains}
    for backends in ([], ["ort-training"], ["ort-training", "portable"], ["tpu"]):
        yield {"path": ["backends"], "value": backends}
    for version in (1, 0, 3, 4, -1, 2.0, "2", None, True, 1 << 60):
        yield {"path": ["schema_version"], "value": version}
    for value in (1e300, -1e300, 1e-300, 1 << 70, -0.0):
        yield {"path": ["channel_ratio"], "value": value}
    for value in (1 << 60, 1 << 53, 10**25, 1e20, 16.0):
        yield {"path": ["batch_size"], "value": value}
    layer = {"weight": first["weight"], "bias": "", "axis": -1, "largest": 127, "input_scale": 0.01}
    wrong: list[dict[str, Any]] = [
        {},
        {"axis": 2},
        {"largest": 128},
        {"input_scale": 0},
        {"weight": ""},
        {"bits": 8},
    ]
    wrong += [{"weight": "nothing"}, {"bias": "nothing"}, {"bias": first["weight"]}, {"input_scale": None}]
    for one in wrong:
        yield {"path": ["quantised"], "value": [{**layer, **one}]}
    yield {"path": ["quantised"], "value": [layer, layer]}
    yield {"path": ["quantised"], "value": []}
    yield {"path": ["input"], "value": {"name": "image", "channels": 3, "height": 9, "width": 9}}
    yield {"path": ["input"], "value": {"name": "image", "channels": 3, "height": 9}}
    yield {"path": ["a field of the future"], "value": {"any": ["thing"]}}
    yield {"path": ["choice"], "value": [[[[[[[[]]]]]]]]}


if __name__ == "__main__":
    main()
