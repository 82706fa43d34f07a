"""The report as a person and a browser get it: well-formed, complete, self-contained, whatever names it is given."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from typing import Any

import pytest

from conftest import Digits
from csk_sdk import Learner
from csk_sdk.formats.wording import plural
from csk_sdk.network.evaluation import recorded_scores
from csk_sdk.report import page, read_history
from csk_sdk.report.charts import bar_chart, heat_map, line_chart
from csk_sdk.report.words import change, in_one_unit, memory, percentage, time_spent

VOID = {"meta"}


class Reader(HTMLParser):
    """Open tags, addresses and visible text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert reader.links == []
    assert "url(" not in text
    assert "@import" not in text
    assert "<script" not in text
    return reader


def svgs(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def test_a_life_is_told(learner: Learner, digits: Digits) -> None:
    config = learner.config.with_overrides(epochs=1)
    tasks = [digits.task("01-four-five", (4, 5)), digits.task("02 <b>&six", (6, 7))]
    for task in tasks:
        learner.learn(task, config)
        learner.score(tasks[: len(learner.tasks)])
    history = read_history(learner)
    text = page(history)
    reader = read(text)
    words = "".join(reader.text)
    for told in (
        "01-four-five",
        "02 <b>&six",
        "zero, one, two, three",
        "four",
        "160",
        "learning_rate",
        "0.05",
    ):
        assert told in words
    acc = learner.evaluate(tasks).matrix.acc
    assert f"{acc:.1f} %" in words
    # Two matrices, two sets of curves, time, memory, fullness.
    assert len(svgs(text)) == 7
    # Fullness is what the learner reported, by site.
    assert set(history.fullness) == set(learner.tasks[0].protected)
    for site, shares in history.fullness.items():
        for task, share in zip(learner.tasks, shares, strict=True):
            part, whole = task.protected[site].split("/")
            assert share == pytest.approx(100 * int(part) / int(whole))
    # Nothing is measured anew, and the matrix is that of `evaluate`.
    recorded = recorded_scores(learner.generation, learner.state, learner.bundle.manifest.classes, "accuracy")
    assert recorded is not None
    for scenario in ("task", "class"):
        expected = learner.evaluate(tasks, scenario).to_json()["accuracy_matrix"]
        assert recorded.evaluation(scenario).to_json()["accuracy_matrix"] == expected


def test_before_anything_is_learned_or_tested(learner: Learner) -> None:
    text = page(read_history(learner))
    assert "Nothing yet: the model knows 4 classes" in "".join(read(text).text)
    assert svgs(text) == []


def test_an_older_record_has_no_fullness(learner: Learner, digits: Digits, monkeypatch: Any) -> None:
    monkeypatch.setattr("csk_sdk.learning.training.TaskTraining.protected", property(lambda self: {}))
    learner.learn(digits.task("01", (4, 5)), learner.config.with_overrides(epochs=1))
    text = page(read_history(learner))
    assert "How full" not in text
    assert len(svgs(text)) == 2


# --- charts


def test_heat_map_says_every_measured_value() -> None:
    drawn = ElementTree.fromstring(heat_map(["a", "b"], ["a", "b"], [[90.0, None], [80.0, 70.25]], 60.0))
    assert [one.text for one in drawn.iter("title")] == [
        "after a: a 90.0",
        "after b: a 80.0",
        "after b: b 70.2",
    ]
    strengths = [float(one.attrib["fill-opacity"]) for one in drawn.iter("rect")]
    assert strengths[0] > strengths[1] > strengths[2]


@pytest.mark.parametrize("count", [1, 2, 9, 60])
def test_lines_and_bars_stay_inside_their_picture(count: int) -> None:
    names = [f"{index:02d}-a rather long name" for index in range(count)]
    lines = {name: [None] * x + [100.0 - x] * (count - x) for x, name in enumerate(names)}
    for text in (
        line_chart(names, lines),
        bar_chart(names, [3.0 * x for x in range(count)], memory, "bars"),
        heat_map(names, names, [[50.0] * (y + 1) for y in range(count)], 0.0),
    ):
        drawn = ElementTree.fromstring(text)
        _, _, width, height = (float(part) for part in drawn.attrib["viewBox"].split())
        for one in drawn.iter():
            for name, value in one.attrib.items():
                if name in ("x", "cx", "x1", "x2"):
                    assert 0 <= float(value) <= width, (one.tag, name, value)
                if name in ("y", "cy", "y1", "y2"):
                    assert -1 <= float(value) <= height + 4, (one.tag, name, value)


def test_a_line_is_where_its_values_are() -> None:
    drawn = ElementTree.fromstring(
        line_chart(["a", "b", "c"], {"x": [80.0, 70.0, None], "y": [None, 90.0, 60.0]})
    )
    points = [
        [tuple(map(float, point.split(","))) for point in one.attrib["points"].split()]
        for one in drawn.iter("polyline")
    ]
    (x0, y80), (x1, y70) = points[0]
    (x1_again, y90), (x2, y60) = points[1]
    assert (x1, x2 - x1) == (x1_again, pytest.approx(x1 - x0, abs=0.2))
    assert y70 - y80 == pytest.approx(y80 - y90, abs=0.2) == pytest.approx(y60 - y70, abs=0.2)
    assert y90 < y80


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (plural(1, "task"), "1 task"),
        (plural(1200, "task"), "1,200 tasks"),
        (percentage(float("nan")), "-"),
        (change(-0.04), "0.0"),
        (change(-1.25), "−1.2"),
        (change(0.4), "+0.4"),
        (time_spent(7.25), "7.2 s"),
        (time_spent(125), "2 min 05 s"),
        (time_spent(7800), "2 h 10 min"),
        (in_one_unit([30, 150])(90), "1.5 min"),
        (in_one_unit([3])(2.5), "2.5 s"),
        (memory(101e6), "101 MB"),
        (memory(1.26e9), "1.3 GB"),
    ],
)
def test_numbers(told: str, expected: str) -> None:
    assert told == expected
