"""`status`: how a device is doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from csk_sdk.cli.options import HERE, AsJson, BundleDir, StateDir, TasksDir, TrustKey, WorkspaceDir
from csk_sdk.cli.rendering import Screen, short, table
from csk_sdk.formats.wording import plural
from csk_sdk.network.status import Need, Status
from csk_sdk.state.field import SHARES, Day
from csk_sdk.workspace.conditions import is_paused
from csk_sdk.workspace.folder import Workspace

# The newest days, and the worst classes, that are told of.
_DAYS, _NEEDS = 14, 8


def status(
    count: Annotated[
        bool | None,
        typer.Option(
            "--count/--no-count",
            help="Count predictions from now on; or no more, and drop what was counted.",
        ),
    ] = None,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    tasks: TasksDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Tell how predictions go, and what to teach next.

    With --count, csk-sdk counts from then on, day by day, how many answers it gave, how many of them unknown, and how
    far images lay from all that is known: counts only, in state/field.json. Classes that need more images are told by
    what was expected of them when they were learned. Nothing is measured anew.

    \b
    Example:  csk-sdk status --count
    """
    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, tasks, trust)
    learner = space.learner()
    if count is not None:
        learner.count(count)
    found = learner.status()
    waiting = [one.name for one in space.survey(learner) if one.state in ("next", "waiting", "broken")]
    paused = is_paused(space.tasks)
    screen.json({**found.to_json(), "waiting": waiting, "paused": paused})
    screen.say(
        f"Generation {found.generation}: {plural(len(found.tasks), 'task')} learned, "
        f"{plural(found.classes, 'class', 'classes')} known, {plural(len(waiting), 'task')} waiting"
        f"{', and learning is paused' if paused else ''}."
    )
    if found.domains:
        screen.say(f"Domains: {', '.join(found.domains)}.")
    _show_field(screen, found)
    if found.needs:
        screen.say()
        screen.show(_needs(found.needs, found.noun))
        if len(found.needs) > _NEEDS:
            screen.say(f"  and {plural(len(found.needs) - _NEEDS, 'class', 'classes')} more (--json)")


def _show_field(screen: Screen, found: Status) -> None:
    if found.days is None:
        screen.say("Predictions are not counted: `csk-sdk status --count` begins.")
        return
    share = "" if found.unknown is None else f", {100 * found.unknown:.1f} % of them unknown"
    screen.say(f"{plural(found.answers, 'answer')} counted{share}.")
    if found.days:
        screen.say()
        screen.show(_days(found.days[-_DAYS:]))
    if found.drift:
        screen.warn(found.drift)


def _days(days: Sequence[Day]) -> object:
    further = [f"beyond {100 * (1 - share):.0f} %" for share in SHARES]
    made = table("Day", "generation", "answers", "unknown", *further)
    for day in days:
        counts = (day.unknown, *day.beyond)
        shares = [f"{100 * one / day.measured:.1f} %" if day.measured else "-" for one in counts]
        made.add_row(day.day, str(day.generation), f"{day.answers:,}", *shares)
    usual = [f"{100 * share:.0f} %" for share in SHARES]
    made.add_row("what was learned", "", "", "", *usual, style="dim")
    return made


def _needs(needs: Sequence[Need], noun: str) -> object:
    made = table("Needs more", "right, %", "in its task", f"{noun}s", "what would help")
    made.columns[-1].justify, made.columns[-1].no_wrap = "left", False
    for need in needs[:_NEEDS]:
        shares = (f"{100 * one:.0f}" for one in (need.all_classes, need.among_task))
        told = need.told.replace(need.confused, short(need.confused)) if need.confused else need.told
        made.add_row(short(need.name), *shares, f"{need.images:,}", told)
    return made
