"""`merge`: files of devices to what all of them know, or to one file that keeps the devices apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csk_sdk.errors import FleetError
from csk_sdk.fleet.collection import (
    Collection,
    bundle_of,
    device_named,
    require_one_bundle,
    require_unmerged,
    without,
)
from csk_sdk.fleet.files import Content, FleetFile, require_fleet_place, write
from csk_sdk.fleet.reducing import Reduced, lesson_of, reduced
from csk_sdk.fleet.trusting import require_signed, trusted_keys
from csk_sdk.formats.given import flag_of, optional_path, path_of, paths_of, text_of, texts_of
from csk_sdk.method.consensus import alike
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.objectives.classification import PRIOR_PICTURES


@dataclass(frozen=True)
class MergeReport:
    """What `merge` did. Immutable.

    - `devices`, `classes`, `contributions`: how many devices count, how many images there are of each class, and of how
      many contributions these are
    - `quarantined`: devices that are set aside, and why; `skipped`: files that were left out, and why
    - `unconfirmed`: classes that fewer than three devices hold, so that nobody can tell whether they are what they are
      called
    - `alike`: sentences about classes of two names that look like one thing
    - `withdrawn`: contributions that a device's newest file has taken back
    - `bytes`: the size of the file that was written; `knowledge` names what it holds, the same for the same devices
    """

    devices: int
    classes: dict[str, float]
    contributions: int
    quarantined: dict[str, str]
    skipped: dict[str, str]
    unconfirmed: tuple[str, ...]
    alike: tuple[str, ...]
    withdrawn: int
    bytes: int
    knowledge: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for `fleet merge --json`."""
        return asdict(self)


def merge(
    files: Iterable[Path | str],
    out: Path | str,
    *,
    same: Mapping[str, str] | None = None,
    without_devices: Iterable[str] = (),
    accept: Iterable[str] = (),
    trust: Iterable[Path | str] = (),
    keep_apart: bool = False,
    skip_broken: bool = False,
    sign: Path | str | None = None,
) -> MergeReport:
    """Merge what devices exported, `files`, into `out`: one contribution for each class, for `apply` on every device.

    The result is the same to the bit for any order of files. With `keep_apart`, the file keeps what each device said,
    can be merged again with others, in any grouping, and can be applied, too; what each device contributed is then told
    to whoever has it. `same` maps names of classes to those that they are another name of. `without_devices` are left
    out, and those in `accept` count whatever the others say, each by its name or by how its number begins. With
    `trust`, PEM files of public keys or folders of them, only what was signed by one of them is taken. `sign` is the
    PEM file of a private key: devices whose bundles are signed take merged files of that key's holder only.

    Raises FleetError for a file that is damaged, merged already, of another bundle than the rest (with `skip_broken`:
    than most of the rest), or not signed as it must be: with `skip_broken` it is left out and listed instead.
    StorageError where `out` cannot be written, ConfigError for keys that are none.
    """
    paths = paths_of(files, "files", FleetError)
    target = path_of(out, "out")
    require_fleet_place(target)
    key = optional_path(sign, "sign")
    flag_of(keep_apart, "keep_apart")
    trusted = trusted_keys(trust)
    opened, skipped = _opened(paths, trusted, flag_of(skip_broken, "skip_broken"))
    names = _names(same)
    dropped = texts_of(without_devices, "without_devices", FleetError)
    if dropped:
        opened = without(opened, dropped)
    fleet = Collection.of(opened, names)
    accepted = accepted_among(fleet, texts_of(accept, "accept", FleetError))
    found = reduced(fleet, accepted)
    if keep_apart:
        size = write(target, fleet.content, fleet.size_of, fleet.blob, key)
    else:
        blobs = found.blobs
        size = write(target, found.content, lambda name: len(blobs[name]), blobs.__getitem__, key)
    return _report(fleet, found, skipped, size)


def accepted_among(fleet: Collection, names: Iterable[str]) -> frozenset[str]:
    """The devices of these names."""
    there = {one.device: one.name for one in fleet.statements}
    return frozenset(device_named(name, there) for name in names)


def merged_of(file: FleetFile) -> Reduced | None:
    """What a file that keeps devices apart comes to; None for one that is merged."""
    if file.content.merged is not None:
        return None
    return reduced(Collection.of([file], {}))


def _report(fleet: Collection, found: Reduced, skipped: dict[str, str], size: int) -> MergeReport:
    shown = {one.device: one.shown for one in fleet.statements}
    content: Content = found.content
    return MergeReport(
        devices=found.merged.devices,
        classes={one.name: one.count for one in found.merged.classes},
        contributions=len(found.blobs[found.merged.included]) // 32,
        quarantined={shown[one]: f"'{why.name}' {why.why}" for one, why in sorted(found.quarantined.items())},
        skipped=skipped,
        unconfirmed=found.unconfirmed,
        alike=_sentences(found),
        withdrawn=fleet.withdrawn,
        bytes=size,
        knowledge=content.knowledge,
    )


def _sentences(found: Reduced) -> tuple[str, ...]:
    statistics = lesson_of(found).after(ClassStatistics.empty(found.content.features))
    looks = [
        f"'{one}' and '{other}' look like one thing: they lie {100 * ratio:.0f} % as far apart as two classes do. "
        f"If they are, merge again with `--same {one}={other}`."
        for (one, other), ratio in sorted(alike(statistics, PRIOR_PICTURES).items())
    ]
    spelled = [
        f"'{other}' differs from '{one}' only in case, spaces or accents, and a device can know one of them: merge "
        f"again with `--same {other}={one}`."
        for one, other in found.spelled
    ]
    return (*looks, *spelled)


def _opened(
    paths: list[Path], trusted: frozenset[str], skip_broken: bool
) -> tuple[list[FleetFile], dict[str, str]]:
    opened: list[FleetFile] = []
    skipped: dict[str, str] = {}
    for path in paths:
        try:
            file = require_signed(FleetFile.open(path), trusted)
            if skip_broken:
                require_unmerged(file)
                file.require_whole()
        except FleetError as error:
            if not skip_broken:
                raise
            skipped[str(path)] = str(error)
        else:
            opened.append(file)
    if not opened:
        raise FleetError(
            f"There is nothing to merge: name the files that devices have exported.{_why(skipped)}"
        )
    return _of_one_bundle(opened, skipped) if skip_broken else opened, skipped


def _of_one_bundle(opened: list[FleetFile], skipped: dict[str, str]) -> list[FleetFile]:
    """Those of the bundle that most are of; the others are `skipped`. All of them where no bundle has the most."""
    (bundle, most), *others = Counter(map(bundle_of, opened)).most_common(2)
    if others and others[0][1] == most:
        return opened
    kept = [file for file in opened if bundle_of(file) == bundle]
    for file in opened:
        try:
            require_one_bundle(file, kept[0])
        except FleetError as error:
            skipped[str(file.path)] = str(error)
    return kept


def _why(skipped: Mapping[str, str]) -> str:
    """Why the first of those that cannot be used is not."""
    return f" {next(iter(skipped.values()))}" if skipped else ""


def _names(same: Mapping[str, str] | None) -> dict[str, str]:
    if same is not None and not isinstance(same, Mapping):
        raise FleetError(f"same is a {type(same).__name__}, and must be a mapping of names to names.")
    return {
        text_of(name, "same", FleetError): text_of(other, "same", FleetError)
        for name, other in (same or {}).items()
    }
