"""Images or signals of a task that cannot be read, all of them in one go; and the task without them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from csk_sdk.data.labels import require_learnable
from csk_sdk.data.preprocess import Preprocessing
from csk_sdk.data.source import Subset
from csk_sdk.data.tasks import Split, Task
from csk_sdk.errors import TaskError

# More in one message nobody reads: reasons, and images of one reason.
_MOST_REASONS, _MOST_NAMED = 20, 19
_NUMBER = re.compile(r"[0-9]+")
# What an image is called, and what is wrong with it.
Broken = tuple[str, TaskError]


def broken_in(split: Split, preprocessing: Preprocessing) -> Iterator[tuple[int, TaskError]]:
    """Index, and what is wrong with it, of every image or signal that cannot be brought to the model's size."""
    for index in range(len(split)):
        try:
            preprocessing.to_size(split.images.read(index), split.images.name(index))
        except TaskError as error:
            yield index, error


def require_whole(broken: Sequence[Broken], count: int, noun: str) -> None:
    """Raise TaskError where some of `count` images or signals are broken: each reason once, with the first of them."""
    if len(broken) == 1:
        others = " Or learn the others with --skip-broken." if count > 1 else ""
        raise TaskError(f"{broken[0][1]}{others}")
    if len(broken) == count > 1:
        raise TaskError(f"None of the {count} {noun}s can be learned. The first: {broken[0][1]}")
    if broken:
        advice = _advice(broken)
        remove = "Or remove" if advice else "Remove"
        raise TaskError(
            f"{len(broken)} of {count} {noun}s cannot be learned: {_listed(broken)}.{advice} {remove} or replace them "
            "and run the command again, or learn the others with --skip-broken."
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
    named = [(split.images.name(index), error) for index, error in broken.items()]
    if not len(kept):
        require_whole(named, len(split), split.images.noun)
    rest = Split(Subset(split.images, kept), split.labels[kept])
    try:
        require_learnable(rest.labels, task.classes, f"Task '{task.name}': ", split.images.noun)
    except TaskError as error:
        left_out = f"What cannot be read was left out: {_listed(named)}.{_advice(named)}"
        raise TaskError(f"{error} {left_out}") from None
    return replace(task, train=rest, skipped=tuple(_said(error) for error in broken.values()))


def _listed(broken: Sequence[Broken]) -> str:
    """Each reason once, in the words of the first image that has it, and how many more there are.

    Reasons that differ in numbers alone (of pixels, or how dark an image is) are one.
    """
    reasons: dict[str, list[Broken]] = {}
    for name, error in broken:
        key = _NUMBER.sub("0", _said(error).replace(name, ""))
        reasons.setdefault(key, []).append((name, error))
    told = list(reasons.values())
    more = sum(len(alike) for alike in told[_MOST_REASONS:])
    return "; ".join(map(_reason, told[:_MOST_REASONS])) + (f"; and {more} more" if more else "")


def _reason(alike: Sequence[Broken]) -> str:
    said, others = _said(alike[0][1]), [name for name, _ in alike[1:]]
    if not others:
        return said
    # The first is told with its whole path: of others their class's folder and their name.
    short = ["/".join(Path(name).parts[-2:]) for name in others[:_MOST_NAMED]]
    named = ", ".join(short) + (", ..." if len(others) > _MOST_NAMED else "")
    return f"{said} ({len(others)} more like it: {named})"


def _advice(broken: Sequence[Broken]) -> str:
    """What to do beside removing them, where there is more, with a space in front."""
    advice = dict.fromkeys(str(vars(error)["advice"]) for _, error in broken if "advice" in vars(error))
    return "".join(f" {one}" for one in advice)


def _said(error: TaskError) -> str:
    """An error without what to do about it, where it says so apart."""
    return str(vars(error).get("what", str(error).rstrip(".")))
