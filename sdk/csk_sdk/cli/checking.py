"""`doctor` and `demo`: does it work here, and what does it do?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csk_sdk.cli.options import HERE, AsJson, BundleDir, StateDir, TasksDir, WorkspaceDir
from csk_sdk.cli.rendering import Screen, plural

_STYLES = {"ok": "green", "warn": "bold yellow", "fail": "bold red"}


def doctor(
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    tasks: TasksDir = None,
    as_json: AsJson = False,
) -> None:
    """Check this device and its workspace.

    ONNX Runtime, memory, disk, bundle, a timed training step, state and tasks; it changes nothing.
    Exits 1 where something has to be mended before training.

    \b
    Example:  csk-sdk doctor --workspace /data/camera
    """
    from csk_sdk.doctor import FAIL, WARN, examine

    screen = Screen(as_json)
    found = []
    for check in examine(workspace, bundle, state, tasks):
        found.append(check)
        screen.check(check.name, check.status, _STYLES[check.status], check.detail, check.remedy)
    failed, warned = (sum(check.status == status for check in found) for status in (FAIL, WARN))
    screen.say()
    if failed:
        screen.say(f"{plural(failed, 'problem')} to mend.", style="bold red")
    elif warned:
        screen.say(f"Ready, with {plural(warned, 'warning')}.")
    else:
        screen.say("Everything is in order.")
    screen.json({"ok": not failed, "checks": [check.to_json() for check in found]})
    if failed:
        raise typer.Exit(1)


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the demo's workspace goes.")
    ] = Path("csk-sdk-demo"),
    as_json: AsJson = False,
) -> None:
    """Watch a network that knows 0 to 3 learn the other digits.

    \b
    Example:  csk-sdk demo --out /tmp/demo
    """
    from csk_sdk.cli.demo_screen import show
    from csk_sdk.demo import run_demo

    screen = Screen(as_json)
    result = run_demo(out, screen.progress_line)
    if not as_json:
        show(result, screen.console)
    screen.json(result.to_json())
