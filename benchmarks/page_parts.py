"""What the scripts share that write tables into a page: rows, and putting them between two marks."""

from __future__ import annotations

from collections.abc import Iterable


def row(cells: Iterable[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def between(text: str, marks: tuple[str, str], content: str) -> str:
    """The page with this between the marks, in the place of what is there."""
    before, _, rest = text.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    return f"{before}{marks[0]}\n{content}\n{marks[1]}{after}"
