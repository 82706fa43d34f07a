"""What applications hand over: paths, names and lists of names, of whatever type they turn out to be."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import ConfigError, CskError, TaskError

# No path of any system is longer; of what is, systems say so in several ways.
_LONGEST_PATH = 4096


def path_of(value: Any, what: str, error: type[CskError] = ConfigError) -> Path:
    """The path that is given as `what`. Raises `error` for what cannot be one."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise error(f"{what} is {_said(value)}, and must be a path: a string or a pathlib.Path.")
    text = os.fspath(value)
    if not text or "\0" in text or len(text) > _LONGEST_PATH:
        problem = "empty" if not text else "too long" if "\0" not in text else "with a zero in it"
        raise error(f"{what} is a path that is {problem}: {text[:40]!r}. Give the path of a file or folder.")
    return Path(text)


def optional_path(value: Any, what: str) -> Path | None:
    """The same, or None where that is given. Raises ConfigError."""
    return None if value is None else path_of(value, what)


def paths_of(values: Any, what: str, error: type[CskError] = ConfigError) -> list[Path]:
    """The paths of a list, or whatever else gives them in an order. Raises `error` for others, and for what is none."""
    if isinstance(values, str | bytes | Mapping | set | frozenset) or not isinstance(values, Iterable):
        raise error(f"{what} is {_said(values)}, and must be a list of paths.")
    try:
        return [path_of(one, f"{what}[{place}]", error) for place, one in enumerate(values)]
    except TypeError:  # an array of no dimension
        raise error(f"{what} is {_said(values)}, and must be a list of paths.") from None


def text_of(value: Any, what: str, error: type[CskError]) -> str:
    """The text that is given as `what`. Raises `error` for what is none."""
    if not isinstance(value, str):
        raise error(f"{what} is {_said(value)}, and must be a string.")
    return str(value)


def texts_of(values: Any, what: str, error: type[CskError]) -> tuple[str, ...]:
    """The texts of a list, a tuple, an array or whatever else gives them in an order. Raises `error` for others."""
    if isinstance(values, str | bytes | dict | set | frozenset) or not isinstance(values, Iterable):
        raise error(f"{what} is {_said(values)}, and must be a list of strings.")
    try:
        return tuple(text_of(one, f"{what}[{place}]", error) for place, one in enumerate(values))
    except TypeError:  # an array of no dimension
        raise error(f"{what} is {_said(values)}, and must be a list of strings.") from None


def names_of(values: Any, what: str, error: type[CskError]) -> list[str]:
    """`texts_of` where whole numbers are meant as names, too."""
    if isinstance(values, Iterable) and not isinstance(values, str | bytes | dict | set | frozenset):
        with suppress(TypeError):  # an array of no dimension
            values = [
                str(one) if isinstance(one, Integral) and not isinstance(one, bool) else one for one in values
            ]
    return list(texts_of(values, what, error))


def array_of(value: Any, what: str) -> NDArray[Any]:
    """An array, or what makes one: also a list, a generator, or images of Pillow's. Raises TaskError."""
    try:
        return np.asarray(list(value) if isinstance(value, Iterator) else value)
    except (ValueError, TypeError):  # parts of different shapes
        raise TaskError(
            f"{what} holds arrays of several shapes, and needs one for all: resize them first, or make a folder."
        ) from None


def items_of(values: Any, what: str) -> list[Any] | NDArray[Any]:
    """An array, or the items of whatever gives some one after another. Raises TaskError."""
    if isinstance(values, np.ndarray):
        return values
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        raise TaskError(f"{what} is {_said(values)}, and must be an array, or a list of arrays.")
    try:
        return list(values)
    except TypeError:
        raise TaskError(f"{what} is {_said(values)}, and must be an array, or a list of arrays.") from None


def flag_of(value: Any, what: str) -> bool:
    """True or False. Raises ConfigError for anything else."""
    if not isinstance(value, bool):
        raise ConfigError(f"{what} is {_said(value)}, and must be True or False.")
    return value


def _said(value: Any) -> str:
    if value is None or isinstance(value, type):
        return "None" if value is None else "a class"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
