"""The command line `csk-sdk`: it reads options and shows results; what they mean is elsewhere in csk_sdk."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated, Any, cast

import typer

from csk_sdk.cli.commands import COMMANDS, TELLING, command_of
from csk_sdk.cli.guard import GuardedGroup
from csk_sdk.cli.lost_output import outlive_output
from csk_sdk.version import __version__


class _Commands(GuardedGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Their names, for lists and suggestions; each is made when it is asked for.
        self.commands = cast(Any, dict.fromkeys(COMMANDS))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, None for no such."""
        return command_of(cmd_name) if cmd_name in COMMANDS else None


app = typer.Typer(
    name="csk-sdk",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: the same on a terminal, in a pipe and in the docs.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"csk-sdk {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Teach an ONNX classifier new classes on the device it runs on.

    \b
    On a workstation:  csk-sdk try model.onnx
                       csk-sdk build-artifacts model.onnx --out bundle --base-data images
    On the device:     csk-sdk train --task next
    To see it work:    csk-sdk demo
    """
    if context.invoked_subcommand not in TELLING:
        outlive_output()


def main() -> None:
    """Entry point of the command `csk-sdk`."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows "?", and the command goes on.
        with suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app(prog_name="csk-sdk")
