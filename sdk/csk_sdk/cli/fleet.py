"""`fleet ...`: what one device learned, all know. `prepare`, `start` and `round` are in `fleet_engine.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csk_sdk import fleet as files
from csk_sdk.cli.fleet_engine import prepare, round_, start
from csk_sdk.cli.fleet_options import SIGNED_BY, AcceptDevices, SameNames, SignedBy, WithoutDevices
from csk_sdk.cli.fleet_telling import classes_text, same_of, say_merged
from csk_sdk.cli.options import HERE, AsJson, BundleDir, StateDir, TrustKey, WorkspaceDir
from csk_sdk.cli.rendering import Screen, size
from csk_sdk.fleet.exporting import LEAST
from csk_sdk.fleet.packing import MANY_BITS
from csk_sdk.formats.wording import plural
from csk_sdk.workspace.folder import Workspace

fleet = typer.Typer(
    name="fleet",
    help="A fleet that learns together: what one device learned, all know, and no image leaves a device.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SignKey = Annotated[
    Path | None,
    typer.Option("--sign", metavar="KEY", help="Sign the file with this private ed25519 key, a PEM file."),
]


def export(
    out: Annotated[Path, typer.Argument(metavar="OUT.cskc", help="The file to write.")],
    least: Annotated[
        int,
        typer.Option(
            "--least", metavar="N", help="Of a class, what fewer images of a lesson said stays here."
        ),
    ] = LEAST,
    bits: Annotated[
        int,
        typer.Option(
            "--bits", metavar="8|4", help="Bits of a number: 4 for a thin line, a little less accurate."
        ),
    ] = MANY_BITS,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="What people call this device; by default the file's name."
        ),
    ] = None,
    sign: SignKey = None,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Write what this device has learned itself to a file.

    No image is in it, but for each class the mean of its images' features and their spread.

    \b
    Example:  csk-sdk fleet export kitchen.cskc
    """
    screen = Screen(as_json)
    learner = Workspace.open(workspace, bundle, state, trust=trust).learner()
    report = files.export(learner, out, least=least, bits=bits, name=name, sign=sign)
    screen.json(report.to_json())
    screen.say(f"{out}: {classes_text(report.classes)}, {size(report.bytes)}, of device {report.device[:8]}.")
    for one in report.left_out:
        screen.warn(one)


def merge(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="What devices have exported.")],
    out: Annotated[Path, typer.Option("--out", metavar="OUT.cskc", help="The file to write.")],
    same: SameNames = None,
    without: WithoutDevices = None,
    accept: AcceptDevices = None,
    signed_by: SignedBy = None,
    keep_apart: Annotated[
        bool,
        typer.Option(
            "--keep-apart", help="Keep what each device said, so that the file can be merged again."
        ),
    ] = False,
    skip_broken: Annotated[
        bool,
        typer.Option("--skip-broken", help="Leave out files that cannot be used, and list them."),
    ] = False,
    sign: SignKey = None,
    as_json: AsJson = False,
) -> None:
    """Merge files of devices into one that each device can apply.

    The order of files makes no difference, and a file given twice counts once. Of each device the newest counts.

    \b
    Example:  csk-sdk fleet merge kitchen.cskc hall.cskc yard.cskc --out merged.cskc
    """
    screen = Screen(as_json)
    report = files.merge(
        paths,
        out,
        same=same_of(same),
        without_devices=without or (),
        accept=accept or (),
        trust=signed_by or (),
        keep_apart=keep_apart,
        skip_broken=skip_broken,
        sign=sign,
    )
    screen.json(report.to_json())
    screen.say(
        f"{out}: {classes_text(report.classes)}, of {plural(report.devices, 'device')}, {size(report.bytes)}."
    )
    say_merged(screen, report)


def apply(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="What `csk-sdk fleet merge` wrote.")],
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Make what a fleet knows part of what this device knows.

    It is one generation more, with one task more; `csk-sdk rollback` leads back. Applying a file again changes nothing.
    A device that trusts a key takes only files signed by it.

    \b
    Example:  csk-sdk fleet apply merged.cskc
    """
    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, trust=trust)
    learner = space.learner()
    report = files.apply(learner, path)
    screen.json(report.to_json())
    if not report.changed:
        screen.say(f"This is known here already. Generation {report.generation} is current.")
        return
    new = f"new here: {', '.join(report.new)}" if report.new else "none of them new here"
    count = plural(len(report.classes), "class", "classes")
    screen.say(
        f"Known from the fleet, as task {report.task}: {count}, {new}. Generation {report.generation} is current."
    )
    for one in report.notes:
        screen.warn(one)


def inspect(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A file of a device, or a merged one.")],
    as_json: AsJson = False,
) -> None:
    """Say what is in a file of a fleet, and whether it is whole.

    \b
    Example:  csk-sdk fleet inspect merged.cskc
    """
    screen = Screen(as_json)
    found = files.inspect(path)
    screen.json(found.to_json())
    who = f"signed by the key {found.signed_by[:8]}…" if found.signed_by else "signed by nobody as a whole"
    screen.say(f"{path}: {size(found.bytes)}, for bundle {found.bundle[:8]}…, {who}")
    for number, one in found.devices.items():
        how = "signed" if one["signed"] else "not signed"
        screen.say(f"  {one['name']} ({number[:8]}), {how}: {classes_text(one['classes'])}")
    for name, told in (found.merged or {}).items():
        screen.say(f"  {name}: {told['images']:g} images of {plural(int(told['devices']), 'device')}")
    for name, other in found.same.items():
        screen.say(f"  {name} is {other}")


def serve(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where files of devices are kept.")],
    signed_by: Annotated[list[Path], SIGNED_BY],
    merged: Annotated[
        Path | None,
        typer.Option(
            "--merged", metavar="FILE.cskc", help="What devices get: the file that `fleet merge` writes."
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="DIR", help="Take only what was learned on this bundle."),
    ] = None,
    token: Annotated[
        Path | None,
        typer.Option("--token", metavar="FILE", help="Whoever asks must know what is in this file."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="PEM", help="The certificate chain for HTTPS.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="PEM", help="Its private key.")] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="The address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="The port; 0 for any that is free.")
    ] = 8443,
) -> None:
    """Receive files over HTTPS, and give out what was merged.

    Of each device the newest is kept. Merging stays yours: read what `csk-sdk fleet merge` says. Beyond this machine,
    which is what it listens on by default, it needs a certificate and a token. Stop it with Ctrl-C.

    \b
    Example:  csk-sdk fleet serve inbox --trust keys --merged merged.cskc
    """
    # TLS and asyncio, which no device needs.
    from csk_sdk.fleet.listening import Place, Site, listen

    listen(
        Site(folder, tuple(signed_by), merged, bundle, token),
        Place(host, port, certificate, key),
        typer.echo,
    )


for _command in (export, merge, apply, inspect, serve, prepare, start, round_):
    fleet.command(name=_command.__name__.rstrip("_"))(_command)
