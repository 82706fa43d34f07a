"""What a site says of itself, in its own kit: where its files are. No job of an operator can set any of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csk_sdk.errors import ConfigError
from csk_sdk.fleet.packing import FEW_BITS, MANY_BITS
from csk_sdk.formats.opening import read_file
from csk_sdk.formats.schema import parse_json, violation
from csk_sdk.state.atomic import replace_file

FILE = "csk-fleet.json"
"""In the folder `local/` of a site's kit."""
_LARGEST = 1 << 20
_TEXT = {"type": "string", "minLength": 1}
_SCHEMAS = {
    "device": {
        "type": "object",
        "required": ["role", "workspace", "sign", "least", "bits"],
        "additionalProperties": False,
        "properties": {
            "role": {"enum": ["device"]},
            "workspace": _TEXT,
            "sign": {"type": ["string", "null"]},
            "least": {"type": "integer", "minimum": 1, "maximum": 2**53 - 1},
            "bits": {"type": "integer", "minimum": FEW_BITS, "maximum": MANY_BITS},
        },
    },
    "server": {
        "type": "object",
        "required": ["role", "inbox", "trust", "merged", "bundle", "sign"],
        "additionalProperties": False,
        "properties": {
            "role": {"enum": ["server"]},
            "inbox": _TEXT,
            "trust": {"type": "array", "items": _TEXT, "minItems": 1},
            "merged": _TEXT,
            "bundle": {"type": ["string", "null"]},
            "sign": {"type": ["string", "null"]},
        },
    },
}


@dataclass(frozen=True)
class DeviceSite:
    """A device: its workspace, the private key that signs for it, and what `fleet.export` takes."""

    workspace: str
    sign: str | None
    least: int
    bits: int
    role: str = "device"


@dataclass(frozen=True)
class ServerSite:
    """The server: where files of devices lie, whose are taken, and what was merged, signed by `sign`, if any.

    `bundle` is the id of the bundle that all learn on, if it is known.
    """

    inbox: str
    trust: tuple[str, ...]
    merged: str
    bundle: str | None
    sign: str | None
    role: str = "server"


def write_site(folder: Path, site: DeviceSite | ServerSite) -> None:
    """Write it into the folder `local/` of a kit. Raises StorageError where it cannot be written."""
    replace_file(folder / FILE, json.dumps(asdict(site), indent=2, sort_keys=True).encode() + b"\n")


def read_device(folder: Path) -> DeviceSite:
    """What a device's `local/` says. Raises ConfigError where it does not."""
    return DeviceSite(**_read(folder, "device"))


def read_server(folder: Path) -> ServerSite:
    """What the server's `local/` says. Raises ConfigError where it does not."""
    raw = _read(folder, "server")
    return ServerSite(**{**raw, "trust": tuple(raw["trust"])})


def _read(folder: Path, role: str) -> dict[str, Any]:
    path = folder / FILE
    try:
        raw = parse_json(read_file(path, _LARGEST).decode())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{path} cannot be read ({reason}): write it with `csk-sdk fleet prepare`."
        ) from None
    if (wrong := violation(raw, _SCHEMAS[role])) is not None:
        raise ConfigError(
            f"{path} does not describe a {role}: {wrong}. Write it with `csk-sdk fleet prepare`."
        )
    return dict(raw)
