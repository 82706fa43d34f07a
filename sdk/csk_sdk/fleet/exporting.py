"""`export`: what a device has learned, as a file that says as little as merging needs."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csk_sdk.bundle.folder import Bundle
from csk_sdk.bundle.signing import raw_public_key_of
from csk_sdk.contract.sentences import said as sentence
from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import ConfigError, FleetError, StateError
from csk_sdk.fleet.files import Content, require_fleet_place, write
from csk_sdk.fleet.packing import FEW_BITS, MANY_BITS, content_id, pack, pack_sketch
from csk_sdk.fleet.statement import Entry, Statement, device_of
from csk_sdk.formats.given import optional_path, path_of, text_of
from csk_sdk.formats.names import is_plain
from csk_sdk.formats.schema import load_schema, violation
from csk_sdk.formats.wording import plural
from csk_sdk.learner import Learner
from csk_sdk.method.contributions import DIRECTIONS, MIXTURES, Contribution, ContributionSum
from csk_sdk.method.unknown import Familiarity
from csk_sdk.state import Generation, LearnedTask, State
from csk_sdk.state.atomic import exists, replace_file
from csk_sdk.state.sealing import seal, unseal

LEAST = integer("fleet", "least_images")
# In the state's folder: who this device is to its fleet, and what it has said last.
REMEMBERED = "fleet.json"


@dataclass(frozen=True)
class ExportReport:
    """What `export` did. Immutable.

    - `device`: the number that names this device, `name` what people call it, `sequence` that of its statement
    - `classes`: how many images of each class the contributions are of
    - `left_out`: sentences about what stays on the device
    - `bytes`: the size of the file
    """

    device: str
    name: str
    sequence: int
    classes: dict[str, float]
    left_out: tuple[str, ...]
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `fleet export --json`."""
        return asdict(self)


@dataclass(frozen=True)
class Own:
    """What a device has learned itself: by task and class the contribution; `lacking` says what has none."""

    contributions: dict[tuple[str, str], Contribution]
    lacking: tuple[str, ...]


def export(
    learner: Learner,
    out: Path | str,
    *,
    least: int = LEAST,
    bits: int = MANY_BITS,
    name: str | None = None,
    sign: Path | str | None = None,
) -> ExportReport:
    """Write what the device of `learner` has learned itself to the file `out`, for `merge`. No image is in it.

    What fewer than `least` images of a class in a lesson contributed stays here. Numbers have 8 `bits`, or 4, which
    makes the file little more than half as large, and costs up to 0.2 points of accuracy. `name` is what people call
    the device, by default the file's name. `sign` is the PEM file of the device's private ed25519 key. Without one,
    nobody can tell whether a file is this device's. Exporting again without having learned gives the same file.

    Raises FleetError where nothing can be exported, ConfigError for `least` below 1 or a key that is none, StorageError
    where it cannot be written, StateLockedError while something learns.
    """
    require_learner(learner)
    target, key = path_of(out, "out"), optional_path(sign, "sign")
    called = target.stem if name is None else text_of(name, "name", FleetError)
    if not is_plain(called):
        raise FleetError(sentence("fleet_name", name=json.dumps(called[:40], ensure_ascii=False)[1:-1]))
    require_terms(least, bits)
    require_cross_entropy(learner.bundle)
    require_fleet_place(target)
    learner.state.require_writable()
    with learner.state.lock():
        generation = learner.state.load()
        own = own_of(learner.bundle, learner.state, generation.tasks)
        shared, left_out = _enough(own, least)
        if not shared:
            raise FleetError(sentence("fleet_nothing", why=_nothing(generation, left_out)))
        packed = {place: pack(own.contributions[place], bits) for place in shared}
        blobs = {content_id(one): one for one in packed.values()}
        sketches = _sketches(generation, {name for _, name in shared}, blobs)
        entries = _entries(own, packed, generation.tasks)
        statement = _said(learner, called, entries, sketches, key)
        content = Content(learner.bundle.id, learner.bundle.manifest.head.features, (statement,))
        size = write(target, content, lambda one: len(blobs[one]), blobs.__getitem__)
    return ExportReport(statement.device, called, statement.sequence, statement.images, left_out, size)


def require_learner(learner: Any) -> None:
    """Raise ConfigError for anything but a Learner."""
    if not isinstance(learner, Learner):
        raise ConfigError(
            f"learner is a {type(learner).__name__}, and must be a Learner: open it with Learner.open."
        )


def require_cross_entropy(bundle: Bundle) -> None:
    """Raise FleetError where a bundle's classes do not exclude each other: then nothing is known of them one by one."""
    if bundle.objective.tabular:
        raise FleetError(
            f"Only what is known of classes that exclude each other can be merged, and this bundle's loss is "
            f"{bundle.manifest.loss}."
        )


def own_of(bundle: Bundle, state: State, tasks: tuple[LearnedTask, ...]) -> Own:
    """What a device has learned itself, and not from its fleet."""
    found: dict[tuple[str, str], Contribution] = {}
    lacking: list[str] = []
    kept = {name for task in tasks for name, file in task.contributions.items() if file}
    for task in tasks:
        if task.fleet is not None:
            continue
        for name in task.classes:
            file = task.contributions.get(name)
            if file == "":
                # Where something is kept of the class, a later lesson replaced this one.
                if name not in kept:
                    lacking.append(sentence("fleet_apart", name=name, task=task.name))
                continue
            try:
                if file is None:
                    raise StateError("none was kept.")
                one = Contribution.from_tensors(state.contribution(file), bundle.manifest.head.features)
            except StateError as error:
                reason = str(error).rstrip(".")
                lacking.append(sentence("fleet_lacking", name=name, task=task.name, reason=reason))
                continue
            found[task.name, name] = _short(one)
    return Own(found, tuple(lacking))


def _short(one: Contribution) -> Contribution:
    """The same in as few rows as one lesson leaves: of classes that were merged on the device there are more."""
    if len(one.factor) <= DIRECTIONS + MIXTURES:
        return one
    total = ContributionSum(len(one.mean))
    total.add_contribution(one)
    return total.total()


def require_terms(least: int, bits: int) -> None:
    """Raise FleetError where `export` takes no such `least` or `bits`."""
    if isinstance(least, bool) or not isinstance(least, int) or least < 1:
        raise FleetError(sentence("fleet_least", given=f"{least!r:.40}"))
    if type(bits) is not int or bits not in (FEW_BITS, MANY_BITS):
        raise FleetError(
            sentence("fleet_bits", given=f"{bits!r:.40}", few=str(FEW_BITS), many=str(MANY_BITS))
        )


def _enough(own: Own, least: int) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """What is of so many images, and sentences about the rest."""
    few = [place for place, one in own.contributions.items() if one.count < least]
    said = [
        sentence(
            "fleet_few",
            name=name,
            task=task,
            images=plural(f"{own.contributions[task, name].count:g}", "image"),
            least=str(least),
        )
        for task, name in few
    ]
    return [place for place in own.contributions if place not in few], (*own.lacking, *said)


def _nothing(generation: Generation, left_out: tuple[str, ...]) -> str:
    if not any(task.fleet is None for task in generation.tasks):
        return sentence("fleet_no_task")
    return left_out[0] if left_out else sentence("fleet_elsewhere")


def _sketches(generation: Generation, names: set[str], blobs: dict[str, bytes]) -> dict[str, str]:
    """The names of what is usual for images of these classes; the bytes go into `blobs`."""
    sketch = Familiarity.from_tensors(generation.tensors)
    found = {}
    for row, name in enumerate(sketch.classes if sketch is not None else ()):
        if sketch is not None and name in names:
            blob = pack_sketch(sketch.margins[row], sketch.oddness[row])
            found[name] = content_id(blob)
            blobs[found[name]] = blob
    return found


def _entries(
    own: Own, packed: Mapping[tuple[str, str], bytes], tasks: tuple[LearnedTask, ...]
) -> list[Entry]:
    temperatures = {task.name: task.temperature for task in tasks}
    found = [
        Entry(place[1], content_id(one), own.contributions[place].count, _number(temperatures[place[0]]))
        for place, one in packed.items()
    ]
    # The same images twice are the same bytes.
    return sorted({(one.name, one.id): one for one in found}.values(), key=lambda one: (one.name, one.id))


def _number(value: float | None) -> float | None:
    """As one number is always spelled: JavaScript writes 1.0 as 1."""
    return None if value is None else float(value)


def _remembered(path: Path) -> dict[str, Any]:
    """What this device has said before. Raises FleetError where that is damaged."""
    if not exists(path):
        return {}
    try:
        said = unseal(path)
        if (wrong := violation(said, load_schema("fleet_device"))) is not None:
            raise StateError(f"{path} is damaged: {wrong}.")
        return said
    except StateError as error:
        raise FleetError(sentence("fleet_said", reason=str(error).rstrip("."))) from None


def _said(
    learner: Learner, name: str, entries: list[Entry], sketches: Mapping[str, str], key: Path | None
) -> Statement:
    """The device's statement: the last one, where nothing has changed since; and remember it."""
    path = learner.state.folder / REMEMBERED
    before = _remembered(path)
    known = before.get("devices", {})
    device = device_of(raw_public_key_of(key)) if key is not None else before.get("unsigned")
    device = device or secrets.token_hex(32)
    last = known.get(device, {})
    now = {one.id for one in entries}
    withdrawn = sorted({*last.get("withdrawn", ()), *last.get("ids", ())} - now)
    about = [
        learner.bundle.id,
        name,
        [one.to_json() for one in entries],
        dict(sorted(sketches.items())),
        withdrawn,
    ]
    digest = hashlib.sha256(seal({"about": about})).hexdigest()
    sequence = last.get("sequence", 0)
    if digest != last.get("digest"):
        sequence = max(sequence + 1, int(time.time()))
    statement = Statement.of(learner.bundle.id, device, name, sequence, entries, sketches, withdrawn, key)
    said = {"sequence": sequence, "digest": digest, "ids": sorted(now), "withdrawn": withdrawn}
    more = {"unsigned": device} if key is None else {}
    content = {**before, **more, "schema_version": 1, "devices": {**known, device: {**last, **said}}}
    if content != before:
        replace_file(path, seal(content))
    return statement
