"""The commands by name, each imported when it is asked for: `csk-sdk --version` waits for none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
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
}


def function_of(command: str) -> Callable[..., None]:
    """What runs a command: `build_artifacts` of `csk_sdk.cli.building` for "build-artifacts".

    Raises KeyError where there is no such command.
    """
    module = import_module(f"csk_sdk.cli.{COMMANDS[command]}")
    name = command.replace("-", "_")
    return getattr(module, f"{name}_" if name == "try" else name)  # type: ignore[no-any-return]


class ImportedWhenAsked(MutableMapping[str, Any]):
    """What a group of typer holds its commands in: all are listed, and made of their functions one by one."""

    def __init__(self, made: Callable[[str], Any]) -> None:
        self._made = made
        self._found: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            if name not in COMMANDS:
                raise KeyError(name)
            self._found[name] = self._made(name)
        return self._found[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**COMMANDS, **self._found})

    def __len__(self) -> int:
        return len({**COMMANDS, **self._found})


def command_of(name: str) -> Any:
    """A command as typer runs it."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name=name)(function_of(name))
    return typer.main.get_command(alone)
