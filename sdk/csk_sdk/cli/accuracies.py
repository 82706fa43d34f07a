"""Accuracies as tables: after learning, and the whole matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from csk_sdk.cli.rendering import short, table
from csk_sdk.formats.wording import rounded
from csk_sdk.network.evaluation import Evaluation

# Percentage points below its accuracy right after learning, from which a task's number is coloured.
_NOTICEABLE, _BAD = 2.0, 10.0
# Classes that are told of one by one.
_MOST_EXPECTED = 8
METRICS = {
    "accuracy": "Accuracy in %",
    "mAP": "mAP in % (mean average precision)",
    "R2": "R2 in % (share of the variance explained)",
}
_SCENARIOS = {
    "task": "task-incremental (among the classes of each task)",
    "class": "class-incremental (among all classes learned so far)",
}


def title(evaluation: Evaluation) -> str:
    """What the numbers of an evaluation are."""
    scenario = _SCENARIOS[evaluation.scenario]
    if evaluation.scenario == "class" and evaluation.metric != "accuracy":
        scenario = "one head over everything known"
    return f"{METRICS[evaluation.metric]}, {scenario}"


def present_table(by_task: Evaluation, by_class: Evaluation) -> Table:
    """What every task's accuracy is now, in both scenarios, and how it moved since the task was learned."""
    heading = "Accuracy in %" if by_task.metric == "accuracy" else f"{by_task.metric} in %"
    everything = "all targets" if by_task.metric == "R2" else "class-incremental"
    made = table(heading, "task-incremental", "change", everything, "change")
    for column, name in enumerate(by_task.tasks):
        cells = []
        for evaluation in (by_task, by_class):
            now, then = _now_and_then(evaluation, column)
            fresh = column == len(evaluation.matrix.values) - 1
            cells += [_number(now), Text("new", "dim") if fresh else _change(now - then)]
        made.add_row(short(name), *cells)
    return made


def expected_table(expected: Mapping[str, Any]) -> Table | None:
    """What a lesson says of its own classes, those that are told worst first; None where it says nothing.

    `expected` is that of a LearnReport.
    """
    classes = sorted(expected.get("classes", {}).items(), key=lambda item: item[1]["all_classes"])
    if not classes:
        return None
    made = table("Expected, in %", "task-incremental", "class-incremental", "else mostly")
    for name, one in classes[:_MOST_EXPECTED]:
        confused = f"{short(one['confused'])} ({100 * one['share']:.0f})" if one["confused"] else "-"
        made.add_row(short(name), f"{100 * one['task']:.0f}", f"{100 * one['all_classes']:.0f}", confused)
    if len(classes) > _MOST_EXPECTED:
        left = [one for _, one in classes[_MOST_EXPECTED:]]
        means = [sum(one[key] for one in left) / len(left) for key in ("task", "all_classes")]
        made.add_row(f"{len(left)} more, on average", *(f"{100 * mean:.0f}" for mean in means), "-")
    if (old := expected.get("old")) is not None:
        change = Text(f"{rounded(-old['lost'], '+.1f')} points", _style(-old["lost"]))
        made.add_row("all older classes", "-", change, "-")
    return made


def matrix_table(evaluation: Evaluation, width: int) -> Table:
    """The accuracy matrix; where it is wider than the terminal, then and now of each task."""
    names = [short(name) for name in evaluation.tasks]
    first = max(len(name) for name in (*names, "after learning"))
    if first + sum(max(len(name), 5) + 2 for name in names) + 2 <= width:
        made = table("After learning", *names)
        for row, values in enumerate(evaluation.matrix.values):
            cells = [
                _coloured(value, evaluation.matrix.values[column][column] if column < row else value)
                for column, value in enumerate(values)
            ]
            made.add_row(names[row], *cells)
        return made
    made = table("Task", "after learning", "now", "change")
    for column, name in enumerate(names):
        now, then = _now_and_then(evaluation, column)
        made.add_row(name, _number(then), _number(now), _change(now - then))
    return made


def errors_table(evaluation: Evaluation) -> Table | None:
    """The root mean squared error of every target as it is now; None where nothing is regressed."""
    if "rmse" not in evaluation.details:
        return None
    made = table("Task", "target", "RMSE", left=2)
    for name, errors in evaluation.details["rmse"].items():
        for target, error in errors.items():
            made.add_row(short(name), short(target), f"{error:.4g}")
    return made


def confusions_table(evaluation: Evaluation) -> Table | None:
    """The tested classes that are right least often, with what they are taken for; None where all are right."""
    classes = [
        (task, name, one)
        for task, found in evaluation.details.get("classes", {}).items()
        for name, one in found.items()
        if one["accuracy"] < 100.0
    ]
    if not classes:
        return None
    made = table("Least right", "task", "accuracy", "else mostly", left=2)
    for task, name, one in sorted(classes, key=lambda item: float(item[2]["accuracy"]))[:_MOST_EXPECTED]:
        made.add_row(
            short(name),
            short(task),
            f"{one['accuracy']:.1f}",
            f"{short(one['confused'])} ({one['share']:.1f})",
        )
    return made


def summary_line(evaluation: Evaluation) -> Text:
    """ACC, BWT and forgetting."""
    matrix = evaluation.matrix
    parts = (
        ("ACC", matrix.acc, ".1f"),
        ("BWT", matrix.bwt, "+.1f"),
        ("forgetting", matrix.forgetting, ".1f"),
    )
    text = Text()
    for name, value, form in parts:
        text.append(f"{name} ", "dim")
        text.append("-" if math.isnan(value) else rounded(value, form), "bold")
        text.append("    ")
    text.rstrip()
    return text


def _now_and_then(evaluation: Evaluation, column: int) -> tuple[float, float]:
    values = evaluation.matrix.values
    return float(values[-1][column]), float(values[column][column])


def _number(value: float) -> Text:
    return Text("-", "dim") if math.isnan(value) else Text(rounded(value, ".1f"))


def _change(points: float) -> Text:
    return Text("-", "dim") if math.isnan(points) else Text(rounded(points, "+.1f"), _style(points))


def _coloured(value: float, then: float) -> Text:
    if math.isnan(value):
        return Text("")
    return Text(rounded(value, ".1f"), "" if math.isnan(then) else _style(value - then))


def _style(points: float) -> str:
    return "red" if points <= -_BAD else "yellow" if points <= -_NOTICEABLE else ""
