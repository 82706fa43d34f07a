"""Settings of a training run as options: help, default and bounds come from csk_sdk/contract/settings.json."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import typer

from csk_sdk.contract.settings import SETTINGS, Setting


def setting(
    name: str, metavar: str | None = None, parser: Callable[[str], Any] | None = None, rule: str = ""
) -> Any:
    """The option of a setting; its value is None where it is not given. One out of bounds is wrong usage.

    With a `parser` for what is typed, `rule` says what that is.
    """
    one = SETTINGS[name]

    def checked(value: Any) -> Any:
        problem = None if value is None else one.problem(value)
        if problem is not None:
            raise typer.BadParameter(problem)
        return value

    if one.choices:
        metavar = "|".join(one.choices)
    return typer.Option(
        help=explained(one, rule), metavar=metavar, parser=parser, callback=checked, show_default=False
    )


def explained(one: Setting, rule: str = "") -> str:
    """What a setting does, what it may be, and its default, as the last words."""
    if not rule and not one.choices and one.type != "boolean":
        rule = one.rule + (f", in {one.unit}" if one.unit else "")
    rule = f" {rule[0].upper()}{rule[1:]}." if rule else ""
    return _as_options(f"{one.description}{rule} Default: {default_of(one)}.")


def default_of(one: Setting) -> str:
    """Its default in words: a switch is on or off."""
    if one.type == "boolean" and one.default is not None:
        return "on" if one.default else "off"
    return _as_options(one.shown_default)


def given_settings(context: typer.Context) -> dict[str, Any]:
    """The settings that were given on the command line."""
    return {name: value for name, value in context.params.items() if name in SETTINGS and value is not None}


def _as_options(text: str) -> str:
    return re.sub(r"`(\w+)`", lambda found: f"--{found[1].replace('_', '-')}", text)
