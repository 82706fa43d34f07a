"""`tasks` and `rollback`: what a device's state consists of, and going back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from csk_sdk.cli.options import (
    HERE,
    AsJson,
    BundleDir,
    StateDir,
    TasksDir,
    TrustKey,
    WorkspaceDir,
    Yes,
    require_named,
)
from csk_sdk.cli.rendering import Screen, duration
from csk_sdk.errors import StateError
from csk_sdk.learner import Learner
from csk_sdk.network.predicting import task_names
from csk_sdk.state.versions import domain_names
from csk_sdk.workspace.folder import TaskStatus, Workspace

_STATE_STYLES = {"learned": "green", "next": "bold", "broken": "red", "test only": "dim"}


def tasks(
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    tasks: TasksDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks: learned, next, waiting or broken.

    \b
    Example:  csk-sdk tasks --workspace /data/camera
    """
    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, tasks, trust)
    require_named(tasks, space.inbox)
    learner = space.learner()
    found = space.survey(learner)
    screen.json([asdict(status) for status in found])
    if learner.domains:
        screen.say(f"Domains: {', '.join(learner.domains)}.")
    if not found:
        screen.say(f"No tasks: {space.tasks} is empty. A task is a folder NAME/train/<class>/ or a NAME.npz.")
        return
    columns = ("Task", "State", "Classes", "Train", "Test", "Time")
    rows: list[list[str | Text]] = [
        [status.name, Text(_state_words(status), _STATE_STYLES.get(status.state, "")), *_numbers(status)]
        for status in found
    ]
    screen.show_rows(columns, rows, words={1})
    for status in found:
        if status.error:
            screen.say(f"  {status.name}: {status.error}", style="red")
        for note in status.notes:
            screen.say(f"  {status.name}: {note}", style="yellow")


def _state_words(status: TaskStatus) -> str:
    # What an upgrade carried over at once, or forgetting wrote anew, has no generation of its own.
    learned_alone = status.state == "learned" and status.generation is not None
    return f"learned, generation {status.generation}" if learned_alone else status.state


def _numbers(status: TaskStatus) -> list[str]:
    if status.state == "broken":
        return ["-"] * 4
    counts = [f"{value:,}" if value else "-" for value in (status.train_images, status.test_images)]
    seconds = duration(status.seconds) if status.seconds is not None else "-"
    return [str(len(status.classes)), *counts, seconds]


def rollback(
    to: Annotated[
        str, typer.Option("--to", metavar="TASK", help="The last task to keep; base is the bundle as it was.")
    ],
    yes: Yes = False,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
) -> None:
    """Go back to when TASK had just been learned, or forward.

    Tasks learned after it count as not learned; they can be learned again. As long as their generations are kept,
    the same command leads to them, too.

    \b
    Example:  csk-sdk rollback --to base
    """
    screen = Screen()
    learner = Workspace.open(workspace, bundle, state, trust=trust).learner()
    dropped, domains = _dropped(learner, to)
    if (dropped or domains) and not yes:
        lost = []
        if dropped:
            back = f"`csk-sdk rollback --to {dropped[-1]}` brings them back as long as they are kept."
            lost.append(f"{', '.join(dropped)} will count as not learned; {back}")
        if domains:
            lost.append(f"{domains} will not be known any more: `csk-sdk adapt` learns it anew.")
        screen.require_yes(" ".join(lost))
    generation = learner.rollback(to)
    known = task_names(generation, learner.bundle.manifest.classes)
    gone = f" No longer known: {domains}." if domains else ""
    screen.say(f"Back at generation {generation.number}. Known now: {', '.join(known)}.{gone}")


def _dropped(learner: Learner, to: str) -> tuple[list[str], str]:
    """What is known now and not after a rollback, tasks and domains; nothing where damage leaves that open."""
    try:
        now, then = learner.generation, learner.state.load(learner.state.generation_at(to))
    except StateError:
        return [], ""  # which a rollback mends, or says what it is
    kept, seen = {task.name for task in then.tasks}, domain_names(then.tensors)
    tasks = [task.name for task in now.tasks if task.name not in kept]
    return tasks, ", ".join(f"domain {name}" for name in domain_names(now.tensors) if name not in seen)
