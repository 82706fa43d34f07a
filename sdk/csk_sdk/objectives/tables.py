"""What objectives have in common whose labels are a table: a number per image and output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from csk_sdk.data.labels import Labels, check_labels, constant_columns
from csk_sdk.data.tasks import Split
from csk_sdk.errors import TaskError
from csk_sdk.formats.given import array_of
from csk_sdk.formats.wording import plural
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.objectives.objective import NamedHead, Objective, side_by_side


class TableObjective(Objective):
    """Outputs that are independent of each other: a head over everything is the tasks' heads, one below the other.

    `form` says what labels must look like.
    """

    form: ClassVar[str]
    tabular = True
    lacking = "saw only {noun}s with one and the same label {name}"

    def require_split(self, split: Split, where: str, names: Sequence[str]) -> None:
        """Labels must be a table, of numbers that the loss takes."""
        if split.labels.ndim != 2:
            raise TaskError(
                f"{where} gives each image one class, but this bundle was built with --loss {self.loss}: {self.form}."
            )
        self.require_values(split.labels, names, f"{where}: ")

    def require_values(self, labels: Labels, names: Sequence[str], where: str) -> None:
        """Raise TaskError for a number in a table that the loss cannot take."""

    def batch_labels(self, given: Any, pictures: int, names: Sequence[str]) -> Labels:
        """A table `(images, names)`, or `(images,)` under a single name."""
        labels = array_of(given, "labels")
        if not pictures and not labels.size:
            return self.blank_labels(0, names)
        if labels.ndim == 1 and len(names) == 1:
            labels = labels[:, None]
        if labels.ndim != 2:
            raise TaskError(
                f"{plural(pictures, 'image')} came with labels of shape {labels.shape}: {self.form}."
            )
        labels = check_labels(labels, names, pictures, "labels")
        self.require_values(labels, names, "The batch: ")
        return labels

    def blank_labels(self, pictures: int, names: Sequence[str]) -> Labels:
        """Zeros."""
        return np.zeros((pictures, len(names)), np.float32)

    def missing(self, labels: Labels, names: Sequence[str]) -> list[str]:
        """Columns that do not vary."""
        return [names[column] for column in constant_columns(labels)]

    def head_of_all(self, statistics: ClassStatistics, heads: Sequence[NamedHead]) -> NamedHead:
        """All outputs; where two tasks have one of the same name, the later task's."""
        return side_by_side(heads)
