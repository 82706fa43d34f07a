"""`fleet prepare`, `fleet start` and `fleet round`: files of a fleet, carried by NVFlare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csk_sdk.cli.fleet_options import AcceptDevices, SameNames, SignedBy, WithoutDevices
from csk_sdk.cli.fleet_telling import classes_text, same_of, say_merged
from csk_sdk.cli.options import HERE, AsJson
from csk_sdk.cli.rendering import Screen
from csk_sdk.errors import ConfigError, FleetError
from csk_sdk.fleet.exporting import LEAST
from csk_sdk.fleet.packing import MANY_BITS
from csk_sdk.formats.wording import plural

Kit = Annotated[
    Path, typer.Argument(metavar="KIT", help="The folder that `nvflare provision` wrote for a site.")
]


_OF_DEVICES, _OF_SERVERS = ("workspace", "least", "bits"), ("inbox", "merged", "signed_by", "bundle")


def prepare(
    context: typer.Context,
    kit: Kit,
    workspace: Annotated[
        Path, typer.Option("--workspace", metavar="DIR", help="A device's kit: the workspace on that device.")
    ] = HERE,
    least: Annotated[
        int,
        typer.Option(
            "--least", metavar="N", help="Of a class, what fewer images of a lesson said stays on the device."
        ),
    ] = LEAST,
    bits: Annotated[
        int, typer.Option("--bits", metavar="8|4", help="Bits of a number: 4 for a thin line.")
    ] = MANY_BITS,
    inbox: Annotated[
        Path | None,
        typer.Option("--inbox", metavar="DIR", help="The server's kit: where devices' files are kept."),
    ] = None,
    merged: Annotated[
        Path | None, typer.Option("--merged", metavar="FILE.cskc", help="The file that merging writes.")
    ] = None,
    signed_by: SignedBy = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="DIR", help="Take only files of this bundle.")
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            "--sign", metavar="KEY", help="Sign what leaves the site with this private key, a PEM file."
        ),
    ] = None,
) -> None:
    """Make a kit of NVFlare carry files of a fleet.

    And let an operator do no more than that: a device then runs one class of csk-sdk, and no code that comes with a
    job. Run it on the site itself, as its paths are kept.

    \b
    Example:  csk-sdk fleet prepare kits/kitchen --workspace kitchen --sign kitchen-key.pem
    Example:  csk-sdk fleet prepare kits/server --inbox inbox --merged merged.cskc --trust keys
    """
    from csk_sdk.fleet.engine.kits import is_server, prepare_device, prepare_server

    if not is_server(kit):
        _refuse_given(context, _OF_SERVERS, f"{kit} is a device's kit")
        prepare_device(kit, workspace, sign=sign, least=least, bits=bits)
        typer.echo(
            f"{kit}: a device, whose files are those of {workspace}. Start it: csk-sdk fleet start {kit}"
        )
        return
    _refuse_given(context, _OF_DEVICES, f"{kit} is the server's kit")
    if inbox is None or merged is None or not signed_by:
        raise ConfigError(f"{kit} is the server's kit, which needs --inbox, --merged and --trust.")
    prepare_server(kit, inbox, merged, trust=tuple(signed_by), bundle=bundle, sign=sign)
    typer.echo(f"{kit}: the server, which keeps files in {inbox}. Start it: csk-sdk fleet start {kit}")


def _refuse_given(context: typer.Context, names: tuple[str, ...], whose: str) -> None:
    """Raise ConfigError where one of these parameters was given."""
    options = {one.name: one.opts[0] for one in context.command.params if one.name in names}
    given = [
        option
        for name, option in options.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise ConfigError(f"{whose}, which has no {' and no '.join(given)}: leave that out.")


def start(kit: Kit) -> None:
    """Be a device of a fleet, or its server.

    Stop it with Ctrl-C.

    \b
    Example:  csk-sdk fleet start kits/kitchen
    """
    from csk_sdk.fleet.engine import starting

    starting.start(kit)


def round_(
    kit: Kit,
    wait: Annotated[
        float,
        typer.Option("--wait", metavar="SECONDS", help="How long devices have for each of the two steps."),
    ] = 600.0,
    enough: Annotated[
        int, typer.Option("--enough", metavar="N", help="Go on when N devices have answered; 0 for all.")
    ] = 0,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", metavar="SECONDS", help="How long the others have once enough have answered."
        ),
    ] = 0.0,
    only: Annotated[
        str | None,
        typer.Option(
            "--only", metavar="contribute|apply", help="Collect files, or give out what was merged last."
        ),
    ] = None,
    same: SameNames = None,
    without: WithoutDevices = None,
    accept: AcceptDevices = None,
    as_json: AsJson = False,
) -> None:
    """Collect from all devices, merge, and give out.

    KIT is the operator's. Whoever does not answer in time is asked again in the next round, and what comes late counts
    there.

    \b
    Example:  csk-sdk fleet round kits/operator@example.org
    """
    from csk_sdk.fleet.engine.operator import run_round

    screen = Screen(as_json)
    report = run_round(
        kit,
        wait=wait,
        enough=enough,
        grace=grace,
        only=only,
        same=same_of(same),
        without=without or (),
        accept=accept or (),
    )
    screen.json(report.to_json())
    for name, status in sorted(report.contributed.items()):
        screen.say(f"{name}: its file is here ({status}).")
    for name, generation in sorted(report.applied.items()):
        screen.say(f"{name}: knows what the fleet knows; generation {generation} is current.")
    for name, why in sorted(report.refused.items()):
        screen.warn(f"{name}: {why}")
    for name in report.silent:
        screen.warn(f"{name}: no answer in time; it is asked again in the next round.")
    if report.merged is not None:
        screen.say(
            f"Merged: {classes_text(report.merged.classes)}, of {plural(report.merged.devices, 'device')}."
        )
        say_merged(screen, report.merged)
    if report.ended:
        raise FleetError(f"The round ended early: {report.ended}")
