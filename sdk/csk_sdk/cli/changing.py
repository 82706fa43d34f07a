"""`forget`, `rename` and `merge`: changing what is known without a lesson."""

from __future__ import annotations

from glob import escape
from typing import Annotated

import typer

from csk_sdk.cli.options import HERE, AsJson, BundleDir, StateDir, TrustKey, WorkspaceDir, Yes
from csk_sdk.cli.rendering import Screen
from csk_sdk.errors import ConfigError
from csk_sdk.formats.wording import plural
from csk_sdk.learning.forgetting import Forgotten
from csk_sdk.workspace.folder import Workspace


def forget(
    classes: Annotated[
        list[str] | None, typer.Argument(metavar="[CLASS]...", help="Classes to forget.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="NAME", help="Forget all that this task contributed instead."),
    ] = None,
    yes: Yes = False,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Forget classes, or a task, for good.

    What they contributed is dropped, and everything that is known is made anew of the rest; older generations that hold
    them are removed, so there is no way back. Classes of the base are hidden, since the bundle holds them.

    \b
    Example:  csk-sdk forget four
    """
    if bool(classes) == (task is not None):
        either = ", and not both" if classes else ""
        raise ConfigError(f"Name the classes to forget, or a task with --task NAME{either}.")
    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, trust=trust)
    learner = space.learner()
    if not yes:
        what = f"Task {task} is" if task is not None else f"{', '.join(classes or ())}: this is"
        screen.require_yes(f"{what} forgotten for good, in older generations too.")
    report = learner.forget(*(classes or ()), task=task)
    screen.json(report.to_json())
    _tell(screen, report)
    waiting = space.inbox.paths() if report.tasks else {}
    for path in (waiting[name] for name in report.tasks if name in waiting):
        screen.warn(
            f"{path} still holds the images: remove it, or the next `csk-sdk train` learns them again."
        )


def _tell(screen: Screen, report: Forgotten) -> None:
    if report.classes or report.tasks:
        what = [*report.classes, *(f"task {name}" for name in report.tasks)]
        screen.say(f"Forgotten: {', '.join(what)}. Generation {report.generation} is current.")
    if report.hidden:
        screen.say(f"Hidden, and not forgotten: {', '.join(report.hidden)}, known to the base.")
    if report.refitted:
        screen.say(f"Heads made anew: {', '.join(report.refitted)}.")
    if report.removed:
        screen.say(f"{plural(report.removed, 'older generation')} that held it removed.")
    for one in report.remains:
        screen.say(f"  remains: {one}")


def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A learned class.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its name from now on.")],
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
) -> None:
    """Give a learned class another name.

    \b
    Example:  csk-sdk rename vier four
    """
    space = Workspace.open(workspace, bundle, state, trust=trust)
    generation = space.learner().rename(old, new)
    screen = Screen()
    screen.say(f"{old} is called {new} now. Generation {generation.number} is current.")
    _say_folders(screen, space, old, f"rename {{it}} to {new}")


def merge(
    into: Annotated[str, typer.Argument(metavar="CLASS", help="The class that stays.")],
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The learned class that becomes it.")],
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
) -> None:
    """Make one class of two.

    What was learned of OTHER is known of CLASS then.

    \b
    Example:  csk-sdk merge three drei
    """
    space = Workspace.open(workspace, bundle, state, trust=trust)
    generation = space.learner().merge(into, other)
    screen = Screen()
    screen.say(f"{other} is {into} now. Generation {generation.number} is current.")
    _say_folders(
        screen,
        space,
        other,
        f"these images are of {into} now, so move them there, or rename {{it}} to {into}",
    )


def _say_folders(screen: Screen, space: Workspace, name: str, remedy: str) -> None:
    """Images in the inbox go by the names of their folders, which nobody renames but their owner."""
    for tested in sorted(space.tasks.glob(f"*/test/{escape(name)}")):
        task = tested.parents[1]
        # Both, since what is tested is to be among what was learned.
        folders = [one for one in (task / "train" / name, tested) if one.is_dir()]
        it = "it" if len(folders) == 1 else "both"
        what = " and ".join(map(str, folders))
        screen.say(f"  {what}: {remedy.format(it=it)}, or {task.name} cannot be tested.")
