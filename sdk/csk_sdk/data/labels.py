"""Labels of images or signals, in one of two forms.

int64   (n,)           one class each, as an index into the task's classes
float32 (n, columns)   a table: a number each for every class (0 or 1) or for each target
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import TaskError
from csk_sdk.formats.wording import plural

# Either form; which of them a bundle learns from, its loss says: csk_sdk.objectives.
Labels = NDArray[Any]


def check_labels(
    labels: NDArray[Any], names: Sequence[str], count: int, name: str, noun: str = "image"
) -> Labels:
    """Labels as they are given, checked and in one of the two forms; `name` is what messages call them.

    There must be `count` of them, one for each `noun`. Integers `(n,)` are indices into `names`; numbers
    `(n, len(names))`, or floats `(n,)` under a single name, are a table.
    Raises TaskError for another dtype, shape or number, and for a number that is not finite.
    """
    if labels.ndim == 1 and labels.dtype.kind == "f" and len(names) == 1:
        labels = labels[:, None]
    if labels.ndim == 2 and labels.shape[1] == len(names) and labels.dtype.kind in "biuf":
        return _table(labels, names, count, name, noun)
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise TaskError(
            f"{name} is {labels.dtype} of shape {labels.shape}, and must be one integer per {noun}, "
            "an index into class_names, or a table of numbers with one column for each name."
        )
    _require_one_each(labels, count, name, noun)
    bad = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if bad.size:
        raise TaskError(
            f"{name}[{bad[0]}] is {labels[bad[0]]}, and with {len(names)} class_names a label must be "
            f"0 to {len(names) - 1}."
        )
    return labels.astype(np.int64)


# From here on float32 does not tell numbers apart that differ by a 16th.
_LARGE = 2**20


def constant_columns(table: Labels) -> list[int]:
    """Columns of a table `(n, columns)` that hold one and the same number all the way down, or none."""
    if not len(table):
        return list(range(table.shape[1]))
    return np.flatnonzero(np.all(table == table[:1], axis=0)).tolist()


def require_learnable(labels: Labels, names: Sequence[str], where: str, noun: str = "image") -> None:
    """Raise TaskError where training labels say nothing of one of `names`."""
    if labels.ndim == 1:
        empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
        if empty.size:
            raise TaskError(
                f"{where}class '{names[empty[0]]}' has no {noun}: no label is {empty[0]}. "
                f"Add {noun}s of it, or remove it from class_names."
            )
    elif constant := constant_columns(labels):
        column = constant[0]
        value = f"{labels[0, column]:g} for every {noun}" if len(labels) else f"there for no {noun}"
        if len(labels) and abs(labels[0, column]) >= _LARGE:
            value += " as float32 holds it"
        raise TaskError(
            f"{where}the label '{names[column]}' is {value}, so nothing can be learned of it. "
            f"Add {noun}s where it differs, or remove its column."
        )


def _table(labels: NDArray[Any], names: Sequence[str], count: int, name: str, noun: str) -> Labels:
    _require_one_each(labels, count, name, noun)
    with np.errstate(over="ignore"):
        table = labels.astype(np.float32)
    bad = np.argwhere(~np.isfinite(table))
    if bad.size:
        row, column = bad[0]
        raise TaskError(
            f"{name}[{row}, {column}] ('{names[column]}') is {labels[row, column]}, and a label must be a finite "
            f"number: correct it, or leave its {noun} out."
        )
    for column in constant_columns(table):
        least, most = labels[:, column].min(), labels[:, column].max()
        if least != most:
            raise TaskError(
                f"{name}: '{names[column]}' goes from {least!s} to {most!s}, which float32 cannot tell apart: subtract "
                "what all have in common."
            )
    return table


def _require_one_each(labels: NDArray[Any], count: int, name: str, noun: str) -> None:
    if len(labels) != count:
        raise TaskError(
            f"{name} has {plural(len(labels), 'entry', 'entries')} for {plural(count, noun)}: give one for each."
        )
