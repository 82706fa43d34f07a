"""docs/lesson-times.md is what its results say, and a ratio is of lessons of the same round."""

from __future__ import annotations

import json
import sys

from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY))

from benchmarks import lesson_times

RESULTS = REPOSITORY / "docs" / "results" / "lesson-times.json"


def test_the_page_is_written_from_the_results() -> None:
    page = lesson_times.page(json.loads(RESULTS.read_text(encoding="utf-8")))
    assert (REPOSITORY / "docs" / "lesson-times.md").read_text(encoding="utf-8") == page, (
        "run: python benchmarks/lesson_times.py --sizes --write docs/lesson-times.md"
    )


def test_ratios_are_of_lessons_of_one_round() -> None:
    def rows(*cpu: float) -> list[dict[str, float]]:
        return [{"cpu": one, "wall": 1, "peak": 64, "task": 90, "all": 50, "base": 70} for one in cpu]

    # The second round was on a machine that was ten times slower, and tells the same.
    page = lesson_times.page(
        {
            "machine": "here",
            "sizes": {"5x20": {"heads": rows(1, 10, 3), "heads-before": rows(2, 20, 4)}},
        }
    )
    assert "| csk-sdk, heads on the frozen backbone | 3.00 | 1.00 | 64 | 90.0 | 50.0 | 70.0 |" in page
    assert "| csk-sdk, heads on the frozen backbone | heads, the build before | 0.50 |" in page
    assert "| torch, head only |" not in page
