"""Options that several commands of a fleet have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

SIGNED_BY: Any = typer.Option(
    "--trust",
    metavar="KEY",
    help="Take only what the holder of this public key signed: a PEM file, or a folder of them.",
)
SignedBy = Annotated[list[Path] | None, SIGNED_BY]
SameNames = Annotated[
    list[str] | None,
    typer.Option("--same", metavar="A=B", help="Class A is another name of class B; may be given again."),
]
WithoutDevices = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="DEVICE", help="Leave a device out, by its name or number."),
]
AcceptDevices = Annotated[
    list[str] | None,
    typer.Option("--accept", metavar="DEVICE", help="Count a device, whatever the others say."),
]
