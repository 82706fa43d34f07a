"""Tables, and pasting them into a page between markers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column left and the others right aligned."""
    if any(len(row) != len(head) for row in rows):
        raise ValueError(f"a row does not have {len(head)} cells")
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def paste(page: Path, sections: dict[str, str]) -> None:
    """Replace what stands between `<!-- bench: NAME -->` and `<!-- end of NAME -->` for every section.

    Raises ValueError, and changes nothing, where the page lacks the markers of one.
    """
    text = page.read_text(encoding="utf-8")
    for name, content in sections.items():
        between = re.compile(
            rf"(<!-- bench: {re.escape(name)} -->\n).*?(<!-- end of {re.escape(name)} -->)", re.DOTALL
        )
        if len(between.findall(text)) != 1:
            raise ValueError(f"{page} has not exactly one section '{name}'")
        # A function, because a table may hold backslashes.
        text = between.sub(lambda found, new=content: f"{found[1]}{new}\n{found[2]}", text)  # type: ignore[misc]
    page.write_text(text, encoding="utf-8")


def milliseconds(seconds: float) -> str:
    """Three digits that count: 4.25, 42.5, 425."""
    value = 1e3 * seconds
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}"


def mebibytes(count: float) -> str:
    """Whole mebibytes, with a digit more below ten."""
    value = count / 2**20
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def times(value: float | None) -> str:
    """A ratio, or a dash."""
    return "-" if value is None else f"{value:.2f}"
