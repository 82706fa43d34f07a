"""The demo's result on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from csk_sdk.cli.rendering import facts, table
from csk_sdk.config import TrainingConfig
from csk_sdk.demo.run import EPOCHS, RATE, TRAIN
from csk_sdk.formats.wording import rounded

if TYPE_CHECKING:
    from rich.console import Console

    from csk_sdk.demo.result import DemoResult, DemoRun


def show(result: DemoResult, console: Console) -> None:
    """Print the first run's accuracy matrix, all runs side by side, and where to look further."""
    _matrix(result.runs[0], console)
    _comparison(result.runs, console)
    console.print()
    console.print(
        facts([("Image", str(result.picture)), ("Workspace", str(result.workspace))]), soft_wrap=True
    )
    console.print(Text(f"\nLook around with  csk-sdk tasks --workspace {result.workspace}"), soft_wrap=True)


def _matrix(run: DemoRun, console: Console) -> None:
    names = run.classes["tasks"]
    made = table("After learning", *names)
    for position, (name, row) in enumerate(zip(names, run.classes["accuracy_matrix"], strict=True)):
        made.add_row(
            name, *(_percent(value) if column <= position else "" for column, value in enumerate(row))
        )
    _titled("Accuracy in %, class-incremental (among all classes learned so far)", made, console)


def _comparison(runs: tuple[DemoRun, ...], console: Console) -> None:
    made = table("", *(run.label for run in runs))
    rows: list[tuple[str, list[str]]] = [
        ("Class-incremental: accuracy, %", [_percent(run.classes["accuracy"]) for run in runs]),
        ("Class-incremental: BWT", [_signed(run.classes["bwt"]) for run in runs]),
        ("Task-incremental: ACC, %", [_percent(run.task["acc"]) for run in runs]),
        ("Task-incremental: BWT", [_signed(run.task["bwt"]) for run in runs]),
        ("Training, three tasks", [f"{run.seconds:.1f} s" for run in runs]),
        ("Peak memory of the process", [f"{run.peak_rss_bytes / 2**20:.0f} MiB" for run in runs]),
    ]
    for label, values in rows:
        made.add_row(label, *values)
    _titled(
        "The same device, one with a frozen backbone, and one without protection (--energy 0)", made, console
    )
    console.print(
        Text(
            f"\n  csk.toml asks for trained {TRAIN}, {EPOCHS} epochs and a rate of {RATE} (defaults: "
            f"{TrainingConfig.train}, {TrainingConfig.epochs} and {TrainingConfig.learning_rate:g}):\n"
            "  tasks of 270 images of 8x8 pixels have few steps."
        )
    )


def _titled(title: str, content: Any, console: Console) -> None:
    console.print()
    console.print(Text(title))
    console.print()
    console.print(Padding(content, (0, 0, 0, 2), expand=False))


def _percent(value: Any) -> str:
    return "-" if value is None else rounded(value, ".1f")


def _signed(value: Any) -> str:
    return "-" if value is None else rounded(value, "+.1f")
