"""Charts as inline SVG: heat map, lines, bars. Colours are the page's CSS variables, so they follow light and dark.

Every function takes plain numbers and returns one `<svg>` element; None is "not measured". Sizes are in the SVG's own
units, about one pixel on a phone's width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from csk_sdk.formats.wording import rounded

Values = Sequence[float | None]
Format = Callable[[float], str]

WIDTH, HEIGHT = 420, 225
# Distinct colours of the page; more lines than that are shades of one, the newest strongest.
COLOURS = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 96, 12, 30
_DOTS = 14  # positions from which on lines go without
_LETTER = 6.6  # mean width of a letter at 12 units


def heat_map(rows: Sequence[str], columns: Sequence[str], values: Sequence[Values], lowest: float) -> str:
    """Values from `lowest` to 100, one row a line; strong is high. Numbers are written where they fit."""
    count = max(len(columns), 1)
    cell = max(12.0, min(48.0, 620.0 / count))
    names = [_cut(name, 16) for name in rows]
    left = 12 + _LETTER * max((len(name) for name in names), default=0)
    top = 24 if cell >= 30 else 8
    high = max(24.0, 0.7 * cell) if cell >= 30 else cell
    parts = []
    for y, (name, line) in enumerate(zip(names, values, strict=True)):
        middle = top + (y + 0.5) * high
        if cell >= 30 or y % math.ceil(12 / high) == 0:
            parts.append(_text(left - 8, middle + 4, name, "end"))
        for x, value in enumerate(line):
            if value is not None:
                told = f"after {rows[y]}: {columns[x]} {rounded(value, '.1f')}"
                parts.append(_cell(left + x * cell, top + y * high, cell, high, value, lowest, told))
    if cell >= 30:
        fits = max(3, int(cell / _LETTER) - 1)
        parts += [_text(left + (x + 0.5) * cell, 15, _cut(name, fits)) for x, name in enumerate(columns)]
    return _svg(
        left + count * cell + 4,
        top + len(rows) * high + 4,
        parts,
        "Accuracy matrix",
        f"{1.15 * (left + count * cell):.0f}px",
    )


def line_chart(
    x_names: Sequence[str], lines: Mapping[str, Values], unit: str = "%", floor: float = 0.0
) -> str:
    """One line per name over the same positions, with its name at its end. Values are percentages above `floor`."""
    shown = [value for line in lines.values() for value in line if value is not None]
    step = _tick(min(100.0, max(shown, default=100.0)) - min(shown, default=0.0))
    bottom = max(floor, step * math.floor((min(shown, default=0.0) - 0.2 * step) / step))
    ceiling = max(
        min(100.0, step * math.ceil((max(shown, default=100.0) + 0.2 * step) / step)), bottom + step
    )
    apart = (WIDTH - _LEFT - _RIGHT) / max(len(x_names) - 1, 1)

    def place(x: int, value: float) -> tuple[float, float]:
        share = (value - bottom) / (ceiling - bottom)
        return _LEFT + x * apart, _TOP + (1.0 - share) * (HEIGHT - _TOP - _BOTTOM)

    parts = _grid(bottom, ceiling, step, lambda value: f"{value:g} {unit}")
    parts += _below(x_names, lambda x: _LEFT + x * apart)
    ends: list[tuple[float, str, int]] = []
    for number, (name, line) in enumerate(lines.items()):
        points = [(x, value) for x, value in enumerate(line) if value is not None]
        if not points:
            continue
        places = [place(*point) for point in points]
        style = _colour(number, len(lines))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line" {style} points="{path}"/>')
        for (x, value), (px, py) in zip(points, places, strict=True):
            told = escape(f"{name}, after {x_names[x]}: {rounded(value, '.1f')} {unit}")
            # A line alone says more than a chain of dots; its last point still tells its value.
            if len(x_names) <= _DOTS or (px, py) == places[-1]:
                parts.append(
                    f'<circle class="dot" {style} cx="{px:.1f}" cy="{py:.1f}" r="3"><title>{told}</title></circle>'
                )
        ends.append((places[-1][1], name, number))
    parts += _end_names(ends, len(lines))
    return _svg(WIDTH, HEIGHT, parts, ", ".join(lines))


def bar_chart(names: Sequence[str], values: Sequence[float], form: Format, label: str) -> str:
    """One bar per name, from zero, each with its value where it fits."""
    ceiling = _round_up(max(values, default=0.0) or 1.0)
    wide = WIDTH - 30
    step = (wide - _LEFT) / max(len(names), 1)
    parts = _grid(0.0, ceiling, ceiling / 4, form, wide)
    for x, value in enumerate(values):
        height = value / ceiling * (HEIGHT - _TOP - _BOTTOM)
        width = min(0.7 * step, 44.0)
        left, top = _LEFT + (x + 0.5) * step - width / 2, HEIGHT - _BOTTOM - height
        told = escape(f"{names[x]}: {form(value)}")
        parts.append(
            f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{max(height, 1):.1f}" '
            f'rx="2"><title>{told}</title></rect>'
        )
        if _LETTER * len(form(value)) < step:
            parts.append(_text(left + width / 2, top - 4, form(value), kind="value"))
    parts += _below(names, lambda x: _LEFT + (x + 0.5) * step)
    return _svg(WIDTH, HEIGHT, parts, label)


def _cell(x: float, y: float, width: float, height: float, value: float, lowest: float, told: str) -> str:
    share = min(1.0, max(0.0, (value - lowest) / max(100.0 - lowest, 1.0)))
    strength = 0.06 + 0.86 * share
    drawn = (
        f'<rect class="cell" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{width - 2:.1f}" height="{height - 2:.1f}" rx="3" '
        f'fill-opacity="{strength:.2f}"><title>{escape(told)}</title></rect>'
    )
    if width < 30:
        return drawn
    kind = "strong" if strength > 0.78 else "middle" if strength > 0.55 else "weak"
    return drawn + _text(x + width / 2, y + height / 2 + 4, rounded(value, ".1f"), kind=kind)


def _grid(
    bottom: float, ceiling: float, step: float, form: Format, right: float = WIDTH - _RIGHT
) -> list[str]:
    parts = []
    for line in range(round((ceiling - bottom) / step) + 1):
        value = bottom + line * step
        y = _TOP + (ceiling - value) / (ceiling - bottom) * (HEIGHT - _TOP - _BOTTOM)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, form(value), "end", "axis"))
    return parts


def _below(names: Sequence[str], place: Callable[[int], float]) -> list[str]:
    """Names below the positions: as many as do not run into each other."""
    room = abs(place(1) - place(0)) if len(names) > 1 else WIDTH / 2
    every = max(1, math.ceil(5.5 * _LETTER / room))
    fits = max(4, int(every * room / _LETTER) - 1)
    return [
        _text(place(x), HEIGHT - _BOTTOM + 18, _cut(name, fits), kind="axis")
        for x, name in enumerate(names)
        if x % every == 0
    ]


def _end_names(ends: list[tuple[float, str, int]], lines: int) -> list[str]:
    """The lines' names at their ends, pushed apart; of many lines, the first and the last."""
    if len(ends) > COLOURS:
        ends = [ends[0], ends[-1]]
    ends = sorted(ends)
    heights = [y for y, _, _ in ends]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + 14)
    overflow = max(0.0, (heights[-1] if heights else 0.0) - (HEIGHT - _BOTTOM))
    for index in range(len(heights) - 1, -1, -1):
        limit = HEIGHT - _BOTTOM - 14 * (len(heights) - 1 - index)
        heights[index] = min(heights[index], limit) if overflow else heights[index]
    return [
        f'<text class="end" {_colour(number, lines)} x="{WIDTH - _RIGHT + 9}" y="{height + 4:.1f}">'
        f"{escape(_cut(name, 11))}</text>"
        for height, (_, name, number) in zip(heights, ends, strict=True)
    ]


def _colour(number: int, count: int) -> str:
    if count <= COLOURS:
        return f'style="--line: var(--c{number})"'
    return f'style="--line: var(--c0)" opacity="{0.25 + 0.75 * number / (count - 1):.2f}"'


def _tick(spread: float) -> float:
    """A plain step of which about four make up `spread`."""
    return next((step for step in (1.0, 2.0, 5.0, 10.0, 20.0, 25.0, 50.0) if 4 * step >= spread), 100.0)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 6, 8 times a power of ten, so that four grid lines have plain numbers."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.2, 1.6, 2, 3, 4, 6, 8, 10, 12) if step * power >= 1.08 * value)


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _cut(text: str, letters: int) -> str:
    """At most so many letters; of long names both ends, since sites differ at theirs and tasks at their beginning."""
    if len(text) <= letters:
        return text
    end = max(letters - 1, 1) // 3 if letters > 8 else 0
    return f"{text[: max(letters - 1 - end, 1)]}…{text[len(text) - end :]}"


def _svg(width: float, height: float, parts: Sequence[str], label: str, most: str = "640px") -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label, quote=True)}" '
        f'style="max-width: {most}">{"".join(parts)}</svg>'
    )
