"""When a device may learn: not while somebody has paused it, and, if so told, only while it is idle or charging."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from csk_sdk.errors import ConfigError
from csk_sdk.formats.opening import read_file
from csk_sdk.state.atomic import exists, make_folder, remove_or_raise, replace_file

# In the inbox, where hidden names are no tasks: whoever may teach the device may pause it, and an upgrade leaves it.
PAUSED = ".paused"
_POWER = Path("/sys/class/power_supply")
# Busy is a device of which more than half of the cores' time was asked for in the last minute.
_BUSY = 0.5
_LARGEST = 1 << 16
_CHARGING = ("charging", "full")


class When(StrEnum):
    """A condition for learning."""

    idle = "idle"
    charging = "charging"


def is_paused(inbox: Path) -> bool:
    """Whether learning is paused in this inbox."""
    return exists(inbox / PAUSED)


def pause(inbox: Path) -> None:
    """Pause learning until `resume`. Raises StorageError."""
    make_folder(inbox)
    replace_file(inbox / PAUSED, b"")


def resume(inbox: Path) -> None:
    """Let learning go on; nothing happens where it is not paused. Raises StorageError."""
    if is_paused(inbox):
        remove_or_raise(inbox / PAUSED)


@dataclass(frozen=True)
class Conditions:
    """What must hold for a task to be learned; all of `when`, and no pause.

    `power` is a folder as Linux has it in /sys/class/power_supply; `running` gives how many processes ran, on average
    of the last minute, on `cores`.
    """

    inbox: Path
    when: Collection[When] = ()
    power: Path = _POWER
    running: Callable[[], float] = field(default=lambda: os.getloadavg()[0])
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)

    def require_told(self) -> None:
        """Raise ConfigError where this system does not tell what is to be waited for."""
        if When.idle in self.when and self._load_of_a_core() is None:
            raise ConfigError("This system does not tell how busy it is: leave out --when idle.")
        if When.charging in self.when and not self.power.is_dir():
            raise ConfigError(
                f"This system does not tell whether it is charging (there is no {self.power}): leave out --when "
                "charging."
            )

    def hindrance(self, learning: bool = False) -> str:
        """Why not to learn now, a sentence; "" for no reason.

        While a task is being `learning`, the device is busy with that, so that idle is no question then.
        """
        if is_paused(self.inbox):
            return "Learning is paused: `csk-sdk resume` lets it go on."
        if When.charging in self.when and not is_charging(self.power):
            return "The device runs on its battery: it learns when it is charging."
        if When.idle in self.when and not learning and (self._load_of_a_core() or 0.0) > _BUSY:
            return "The device is busy: it learns when it is idle."
        return ""

    def _load_of_a_core(self) -> float | None:
        try:
            return self.running() / self.cores
        except (OSError, AttributeError):  # Windows has no load
            return None


def is_charging(power: Path) -> bool:
    """Whether the device gets power from outside; so does one that has no battery of its own."""
    try:
        supplies = [one for one in power.iterdir() if _word(one / "scope") != "device"]
    except OSError:
        return True
    batteries = [one for one in supplies if _word(one / "type") == "battery"]
    plugs = [one for one in supplies if one not in batteries]
    plugged = any(_word(one / "online") not in ("", "0") for one in plugs)
    return not batteries or plugged or any(_word(one / "status") in _CHARGING for one in batteries)


def _word(path: Path) -> str:
    """What a file of /sys says, in small letters; "" where it says nothing."""
    try:
        return read_file(path, _LARGEST).decode("utf-8", "replace").strip().lower()
    except OSError:
        return ""
