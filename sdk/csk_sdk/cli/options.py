"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csk_sdk.contract.manifest import EXACT, INT8

if TYPE_CHECKING:
    from csk_sdk.data.inbox import Inbox


class Precision(StrEnum):
    """The arithmetic of frozen convolutions, or of an export."""

    exact = EXACT
    int8 = INT8


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
InputSize = Annotated[
    str | None,
    typer.Option(
        metavar="HxW",
        help="The size of images (or the length of signals) that MODEL leaves open.",
    ),
]
OutputName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Which of several outputs of MODEL holds the scores of the classes."),
]
BitDepth = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Bits that count of 16-bit values in images: 12 for a camera whose white is 4095; 16 by default.",
    ),
]


def require_named(tasks: Path | None, inbox: Inbox) -> None:
    """Raise TaskError where --tasks names a folder that is not there; WORKSPACE/tasks may be missing."""
    if tasks is not None:
        inbox.require_folder()


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
HERE = Path()
