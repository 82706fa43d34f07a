"""Tables on terminals of any width: nothing is cut, and the names stand in front of every part."""

from __future__ import annotations

import pytest

from csk_sdk.cli.rendering import Screen

COLUMNS = ["Site", "kernel", "positions", "center's\nrank", "forward", "backward", "kept"]
ROWS = [
    [name, "256x256x3x3", "0.95 1.00 0.93", "1 of 9", "19.4 M", "21.5 M", "4.1 kB"] for name in ("one", "two")
]


def shown(capsys: pytest.CaptureFixture[str], width: int) -> str:
    screen = Screen()
    screen.console.width = width
    screen.show_rows(COLUMNS, ROWS)
    return capsys.readouterr().out


@pytest.mark.parametrize(("width", "tables"), [(120, 1), (80, 1), (70, 2), (40, 3)])
def test_a_table_is_split_where_it_does_not_fit(capsys, width, tables):
    text = shown(capsys, width)
    assert text.count("Site ") == text.count("one ") == text.count("two ") == tables
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    for cell in (*ROWS[0], "center's", "rank", "backward"):
        assert cell in text
