"""The demo's result on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from csk_sdk.demo import DemoResult, DemoRun


def render(result: DemoResult, console: Console) -> None:
    """Print a table of both runs, the accuracy matrix of the first, and where to look further."""
    console.print()
    console.print(_matrix(result.runs[0]))
    console.print()
    console.print(_comparison(result.runs))
    console.print()
    console.print(f"Picture    {result.picture}", highlight=False, soft_wrap=True)
    console.print(f"Workspace  {result.workspace}", highlight=False, soft_wrap=True)
    command = f"csk-sdk tasks --workspace {result.workspace}"
    console.print(f"Go on with `{command}`, or put a task of your own into its tasks/.", highlight=False)


def _matrix(run: DemoRun) -> Table:
    names = run.classes["tasks"]
    table = Table(title="Accuracy in % over all classes learned so far, no task id", title_justify="left")
    table.add_column("after learning")
    for name in names:
        table.add_column(name, justify="right")
    for name, row in zip(names, run.classes["accuracy_matrix"], strict=True):
        known = names.index(name) + 1
        table.add_row(name, *(_percent(value) if column < known else "·" for column, value in enumerate(row)))
    return table


def _comparison(runs: tuple[DemoRun, ...]) -> Table:
    table = Table(title="The same device, with and without projection", title_justify="left")
    table.add_column("")
    for run in runs:
        table.add_column(run.label, justify="right")
    rows: list[tuple[str, list[str]]] = [
        ("all ten digits, no task id: accuracy", [_percent(run.classes["accuracy"]) for run in runs]),
        ("task known: ACC", [_percent(run.task["acc"]) for run in runs]),
        ("task known: BWT", [_signed(run.task["bwt"]) for run in runs]),
        ("no task id: BWT", [_signed(run.classes["bwt"]) for run in runs]),
        ("training, three tasks", [f"{run.seconds:.1f} s" for run in runs]),
        ("peak memory of the process", [f"{run.peak_rss_bytes / 2**20:.0f} MiB" for run in runs]),
    ]
    for label, values in rows:
        table.add_row(label, *values)
    return table


def _percent(value: Any) -> str:
    return "-" if value is None else f"{value:.1f}"


def _signed(value: Any) -> str:
    return "-" if value is None else f"{value:+.1f}"
