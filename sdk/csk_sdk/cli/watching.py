"""`watch`: the device's service, which learns what lands in the inbox."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict
from typing import Annotated, Any

import typer

from csk_sdk.cli.learning_view import learned
from csk_sdk.cli.options import HERE, AsJson, BundleDir, StateDir, TasksDir, TrustKey, WorkspaceDir
from csk_sdk.cli.rendering import Screen
from csk_sdk.errors import ConfigError
from csk_sdk.workspace.conditions import (
    Conditions,
    When,
    is_paused,
)
from csk_sdk.workspace.conditions import (
    pause as pause_inbox,
)
from csk_sdk.workspace.conditions import (
    resume as resume_inbox,
)
from csk_sdk.workspace.folder import Workspace
from csk_sdk.workspace.watching import Happened, Watcher


def watch(
    settle: Annotated[
        float,
        typer.Option(min=0.0, metavar="SECONDS", help="How long a task's files must have been left alone."),
    ] = 10.0,
    poll: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two looks at the inbox.")
    ] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="End when nothing waits any more.")] = False,
    nice: Annotated[int, typer.Option(min=0, max=19, help="Give way to other processes: 19 the most.")] = 10,
    when: Annotated[
        list[When] | None,
        typer.Option(
            "--when",
            help="Learn only while the device is idle, or charging; give it twice for both.",
        ),
    ] = None,
    skip_broken: Annotated[
        bool | None,
        typer.Option(
            "--skip-broken/--no-skip-broken",
            help="Leave out images or signals that cannot be read, and say which.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Compute threads; 0 is one per core.")] = None,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    tasks: TasksDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Learn whatever lands in the inbox, until stopped.

    A task is taken once none of its files has changed for --settle seconds. One that cannot be learned is set
    aside, with the reason, until its files change. What was stopped in the middle goes on at the next start.
    `csk-sdk pause` holds it until `csk-sdk resume`. --when idle waits before a task while more than half of all
    cores are asked for; --when charging also holds a task in its middle, which goes on later where it was.
    Settings come from the table [training] of csk.toml. docs/service.md has a unit for systemd.

    \b
    Example:  csk-sdk watch --workspace /var/lib/camera --nice 15
    """
    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, tasks, trust)
    space.inbox.require_no_file()
    _give_way(nice)
    learner = space.learner(space.config.with_overrides(threads=threads, skip_broken=skip_broken))
    watcher = Watcher(space, learner, settle, poll, Conditions(space.tasks, frozenset(when or ())))
    before = [signal.signal(number, lambda *_: watcher.stop()) for number in (signal.SIGTERM, signal.SIGINT)]
    screen.say(f"Watching {space.tasks}: generation {learner.generation.number}.")
    if not space.tasks.exists():
        screen.warn(f"there is no folder {space.tasks} yet.")
    try:
        for happened in watcher.run(once):
            _tell(screen, happened)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    screen.say("Stopped watching.")


def pause(workspace: WorkspaceDir = HERE, tasks: TasksDir = None) -> None:
    """Hold `watch` until `csk-sdk resume`, across restarts.

    A task that is being learned is held at its next step, and goes on from its last progress checkpoint. It is a file
    .paused in the inbox; `train` does not ask for it.

    \b
    Example:  csk-sdk pause
    """
    space = Workspace.open(workspace, tasks=tasks)
    space.inbox.require_no_file()
    pause_inbox(space.tasks)
    Screen().say("Paused: what waits is learned after `csk-sdk resume`.")


def resume(workspace: WorkspaceDir = HERE, tasks: TasksDir = None) -> None:
    """Let `watch` learn again after `csk-sdk pause`.

    \b
    Example:  csk-sdk resume
    """
    space = Workspace.open(workspace, tasks=tasks)
    space.inbox.require_no_file()
    was = is_paused(space.tasks)
    resume_inbox(space.tasks)
    Screen().say("Learning may go on." if was else "Learning was not paused.")


def _give_way(nice: int) -> None:
    if nice and not hasattr(os, "nice"):
        raise ConfigError("This system has no niceness: give --nice 0.")
    if nice:
        os.nice(nice)


def _tell(screen: Screen, happened: Happened) -> None:
    report = happened.report
    if report is not None:
        screen.say(learned(report))
        if report.choice:
            screen.say(f"{happened.task}: {report.choice}")
        for warning in report.warnings:
            screen.warn(f"{happened.task}: {warning}")
        for one in report.skipped:
            screen.say(f"  left out: {one}")
    elif happened.event == "set aside":
        screen.warn(f"{happened.task} is set aside. {happened.reason}")
    elif happened.event == "later":
        screen.warn(f"Trying again later. {happened.reason}")
    elif happened.event == "paused":
        screen.say(f"{'Held ' + happened.task + '. ' if happened.task else ''}{happened.reason}")
    elif happened.event == "resumed":
        screen.say("Learning may go on.")
    else:
        screen.say(f"Stopped while learning {happened.task}. {happened.reason}")
    screen.json(_plain(happened), indent=None)


def _plain(happened: Happened) -> dict[str, Any]:
    report = happened.report
    return {**asdict(happened), "report": report.to_json() if report is not None else None}
