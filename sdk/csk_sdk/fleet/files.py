"""A `.cskc` file: what devices say, or what was made of it, and the bytes that belong to it.

It is a safetensors file whose tensors are bytes, each named by its sha256; `fleet` of its metadata says what they are,
`check` is the sha256 of that, `key` and `signature` are of who wrote the file, where somebody signed it. The format:
docs/fleet.md.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from csk_sdk.bundle.signing import is_signature, sign_text
from csk_sdk.contract.sentences import said
from csk_sdk.errors import FleetError
from csk_sdk.fleet.packing import MOST_ROWS, content_id, packed_bytes
from csk_sdk.fleet.statement import Statement
from csk_sdk.formats.names import is_plain
from csk_sdk.formats.opening import open_file
from csk_sdk.formats.places import require_place
from csk_sdk.formats.schema import load_schema, parse_json, violation
from csk_sdk.formats.tensor_header import check_open_header, read_metadata
from csk_sdk.method.consensus import renamed
from csk_sdk.state.atomic import clear_temporaries, make_folder, replace_by_parts

SCHEMA = 1
PURPOSE = "fleet file"
# The names of all contributions of a fleet, or a contribution of very many features.
_LARGEST_BLOB = 64 << 20
_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class MergedClass:
    """One class of merged knowledge: the bytes of its contribution, how many images, of how many devices."""

    name: str
    id: str
    count: float
    devices: int
    sketch: str = ""


@dataclass(frozen=True)
class Merged:
    """What a fleet knows: one contribution for each class; `included` names the bytes that list what it is made of."""

    classes: tuple[MergedClass, ...]
    temperature: float | None
    included: str
    devices: int

    @property
    def blobs(self) -> tuple[str, ...]:
        """The names of all bytes that belong to it."""
        own = (name for one in self.classes for name in (one.id, one.sketch) if name)
        return (*own, self.included)

    def to_json(self) -> dict[str, Any]:
        """As a file has it."""
        return {
            "classes": [dict(vars(one)) for one in self.classes],
            "temperature": self.temperature,
            "included": self.included,
            "devices": self.devices,
        }


@dataclass(frozen=True)
class Content:
    """What a file says: of the bundle with this id, and so many features; `same` are classes that are another one."""

    bundle: str
    features: int
    statements: tuple[Statement, ...] = ()
    same: Mapping[str, str] = field(default_factory=dict)
    merged: Merged | None = None

    @property
    def blobs(self) -> list[str]:
        """The names of all bytes that belong to it, in their order."""
        names = {name for one in self.statements for name in one.blobs}
        return sorted(names.union(self.merged.blobs if self.merged else ()))

    def to_text(self) -> str:
        """As a file's metadata have it: the same text for the same content."""
        statements = sorted(self.statements, key=lambda one: one.device)
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "min_reader": SCHEMA,
            "bundle": self.bundle,
            "features": self.features,
            "statements": [one.to_json() for one in statements],
            "same": dict(self.same),
        }
        if self.merged is not None:
            content["merged"] = self.merged.to_json()
        return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @property
    def knowledge(self) -> str:
        """What names the merged knowledge: of two files with the same, one is enough."""
        assert self.merged is not None
        said = [self.bundle, self.merged.to_json(), dict(sorted(self.same.items()))]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class FleetFile:
    """A file that was read, but for its bytes; `key` is the public key of who signed it, empty where nobody did."""

    path: Path
    content: Content
    key: str
    size: int
    _places: Mapping[str, tuple[int, int]] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> FleetFile:
        """Read what the file says. Raises FleetError where it is no such file, damaged, or only for newer readers."""
        try:
            with open_file(path) as file:
                entries, begin = check_open_header(file)
                file.seek(0)
                metadata = read_metadata(file)
                size = file.seek(0, 2)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FleetError(said("fleet_unreadable", path=str(path), reason=str(reason))) from None
        places = {
            name: (begin + one["data_offsets"][0], one["data_offsets"][1] - one["data_offsets"][0])
            for name, one in entries.items()
        }
        try:
            content, key = _content(metadata)
            _require_bytes(content, places)
        except FleetError as error:
            raise FleetError(said("fleet_file", path=str(path), wrong=str(error))) from None
        return cls(path, content, key, size, places)

    def blob(self, name: str) -> bytes:
        """The bytes of this name. Raises FleetError where they are other ones."""
        begin, size = self._places[name]
        try:
            with open_file(self.path) as file:
                file.seek(begin)
                found = file.read(size)
        except OSError as error:
            raise FleetError(f"{self.path} cannot be read ({error.strerror}).") from None
        if content_id(found) != name:
            raise FleetError(said("fleet_damaged", path=str(self.path)))
        return found

    def require_whole(self) -> None:
        """Read all of it. Raises FleetError where bytes are other ones."""
        for name in self.content.blobs:
            self.blob(name)

    def size_of(self, name: str) -> int:
        """How many bytes there are of this name."""
        return self._places[name][1]


def _content(metadata: Mapping[str, str]) -> tuple[Content, str]:
    """What the metadata say, and who signed it."""
    text = metadata.get("fleet")
    if text is None:
        raise FleetError(said("fleet_none"))
    if metadata.get("check") != _checksum(text):
        raise FleetError(said("fleet_checksum"))
    try:
        raw = parse_json(text)
    except ValueError as error:
        raise FleetError(said("fleet_no_json", reason=str(error))) from None
    least = raw.get("min_reader") if isinstance(raw, dict) else None
    if type(least) is int and least > SCHEMA:
        raise FleetError(said("fleet_newer", schema=str(least), own=str(SCHEMA)))
    if (wrong := violation(raw, load_schema("fleet"))) is not None:
        raise FleetError(wrong)
    key, signature = metadata.get("key", ""), metadata.get("signature", "")
    if (key or signature) and not is_signature(PURPOSE, text, key, signature):
        raise FleetError(said("fleet_unsigned"))
    statements = tuple(map(Statement.read, raw["statements"]))
    if len({one.device for one in statements}) < len(statements):
        raise FleetError(said("fleet_twice"))
    if any(one.bundle != raw["bundle"] for one in statements):
        raise FleetError(said("fleet_other_statement"))
    merged = _merged(raw["merged"]) if "merged" in raw else None
    if merged is not None and statements:
        raise FleetError(said("fleet_both"))
    if not all(is_plain(name) for pair in raw["same"].items() for name in pair):
        raise FleetError(said("fleet_no_name"))
    try:
        renamed(raw["same"])
    except ValueError as error:
        raise FleetError(said("fleet_circle", name=str(error))) from None
    return Content(raw["bundle"], raw["features"], statements, raw["same"], merged), key


def _checksum(text: str) -> str | None:
    """None for half a surrogate pair, of which JSON can tell, and UTF-8 cannot."""
    try:
        return hashlib.sha256(text.encode()).hexdigest()
    except UnicodeEncodeError:
        return None


def _merged(raw: Mapping[str, Any]) -> Merged:
    classes = tuple(
        MergedClass(one["name"], one["id"], float(one["count"]), one["devices"], one["sketch"])
        for one in raw["classes"]
    )
    names = [one.name for one in classes]
    if len(set(names)) < len(names) or not all(map(is_plain, names)):
        raise FleetError(said("fleet_class_twice"))
    return Merged(classes, raw["temperature"], raw["included"], raw["devices"])


def _require_bytes(content: Content, places: Mapping[str, tuple[int, int]]) -> None:
    """Refuse what lacks bytes, or has more than there can be, before any is read."""
    most = max(_LARGEST_BLOB, packed_bytes(MOST_ROWS, content.features))
    for name in content.blobs:
        if name not in places:
            raise FleetError(said("fleet_missing"))
        if places[name][1] > most:
            raise FleetError(said("fleet_too_large", bytes=f"{places[name][1]:,}"))


def require_fleet_place(path: Path) -> None:
    """Raise ConfigError where a file for a fleet must not be written: in a bundle or state, or over something else."""
    require_place(path, "a .cskc file", _is_one)


def write(
    path: Path,
    content: Content,
    size_of: Callable[[str], int],
    read: Callable[[str], bytes],
    key: Path | None = None,
) -> int:
    """Write the file, signed by the private key in the PEM file `key`, if any; its size.

    Of each blob, `size_of` tells the size and `read` gives the bytes, when they are needed. Raises ConfigError as
    `require_fleet_place` does, StorageError where it cannot be written: what was there is then as it was.
    """
    require_fleet_place(path)
    text = content.to_text()
    metadata = {"fleet": text, "check": hashlib.sha256(text.encode()).hexdigest()}
    if key is not None:
        metadata["key"], metadata["signature"] = sign_text(PURPOSE, text, key)
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in content.blobs:
        begin, end = end, end + size_of(name)
        header[name] = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
    said = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    said += b" " * (-len(said) % 8)

    def parts() -> Iterator[bytes]:
        yield struct.pack("<Q", len(said)) + said
        for name in content.blobs:
            yield read(name)

    make_folder(path.absolute().parent)
    clear_temporaries(path.parent, _ABANDONED_SECONDS, of=path.name)
    total = 8 + len(said) + end
    replace_by_parts(path, parts(), total)
    return total


def _is_one(file: BinaryIO) -> bool:
    check_open_header(file)
    file.seek(0)
    return "fleet" in read_metadata(file)
