"""How numbers, matrices and the state of a device are told, on a terminal and on a page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from csk_sdk.cli import telling
from csk_sdk.cli.accuracies import confusions_table, expected_table, matrix_table, present_table
from csk_sdk.cli.predictions import show_predictions
from csk_sdk.cli.rendering import Screen, duration, large, short, size
from csk_sdk.method.continual_metrics import AccuracyMatrix
from csk_sdk.network.evaluation import Evaluation
from csk_sdk.network.status import Need, Status
from csk_sdk.report.field import field_body, needs_body
from csk_sdk.state.field import Day


@pytest.mark.parametrize(
    ("tell", "number", "told"),
    [
        (size, 17, "17 B"),
        (size, 1_500, "1.5 kB"),
        (size, 150_000, "150 kB"),
        (size, 2_340_000_000, "2.3 GB"),
        (size, 5_600_000_000_000, "5600.0 GB"),
        (large, 999, "999"),
        (large, 1_234, "1.2 k"),
        (large, 190_200_000, "190 M"),
        (large, 5_600_000_000, "5.6 G"),
        (duration, 0.256, "0.26 s"),
        (duration, 8.06, "8.1 s"),
        (duration, 185, "3 min 05 s"),
        (duration, 7800, "2 h 10 min"),
    ],
)
def test_numbers_for_people(tell: Any, number: float, told: str) -> None:
    assert tell(number) == told


def needs(count: int) -> tuple[Need, ...]:
    return tuple(Need(f"<{n}>", "01", 1200, 0.4, 0.655, "cat", 0.3, f"more of {n}") for n in range(count))


def shown(capsys: pytest.CaptureFixture[str], status: Status, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of `csk-sdk status`, each with single spaces."""
    learner = SimpleNamespace(status=lambda: status)
    space = SimpleNamespace(tasks="tasks", learner=lambda: learner, survey=lambda _: [])
    monkeypatch.setattr(telling, "is_paused", lambda _: True)
    monkeypatch.setattr(telling.Workspace, "open", lambda *_: space)
    monkeypatch.setattr(Screen, "__init__", _wide(Screen.__init__))
    telling.status()
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def _wide(made: Any) -> Any:
    def init(screen: Screen, *given: Any) -> None:
        made(screen, *given)
        screen.console.width = 120

    return init


DAYS = (Day("2026-01-01", 3, 30, 0), Day("2026-01-02", 4, 1200, 1000, 25, (900, 250, 60)))


def test_a_device_that_counts_and_has_classes_to_teach(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(capsys, Status(4, ("01",), 10, DAYS, needs(10)), monkeypatch)
    assert lines[:2] == [
        "Generation 4: 1 task learned, 10 classes known, 0 tasks waiting, and learning is paused.",
        "1,230 answers counted, 2.5 % of them unknown.",
    ]
    assert "2026-01-01 3 30 - - - -" in lines
    assert "2026-01-02 4 1,200 2.5 % 90.0 % 25.0 % 6.0 %" in lines
    assert "<0> 40 66 1,200 more of 0" in lines
    assert not any(line.startswith("<8>") for line in lines)
    assert lines[-1] == "and 2 classes more (--json)"


def test_a_page_tells_the_same() -> None:
    status = Status(4, ("01",), 10, DAYS, needs(2))
    found = field_body(status)
    assert found is not None
    # Days on which nothing could be measured have no share.
    assert found[0].startswith("1,230 answers from 2026-01-02 to 2026-01-02.")
    assert "Now: 90 % of the latest 1,000 images are further from all that is known than 50 % of" in found[0]
    table = needs_body(status)
    assert '<td>&lt;1&gt;</td><td class="names">01</td><td>40</td><td>1,200</td>' in table
    assert "<th>Images</th>" in table
    assert field_body(Status(4, (), 10, DAYS[:1], ())) is None
    assert needs_body(Status(4, (), 10, None, ())) == ""


LONG = f"bear{'x' * 242}-one"


def test_a_long_name_leaves_room_for_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert short("x" * 40) == "x" * 40
    cut = short(LONG)
    assert (len(cut), cut[:5], cut[-5:]) == (40, "bearx", "x-one")
    assert short(LONG.replace("-one", "-two")) != cut
    details = {"classes": {LONG: {LONG: {"accuracy": 40.0, "confused": LONG, "share": 60.0}}}}
    evaluation = Evaluation("class", (LONG,), AccuracyMatrix([[40.0]]), None, details=details)
    one = {"task": 0.9, "all_classes": 0.5, "confused": LONG, "share": 0.5}
    need = Need(LONG, "01", 50, 0.4, 0.655, LONG, 0.3, f"images that set it apart from '{LONG}', of both")
    for made in (
        present_table(evaluation, evaluation),
        expected_table({"classes": {LONG: one}}),
        matrix_table(evaluation, 1000),
        matrix_table(evaluation, 80),
        confusions_table(evaluation),
        telling._needs((need,), "image"),
    ):
        Screen().show(made)
        lines = capsys.readouterr().out.splitlines()
        assert any(cut in line for line in lines), lines
        assert max(map(len, lines)) < 200, lines


def test_only_a_terminal_gets_a_class_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [{"file": "a.png", "label": LONG, "top": [{"class": LONG, "probability": 0.7}]}]
    show_predictions(Screen(), found)
    assert LONG in capsys.readouterr().out
    screen = Screen()
    screen.console._force_terminal, screen.console.width = True, 100
    show_predictions(screen, found)
    assert short(LONG) in capsys.readouterr().out


def test_a_matrix_that_is_wider_than_the_terminal_is_told_as_then_and_now(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("base", "01-four-five", "02-six-seven")
    matrix = AccuracyMatrix([[90.0], [85.0, 80.0], [70.0, 82.0, 60.0]])
    evaluation = Evaluation("class", names, matrix, 70.0)
    screen = Screen()
    for width, expected in (
        (100, ["After learning base 01-four-five 02-six-seven", "02-six-seven 70.0 82.0 60.0"]),
        (50, ["Task after learning now change", "base 90.0 70.0 -20.0", "01-four-five 80.0 82.0 +2.0"]),
    ):
        screen.console.width = width
        screen.show(matrix_table(evaluation, width))
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        for line in expected:
            assert line in lines, lines
