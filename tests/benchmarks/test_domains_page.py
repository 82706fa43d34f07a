"""The tables of docs/domains.md are those of its results, and the README's sentence is true of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from benchmarks.domains import page

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "docs/results/domains.json").read_text())


def test_the_page_is_written_from_the_results() -> None:
    text = (ROOT / "docs/domains.md").read_text()
    assert page(text, RESULTS) == text


def test_the_readme_says_what_was_measured() -> None:
    said = re.search(
        r"low contrast (\d+\.\d) % are right instead of (\d+\.\d)", (ROOT / "README.md").read_text()
    )
    assert said is not None
    shown = ("gaussian noise", "gaussian blur", "contrast")
    for count, number in (("100", said[1]), ("0", said[2])):
        rows = RESULTS["together"][count]
        assert f"{np.mean([row[name] for row in rows for name in shown]):.1f}" == number
