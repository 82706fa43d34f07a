"""`upgrade`: the next bundle, with what the device has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csk_sdk.cli.options import HERE, AsJson, BundleDir, StateDir, TasksDir, TrustKey, WorkspaceDir, Yes
from csk_sdk.cli.rendering import Screen, size
from csk_sdk.errors import ConfigError
from csk_sdk.formats.wording import plural
from csk_sdk.workspace.folder import Workspace
from csk_sdk.workspace.upgrading import UpgradePlan, upgrade_back


def upgrade(
    new: Annotated[
        Path | None,
        typer.Argument(metavar="[NEW_BUNDLE]", help="A bundle built with --upgrade-from this device's."),
    ] = None,
    back: Annotated[
        bool,
        typer.Option("--back", help="Take the last upgrade back: bundle and state as they were before it."),
    ] = False,
    relearn: Annotated[
        bool,
        typer.Option(
            "--relearn/--no-relearn",
            help="Learn tasks again whose images are still in the inbox; else carry them over, too.",
        ),
    ] = True,
    yes: Yes = False,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    tasks: TasksDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Replace the bundle, and carry over what was learned.

    Both the bundle and the state are replaced, or neither; the old ones are kept for --back.

    \b
    Example:  csk-sdk upgrade new-bundle
    """
    if back == (new is not None):
        raise ConfigError("Name the new bundle, or pass --back.")
    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, tasks, trust)
    if new is None:
        if not yes:
            screen.require_yes("What was learned since the upgrade is gone then.")
        upgrade_back(space.bundle, space.state, trust=space.trust)
        screen.say("Back at the bundle and the state from before the last upgrade.")
        screen.json({"back": True})
        return
    planned = space.upgrade_to(new, relearn)
    _show(screen, planned.plan(), new)
    report = planned.run(lambda step: screen.say(f"{step} ..."))
    screen.json(report.to_json())
    screen.say(
        f"{new} is this device's bundle now. The old one stays in {planned.places.before()[0]}, for --back."
    )
    if report.merged:
        screen.say(f"Known to the new base by itself, and one class each now: {', '.join(report.merged)}.")
    for note in report.notes:
        screen.warn(note)


def _show(screen: Screen, plan: UpgradePlan, new: Path) -> None:
    screen.say(
        f"Upgrading to {new} takes {size(plan.disk_bytes)} of disk, and up to {size(plan.memory_bytes)} of memory."
    )
    if plan.carried:
        screen.say(f"Carried over, {_how(plan)}: {', '.join(plan.carried)}.")
    if plan.learned_again:
        screen.say(f"Learned again, since their images are here: {', '.join(plan.learned_again)}.")
    for one in plan.not_again:
        screen.say(one)


def _how(plan: UpgradePlan) -> str:
    if plan.exact:
        return "exactly as it was"
    if plan.added:
        return f"by a map that tells {100 * plan.explained:.0f} % of the new features"
    return (
        f"without {plural(plan.gone, 'feature')} that are gone"
        if plan.gone
        else "without what training had moved"
    )
