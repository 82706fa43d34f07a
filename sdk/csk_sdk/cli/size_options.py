"""Sizes in options."""

from __future__ import annotations

import typer

from csk_sdk.formats.byte_sizes import bytes_in


def parse_size(text: str, option: str) -> int:
    """Bytes. Raises BadParameter for what is no size above 0."""
    found = bytes_in(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size such as 64MiB, 500MB or 1.5GiB.", param_hint=option)
    return found


def memory_size(text: str) -> int:
    """Bytes of `--memory-budget`."""
    return parse_size(text, "--memory-budget")
