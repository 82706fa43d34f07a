"""Records and progress checkpoints: what is refused, and in which words, is one in both languages and the schemas."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from make_manifests import edited
from make_states import GOOD, HERE, TASK, recorded

from csk_sdk.errors import StateError
from csk_sdk.formats.schema import load_schema, violation
from csk_sdk.network.profiles import PROFILES
from csk_sdk.state.generation import LATER, GenerationRecord, LearnedTask
from csk_sdk.state.sealing import seal

RECORDED = json.loads((HERE / "states.json").read_text())
names = pytest.mark.parametrize("name", GOOD)


@names
def test_each_edit_is_refused_as_recorded(name: str) -> None:
    assert recorded(name) == RECORDED[name], "run make_states.py"
    refused = [edit["refused"] for edit in RECORDED[name]["edits"]]
    assert sum(one is not None for one in refused) > 40
    assert sum(one is None for one in refused) >= 5


@names
def test_the_schema_is_read_as_the_library_reads_it(name: str) -> None:
    kind, schema = jsonschema.Draft202012Validator, load_schema(name)
    kind.check_schema(schema)
    strict = kind.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    validator = jsonschema.validators.extend(kind, type_checker=strict)(schema)
    for edit in RECORDED[name]["edits"]:
        raw = edited(GOOD[name], edit)
        assert (violation(raw, schema) is None) == validator.is_valid(raw), edit


def test_reading_a_record_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "000002.json"
    for edit in RECORDED["record"]["edits"]:
        raw: dict[str, Any] = edited(GOOD["record"], edit)
        path.write_bytes(seal(raw))
        if edit["refused"] is None:
            read = GenerationRecord.read(path, tmp_path / "none")
            again = json.loads(read.to_bytes())
            # What is 1 is not written; all else is, whatever it is.
            for field in ("check", "min_writer", "min_reader"):
                again.pop(field, None)
                raw.pop(field, None)
            for task in raw["tasks"]:
                task.setdefault("notes", [])
                task.setdefault("protected", {})
                for field in LATER:
                    if not task.get(field, True):
                        del task[field]
            assert again == raw
        elif "min_" not in edit["refused"]:
            with pytest.raises(StateError) as caught:
                GenerationRecord.read(path, tmp_path / "none")
            assert str(caught.value) == f"{path}: {edit['refused']}."


def test_the_schema_has_the_fields_that_python_has() -> None:
    schema = load_schema("record")["properties"]
    own = {one.name for one in fields(GenerationRecord)} - {"blocked", "stored", "needs", "more"}
    assert set(schema) == own | {"min_reader", "min_writer"}
    assert set(schema["tasks"]["items"]["properties"]) == {one.name for one in fields(LearnedTask)} - {"more"}
    assert load_schema("progress")["properties"]["profile"]["enum"] == list(PROFILES)


def test_a_task_of_a_record_is_what_the_schema_says() -> None:
    """TypeScript's interface is generated from it; what older files lack is the same in Python."""
    task = load_schema("record")["properties"]["tasks"]["items"]
    recorded = {one.name: one for one in fields(LearnedTask) if one.name != "more"}
    assert list(recorded) == list(task["properties"])
    assert [name for name, one in recorded.items() if one.default is one.default_factory] == task["required"]
    written = {name: TASK[name] for name in task["required"]}
    for name in recorded.keys() - written.keys():
        read = json.loads(json.dumps(getattr(LearnedTask.from_json(written), name)))
        assert read == task["properties"][name].get("default")
