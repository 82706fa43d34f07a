"""Edited and sealed again: what is refused, and how it is said, is one in Python, in TypeScript and by the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from make_manifests import HERE, edited, refusal

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import sealed
from csk_sdk.errors import BundleError
from csk_sdk.formats.schema import DEEPEST, load_schema, parse_json, violation

RECORDED = json.loads((HERE / "manifests.json").read_text())
MANIFEST, EDITS = RECORDED["manifest"], RECORDED["edits"]
ROOT = Path(__file__).parents[2]


def oracle() -> jsonschema.Draft202012Validator:
    """The JSON Schema library's own judgement; `1.0` and booleans are no integers here."""
    kind = jsonschema.Draft202012Validator
    strict = kind.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    schema = load_schema("manifest")
    kind.check_schema(schema)
    return jsonschema.validators.extend(kind, type_checker=strict)(schema)


def test_each_edit_is_refused_as_recorded() -> None:
    """The same file holds TypeScript to the same sentences (manifests.test.ts)."""
    found = {index: refusal(edited(MANIFEST, edit)) for index, edit in enumerate(EDITS)}
    assert found == {index: edit["refused"] for index, edit in enumerate(EDITS)}
    assert len(EDITS) >= 300
    assert sum(edit["refused"] is None for edit in EDITS) >= 50


@pytest.mark.slow
def test_the_schema_is_a_schema_and_is_read_as_the_library_reads_it() -> None:
    validator, schema = oracle(), load_schema("manifest")
    for edit in EDITS:
        raw = edited(MANIFEST, edit)
        ours, theirs = violation(raw, schema), validator.is_valid(raw)
        assert (ours is None) == theirs, (edit, ours)


@pytest.mark.slow
@pytest.mark.parametrize("keyword", sorted({"maxProperties", "maxItems", "maxLength"}))
def test_what_is_too_large_to_be_recorded(keyword: str) -> None:
    large: dict[str, Any] = {
        "maxProperties": {**MANIFEST, "agreement": {str(index): 0.0 for index in range(17)}},
        "maxItems": {**MANIFEST, "sites": MANIFEST["sites"] * 2000},
        "maxLength": {**MANIFEST, "choice": "x" * 65537},
    }
    told = {
        "maxProperties": "agreement has more than 16 entries",
        "maxItems": "sites must have from 0 to 4096 entries",
        "maxLength": "choice must have from 0 to 65536 characters",
    }
    assert violation(large[keyword], load_schema("manifest")) == told[keyword]
    assert not oracle().is_valid(large[keyword])


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity]",
        "{",
        "",
        '"\n"',
        "\ufeff{}",
        "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        "01",
        "[1,]",
    ],
)
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSONDecodeError is one, and so is ours
        parse_json(text)


@pytest.mark.parametrize(
    "text", ['"[[[' + "[" * 100 + '"', '"\\"[[' + "[" * 100 + '"', "[" * DEEPEST + "]" * DEEPEST]
)
def test_brackets_in_texts_nest_nothing(text: str) -> None:
    assert parse_json(text) == json.loads(text)


def test_numbers_that_nobody_counts_with_are_read_in_no_time() -> None:
    assert parse_json("9" * 19) == int("9" * 19)
    assert parse_json("9" * 400) == float("inf")
    assert parse_json("9" * 100_000) == float("inf")


def test_opening_says_the_same(tmp_path: Path) -> None:
    edit = next(edit for edit in EDITS if edit["refused"] and edit["path"] == ["kernels"])
    (tmp_path / "manifest.json").write_text(sealed(edited(MANIFEST, edit)))
    with pytest.raises(BundleError) as caught:
        Bundle.open(tmp_path)
    assert str(caught.value) == f"{tmp_path}/{edit['refused']}"
