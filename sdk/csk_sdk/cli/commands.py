"""The commands by name, each imported when it is asked for: `csk-sdk --version` waits for none of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import typer

# In the order of `csk-sdk --help`: a command, and the module beside this one that has its function.
COMMANDS = {
    "try": "trying",
    "build-artifacts": "building",
    "analyze": "analyzing",
    "inspect": "inspecting",
    "train": "learning",
    "adapt": "adapting",
    "watch": "watching",
    "pause": "watching",
    "resume": "watching",
    "status": "telling",
    "tasks": "listing",
    "evaluate": "using",
    "predict": "using",
    "export": "using",
    "report": "reporting",
    "rollback": "listing",
    "forget": "changing",
    "rename": "changing",
    "merge": "changing",
    "upgrade": "upgrading",
    "doctor": "checking",
    "verify": "checking",
    "demo": "checking",
    "fleet": "fleet",
}
# Those that only tell something end where nobody reads it any more. All others go on, and finish what they write.
TELLING = frozenset({"try", "analyze", "inspect", "status", "tasks", "predict"})


def functions() -> dict[str, Callable[..., Any]]:
    """What runs each command, by its name as it is typed; those of a group behind the group's."""
    found: dict[str, Callable[..., Any]] = {}
    for name in COMMANDS:
        made = _made(name)
        group = made.registered_commands if isinstance(made, typer.Typer) else ()
        found |= {f"{name} {one.name}": one.callback for one in group if one.callback} or {name: made}
    return found


def _made(command: str) -> Any:
    """`build_artifacts` of `csk_sdk.cli.building` for "build-artifacts"; a group of commands is a Typer."""
    module = import_module(f"csk_sdk.cli.{COMMANDS[command]}")
    name = command.replace("-", "_")
    return getattr(module, f"{name}_" if name == "try" else name)


@cache
def command_of(name: str) -> Any:
    """A command, or a group of them, as typer runs it; made once in a process that runs several."""
    made = _made(name)
    if isinstance(made, typer.Typer):
        return typer.main.get_command(made)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name=name)(made)
    return typer.main.get_command(alone)
