"""`fleet start`: a site of NVFlare in the foreground, by its kit's own script, until it is told to end."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from csk_sdk.errors import ConfigError
from csk_sdk.fleet.engine.operator import MISSING
from csk_sdk.fleet.engine.sites import FILE

# How long the server waits, at the end of a round, for what became of a device that has died meanwhile. NVFlare's own
# value is a quarter of an hour, and no file of a kit can say another.
_DEAD_DEVICE_SECONDS = 10
# NVFlare's advice for clients: fewer of glibc's arenas, less memory.
_ARENAS = 2


def start(kit: Path) -> NoReturn:
    """Become the site whose kit this is. Raises ConfigError for one that was not prepared, or without NVFlare."""
    script = kit / "startup" / "sub_start.sh"
    if not (kit / "local" / FILE).is_file() or not script.is_file():
        raise ConfigError(
            f"{kit} was not prepared for a device or the server: run `csk-sdk fleet prepare` first."
        )
    if importlib.util.find_spec("nvflare") is None:
        raise ConfigError(MISSING)
    (kit / "transfer").mkdir(exist_ok=True)
    try:
        os.execvpe("bash", ["bash", str(script), "--once"], surroundings(os.environ))
    except OSError as error:
        raise ConfigError(f"{script} cannot be run by bash ({error.strerror}).") from None


def surroundings(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a site: this Python is the one that the kit's script finds."""
    here = str(Path(sys.executable).parent)
    return {
        "NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": str(_DEAD_DEVICE_SECONDS),
        "MALLOC_ARENA_MAX": str(_ARENAS),
        **given,
        "PATH": os.pathsep.join([here, given.get("PATH", os.defpath)]),
    }
