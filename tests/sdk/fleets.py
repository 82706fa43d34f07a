"""Files of made-up devices: classes far apart in a few features, and what a device could do to them."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk.bundle.signing import raw_public_key
from csk_sdk.fleet.files import Content, write
from csk_sdk.fleet.packing import content_id, pack, pack_sketch
from csk_sdk.fleet.statement import Entry, Statement, device_of
from csk_sdk.method.contributions import Contribution, ContributionSum
from csk_sdk.method.unknown import QUANTILES

FEATURES = 12
BUNDLE = "b" * 64
Change = Callable[[Contribution], Contribution]


def images_of(name: str, count: int, seed: int) -> np.ndarray:
    """Features of so many images of a class, as a device sees them."""
    place = (
        np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)).normal(size=FEATURES)
        * 3
    )
    scales = np.geomspace(0.1, 100.0, FEATURES)
    x = place + np.random.default_rng(seed).normal(size=(count, FEATURES))
    return (x * scales).astype(np.float32)


def contribution(name: str, count: int = 40, seed: int = 0) -> Contribution:
    total = ContributionSum(FEATURES)
    total.add(images_of(name, count, seed))
    return total.total()


@dataclass(frozen=True)
class Fake:
    """A device: by class, the one whose images it has under that name."""

    name: str
    shows: Mapping[str, str]
    seed: int = 0
    count: int = 40
    sequence: int = 1
    bundle: str = BUNDLE
    change: Change = lambda one: one
    key: Path | None = None
    public: Path | None = None
    temperature: float | None = None

    @property
    def device(self) -> str:
        if self.public is not None:
            return device_of(raw_public_key(self.public))
        return hashlib.sha256(self.name.encode()).hexdigest()

    def parts(self) -> dict[str, Contribution]:
        return {
            name: self.change(contribution(shown, self.count, self.seed))
            for name, shown in self.shows.items()
        }

    def statement(self) -> tuple[Statement, dict[str, bytes]]:
        parts = self.parts()
        packed = {name: pack(one) for name, one in parts.items()}
        sketch = pack_sketch(*np.full((2, QUANTILES), 1.0 + self.seed, np.float32))
        entries = [
            Entry(name, content_id(packed[name]), one.count, self.temperature) for name, one in parts.items()
        ]
        sketches = dict.fromkeys(parts, content_id(sketch))
        said = Statement.of(
            self.bundle, self.device, self.name, self.sequence, entries, sketches, [], self.key
        )
        return said, {content_id(blob): blob for blob in (*packed.values(), sketch)}

    def write(self, folder: Path, name: str | None = None) -> Path:
        """The file `NAME.cskc` that it exports."""
        said, blobs = self.statement()
        path = folder / f"{name or self.name}.cskc"
        write(path, Content(self.bundle, FEATURES, (said,)), lambda one: len(blobs[one]), blobs.__getitem__)
        return path

    def but(self, **changes: object) -> Fake:
        return replace(self, **changes)  # type: ignore[arg-type]


def alike(count: int, *classes: str) -> list[Fake]:
    """So many devices, all of which have seen these classes."""
    return [Fake(f"device {n:03}", {name: name for name in classes}, seed=n) for n in range(count)]


def edited(path: Path, change: Callable[[dict[str, Any]], Any], **metadata: str) -> Path:
    """The file with something else in what it says, and a checksum that fits."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    said = json.loads(header["__metadata__"]["fleet"])
    said = change(said) or said
    text = json.dumps(said)
    header["__metadata__"] = {"fleet": text, "check": hashlib.sha256(text.encode()).hexdigest(), **metadata}
    packed = json.dumps(header).encode()
    out = path.with_name("edited.cskc")
    out.write_bytes(struct.pack("<Q", len(packed)) + packed + raw[8 + length :])
    return out
