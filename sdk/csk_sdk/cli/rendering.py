"""How results look: calm tables on a terminal, plain lines in a pipe, JSON when asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from csk_sdk.cli.guard import Interrupted

# Nobody's terminal: a line in a pipe is never wrapped or cut.
_PIPE_WIDTH = 1000
_BAR_WIDTH = 28
_INDENT = 2
# Between two columns of a table; and how wide the names in front may be before they are folded.
_GAP, _LONGEST_NAME = 3, 20
# Characters of a name in a table of numbers, and how many of them are of its end, where long names differ.
_NAME, _END = 40, 12


class Screen:
    """Where one command's output goes. With `as_json`, stdout carries JSON only."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = _console(stderr=False)
        self.errors = _console(stderr=True)

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self.console.width

    @property
    def can_ask(self) -> bool:
        """Whether somebody is there to answer."""
        return not self.as_json and sys.stdin.isatty() and self.console.is_terminal

    def ask(self, question: str, answers: Sequence[str]) -> str:
        """One of `answers`; the last one where none is given."""
        while True:
            given = self.console.input(Text(f"{question} [{'/'.join(answers)}] ")).strip().lower()
            found = [one for one in answers if given and one.startswith(given)]
            if found or not given:
                return found[0] if found else answers[-1]

    def require_yes(self, question: str) -> None:
        """Where somebody is there, ask whether to go on. Raises Interrupted where not."""
        if self.can_ask and self.ask(f"{question} Go on?", ("yes", "no")) != "yes":
            raise Interrupted("Nothing was changed.")

    def say(self, text: str = "", style: str = "") -> None:
        """A line of plain text."""
        if not self.as_json:
            self.console.print(Text(text, style=style))

    def show(self, renderable: Any, indent: int = _INDENT) -> None:
        """A table, indented; in a file or a pipe without the blanks that would fill its last column."""
        if self.as_json:
            return
        indented = Padding(renderable, (0, 0, 0, indent), expand=False)
        if self.console.is_terminal:
            self.console.print(indented)
            return
        with self.console.capture() as captured:
            self.console.print(indented)
        self.console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))

    def show_rows(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str | Text]],
        spaced: bool = False,
        words: Collection[int] = (),
        together: int = 1,
    ) -> None:
        """A table of named rows; where the terminal is too narrow, one below the other, with the names in each.

        `spaced` leaves a line between rows. The columns `words` are no numbers, and so many behind the names stay
        `together`.
        """
        for number, part in enumerate(_parts(columns, rows, self.width - _INDENT, together)):
            if number:
                self.say()
            shown = table(*(columns[index] for index in part))
            for column, index in zip(shown.columns, part, strict=True):
                if index in words:
                    column.justify, column.no_wrap = "left", False
            for row in rows:
                shown.add_row(*(row[index] for index in part))
                if spaced:
                    shown.add_section()
            self.show(shown)

    def progress_line(self, text: str) -> None:
        """A line about work in progress; with JSON it goes to stderr, where that is a terminal."""
        if not self.as_json:
            self.console.print(Text(text))
        elif self.errors.is_terminal:
            self.errors.print(Text(text))

    def check(self, name: str, status: str, style: str, detail: str, remedy: str) -> None:
        """One finding of `doctor`, with what to do about it on a line of its own."""
        self.show(_columns(Text(status, style), name, Text(detail)))
        if remedy:
            self.show(_columns(Text(), "", Text(remedy, "dim")))

    def warn(self, text: str) -> None:
        """A warning on stderr, also with --json."""
        self.errors.print(Text(f"Warning: {text}", style="bold yellow"))

    def json(self, value: Any, indent: int | None = 2) -> None:
        """Print `value` where JSON was asked for."""
        if self.as_json:
            print(json.dumps(value, indent=indent, ensure_ascii=False), flush=True)

    @property
    def live(self) -> Console | None:
        """The console that can redraw a progress bar; None in a pipe. With JSON it is stderr's."""
        console = self.errors if self.as_json else self.console
        return console if console.is_terminal and not console.is_dumb_terminal else None

    @contextmanager
    def bar(self, label: str, *extra: ProgressColumn) -> Iterator[Callable[[int, int], None]]:
        """A progress bar; the function it gives takes (done, total). In a pipe, the label alone."""
        console = self.live
        if console is None:
            self.say(f"{label} ...")
            yield lambda done, total: None
            return
        with progress_bar(console, *extra) as progress:
            task = progress.add_task(label, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)


def progress_bar(console: Console, *extra: ProgressColumn) -> Progress:
    """A bar with what it is for in front, and the time behind it."""
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(_BAR_WIDTH, complete_style="cyan", pulse_style="cyan"),
        TaskProgressColumn(show_speed=False),
        *extra,
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        refresh_per_second=5,
    )


def table(*columns: str, left: int = 1) -> Table:
    """An empty table: the first `left` columns are text, the others numbers."""
    made = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", border_style="dim"
    )
    for position, name in enumerate(columns):
        made.add_column(
            name,
            justify="left" if position < left else "right",
            overflow="fold",
            no_wrap=position >= left,
        )
    return made


def _parts(
    columns: Sequence[str], rows: Sequence[Sequence[str | Text]], width: int, together: int
) -> list[list[int]]:
    """Columns that fit beside each other and the names, in as few tables as it takes, of about equal size."""
    widths = [
        max(len(line) for cell in cells for line in str(cell).splitlines() or [""])
        for cells in zip(columns, *rows, strict=True)
    ]
    room, count = width - min(widths[0], _LONGEST_NAME), len(columns) - 1
    groups = [range(first, min(first + together, count + 1)) for first in range(1, count + 1, together)]
    needed = [sum(_GAP + widths[index] for index in group) for group in groups]
    greedy: list[list[int]] = []
    left = 0
    for number, wide in enumerate(needed):
        left -= wide
        if not greedy or left < 0:
            greedy.append([])
            left = room - wide
        greedy[-1].append(number)
    # Of as few tables, all of about one size where that fits.
    each = -(-len(groups) // max(len(greedy), 1))
    even = [list(range(start, min(start + each, len(groups)))) for start in range(0, len(groups), each or 1)]
    fits = all(sum(needed[number] for number in part) <= room for part in even)
    return [
        [0, *(index for number in part for index in groups[number])] for part in (even if fits else greedy)
    ]


def _columns(status: Text, name: str, text: Text) -> Table:
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column(width=4)
    line.add_column(width=13)
    line.add_column(overflow="fold")
    line.add_row(status, name, text)
    return line


def facts(pairs: list[tuple[str, str]]) -> Table:
    """Names and values, one pair a line."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, Text(value))
    return made


def short(name: str) -> str:
    """A class's or task's name for a table of numbers: a long one without its middle, so that the numbers are seen."""
    return name if len(name) <= _NAME else f"{name[: _NAME - _END - 1]}…{name[-_END:]}"


def size(count: float) -> str:
    """Bytes for people: 6.5 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def large(count: float) -> str:
    """A large number for people: 190.2 M."""
    for unit in ("", " k", " M"):
        if count < 1000:
            return f"{count:.0f}{unit}" if unit == "" or count >= 100 else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f} G"


def duration(seconds: float) -> str:
    """Seconds for people: 8.1 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def percent(part: float, whole: float) -> str:
    """`part` of `whole`, such as 4.6 %."""
    return f"{100 * part / whole:.1f} %"


def by(sizes: tuple[int, ...]) -> str:
    """64x32x3x3."""
    return "x".join(str(value) for value in sizes)


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console
