"""`doctor`, `verify` and `demo`: does it work here, is it whole, and what does it do?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from csk_sdk.cli.options import HERE, AsJson, BundleDir, StateDir, TasksDir, TrustKey, WorkspaceDir
from csk_sdk.cli.rendering import Screen, table
from csk_sdk.errors import ConfigError
from csk_sdk.formats.wording import plural
from csk_sdk.workspace.folder import Workspace

if TYPE_CHECKING:
    from csk_sdk.device.tuning import Measured
    from csk_sdk.state.repair import Finding
    from csk_sdk.workspace.verification import Verification

_FOUND = {
    "intact": "green",
    "pruned": "dim",
    "leftover": "dim",
    "damaged": "bold red",
    "repaired": "yellow",
    "newer": "yellow",
    "lost": "yellow",
}
# Pruned generations that are listed one by one.
_FEW = 3
_STYLES = {"ok": "green", "warn": "bold yellow", "fail": "bold red"}


def doctor(
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    tasks: TasksDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Check this device and its workspace.

    ONNX Runtime, memory, disk, bundle, a timed training step, state and tasks. Where the bundle has graphs in int8 and
    exact, both are measured, and the better is remembered in device.json beside the state, for every later command;
    nothing else is changed. Exits 1 where something has to be mended before training.

    \b
    Example:  csk-sdk doctor --workspace /data/camera
    """
    from csk_sdk.workspace.doctor import examine
    from csk_sdk.workspace.doctor_graphs import FAIL, WARN

    screen = Screen(as_json)
    found = []
    for check in examine(workspace, bundle, state, tasks, trust):
        found.append(check)
        screen.check(check.name, check.status, _STYLES[check.status], check.detail, check.remedy)
        if check.measured:
            screen.show(_measured(check.measured))
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


def _measured(found: Sequence[Measured]) -> Padding:
    made = table("", "step", "with cached prefix", "logits off", "gradients off")
    for one in found:
        exact = one.precision == "exact"
        made.add_row(
            one.precision + (", wide sums" if one.wide_sums else ""),
            f"{one.step:.1f} ms",
            f"{one.cached:.1f} ms" if one.cached is not None else "",
            "" if exact else f"{100 * one.logits:.1f} %",
            "" if exact else f"{100 * one.gradients:.1f} %",
        )
    return Padding(made, (0, 0, 0, 6))


def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended of the state.")] = False,
    allow_older: Annotated[
        bool,
        typer.Option(
            "--allow-older", help="From now on accept this signed bundle, although a newer one was seen."
        ),
    ] = False,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Check every byte of bundle and state, and repair a state.

    It changes nothing without --repair. With it, a damaged HEAD points to the newest intact generation again, a lost
    record or state.json is written again from what else is known, a forgetting that was interrupted is finished, and
    what is damaged or left over and of no use is removed; an intact generation never is. Exits 1 while anything is
    damaged.

    \b
    Example:  csk-sdk verify --repair
    """
    from csk_sdk.workspace.verification import verify as verify_files

    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, trust=trust)
    if not os.path.lexists(space.bundle) and not os.path.lexists(space.state):
        raise ConfigError(
            f"There is neither a bundle in {space.bundle} nor a state in {space.state}: give the device's folder with "
            "--workspace."
        )
    if allow_older and space.trust is None:
        raise ConfigError("--allow-older is about signed bundles: name the key that you trust with --trust.")
    found = verify_files(space.bundle, space.state, repair=repair, trust=space.trust, allow_older=allow_older)
    screen.json(found.to_json())
    for title, findings in ((f"Bundle {space.bundle}", found.bundle), (f"State {space.state}", found.state)):
        screen.say(title, style="bold")
        made = table("File", "Status", "Detail", left=3)
        for name, status, detail in _rows(findings):
            made.add_row(name, Text(status, _FOUND[status]), detail)
        screen.show(made if findings else Text("nothing learned yet" if found.bundle else ""))
        screen.say()
    if not found.ok:
        screen.say(
            "Damaged." if repair else "Damaged: `csk-sdk verify --repair` mends what it can of a state."
        )
        raise typer.Exit(1)
    screen.say(f"Mended: {plural(found.repaired, 'finding')}." if found.repaired else _intact(found))


def _rows(findings: Iterable[Finding]) -> Iterator[tuple[str, str, str]]:
    """A row for each, but one for all pruned generations that follow each other: a device may have thousands."""
    for pruned, group in groupby(findings, lambda one: one.status == "pruned"):
        alike = list(group)
        if pruned and len(alike) > _FEW:
            first, last = (one.name.partition(",")[0].split()[-1] for one in (alike[0], alike[-1]))
            said = "their records are intact, their tensors were removed"
            yield f"generations {first} to {last}", "pruned", said
        else:
            yield from ((one.name, one.status, one.detail) for one in alike)


def _intact(found: Verification) -> str:
    if any(one.status == "newer" for one in found.state):
        return "Everything is intact that this csk-sdk may read; a newer one can tell of the rest."
    if any(one.status == "lost" for one in found.state):
        return "Everything is intact that is there; what is lost costs what is said beside it."
    return "Everything is intact."


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
    from csk_sdk.demo.run import run_demo

    screen = Screen(as_json)
    result = run_demo(out, screen.progress_line)
    if not as_json:
        show(result, screen.console)
    screen.json(result.to_json())
