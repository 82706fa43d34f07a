"""How numbers are said in sentences and tables: a count with its noun, and no zero with a sign."""

from __future__ import annotations


def plural(count: int | str, one: str, many: str | None = None) -> str:
    """1 task, 2 tasks; a count that is no whole number comes as text."""
    text = count if isinstance(count, str) else f"{count:,}"
    return f"{text} {one if text == '1' else many or one + 's'}"


def rounded(value: float, form: str) -> str:
    """`value` as `form` has it; what that rounds to zero is neither below nor above it."""
    text = format(value, form)
    return text.lstrip("+-") if float(text.replace(",", "")) == 0 else text
