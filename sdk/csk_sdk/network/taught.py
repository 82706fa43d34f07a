"""How many images of what is known were taught here: of a class in all lessons, of a task with what is left of it."""

from __future__ import annotations

from collections.abc import Iterable

from csk_sdk.state import LearnedTask, State
from csk_sdk.state.outlines import RecordLink


def images_of_class(state: State, tasks: Iterable[LearnedTask], name: str) -> int | None:
    """Of a class in all of `tasks`, each image that counts once; None where the state does not say it."""
    files = [
        task.contributions[name]
        for task in tasks
        # What a fleet's knowledge holds already counts in that.
        if task.contributions.get(name) and name not in task.shared
    ]
    return _sum(state, files)


def images_of_task(state: State, history: Iterable[RecordLink], task: LearnedTask) -> int | None:
    """Of the classes that a task still has; None where some may be forgotten, and the state does not say how many.

    `history` is the state's. What another lesson replaced counts in nothing any more, and was taught all the same.
    """
    if not any(record.forgot for record in history):
        return task.images
    files = [task.contributions.get(name, "") for name in task.classes]
    return _sum(state, files) if all(files) else None


def _sum(state: State, files: Iterable[str]) -> int | None:
    counts = [state.images_of(name) for name in files]
    known = [count for count in counts if count is not None]
    return round(sum(known)) if known and len(known) == len(counts) else None
