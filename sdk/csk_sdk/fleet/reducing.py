"""What a fleet knows: of each class one contribution, made of those of all devices that can be believed.

The same for whatever order and grouping the devices' files came in: contributions are taken in one order for all.
"""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from csk_sdk.contract.sentences import said
from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import FleetError
from csk_sdk.fleet.collection import Collection, Held
from csk_sdk.fleet.files import Content, Merged, MergedClass
from csk_sdk.fleet.packing import content_id, odd, pack, pack_sketch, unpack, unpack_sketch
from csk_sdk.formats.names import likeness
from csk_sdk.formats.wording import plural
from csk_sdk.method.consensus import Doubt, Part, Space, apart, out_of_measure, unconfirmed
from csk_sdk.method.contributions import Contribution, ContributionSum, Lesson
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.objectives.classification import PRIOR_PICTURES

_AT_ONCE, _SAMPLED = integer("fleet", "at_once"), integer("fleet", "sampled")


@dataclass(frozen=True)
class Reduced:
    """Merged knowledge: what a file says of it, and the bytes.

    `quarantined` are devices that are set aside, and why, `unconfirmed` classes that fewer than three others hold,
    `alike` pairs of classes that look like one thing, with how far apart they lie by what is usual, `spelled` those
    whose names differ in nothing that a person would call a difference.
    """

    content: Content
    blobs: Mapping[str, bytes] = field(repr=False)
    quarantined: Mapping[str, Doubt]
    unconfirmed: tuple[str, ...]
    spelled: tuple[tuple[str, str], ...]

    @property
    def merged(self) -> Merged:
        """What is known of each class."""
        assert self.content.merged is not None
        return self.content.merged

    def contribution(self, one: MergedClass) -> Contribution:
        """Of a class."""
        return unpack(self.blobs[one.id], self.content.features)


def reduced(fleet: Collection, accepted: Names[str] = ()) -> Reduced:
    """What `fleet` knows; devices that are `accepted` count whatever is thought of them.

    Raises FleetError where a file is damaged.
    """
    held = fleet.held()
    parts, doubts = _parts(fleet, held)
    doubts = out_of_measure(parts) | doubts
    space = _space(fleet, [one for one in held if one.statement.device not in doubts])
    if space is not None:
        doubts = apart(parts, space) | doubts
    doubts = {device: why for device, why in doubts.items() if device not in accepted}
    kept = [one for one in held if one.statement.device not in doubts]
    open_to_doubt = unconfirmed([one for one in parts if one.device not in doubts])
    del parts
    blobs: dict[str, bytes] = {}
    sketches = _sketches(fleet, {one.statement.device for one in kept}, blobs)
    classes = []
    for name, of_class in _by_class(kept).items():
        holders = {one.statement.device for one in of_class}
        blob = _together(fleet, of_class)
        blobs[content_id(blob)] = blob
        count = float(sum(one.entry.count for one in of_class))
        classes.append(MergedClass(name, content_id(blob), count, len(holders), sketches.get(name, "")))
    included = b"".join(sorted({bytes.fromhex(one.entry.id) for one in kept}))
    blobs[content_id(included)] = included
    devices = len({one.statement.device for one in kept})
    merged = Merged(tuple(classes), _temperature(kept), content_id(included), devices)
    content = Content(fleet.bundle, fleet.features, (), fleet.same, merged)
    return Reduced(content, blobs, doubts, open_to_doubt, _spelled(classes))


def lesson_of(found: Reduced) -> Lesson:
    """What is known of all classes, as one lesson."""
    classes = found.merged.classes
    contributions = {one.name: found.contribution(one) for one in classes}
    return Lesson(tuple(contributions), contributions, found.merged.temperature)


def _parts(fleet: Collection, held: Sequence[Held]) -> tuple[list[Part], dict[str, Doubt]]:
    """What devices are compared by; and those that sent what no contribution can be."""
    parts: list[Part] = []
    doubts: dict[str, Doubt] = {}
    for one in held:
        device = one.statement.device
        blob = fleet.blob(one.entry.id)
        try:
            found = unpack(blob, fleet.features)
            wrong = odd(found)
        except FleetError as error:
            wrong = str(error)
        if wrong is None and found.count != one.entry.count:
            wrong = said(
                "contribution_miscounted",
                images=plural(f"{one.entry.count:g}", "image"),
                found=f"{found.count:g}",
            )
        if wrong is not None:
            doubts.setdefault(device, Doubt(one.name, f"has {wrong}"))
            continue
        spread = np.einsum("nf,nf->f", found.factor, found.factor, dtype=np.float64)
        variance = (spread / max(found.count - 1.0, 1.0)).astype(np.float32)
        parts.append(Part(device, one.name, found.count, found.mean, variance))
    return [one for one in parts if one.device not in doubts], doubts


def _space(fleet: Collection, held: Sequence[Held]) -> Space | None:
    """Where means are compared: of some contributions of each class, as many of one as of another."""
    waiting = [list(reversed(some)) for some in _by_class(held).values()]
    sample: list[Held] = []
    while waiting and len(sample) < _SAMPLED:
        sample += [some.pop() for some in waiting[: _SAMPLED - len(sample)]]
        waiting = [some for some in waiting if some]
    known = ClassStatistics.empty(fleet.features)
    for number, one in enumerate(sample):
        lesson = {str(number): unpack(fleet.blob(one.entry.id), fleet.features)}
        known = Lesson(tuple(lesson), lesson).after(known)
    return Space.of(known, PRIOR_PICTURES)


def _by_class(held: Sequence[Held]) -> dict[str, list[Held]]:
    found: dict[str, list[Held]] = {}
    for one in held:
        found.setdefault(one.name, []).append(one)
    return found


def _together(fleet: Collection, of_class: Sequence[Held]) -> bytes:
    """The images of all contributions to a class, packed; one alone stays as it is."""
    if len(of_class) == 1:
        return fleet.blob(of_class[0].entry.id)
    total = ContributionSum(fleet.features, wait=_AT_ONCE)
    for one in of_class:
        total.add_contribution(unpack(fleet.blob(one.entry.id), fleet.features))
    return pack(total.total())


def _temperature(kept: Sequence[Held]) -> float | None:
    """The median of what lessons measured, which no single device moves far; None where the bundle brings one."""
    told = [one.entry.temperature for one in kept if one.entry.temperature is not None]
    return float(np.median(told)) if told else None


def _sketches(fleet: Collection, devices: Names[str], blobs: dict[str, bytes]) -> dict[str, str]:
    """By class, what is usual for its images: the median of what devices measured."""
    found = {}
    for name, told in fleet.sketches().items():
        read = (unpack_sketch(fleet.blob(blob)) for device, blob in told if device in devices)
        rows = [row for row in read if row is not None]
        if rows:
            blob = pack_sketch(*np.median(np.stack(rows), axis=0).astype(np.float32))
            found[name] = content_id(blob)
            blobs[found[name]] = blob
    return found


def _spelled(classes: Sequence[MergedClass]) -> tuple[tuple[str, str], ...]:
    first: dict[str, str] = {}
    pairs = [(first.setdefault(likeness(one.name), one.name), one.name) for one in classes]
    return tuple(pair for pair in pairs if pair[0] != pair[1])
