"""What a report says of a device's predictions, where they are counted, and of what to teach it next."""

from __future__ import annotations

from html import escape

from csk_sdk.formats.wording import plural
from csk_sdk.network.status import Need, Status
from csk_sdk.report.charts import line_chart
from csk_sdk.state.field import SHARES, Day

# Classes that are told of.
_MOST = 20


def field_body(status: Status) -> tuple[str, str] | None:
    """What is said of the predictions, and their chart; None where none were counted."""
    days = [day for day in status.days or () if day.measured]
    if not days:
        return None
    lines: dict[str, list[float | None]] = {"unknown": [_percent(day.unknown, day) for day in days]}
    for place, share in enumerate(SHARES):
        lines[f"{100 * share:.0f} %"] = [_percent(day.beyond[place], day) for day in days]
    shares = ", ".join(f"{100 * share:.0f}" for share in SHARES)
    told = (
        f"{plural(status.answers, 'answer')} from {days[0].day} to {days[-1].day}. The share that was unknown, and the "
        f"shares that lay further from all that is known than all but {shares} % of the {status.noun}s that were "
        "learned from: where nothing has changed, these are the same, and they grow as things or surroundings change."
    )
    if status.drift:
        told += f" Now: {status.drift}"
    return told, line_chart([day.day[8:] for day in days], lines)


def needs_body(status: Status) -> str:
    """A table of the classes that need more images; "" for none."""
    rows = "".join(_row(need) for need in status.needs[:_MOST])
    if not rows:
        return ""
    head = (
        '<tr><th>Class</th><th class="names">Task</th><th>Right, %</th>'
        f'<th>{escape(status.noun.capitalize())}s</th><th class="names">What would help</th></tr>'
    )
    return f'<div class="scroll"><table>{head}{rows}</table></div>'


def _row(need: Need) -> str:
    return (
        f'<tr><td>{escape(need.name)}</td><td class="names">{escape(need.task)}</td>'
        f"<td>{100 * need.all_classes:.0f}</td><td>{need.images:,}</td>"
        f'<td class="names">{escape(need.told)}</td></tr>'
    )


def _percent(part: int, day: Day) -> float:
    return 100.0 * part / day.measured
