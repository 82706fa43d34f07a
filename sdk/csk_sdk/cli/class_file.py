"""What `--classes`, `--mean` and `--std` say of a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from csk_sdk.cli.rendering import Screen
from csk_sdk.errors import ConfigError
from csk_sdk.formats.opening import read_file
from csk_sdk.formats.schema import parse_json, violation

# A million names.
_LARGEST = 16 << 20
_NUMBERS = {"type": "array", "items": {"type": "number"}}


@dataclass(frozen=True)
class ClassFile:
    """What `--classes FILE` says: class names in label order, and perhaps the normalisation."""

    classes: list[str]
    mean: list[float] | None = None
    std: list[float] | None = None


def described(
    screen: Screen, classes: Path | None, mean: str | None, std: str | None
) -> tuple[list[str] | None, list[float] | None, list[float] | None]:
    """Class names, mean and std from `--classes`, `--mean` and `--std`; a class file may bring the normalisation."""
    given = read_classes(classes) if classes else None
    chosen_mean, chosen_std = _parsed(mean, "--mean"), _parsed(std, "--std")
    if given and given.mean and given.std and chosen_mean is None and chosen_std is None:
        chosen_mean, chosen_std = given.mean, given.std
        screen.say(
            f"Normalisation from {classes}: mean {numbers(given.mean)}, std {numbers(given.std)}.",
            style="dim",
        )
    return given.classes if given else None, chosen_mean, chosen_std


def read_classes(path: Path) -> ClassFile:
    """Read `--classes`: text with one name a line, a JSON list, or an object with "classes" and "normalize".

    Raises ConfigError for anything else.
    """
    try:
        text = read_file(path, _LARGEST).decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"--classes {path} cannot be read ({reason}).") from None
    if not text.lstrip().startswith(("[", "{")):
        return ClassFile([line.strip() for line in text.splitlines() if line.strip()])
    try:
        raw: Any = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"--classes {path} is not valid JSON ({error}).") from None
    normalize = raw.get("normalize", {}) if isinstance(raw, dict) else {}
    names = raw.get("classes") if isinstance(raw, dict) else raw
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f'--classes {path} has no list of names: write a JSON list, or {{"classes": [...]}}.'
        )
    if not isinstance(normalize, dict):
        raise ConfigError(f'--classes {path}: "normalize" must be {{"mean": [...], "std": [...]}}.')
    return ClassFile(names, _numbers_of(path, normalize, "mean"), _numbers_of(path, normalize, "std"))


def _parsed(text: str | None, option: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of numbers such as 0.485,0.456,0.406.", param_hint=option
        ) from None


def _numbers_of(path: Path, normalize: dict[str, Any], name: str) -> list[float] | None:
    values = normalize.get(name)
    if values is None:
        return None
    if violation(values, _NUMBERS) is not None:
        raise ConfigError(f'--classes {path}: "{name}" in "normalize" must be a list of numbers.')
    return [float(value) for value in values]


def numbers(values: tuple[float, ...] | list[float]) -> str:
    """0.485, 0.456, 0.406."""
    return ", ".join(f"{value:.4g}" for value in values)
