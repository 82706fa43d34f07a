"""`inspect`: what a file of a fleet says, read and checked, byte by byte."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csk_sdk.errors import FleetError
from csk_sdk.fleet.files import FleetFile
from csk_sdk.formats.given import path_of


@dataclass(frozen=True)
class Inspection:
    """What a `.cskc` file says. Immutable.

    - `bundle`: the id of the bundle that all of it was learned on; `features`: how many an image has
    - `devices`: of a file that keeps devices apart, by the number of each: `name`, `sequence`, whether it is `signed`,
      images by class, and how many contributions it has `withdrawn`
    - `merged`: of one that is merged, by class the images and of how many devices they are; None for another
    - `same`: classes that are another one; `signed_by`: the public key of who wrote the file, empty where nobody signed
    - `bytes`: its size
    """

    bundle: str
    features: int
    devices: dict[str, dict[str, Any]]
    merged: dict[str, dict[str, float]] | None
    same: dict[str, str]
    signed_by: str
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `fleet inspect --json`."""
        return asdict(self)


def inspect(file: Path | str) -> Inspection:
    """What is in a file that `export` or `merge` wrote. Raises FleetError where it is damaged, or none of them."""
    found = FleetFile.open(path_of(file, "file", FleetError))
    content = found.content
    found.require_whole()
    devices: dict[str, dict[str, Any]] = {}
    for one in content.statements:
        devices[one.device] = {
            "name": one.name,
            "sequence": one.sequence,
            "signed": bool(one.key),
            "classes": one.images,
            "withdrawn": len(one.withdrawn),
        }
    merged = None
    if content.merged is not None:
        merged = {one.name: {"images": one.count, "devices": one.devices} for one in content.merged.classes}
    return Inspection(
        content.bundle, content.features, devices, merged, dict(content.same), found.key, found.size
    )
