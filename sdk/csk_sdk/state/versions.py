"""Which csk-sdk may read a state, and which may write to it: `min_reader` and `min_writer` of its records.

Both are versions of the state's schema. What an older csk-sdk does not know in a record, it keeps and carries on; what
it would misread raises `min_reader`, and what it would make stale by writing raises `min_writer` (docs/state.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from csk_sdk.errors import StateError
from csk_sdk.version import __version__

STATE_SCHEMA_VERSION = 3
"""The newest schema of states that this csk-sdk knows."""


class NewerStateError(StateError):
    """A newer csk-sdk wrote it. That is no damage: nothing is mended, and nothing rolled back."""


@dataclass(frozen=True)
class Needs:
    """The lowest versions of the schema that may read, and write, what a record belongs to. What is absent is 1."""

    NAMES: ClassVar = ("min_reader", "min_writer")

    reader: int = 1
    writer: int = 1

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Needs:
        """What sealed JSON says of itself. Raises ValueError where that is no version."""
        reader, writer = (raw.get(name, 1) for name in cls.NAMES)
        for name, version in zip(cls.NAMES, (reader, writer), strict=True):
            if type(version) is not int or version < 1:
                raise ValueError(f"{name} is {version!r}, and must be a version of the schema")
        # Who cannot read a state cannot know what it would do to it.
        return cls(reader, max(reader, writer))

    def both(self, other: Needs) -> Needs:
        """What fulfils the two of them."""
        return Needs(max(self.reader, other.reader), max(self.writer, other.writer))

    def to_json(self) -> dict[str, int]:
        """The fields of a record. None where they are 1: a csk-sdk of before they were known reads it, too."""
        versions = zip(self.NAMES, (self.reader, self.writer), strict=True)
        return {name: version for name, version in versions if version > 1}

    def require_reader(self, what: Path) -> None:
        """Raise NewerStateError where this csk-sdk may not read `what`."""
        if self.reader > STATE_SCHEMA_VERSION:
            raise NewerStateError(
                _sentence(what, "reading it", self.reader, "update csk-sdk on this device.")
            )

    def require_writer(self, what: Path) -> None:
        """Raise NewerStateError where this csk-sdk may not write to `what`."""
        self.require_reader(what)
        if self.writer > STATE_SCHEMA_VERSION:
            rest = "update csk-sdk on this device; until then it predicts, evaluates and exports."
            raise NewerStateError(_sentence(what, "writing to it", self.writer, rest))


# What this csk-sdk writes needs no more than the first schema, but for a record that lists blocks, and for a generation
# that knows domains: who does not see through these sees other features.
WRITTEN = Needs()
WITH_BLOCKS = Needs(2, 2)
WITH_DOMAINS = Needs(3, 3)
# What names of tensors of domains begin with.
DOMAIN = "domain/"


def domain_names(tensors: Iterable[str]) -> tuple[str, ...]:
    """The domains that there are tensors of, in alphabetical order."""
    return tuple(sorted({key.split("/")[1] for key in tensors if key.startswith(DOMAIN)}))


def _sentence(what: Path, doing: str, version: int, rest: str) -> str:
    return (
        f"{what} was written by a newer csk-sdk, and {doing} takes one that knows schema {version} of states "
        f"(csk-sdk {__version__} knows {STATE_SCHEMA_VERSION}): {rest}"
    )


def read_needs(raw: Mapping[str, Any], path: Path) -> Needs:
    """Who may read and write what the sealed JSON of `path` belongs to.

    Raises NewerStateError where only a newer csk-sdk may read it, StateError where it does not say that right.
    """
    try:
        needs = Needs.of(raw)
    except ValueError as error:
        raise StateError(f"{path} has a value of a wrong type ({error}).") from None
    needs.require_reader(path)
    return needs
