"""What the devices of a fleet have said, put together: of each device the newest, whatever order it came in.

Nothing is added up here, so files can be put together in any order and grouping, and again, with the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from csk_sdk.errors import FleetError
from csk_sdk.fleet.files import Content, FleetFile
from csk_sdk.fleet.statement import Entry, Statement
from csk_sdk.method.consensus import renamed


@dataclass(frozen=True)
class Held:
    """A contribution that counts: of which device, and what it says of it; `name` is the class that it belongs to."""

    statement: Statement
    entry: Entry
    name: str


@dataclass(frozen=True)
class Collection:
    """Statements of several files, and where the bytes of their contributions lie.

    `withdrawn` is how many contributions an older statement had that its device's newest has taken back.
    """

    bundle: str
    features: int
    statements: tuple[Statement, ...]
    same: Mapping[str, str]
    withdrawn: int
    _files: Mapping[str, FleetFile]

    @classmethod
    def of(cls, files: Sequence[FleetFile], same: Mapping[str, str]) -> Collection:
        """Of files that hold statements of devices. Raises FleetError where they do not belong together."""
        newest: dict[str, Statement] = {}
        known: dict[str, set[str]] = {}
        places: dict[str, FleetFile] = {}
        names = dict(same)
        first = files[0]
        for file in files:
            content = file.content
            require_unmerged(file)
            require_one_bundle(file, first)
            for one in content.statements:
                known.setdefault(one.device, set()).update(entry.id for entry in one.entries)
                if one.device not in newest or newest[one.device].rank < one.rank:
                    newest[one.device] = one
            places.update(dict.fromkeys(content.blobs, file))
            _add_names(names, content.same, file)
        try:
            renamed(names)
        except ValueError as error:
            raise FleetError(
                f"Class '{error}' is the same as another one, which is the same as '{error}': name each pair once."
            ) from None
        statements = tuple(newest[device] for device in sorted(newest))
        gone = sum(len(known[one.device].difference(entry.id for entry in one.entries)) for one in statements)
        return cls(first.content.bundle, first.content.features, statements, names, gone, places)

    def blob(self, name: str) -> bytes:
        """The bytes of this name. Raises FleetError where a file is damaged."""
        return self._files[name].blob(name)

    def size_of(self, name: str) -> int:
        """How many bytes there are of this name."""
        return self._files[name].size_of(name)

    @property
    def content(self) -> Content:
        """As a file that keeps devices apart says it."""
        return Content(self.bundle, self.features, self.statements, self.same)

    def held(self) -> list[Held]:
        """The contributions that count, in one order for all: by class, name of their bytes, and device.

        The same bytes count once for a class, whoever has sent them: they are of the same images.
        """
        ends = renamed(self.same)
        found: dict[tuple[str, str], Held] = {}
        for statement in self.statements:
            for entry in statement.entries:
                name = ends.get(entry.name, entry.name)
                found.setdefault((name, entry.id), Held(statement, entry, name))
        return [found[key] for key in sorted(found)]

    def sketches(self) -> dict[str, list[tuple[str, str]]]:
        """By class, which devices have a sketch of its images, and the name of its bytes, in the order of devices."""
        ends = renamed(self.same)
        found: dict[str, list[tuple[str, str]]] = {}
        for statement in self.statements:
            for name in sorted(statement.sketches):
                pair = statement.device, statement.sketches[name]
                found.setdefault(ends.get(name, name), []).append(pair)
        return found


def require_unmerged(file: FleetFile) -> None:
    """Raise FleetError for a file that is merged, and can only be applied."""
    if file.content.merged is not None:
        raise FleetError(
            f"{file.path} is merged already, for devices: merge the devices' own files again, or write files "
            "that are to be merged again with `--keep-apart`."
        )


def require_one_bundle(file: FleetFile, first: FleetFile) -> None:
    """Raise FleetError where a file is not of the bundle that `first` is of."""
    if bundle_of(file) != bundle_of(first):
        raise FleetError(
            f"{file.path} is of bundle {file.content.bundle[:8]}…, and {first.path} of {first.content.bundle[:8]}…: "
            "only what was learned on one bundle can be merged. Upgrade the devices, and export again."
        )


def bundle_of(file: FleetFile) -> tuple[str, int]:
    """What two files have in common that can be merged."""
    return file.content.bundle, file.content.features


def _add_names(names: dict[str, str], more: Mapping[str, str], file: FleetFile) -> None:
    for name, other in more.items():
        if names.setdefault(name, other) != other:
            raise FleetError(
                f"{file.path} says that class '{name}' is '{other}', and another says '{names[name]}': merge the "
                "devices' own files with one of both."
            )


def without(files: Iterable[FleetFile], names: Sequence[str]) -> list[FleetFile]:
    """The files without what these devices say, each named as people call it or by how its number begins.

    Raises FleetError for one that is in none of the files.
    """
    files = list(files)
    there = {one.device: one.name for file in files for one in file.content.statements}
    gone = {device_named(name, there) for name in names}
    return [
        replace(
            file,
            content=replace(
                file.content,
                statements=tuple(one for one in file.content.statements if one.device not in gone),
            ),
        )
        for file in files
    ]


def device_named(name: str, there: Mapping[str, str]) -> str:
    """The device of that name, or whose number begins so, of those `there`, by number. Raises FleetError."""
    found = [device for device, own in there.items() if own == name]
    if not found and len(name) >= 8:
        found = [device for device in there if device.startswith(name)]
    if len(found) != 1:
        how = "no device" if not found else f"{len(found)} devices"
        raise FleetError(f"{how} called '{name[:40]}' in these files: `csk-sdk fleet inspect` lists them.")
    return found[0]
