"""Which blocks a generation has: both languages go by tests/contract/layouts.json, which was made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from csk_sdk.state import blocks

LAYOUTS = json.loads(Path(__file__).with_name("layouts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", LAYOUTS["cases"], ids=lambda case: case["about"])
def test_a_generation_has_the_blocks_that_both_languages_give_it(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CLASSES", LAYOUTS["block_classes"])
    before = [blocks.Extent(*extent) for extent in case["before"]]
    found = blocks.layout(case["classes"], case["rows"], before)
    assert [list(extent) for extent in found] == case["layout"]
