"""`fleet round`: an operator asks for one round, and is told what it came to. Needs NVFlare."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csk_sdk.errors import ConfigError, FleetError
from csk_sdk.fleet.engine.kits import DEVICE_CLASS, ROUND_CLASS
from csk_sdk.fleet.engine.words import APPLY, CONTRIBUTE, REFUSED, REPORT
from csk_sdk.fleet.merging import MergeReport
from csk_sdk.formats.opening import read_file
from csk_sdk.formats.schema import parse_json
from csk_sdk.state.sealing import unseal

MISSING = (
    "Rounds need the extra 'engine', in an environment of its own: pip install 'csk-sdk[device,engine]'."
)
WAIT = 600.0
"""Seconds that devices have for each of a round's two steps."""
_LARGEST = 1 << 20
_LONGEST = 1_000_000
_CONNECT_SECONDS = 15.0
_DEPLOY_SECONDS = 600.0


@dataclass(frozen=True)
class RoundReport:
    """What a round came to. Immutable.

    - `asked`: who was there
    - `contributed`: of each whose file came, its status as in `Receipt`; `applied`: of each that has taken what was
      merged, the generation that is current there
    - `refused`: of each that did not, its sentence; `silent`: who has not answered in time, and is asked again in the
      next round
    - `merged`: what `fleet.merge` says; None where nothing was merged
    - `ended`: why the round ended before its end; empty where it did not
    """

    asked: tuple[str, ...]
    contributed: dict[str, str]
    applied: dict[str, int]
    refused: dict[str, str]
    silent: tuple[str, ...]
    merged: MergeReport | None
    ended: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `fleet round --json`."""
        return asdict(self)


def run_round(
    kit: Path,
    *,
    wait: float = WAIT,
    enough: int = 0,
    grace: float = 0.0,
    only: str | None = None,
    same: Mapping[str, str] | None = None,
    without: Iterable[str] = (),
    accept: Iterable[str] = (),
) -> RoundReport:
    """Run one round, as the operator whose provisioned folder `kit` is, and wait for its end.

    Devices have `wait` seconds for each step, and `grace` seconds once `enough` of them have answered (0: all). With
    `only`, "contribute" or "apply", files are collected and not merged, or what was merged last is given out. The
    others are what `fleet.merge` takes. Raises ConfigError for a folder that is no operator's kit or without NVFlare;
    FleetError where the server cannot be reached, does not let this operator in, or the round did not come to its end.
    """
    user = _user(kit)
    if only not in (None, CONTRIBUTE, APPLY):
        raise ConfigError(f"only is {only!r:.40}, and must be {CONTRIBUTE!r} or {APPLY!r}.")
    if not 1 <= wait <= _LONGEST or not 0 <= grace <= _LONGEST or enough < 0:
        raise ConfigError(
            "wait must be from 1 to a million seconds, grace from 0, and enough no less than 0."
        )
    job = {
        "wait": wait,
        "enough": enough,
        "grace": grace,
        "only": only or "",
        "same": dict(same or {}),
        "without": list(without),
        "accept": list(accept),
    }
    with tempfile.TemporaryDirectory(prefix="csk-fleet-") as place:
        folder = Path(place)
        write_job(folder / "fleet-round", job)
        return _report(_run(kit, user, folder, 2 * wait + grace + _DEPLOY_SECONDS))


def write_job(folder: Path, arguments: Mapping[str, Any]) -> None:
    """The job that NVFlare is given: the names of our two classes, and what `FleetRound` takes. No code."""
    config = folder / "app" / "config"
    config.mkdir(parents=True)
    meta = {"name": folder.name, "resource_spec": {}, "min_clients": 1, "deploy_map": {"app": ["@ALL"]}}
    server = {
        "format_version": 2,
        "workflows": [{"id": "round", "path": ROUND_CLASS, "args": dict(arguments)}],
    }
    executor = {"tasks": [CONTRIBUTE, APPLY], "executor": {"path": DEVICE_CLASS, "args": {}}}
    client = {"format_version": 2, "executors": [executor]}
    for path, content in (
        (folder / "meta.json", meta),
        (config / "config_fed_server.json", server),
        (config / "config_fed_client.json", client),
    ):
        path.write_text(json.dumps(content), encoding="utf-8")


def _user(kit: Path) -> str:
    path = kit / "startup" / "fed_admin.json"
    try:
        return str(parse_json(read_file(path, _LARGEST).decode())["admin"]["username"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{kit} is not what `nvflare provision` writes for an operator: {path} cannot be read "
            f"({getattr(error, 'strerror', None) or error})."
        ) from None


def _run(kit: Path, user: str, folder: Path, most: float) -> dict[str, Any]:
    try:
        from nvflare.fuel.flare_api.flare_api import new_secure_session
    except ImportError:
        raise ConfigError(MISSING) from None
    # What NVFlare tells a terminal.
    with redirect_stdout(sys.stderr):
        return _run_in(new_secure_session, kit, user, folder, most)


def _run_in(connect: Callable[..., Any], kit: Path, user: str, folder: Path, most: float) -> dict[str, Any]:
    try:
        session = connect(user, str(kit.absolute()), timeout=_CONNECT_SECONDS)
    except Exception as error:
        raise FleetError(
            f"The server does not let {user} in, or cannot be reached ({_said(error)})."
        ) from None
    try:
        job = session.submit_job(str(folder / "fleet-round"))
        status = session.wait_for_job(job, timeout=most, poll_interval=0.5)
        result = Path(session.download_job_result(job, str(folder / "result")))
        found = sorted(result.rglob(REPORT))
        if not found:
            raise FleetError(f"The round failed ({status.get('status')}): the server's log says why.")
        return unseal(found[0])
    except FleetError:
        raise
    except Exception as error:
        raise FleetError(f"The round was not run to its end ({_said(error)}): run it again.") from None
    finally:
        session.close()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _report(raw: dict[str, Any]) -> RoundReport:
    steps = raw["contributed"], raw["applied"]
    refused = {name: one[REFUSED] for step in steps for name, one in step.items() if REFUSED in one}
    answered = {name for step in steps for name in step}
    return RoundReport(
        asked=tuple(raw["asked"]),
        contributed={
            name: one["receipt"]["status"] for name, one in raw["contributed"].items() if "receipt" in one
        },
        applied={
            name: one["applied"]["generation"] for name, one in raw["applied"].items() if "applied" in one
        },
        refused=refused,
        silent=tuple(name for name in raw["asked"] if name not in answered),
        merged=None if raw["merged"] is None else _merge_report(raw["merged"]),
        ended=raw["ended"],
    )


def _merge_report(raw: dict[str, Any]) -> MergeReport:
    return MergeReport(**{**raw, "unconfirmed": tuple(raw["unconfirmed"]), "alike": tuple(raw["alike"])})
