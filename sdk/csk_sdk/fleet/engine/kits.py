"""`fleet prepare`: what NVFlare provisioned for a site carries a fleet's files, and lets an operator do no more.

As it is provisioned, a kit lets an operator send code to every device, and read its files; the server keeps its jobs
where all servers of the machine do. Here, a device runs one class of csk-sdk only, whatever is asked of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from csk_sdk.bundle.folder import Bundle
from csk_sdk.bundle.signing import raw_public_key_of
from csk_sdk.errors import ConfigError
from csk_sdk.fleet.engine.sites import DeviceSite, ServerSite, write_site
from csk_sdk.fleet.exporting import LEAST, require_terms
from csk_sdk.fleet.packing import MANY_BITS
from csk_sdk.fleet.trusting import trusted_keys
from csk_sdk.formats.opening import read_file
from csk_sdk.formats.schema import parse_json
from csk_sdk.state.atomic import make_folder, replace_file
from csk_sdk.workspace.folder import Workspace

DEVICE_CLASS = "csk_sdk.fleet.engine.device.FleetDevice"
LAUNCHER_CLASS = "csk_sdk.fleet.engine.launching.DeviceLauncher"
ROUND_CLASS = "csk_sdk.fleet.engine.round.FleetRound"
DEVICE_STARTUP, SERVER_STARTUP = "fed_client.json", "fed_server.json"
"""In the folder `startup/` of a kit: whose it is."""
PROVISIONED = "resources.json.default"
_LARGEST = 1 << 20
# What a site lets the project's operator do: no code with a job, no look at files. Everyone else: nothing.
_RIGHTS = {
    "submit_job": "any",
    "manage_job": "any",
    "clone_job": "none",
    "view": "any",
    "operate": "any",
    "shell_commands": "none",
    "byoc": "none",
    "server-predeployed-flwr": "none",
}


def prepare_device(
    kit: Path,
    workspace: Path,
    *,
    sign: Path | None = None,
    least: int = LEAST,
    bits: int = MANY_BITS,
) -> None:
    """Prepare what was provisioned for a device, the folder `kit`: its files are those of `workspace`.

    `sign`, `least` and `bits` are what `fleet.export` takes. Raises ConfigError for a folder that is no device's kit, a
    workspace that is none, or a key that is none; FleetError for other `least` or `bits`; StorageError where it cannot
    be written.
    """
    local = _local(kit, DEVICE_STARTUP, "a device")
    require_terms(least, bits)
    Workspace.open(workspace)
    if sign is not None:
        raw_public_key_of(sign)
    provisioned = local / PROVISIONED
    resources = {**_read(provisioned), **_only(DEVICE_CLASS), "allow_log_streaming": False}
    with _as_provisioned(provisioned):
        _component(resources, "process_launcher").update(path=LAUNCHER_CLASS, args={})
    _write(local / "resources.json", resources)
    _write(local / "authorization.json", _rights({"download_job": "none"}))
    key = None if sign is None else str(sign.absolute())
    write_site(local, DeviceSite(str(workspace.absolute()), key, least, bits))


def prepare_server(
    kit: Path,
    inbox: Path,
    merged: Path,
    *,
    trust: tuple[Path, ...],
    bundle: Path | None = None,
    sign: Path | None = None,
) -> None:
    """Prepare what was provisioned for the server: files of devices go into `inbox`, what is made of them to `merged`.

    `trust` and `sign` are what `fleet.merge` takes; with `bundle`, only files of that one are taken. Raises ConfigError
    for a folder that is no server's kit, or keys that are none; BundleError, StorageError.
    """
    local = _local(kit, SERVER_STARTUP, "the server")
    trusted_keys(trust)
    if sign is not None:
        raw_public_key_of(sign)
    provisioned = local / PROVISIONED
    resources = {**_read(provisioned), **_only(ROUND_CLASS)}
    kept = kit.absolute() / "kept"
    with _as_provisioned(provisioned):
        resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(kept / "snapshots")
        _component(resources, "job_manager")["args"]["uri_root"] = str(kept / "jobs")
    make_folder(kept)
    _write(local / "resources.json", resources)
    _write(local / "authorization.json", _rights({"download_job": "any"}))
    keys = tuple(str(one.absolute()) for one in trust)
    key = None if sign is None else str(sign.absolute())
    known = None if bundle is None else Bundle.open(bundle).id
    write_site(local, ServerSite(str(inbox.absolute()), keys, str(merged.absolute()), known, key))


def is_server(kit: Path) -> bool:
    """Whether NVFlare provisioned the folder `kit` for the server."""
    return (kit / "startup" / SERVER_STARTUP).is_file()


def _local(kit: Path, startup: str, what: str) -> Path:
    if not (kit / "startup" / startup).is_file() or not (kit / "local").is_dir():
        raise ConfigError(
            f"{kit} is not what `nvflare provision` writes for {what}: it has no startup/{startup}."
        )
    return kit / "local"


@contextmanager
def _as_provisioned(path: Path) -> Iterator[None]:
    """Raise ConfigError where what was read of `path` is not laid out as NVFlare does it."""
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not what this NVFlare provisions ({type(error).__name__}: {error}): provision the kit again, "
            "with the version of NVFlare that the extra 'engine' brings."
        ) from None


def _component(resources: Mapping[str, Any], called: str) -> dict[str, Any]:
    """The component whose `id` is `called`. What is not laid out so raises KeyError, TypeError or AttributeError."""
    for one in resources["components"]:
        if one["id"] == called:
            return one  # type: ignore[no-any-return]
    raise KeyError(called)


def _only(class_path: str) -> dict[str, Any]:
    return {"class_allow_list": [class_path], "class_list_enforcement_mode": "enforce"}


def _rights(more: Mapping[str, str]) -> dict[str, Any]:
    return {"format_version": "1.0", "permissions": {"project_admin": {**_RIGHTS, **more}}}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(parse_json(read_file(path, _LARGEST).decode()))
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read ({reason}): provision the kit again.") from None


def _write(path: Path, content: Mapping[str, Any]) -> None:
    replace_file(path, json.dumps(content, indent=2).encode() + b"\n")
