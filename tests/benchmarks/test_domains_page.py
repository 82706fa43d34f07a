"""The tables of docs/domains.md are those of its results, and the README's sentence is true of them."""

from __future__ import annotations

import json
import re
import sys

import numpy as np

from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY))

from benchmarks.domains import page

RESULTS = json.loads((REPOSITORY / "docs/results/domains.json").read_text(encoding="utf-8"))


def test_the_page_is_written_from_the_results() -> None:
    text = (REPOSITORY / "docs/domains.md").read_text(encoding="utf-8")
    assert page(text, RESULTS) == text


def test_the_readme_says_what_was_measured() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    said = re.search(r"low contrast (\d+\.\d) % are right instead of (\d+\.\d)", readme)
    assert said is not None
    shown = ("gaussian noise", "gaussian blur", "contrast")
    for count, number in (("100", said[1]), ("0", said[2])):
        rows = RESULTS["together"][count]
        assert f"{np.mean([row[name] for row in rows for name in shown]):.1f}" == number
