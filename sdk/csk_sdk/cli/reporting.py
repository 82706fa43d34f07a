"""`report`: a device's life as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from csk_sdk.cli.options import HERE, BundleDir, StateDir, TrustKey, WorkspaceDir
from csk_sdk.cli.rendering import Screen, size
from csk_sdk.errors import ConfigError
from csk_sdk.formats.places import require_place
from csk_sdk.formats.wording import plural
from csk_sdk.report import page, read_history
from csk_sdk.state.atomic import replace_file
from csk_sdk.workspace.folder import Workspace


def report(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The HTML file to write.")] = Path(
        "report.html"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE where it exists.")] = False,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
) -> None:
    """Write what was learned, and its cost, as an HTML page.

    Accuracy matrix, forgetting, how full the network is, time and memory of each task, classes and settings. The page
    needs no network and holds no image. Nothing is measured anew: accuracies are those that `train` and `evaluate`
    measured at the time.

    \b
    Example:  csk-sdk report --out report.html
    """
    screen = Screen()
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already. Choose another --out, or pass --overwrite to replace it.")
    require_place(out, "an HTML page", _is_page)
    history = read_history(Workspace.open(workspace, bundle, state, trust=trust).learner())
    replace_file(out, page(history).encode())
    screen.say(f"Wrote {out}: {plural(len(history.tasks), 'task')}, {size(out.stat().st_size)}.")
    if not history.evaluations:
        screen.say("No accuracies were ever measured here: `csk-sdk evaluate` measures them.")


def _is_page(file: BinaryIO) -> bool:
    return (
        file.read(1024)
        .decode("utf-8-sig", "replace")
        .lstrip()
        .lower()
        .startswith(("<!doctype html", "<html"))
    )
