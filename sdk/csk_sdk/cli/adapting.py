"""`adapt`: a domain learned from images without labels, or taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csk_sdk.cli.given_files import images_below
from csk_sdk.cli.options import HERE, AsJson, BundleDir, StateDir, TrustKey, WorkspaceDir
from csk_sdk.cli.rendering import Screen
from csk_sdk.data.files import open_files
from csk_sdk.errors import ConfigError
from csk_sdk.formats.wording import plural
from csk_sdk.learning.adapting import Adapted
from csk_sdk.method.domains import looked_at
from csk_sdk.workspace.folder import Workspace


def adapt(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the domain is called, such as night.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...", help="Images or signals of it, or their folders; without labels."
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of the domain of this name.")
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the domain back instead.")] = False,
    workspace: WorkspaceDir = HERE,
    bundle: BundleDir = None,
    state: StateDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Get used to another camera, light or weather.

    From 32 images or more without labels, of classes that the base knows, a fair mix of them. From then on each image
    is told to be of such a domain or not, and what is known is recognised in it. The backbone is not trained any more.

    \b
    Example:  csk-sdk adapt night night-images
    """
    if bool(files) == remove or (remove and replace):
        raise ConfigError("Give images of the domain, or take it back with --remove: one of both.")
    screen = Screen(as_json)
    space = Workspace.open(workspace, bundle, state, trust=trust)
    learner = space.learner()
    if remove:
        generation = learner.forget_domain(name)
        screen.json({"domain": name, "generation": generation.number, "removed": True})
        screen.say(f"Domain {name} is taken back. Generation {generation.number} is current.")
        return
    given = [inner for path in files or () for inner in images_below(path)]
    source = open_files(given, bit_depth=space.bit_depth)
    fit = learner.bundle.preprocessing.to_size
    # What would not be looked at need not be read.
    images = [fit(source.read(index), source.name(index)) for index in looked_at(len(given)).tolist()]
    done = learner.adapt(name, images, replace=replace)
    screen.json(done.to_json())
    _tell(screen, done, learner.bundle.manifest.input.noun)


def _tell(screen: Screen, done: Adapted, noun: str) -> None:
    told = f"{100 * done.told:.0f} % of them are told to be of it"
    screen.say(f"Domain {done.domain} is known, of {plural(done.images, noun)}: {told}.")
    screen.say(f"Generation {done.generation} is current.")
    if done.unknown is not None:
        screen.say(f"Seen so, {100 * done.unknown:.0f} % of them are unlike all that is known.")
    for warning in done.warnings:
        screen.warn(warning)
