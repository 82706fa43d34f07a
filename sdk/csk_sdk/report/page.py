"""A report as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from csk_sdk.config import TrainingConfig
from csk_sdk.formats.wording import plural, rounded
from csk_sdk.network.evaluation import Evaluation
from csk_sdk.network.status import ENOUGH
from csk_sdk.report.charts import bar_chart, heat_map, line_chart
from csk_sdk.report.field import field_body, needs_body
from csk_sdk.report.history import History
from csk_sdk.report.style import STYLE
from csk_sdk.report.words import change, in_one_unit, memory, percentage, time_spent
from csk_sdk.version import __version__

_SCENARIOS = {
    "task": "The task of each {noun} is known, and its own head decides.",
    "class": "One decision among all classes known at the time.",
}
_WORST = 20  # classes that are told of
_NAMED = 5  # tasks that are named one by one beside a setting
_TITLES = {"task": "task-incremental", "class": "class-incremental"}


def page(history: History) -> str:
    """The whole page, UTF-8; it loads nothing and runs nothing."""
    cards = [
        *(_matrix(history, name, evaluation) for name, evaluation in history.evaluations.items()),
        *(_curves(history, name, evaluation) for name, evaluation in history.evaluations.items()),
        _time(history),
        _memory(history),
        _fullness(history),
        _field(history),
        _settings(history),
        _expected(history),
        _needs(history),
        _tasks(history),
    ]
    title = f"What {escape(history.model)} has learned"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header><h1>{title}</h1><p>{escape(_summary(history))}</p></header>
<section class="tiles">{_tiles(history)}</section>
<section class="cards">
{"".join(cards)}
</section>
<footer>Generation {history.generation}, reported by csk-sdk {__version__}. Accuracies are those that
<code>csk-sdk train</code> and <code>evaluate</code> measured at the time; this page measured nothing and loads nothing.
</footer>
</main>
</body>
</html>
"""


def _summary(history: History) -> str:
    if not history.tasks:
        classes = plural(len(history.classes), "class", "classes")
        return f"Nothing yet: the model knows {classes}, and no task was learned."
    text = (
        f"{plural(len(history.tasks), 'task')} learned in {time_spent(history.seconds)} on the device, from "
        f"{plural(sum(task.images for task in history.tasks), history.noun)}. "
        f"Known now: {plural(len(history.classes), 'class', 'classes')}."
    )
    known = history.evaluations.get("task")
    if known is not None and not math.isnan(known.matrix.bwt):
        text += f" Since they were learned, earlier tasks changed by {change(known.matrix.bwt)} points on average."
    return text


def _tiles(history: History) -> str:
    tiles = [
        (plural(len(history.tasks), "", ""), "tasks learned"),
        (plural(len(history.classes), "", ""), "classes known"),
    ]
    for name, evaluation in history.evaluations.items():
        tiles.append((percentage(evaluation.matrix.acc), f"{history.metric}, {_TITLES[name]} (ACC)"))
        if name == "task":
            tiles.append((change(evaluation.matrix.bwt), "points since learned (BWT)"))
    if history.tasks:
        images = sum(task.images for task in history.tasks)
        tiles += [
            (f"{images:,}", f"{plural(images, history.noun).split()[1]} learned from"),
            (time_spent(history.seconds), "time spent learning"),
            (memory(history.peak_bytes), "peak memory"),
        ]
    return "".join(
        f'<div class="tile"><b>{escape(value.strip())}</b><span>{escape(name)}</span></div>'
        for value, name in tiles
    )


def _matrix(history: History, scenario: str, evaluation: Evaluation) -> str:
    values = [[None if math.isnan(v) else v for v in row] for row in evaluation.matrix.values.tolist()]
    shown = [value for row in values for value in row if value is not None]
    lowest = max(0.0, 10.0 * math.floor((min(shown, default=0.0) - 10.0) / 10.0))
    told = (
        f"{_SCENARIOS[scenario].format(noun=history.noun)} A row is the device after learning that task, a column "
        f"the test {history.noun}s of one; in percent, pale is {lowest:.0f}, strong is 100."
    )
    return _card(
        f"{_metric(history)}, {_TITLES[scenario]}",
        told,
        f'<div class="scroll">{heat_map(evaluation.tasks, evaluation.tasks, values, lowest)}</div>',
    )


def _curves(history: History, scenario: str, evaluation: Evaluation) -> str:
    if len(evaluation.matrix.values) < 2:
        return ""
    lines = {
        name: [
            None if math.isnan(v) or x < y else v
            for x, v in enumerate(evaluation.matrix.values[:, y].tolist())
        ]
        for y, name in enumerate(evaluation.tasks)
    }
    told = (
        "Each line is one task, from when it was learned to now. Level is remembered; falling is forgotten."
    )
    if scenario == "class":
        told += " Here lines also fall because there are more classes to confuse."
    chart = line_chart(evaluation.tasks, lines, floor=-math.inf if history.metric == "R2" else 0.0)
    return _card(f"Over the tasks, {_TITLES[scenario]}", told, chart)


def _fullness(history: History) -> str:
    if not any(value is not None for line in history.fullness.values() for value in line):
        return ""
    told = (
        "Of the directions that each trained site could have changed when a task was learned, the share that was "
        "kept for older knowledge. At 100 % a site can learn nothing more."
    )
    names = [task.name for task in history.tasks]
    return _card("How full the network is", told, line_chart(names, history.fullness))


def _time(history: History) -> str:
    if not history.tasks:
        return ""
    names = [task.name for task in history.tasks]
    seconds = [task.seconds for task in history.tasks]
    return _card("Time per task", "", bar_chart(names, seconds, in_one_unit(seconds), "Time per task"))


def _memory(history: History) -> str:
    if not history.tasks:
        return ""
    names = [task.name for task in history.tasks]
    peaks = [float(task.peak_rss_bytes) for task in history.tasks]
    told = "The largest that the learning process grew, its libraries included."
    return _card("Peak memory per task", told, bar_chart(names, peaks, memory, "Peak memory per task"))


def _tasks(history: History) -> str:
    known = set(history.base_classes)
    rows = []
    if history.base_classes:
        base = escape(", ".join(history.base_classes))
        rows.append(f'<tr><td>base</td><td class="names">{base}</td>' + "<td>-</td>" * 5 + "</tr>")
    for task, created, images in zip(history.tasks, history.created, history.images, strict=True):
        names = ", ".join(f"{escape(one)}{' (known before)' if one in known else ''}" for one in task.classes)
        known.update(task.classes)
        cells = (
            "-" if images is None else f"{images:,}",
            f"{task.epochs}",
            rounded(task.loss, ".3f"),
            time_spent(task.seconds),
            (created or "-")[:16].replace("T", " "),
        )
        rows.append(
            f'<tr><td>{escape(task.name)}</td><td class="names">{names}{_notes(task.notes)}</td>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )
    head = (
        f'<tr><th>Task</th><th class="names">Classes</th><th>{history.noun.capitalize()}s</th><th>Epochs</th>'
        "<th>Loss</th><th>Time</th><th>Learned (UTC)</th></tr>"
    )
    return _card("Tasks", "", f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>', wide=True)


def _expected(history: History) -> str:
    classes = [
        (task.name, name, one)
        for task in history.tasks
        for name, one in task.expected.get("classes", {}).items()
    ]
    if not classes:
        return ""
    worst = sorted(classes, key=lambda item: float(item[2]["all_classes"]))[:_WORST]
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="names">{escape(task)}</td>'
        f"<td>{100 * one['task']:.0f}</td><td>{100 * one['all_classes']:.0f}</td>"
        f'<td class="names">{escape(one["confused"] or "-")}</td><td>{100 * one["share"]:.0f}</td></tr>'
        for task, name, one in worst
    )
    told = (
        f"In percent, when each was learned: every {history.noun} was judged by all others, among its task's classes "
        f"and among all. What is mixed up needs more {history.noun}s, or is one thing under two names."
    )
    if len(classes) > _WORST:
        told += f" The {_WORST} lowest of {len(classes)}."
    head = (
        '<tr><th>Class</th><th class="names">Task</th><th>In its task</th><th>Among all</th>'
        '<th class="names">Else mostly</th><th>So often</th></tr>'
    )
    table = f'<div class="scroll"><table>{head}{rows}</table></div>'
    return _card("What to expect of each class", told, table, wide=True)


def _needs(history: History) -> str:
    body = needs_body(history.status)
    told = (
        f"Classes of which less than {100 * ENOUGH:.0f} % were expected to be named right: which {history.noun}s to "
        "take next."
    )
    return _card("What to teach next", told, body, wide=True) if body else ""


def _field(history: History) -> str:
    found = field_body(history.status)
    return "" if found is None else _card("Predictions, day by day", *found)


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="note">{escape(note[:1].upper() + note[1:])}</p>' for note in notes)


def _settings(history: History) -> str:
    if not history.tasks:
        return ""
    defaults = TrainingConfig().to_json()
    names = dict.fromkeys(name for task in history.tasks for name in task.config)
    used = {name: _used(history, name) for name in names}
    changed = [name for name in names if used[name] != _plain(defaults.get(name))]
    rest = [name for name in names if name not in changed]
    told = "All as they come." if not changed else "Those that are not the defaults:"
    body = _setting_rows(changed, used)
    if rest:
        body += f"<details><summary>{len(rest)} defaults</summary>{_setting_rows(rest, used)}</details>"
    return _card("Settings", told, body)


def _used(history: History, name: str) -> str:
    """The setting's value; where tasks differ, each value with its tasks."""
    tasks: dict[str, list[str]] = {}
    for task in history.tasks:
        tasks.setdefault(_plain(task.config.get(name)), []).append(task.name)
    if len(tasks) == 1:
        return next(iter(tasks))
    return "; ".join(
        f"{value} ({', '.join(of) if len(of) <= _NAMED else plural(len(of), 'task')})"
        for value, of in tasks.items()
    )


def _setting_rows(names: Sequence[str], used: dict[str, str]) -> str:
    rows = "".join(
        f'<tr><td><code>{escape(name)}</code></td><td class="names">{escape(used[name])}</td></tr>'
        for name in names
    )
    return f"<table>{rows}</table>" if rows else ""


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "automatic" if value is None else f"{value}"


def _metric(history: History) -> str:
    return {"accuracy": "Accuracy", "R2": "R²"}.get(history.metric, history.metric)


def _card(title: str, told: str, body: str, wide: bool = False) -> str:
    text = f"<p>{escape(told)}</p>" if told else "<p></p>"
    return f'<article class="card{" wide" if wide else ""}"><h2>{escape(title)}</h2>{text}{body}</article>\n'
