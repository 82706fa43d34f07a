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


def parse_input_size(text: str | None) -> tuple[int, ...] | None:
    """`--input-size`: (height, width) of 224x224, or (length,) of 16000. Raises BadParameter for anything else."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(
            f"{text!r} is neither HEIGHTxWIDTH of images, such as 224x224, nor a length of signals.",
            param_hint="--input-size",
        )
    return tuple(int(part) for part in parts)
