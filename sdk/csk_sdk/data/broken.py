"""Images or signals of a task that cannot be read, all of them in one go; and the task without them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from csk_sdk.data.labels import require_learnable
from csk_sdk.data.preprocess import Preprocessing
from csk_sdk.data.source import Subset
from csk_sdk.data.tasks import Split, Task
from csk_sdk.errors import TaskError

# More in one message nobody reads.
_MOST_NAMED = 20


def broken_in(split: Split, preprocessing: Preprocessing) -> Iterator[tuple[int, TaskError]]:
    """Index, and what is wrong with it, of every image or signal that cannot be brought to the model's size."""
    for index in range(len(split)):
        try:
            preprocessing.to_size(split.images.read(index), split.images.name(index))
        except TaskError as error:
            yield index, error


def require_whole(errors: list[TaskError], count: int, noun: str) -> None:
    """Raise TaskError, naming all of them, where there are errors in `count` images or signals."""
    if len(errors) == 1:
        raise errors[0]
    if len(errors) == count > 1:
        raise TaskError(f"None of the {count} {noun}s can be learned. The first: {errors[0]}")
    if errors:
        raise TaskError(
            f"{len(errors)} of {count} {noun}s cannot be learned: {_listed(errors)}. Remove or replace them and run "
            "the command again, or learn the others with --skip-broken."
        )


def without_broken(task: Task, preprocessing: Preprocessing) -> Task:
    """The task with what can be read of its training data; its `skipped` says what was left out.

    Reads every image once. Raises TaskError where a class has none left.
    """
    split = task.train
    assert split is not None
    broken = dict(broken_in(split, preprocessing))
    if not broken:
        return task
    kept = np.setdiff1d(np.arange(len(split)), list(broken))
    errors = list(broken.values())
    if not len(kept):
        require_whole(errors, len(split), split.images.noun)
        raise errors[0]
    rest = Split(Subset(split.images, kept), split.labels[kept])
    try:
        require_learnable(rest.labels, task.classes, f"Task '{task.name}': ", split.images.noun)
    except TaskError as error:
        raise TaskError(f"{error} What cannot be read was left out: {_listed(errors)}.") from None
    return replace(task, train=rest, skipped=tuple(_said(error) for error in errors))


def _listed(errors: list[TaskError]) -> str:
    more = len(errors) - _MOST_NAMED
    return "; ".join(_said(error) for error in errors[:_MOST_NAMED]) + (
        f"; and {more} more" if more > 0 else ""
    )


def _said(error: TaskError) -> str:
    """An error without what to do about it, where it says so apart."""
    return str(vars(error).get("what", str(error).rstrip(".")))
