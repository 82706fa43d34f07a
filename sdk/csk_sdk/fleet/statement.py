"""What a device says of its contributions: which there are, of which classes, and which it has taken back.

A device says it anew with each export, and the newest counts: so a correction, or what was forgotten, travels. The
device is named by its key; one without a key by a number drawn once, which nobody can prove.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csk_sdk.bundle.signing import is_signature, sign_text
from csk_sdk.contract.sentences import said as sentence
from csk_sdk.errors import FleetError
from csk_sdk.formats.names import is_plain
from csk_sdk.formats.schema import load_schema, parse_json, violation

PURPOSE = "fleet statement"


@dataclass(frozen=True)
class Entry:
    """One contribution: of which class, the name of its bytes, how many images, and what was measured of the lesson."""

    name: str
    id: str
    count: float
    temperature: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As a statement has it."""
        return {"class": self.name, "id": self.id, "count": self.count, "temperature": self.temperature}


@dataclass(frozen=True)
class Statement:
    """What `device`, which people call `name`, says with `sequence`; `text` is what `signature` is of, by `key`.

    `sketches` names by class the bytes of what is usual for its images, `withdrawn` contributions that count no more.
    """

    bundle: str
    device: str
    name: str
    sequence: int
    entries: tuple[Entry, ...]
    sketches: Mapping[str, str]
    withdrawn: tuple[str, ...]
    text: str = ""
    key: str = ""
    signature: str = ""

    @property
    def rank(self) -> tuple[bool, int, str]:
        """Of two of one device, the larger counts: a signed one before any other, then the newer one."""
        return bool(self.key), self.sequence, hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def blobs(self) -> tuple[str, ...]:
        """The names of all bytes that belong to it."""
        return (*(one.id for one in self.entries), *self.sketches.values())

    @property
    def images(self) -> dict[str, float]:
        """How many images of each class its contributions are of."""
        found: dict[str, float] = {}
        for one in self.entries:
            found[one.name] = found.get(one.name, 0.0) + one.count
        return found

    @property
    def shown(self) -> str:
        """The device as people read of it."""
        return f"{self.name} ({self.device[:8]})"

    def to_json(self) -> dict[str, str]:
        """As a file has it."""
        return {"text": self.text, "key": self.key, "signature": self.signature}

    @classmethod
    def of(
        cls,
        bundle: str,
        device: str,
        name: str,
        sequence: int,
        entries: Sequence[Entry],
        sketches: Mapping[str, str],
        withdrawn: Sequence[str],
        key: Path | None,
    ) -> Statement:
        """A new one, signed by the private key in the PEM file `key`, if any. Raises ConfigError for another key."""
        content = {
            "bundle": bundle,
            "device": device,
            "name": name,
            "sequence": sequence,
            "entries": [one.to_json() for one in entries],
            "sketches": dict(sorted(sketches.items())),
            "withdrawn": list(withdrawn),
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        signed = sign_text(PURPOSE, text, key) if key is not None else ("", "")
        return cls.read({"text": text, "key": signed[0], "signature": signed[1]}, check=False)

    @classmethod
    def read(cls, raw: Mapping[str, str], check: bool = True) -> Statement:
        """Of a file. Raises FleetError, the end of a sentence about it, for what is none, or not signed as it says."""
        text, key, signature = raw["text"], raw["key"], raw["signature"]
        try:
            text.encode()
            said = parse_json(text)
        except UnicodeEncodeError:
            raise FleetError(sentence("statement_no_json", reason="it is no text")) from None
        except ValueError as error:
            raise FleetError(sentence("statement_no_json", reason=str(error))) from None
        if (wrong := violation(said, load_schema("statement"))) is not None:
            raise FleetError(sentence("statement_none", wrong=wrong))
        classes = {one["class"] for one in said["entries"]} | set(said["sketches"])
        if not all(map(is_plain, (said["name"], *classes))):
            raise FleetError(sentence("statement_no_name"))
        if bool(key) != bool(signature):
            raise FleetError(sentence("statement_half"))
        if key and said["device"] != device_of(key):
            raise FleetError(sentence("statement_other_device"))
        if key and check and not is_signature(PURPOSE, text, key, signature):
            raise FleetError(sentence("statement_unsigned", device=said["device"][:8]))
        entries = tuple(
            Entry(one["class"], one["id"], float(one["count"]), one["temperature"]) for one in said["entries"]
        )
        return cls(
            said["bundle"],
            said["device"],
            said["name"],
            said["sequence"],
            entries,
            said["sketches"],
            tuple(said["withdrawn"]),
            text,
            key,
            signature,
        )


def device_of(key: str) -> str:
    """The device that has the public key `key`, 64 hexadecimal digits: its fingerprint."""
    return hashlib.sha256(bytes.fromhex(key)).hexdigest()
