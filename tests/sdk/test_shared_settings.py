"""Records whose tasks share settings: read in parts, they are what JSON says, and damage is what it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from stored_states import learned, record_of

from csk_sdk.errors import StateError
from csk_sdk.state import generation, outlines, sealing
from csk_sdk.state.generation import GenerationRecord
from csk_sdk.state.sealing import json_texts, seal, unseal
from csk_sdk.state.settings import Settings


def named(*configs: Any) -> dict[str, Any]:
    """A record's JSON with a task for each of these settings, and some that are awkward to find among others."""
    return {
        "tasks": [
            {"name": f"{i}", "config": one, "z": '"config": ü,"config":{'} for i, one in enumerate(configs)
        ]
    }


ONE, OTHER = {"b": 1, "a": [1.5, None, "x"]}, {"a": {"config": 2, "é": True}, "b": 1e-7}
RECORDS = {
    "the same": named(ONE, ONE, ONE),
    "others": named(ONE, OTHER, ONE, {}, OTHER, {"b": 1}, {"b": 12}),
    "of other kinds": named(1, 12, 1.0, ONE, "0", None, [ONE], ONE),
    "beside others": {**named(ONE, ONE), "config": ONE, "more": {"a": 0, "config": ONE}},
    "nested": {"tasks": [{"a": 0, "more": {"a": 0, "config": ONE}}, {"a": 0, "config": "0"}]},
    "in no task": {"a": 0, "config": ONE},
    "named alike": {"tasks": [{"name": "a", "config": ONE, 'x"config': 3, '"config": "0"': {'"config': 1}}]},
    "in no list": {"tasks": {"a": 0, "config": ONE}},
    "of no task": {"tasks": [0, [1], {"a": 0, "config": ONE}]},
    "first": {"tasks": [{"config": ONE, "name": "a"}, {"name": "b", "config": ONE}]},
    "numbered": {"tasks": [{"config": "1", "more": {"a": 0, "config": ONE}}, {"name": "b", "config": ONE}]},
}


def sealed_plainly(raw: dict[str, Any]) -> bytes:
    """By what the format says, and nothing of the reader."""
    check = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()
    return json.dumps({**raw, "check": check}, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("raw", RECORDS.values(), ids=RECORDS.keys())
def test_what_is_read_is_what_json_says(tmp_path: Path, raw: dict[str, Any]) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(sealed_plainly(raw))
    assert sealed_plainly(raw) == seal(raw)
    read = unseal(path)
    assert read == raw
    assert json.dumps(read, sort_keys=True) == json.dumps(raw, sort_keys=True)


def as_it_was(data: bytes, path: Path) -> str | None:
    """What is said of a record that is read as a whole; None of one that is intact."""
    try:
        raw = json.loads(data)
    except ValueError as error:
        return f"{path} cannot be read ({error})."
    check = raw.pop("check", None) if isinstance(raw, dict) else None
    if check == hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest():
        return None
    return f"{path} is damaged: its checksum does not match."


@pytest.mark.parametrize("name", ["the same", "others", "named alike"])
def test_each_damage_is_named_as_in_any_json(tmp_path: Path, name: str) -> None:
    path, whole = tmp_path / "record.json", sealed_plainly(RECORDS[name])
    damaged = [
        whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in (1, 16)
    ]
    damaged += [whole[:at] + whole[at + 1 :] for at in range(len(whole))]
    # Where settings end, what would go on with their number.
    damaged += [whole.replace(b"}", b"}" + more, 1) for more in (b"0", b".0", b"e0", b'"', b"{}")]
    said = set()
    for data in damaged:
        path.write_bytes(data)
        try:
            unseal(path)
            found = None
        except StateError as error:
            found = str(error)
        assert found == as_it_was(data, path), data
        said.add(found is None)
    assert False in said


@pytest.mark.parametrize("spaces", [None, 1])
def test_a_task_that_was_read_has_the_texts_of_one_that_was_not(tmp_path: Path, spaces: int | None) -> None:
    path = record_of(learned(tmp_path, "ABC"), 3)
    whole = path.read_bytes()
    # As JavaScript writes it.
    path.write_text(json.dumps(json.loads(whole), indent=spaces, separators=None if spaces else (",", ":")))
    tasks = GenerationRecord.read(path, path).tasks
    assert isinstance(tasks[0].config, Settings)
    assert tasks[0].config is tasks[2].config
    for task in tasks:
        assert task.texts == json_texts(json.loads(json.dumps(task.to_json())))
    listed = b",".join(task.texts[0] for task in tasks)
    assert b'"tasks":[' + listed + b"]" in whole
    awkward = {**json.loads(tasks[0].texts[0]), "more": {"config": ""}}
    again = generation.LearnedTask.from_json({**awkward, "config": tasks[0].config})
    assert again.texts == json_texts(again.to_json())


def test_who_is_about_to_write_reads_the_current_record_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned(tmp_path, "ABC")
    state = learned(tmp_path, "")
    read: list[str] = []
    for module in (generation, outlines):
        monkeypatch.setattr(module, "unseal", lambda path: read.append(path.name) or sealing.unseal(path))
    state.require_writable()
    state.load()
    assert read == ["000003.json"]
