"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WorkspaceDir = Annotated[
    Path, typer.Option("--workspace", metavar="DIR", help="Folder with bundle/, state/ and tasks/.")
]
BundleDir = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="DIR", help="The bundle, where it is not WORKSPACE/bundle."),
]
StateDir = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="The state, where it is not WORKSPACE/state.")
]
TasksDir = Annotated[
    Path | None, typer.Option("--tasks", metavar="DIR", help="The inbox, where it is not WORKSPACE/tasks.")
]
TrustKey = Annotated[
    Path | None,
    typer.Option("--trust", metavar="KEY", help="Refuse bundles not signed for this public key, a PEM file."),
]
ProviderName = Annotated[
    str | None,
    typer.Option(
        "--provider",
        metavar="NAME",
        help="What computes: cpu, openvino, cuda, ... as installed; cpu by default.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
HERE = Path()
