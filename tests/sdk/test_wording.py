"""How numbers are said."""

from __future__ import annotations

import io
import json
import re
from importlib import resources
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from csk_sdk.cli.accuracies import expected_table
from csk_sdk.cli.learning_view import learned
from csk_sdk.formats.wording import plural, rounded
from csk_sdk.learning.few_shot import gain_note
from csk_sdk.method.decisions import Judgement
from csk_sdk.method.gain import Gain
from csk_sdk.report.words import change, percentage

TINY = -1e-6


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 tasks"),
        (1, "1 task"),
        (2, "2 tasks"),
        (1200, "1,200 tasks"),
        ("1", "1 task"),
        ("2.5", "2.5 tasks"),
    ],
)
def test_a_count_goes_with_its_noun(count: int | str, expected: str) -> None:
    assert plural(count, "task") == expected
    assert plural(1, "class", "classes") == "1 class"
    assert plural(2, "class", "classes") == "2 classes"


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        (TINY, ".3f", "0.000"),
        (-0.0, ".0f", "0"),
        (-0.0, ".4g", "0"),
        (TINY, "+.1f", "0.0"),
        (-TINY, "+.1f", "0.0"),
        (-0.06, "+.1f", "-0.1"),
        (0.06, "+.1f", "+0.1"),
        (-1234.5, ",.0f", "-1,234"),
        (float("nan"), ".3f", "nan"),
    ],
)
def test_a_zero_has_no_sign(value: float, form: str, expected: str) -> None:
    assert rounded(value, form) == expected


def test_nor_has_it_where_it_is_said() -> None:
    report: Any = SimpleNamespace(
        task="01",
        seconds=1.0,
        generation=1,
        loss=TINY,
        memory_budget=None,
        peak_rss_bytes=1,
        images=1,
        stepped=1,
    )
    gain = Gain(1, 0.5, 0.5, TINY, -1.0, done=0.2)
    said = [learned(report), gain_note(gain, 5, "image", 1.0, "centers"), change(TINY), percentage(TINY)]
    assert "loss 0.000," in said[0]
    assert "right of 1 image held out" in said[1]
    assert "gain 0.0000 nats" in said[1]
    record = Judgement({}, {}, 1e-9).to_json()
    assert json.dumps(record["old"]) == '{"lost": 0.0}'
    shown = io.StringIO()
    old = {
        "classes": {"n": {"all_classes": 1.0, "task": 1.0, "confused": "", "share": 0.0}},
        "old": {"lost": 0.01},
    }
    Console(file=shown).print(expected_table(old))
    for one in (*said, shown.getvalue()):
        assert not re.search(r"[-−+]0(\.0*)?(?![\d.])", one), one


def test_no_sentence_has_a_count_and_a_noun_that_does_not_go_with_it() -> None:
    """What is counted comes with its noun, as `plural` has it."""
    sentences = json.loads((resources.files("csk_sdk.contract") / "sentences.json").read_text("utf-8"))
    # Bytes, settings' limits and what cannot be one.
    never_one = {
        "contribution_images",
        "contribution_short",
        "contribution_other",
        "fleet_too_large",
        "class_name",
    }
    counted = re.compile(
        r"\{(\w+)\} (\{noun\}s|images|classes|contributions|bytes|features|characters|steps)\b"
    )
    found = {name for name, text in sentences.items() if counted.search(text) and name != "$comment"}
    # "1 of 15 steps": of more than one.
    assert found - never_one <= {"undecided"}
