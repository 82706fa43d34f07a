"""Checking a state folder file by file, and mending what can be mended without losing an intact generation.

What is mended, each from what else is known:

    state.json          from the bundle id in HEAD
    HEAD                the newest intact generation becomes the current one; also where the current one is damaged
    a record            from the record of the generation learned next; its tensors, unverifiable, go
    a block             from its copy, and the copy from it
    damaged tensors     removed: no checksum, no use; the record stays, as if pruned; also where a block is lost
    contributions       removed when damaged: what they told can be taken out in part only
    scores, progress    removed when damaged: they can be measured, or trained, again
    field.json          begun anew when damaged
    what was to be forgotten                            removed, as whatever writes next would
    temporary files, what a crashed commit left         removed

A file that the disk does not give back is left as it is, and nothing is mended by what it might have said: the next try
may succeed. Neither is a record that only a newer csk-sdk may read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from csk_sdk.errors import StateError, StorageError
from csk_sdk.formats.opening import RefusedError, open_file
from csk_sdk.formats.wording import plural
from csk_sdk.state.atomic import (
    UnreadableError,
    exists,
    is_temporary,
    names_in,
    remove_file,
    unreadable,
)
from csk_sdk.state.field import FIELD, count_anew, read_field
from csk_sdk.state.forgetting import finish_forgetting, unforgotten
from csk_sdk.state.generation import GenerationRecord, LearnedTask
from csk_sdk.state.identity import check_identity, write_identity
from csk_sdk.state.ledger import LedgerFiles
from csk_sdk.state.progress import read_progress
from csk_sdk.state.sealing import unseal
from csk_sdk.state.store import IDENTITY, GenerationStore
from csk_sdk.state.versions import WITH_DOMAINS, NewerStateError, domain_names

INTACT, PRUNED, LEFTOVER, DAMAGED, REPAIRED = "intact", "pruned", "leftover", "damaged", "repaired"
NEWER, LOST = "newer", "lost"


@dataclass(frozen=True)
class Finding:
    """What one file, or one generation, is found to be.

    `status` is INTACT, PRUNED (on purpose), LEFTOVER (of a process that died, in nobody's way), DAMAGED, REPAIRED,
    NEWER (only a newer csk-sdk may read it) or LOST (gone for good, which costs what the detail says, and no more).
    """

    name: str
    status: str
    detail: str = ""


# What would mend a finding, and what to say of it then.
Mend = tuple[Callable[[], object], str]
Checked = tuple[Finding, Mend | None]


class StateCheck:
    """The files of one state folder. `run` checks them; with `repair` it needs the state's lock."""

    def __init__(self, folder: Path, bundle_id: str) -> None:
        self.folder = folder
        self.bundle_id = bundle_id
        self.store = GenerationStore(folder, bundle_id)

    def require_writable(self) -> None:
        """Raise NewerStateError where only a newer csk-sdk may write here."""
        self.store.needs().require_writer(self.folder)

    def run(self, repair: bool = False) -> Iterator[Finding]:
        """Each part in turn: identity, blocks, generations, HEAD, the ledger, scores, progress, what was counted,
        leftovers.

        Raises StateError when another bundle's state is to be repaired, or where only a newer csk-sdk may read what is
        current, or write what is to be repaired; StorageError when it cannot be written.
        """
        if repair:
            self.require_writable()
        self.store.require_current()
        for finding, mend in self._parts():
            if mend is not None and repair:
                act, done = mend
                act()
                yield replace(finding, status=REPAIRED, detail=f"{finding.detail} {done}".strip())
            else:
                yield finding

    def is_empty(self) -> bool:
        """Whether there is nothing of a state yet."""
        return not (exists(self.folder / IDENTITY) or exists(self.store.head_path) or self.store.numbers())

    def _parts(self) -> Iterator[Checked]:
        if self.is_empty():
            return
        yield self._sure("state.json", self._identity)
        yield from self._blocks()
        # HEAD last of these: where it has to point to is known once the damaged ones are.
        for number in sorted(self.store.numbers()):
            yield self._sure(f"generation {number}", partial(self._generation, number))
        yield self._sure("HEAD", self._head)
        yield from self._forgetting()
        yield from self._unlisted_blocks()
        yield from self._contributions()
        yield from self._scores()
        yield from self._progress()
        yield from self._counted()
        yield from self._leftovers()

    def _sure(self, name: str, check: Callable[[], Checked]) -> Checked:
        """What `check` finds; where the disk leaves it open, that, and nothing to mend it."""
        try:
            return check()
        except NewerStateError as error:
            return Finding(name, NEWER, str(error)), None
        except UnreadableError as error:
            way_back = f" {self.store.way_back()}" if name == "HEAD" else ""
            return Finding(name, DAMAGED, f"{error}{way_back}"), None

    def _identity(self) -> Checked:
        path = self.folder / IDENTITY
        try:
            unseal(path)
        except UnreadableError:
            raise
        except StateError as error:
            if self._owner_by_head() == self.bundle_id:
                return Finding(path.name, DAMAGED, str(error)), (
                    partial(write_identity, self.store, self.bundle_id),
                    "Written again.",
                )
            lost = f"{error} Nobody knows which bundle the state belongs to; restore it from a backup."
            return Finding(path.name, DAMAGED, lost), None
        check_identity(self.store, self.bundle_id)
        return Finding(path.name, INTACT, f"of bundle {self.bundle_id[:8]}…"), None

    def _owner_by_head(self) -> str | None:
        try:
            return str(unseal(self.store.head_path)["bundle_id"])
        except UnreadableError:
            raise
        except (StateError, KeyError):
            return None

    def _generation(self, number: int) -> Checked:
        name = f"generation {number}"
        path = self.store.tensors_path(number)
        if number > self.store.last():
            return Finding(name, LEFTOVER, "Of a commit that never ended."), _removal(
                self.store.record_path(number), path
            )
        try:
            record = self.store.record(number)
        except (UnreadableError, NewerStateError):
            raise
        except StateError as error:
            mend = self._without_blocks(number) or self._rebuild(number)
            return Finding(name, DAMAGED, str(error) if mend else self._by_hand(number, error)), mend
        name = f"{name}, {record.task}"
        if not exists(path):
            # Also where another process pruned it a moment ago.
            return Finding(name, PRUNED, "its record is intact, its tensors were removed"), None
        try:
            with open_file(path) as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == record.sha256
            if same:
                with closing(self.store.opened(number)[1]) as tensors:
                    for one in tensors:
                        tensors[one]
                return Finding(name, INTACT, f"{record.size:,} bytes"), None
        except RefusedError as error:
            damage = f"{path}: {error.strerror}."
            return Finding(name, DAMAGED, damage), _removal(path, after="Its record stays.")
        except OSError as error:
            raise unreadable(path, error) from error
        except UnreadableError:
            raise
        except StateError as error:
            return Finding(name, DAMAGED, str(error)), self._without_blocks(number)
        damage = f"{path} is damaged: its checksum does not match."
        return Finding(name, DAMAGED, damage), _removal(path, after="Its record stays.")

    def _blocks(self) -> Iterator[Checked]:
        """Each of which a file is lost, and how many are intact."""
        blocks, intact = self.store.blocks, 0

        def check(name: str) -> Checked:
            nonlocal intact
            first, copy = blocks.paths(name)
            lost = [path for path in (first, copy) if not blocks.is_sound(path, name)]
            if not lost or (lost == [copy] and listed[name] == 1 and not exists(copy)):
                intact += 1
                return Finding("blocks", INTACT), None
            shown, damage = f"blocks/{name[:8]}…", f"{lost[0]} is missing or damaged"
            if len(lost) == 1:
                again = partial(blocks.mend, name), "Written again from the other file of its name."
                return Finding(shown, DAMAGED, f"{damage}."), again
            return Finding(shown, DAMAGED, f"{damage}, and so is its copy."), _removal(*lost)

        listed = self._listed_blocks()[0]
        checked = [self._sure(f"blocks/{name[:8]}…", partial(check, name)) for name in sorted(listed)]
        yield from (one for one in checked if one[0].status != INTACT)
        if intact:
            yield Finding("blocks", INTACT, plural(intact, "block")), None

    def _unlisted_blocks(self) -> Iterator[Checked]:
        """Those that no generation lists, where it is certain which do."""
        listed, certain = self._listed_blocks()
        names = sorted(self.store.blocks.names() - listed.keys()) if certain else []
        if names:
            paths = [path for name in names for path in self.store.blocks.paths(name)]
            yield Finding("blocks", LEFTOVER, "Of a commit that never ended."), _removal(*paths)

    def _listed_blocks(self) -> tuple[Counter[str], bool]:
        """How many of the generations that have tensors list each block, and whether all records could be read."""
        listed: Counter[str] = Counter()
        numbers = self.store.committed("safetensors")
        read = 0
        for number in numbers:
            with suppress(StateError):
                listed.update(self.store.blocks_of(number))
                read += 1
        return listed, read == len(numbers)

    def _without_blocks(self, number: int) -> Mend | None:
        """Leave of a generation what its record lists itself; None where no block of its is lost."""
        try:
            names = self.store.blocks_of(number)
        except UnreadableError:
            raise
        except StateError:
            return None
        if not self._lacks(names):
            return None

        def drop() -> None:
            _remove(self.store.tensors_path(number))
            self.store.shorten(number)

        return drop, "Its tensors were removed, and its record stays."

    def _lacks(self, blocks: Sequence[str]) -> bool:
        return any(self.store.blocks.sound(name) is None for name in blocks)

    def _rebuild(self, number: int) -> Mend | None:
        """Write a lost record again from that of the generation learned next; None where there is none."""
        records = self.store.records(certain=True)
        children = [record for record in records if record.parent == number]
        if not children:
            return None
        # One without tensors may lack the tasks of its blocks.
        child = next((one for one in children if one.tasks and not self._lacks(one.blocks)), None)
        tasks = child.tasks[:-1] if child else ()
        before = tasks[-2].name if len(tasks) > 1 else None
        parents = [record.number for record in records if record.task == before and record.number < number]
        parent = max(parents, default=0)
        record = replace(child or children[0], number=number, parent=parent, tasks=tasks, sha256="", size=0)
        record = replace(record, purged=(), blocks=(), blocked=0)

        def write() -> None:
            self.store.write_record(record)
            _remove(self.store.tensors_path(number))

        return write, "Its record was written again; its tensors cannot be trusted without their checksum."

    def _by_hand(self, number: int, error: StateError) -> str:
        """What to say of a record that nothing tells again: no other generation was learned from this one."""
        paths = [
            path for path in (self.store.record_path(number), self.store.tensors_path(number)) if exists(path)
        ]
        return (
            f"{error} No other generation tells what it said: restore it from a backup, or remove "
            f"{' and '.join(map(str, paths))}; all the others are as they are then."
        )

    def _forgetting(self) -> Iterator[Checked]:
        """What the current generation was committed for to be forgotten, where that was interrupted."""

        def check() -> Checked:
            record = self._current(certain=True)
            if record is None or not (left := unforgotten(self.store, record)):
                return Finding("forgetting", INTACT), None
            numbers = ", ".join(map(str, left))
            detail = (
                f"Generation {record.number} was to remove what is forgotten, and something is left of {numbers}: that "
                "was interrupted, or another process is at it. Whatever is written next finishes it."
            )
            mend = partial(finish_forgetting, self.store, LedgerFiles(self.folder), record)
            return Finding("forgetting", DAMAGED, detail), (mend, "Removed.")

        found = self._sure("forgetting", check)
        if found[0].status != INTACT:
            yield found

    def _current(self, certain: bool = False) -> GenerationRecord | None:
        """The current record, None where HEAD or it is damaged; `certain` as in `readable`."""
        try:
            head = self.store.read_head()[0]
        except UnreadableError:
            raise
        except StateError:
            return None
        return self.store.readable(head, certain) if head else None

    def _head(self) -> Checked:
        try:
            head, _ = self.store.read_head()
            if head == 0 or self.store.is_intact(head, certain=True):
                current = f"generation {head}" if head else "the bundle's own checkpoint"
                return Finding("HEAD", INTACT, f"{current} is current"), None
            problem = f"The current generation {head} is damaged or lost."
        except (UnreadableError, NewerStateError):
            raise
        except StateError as error:
            problem = str(error)
        way = self.store.way(certain=True)
        best = next((one for one in way if self.store.is_intact(one.number, certain=True)), None)
        number = best.number if best else 0
        last = max({self.store.last(), *self.store.numbers()})
        mend = partial(self.store.write_head, number, last)
        tasks, domains = best.tasks if best else (), self._domains(best)
        known = ", ".join(task.name for task in tasks) or "what the bundle knows"
        if domains:
            known += f"; seen in {plural(len(domains), 'domain')}: {', '.join(domains)}"
        done = f"Generation {number} is now current: {known}.{self._lost(best, domains)}"
        return Finding("HEAD", DAMAGED, problem), (mend, done)

    def _domains(self, record: GenerationRecord | None) -> tuple[str, ...]:
        """Those of an intact generation."""
        if record is None or record.needs.reader < WITH_DOMAINS.reader:
            return ()
        with closing(self.store.opened(record.number)[1]) as tensors:
            return domain_names(tensors)

    def _lost(self, best: GenerationRecord | None, domains: Sequence[str]) -> str:
        """What the damaged generation knew and this one, with these domains, does not, as far as a record tells.

        Names of domains are in tensors only.
        """
        damaged = self._current(certain=True)
        if damaged is None:
            return ""
        tasks, hidden = (best.tasks, best.hidden) if best else ((), ())
        names = {task.name for task in tasks}
        lost = [f"task {task.name}" for task in damaged.tasks if task.name not in names]
        lost += [f"that {name} is hidden" for name in damaged.hidden if name not in hidden]
        lost += [
            f"that {before} is called {now}"
            for task in tasks
            for before, now in _renamed(task, damaged.tasks)
        ]
        told = f" No longer known: {', '.join(lost)}." if lost else ""
        if damaged.needs.reader >= WITH_DOMAINS.reader and not domains:
            told += " It knows no domain: `csk-sdk adapt` learns again those that the damaged one knew."
        return told

    def _contributions(self) -> Iterator[Checked]:
        """Each that is damaged, lost or of no use, and how many are as their names say."""
        ledger = LedgerFiles(self.folder)
        names, listed, certain = sorted(ledger.names()), *self._listed_contributions()
        unlisted = [name for name in names if certain and name not in listed]
        intact = 0
        after = "What it told can be taken out in part only."

        def check(name: str) -> Checked:
            nonlocal intact
            if ledger.is_intact(name):
                intact += 1
                return Finding("ledger", INTACT), None
            damage = f"{ledger.path(name)} is damaged: its checksum does not match."
            return Finding(f"ledger/{name[:8]}…", DAMAGED, damage), _removal(ledger.path(name), after=after)

        kept = [name for name in names if name not in unlisted]
        checked = [self._sure(f"ledger/{name[:8]}…", partial(check, name)) for name in kept]
        yield from (one for one in checked if one[0].status != INTACT)
        if intact:
            yield Finding("ledger", INTACT, plural(intact, "contribution")), None
        for name in sorted(listed.keys() - set(names)):
            detail = f"{ledger.path(name)} is missing. {listed[name]}"
            yield Finding(f"ledger/{name[:8]}…", LOST, detail), None
        if unlisted:
            removal = _removal(*(ledger.path(name) for name in unlisted))
            yield Finding("ledger", LEFTOVER, "No generation that is there needs it."), removal

    def _listed_contributions(self) -> tuple[dict[str, str], bool]:
        """Those that generations with tensors list, and what it costs where one is lost; whether these are all."""
        with suppress(StateError):
            current = self._current()
            going = current.purged if current else ()
            stored = self.store.committed("safetensors")
            # Those that are to go may have lost theirs already.
            records = [self.store.readable(number) for number in stored if number not in going]
            files = {file for record in records if record for task in record.tasks for file in task.files}
            listed = dict.fromkeys(files, "Nothing that is known now needs it.")
            for task in current.tasks if current else ():
                listed |= dict.fromkeys(task.contributions.values(), "An upgrade and a fleet do without it.")
                for name, file in {**task.contributions, **task.carried}.items():
                    cost = f"Until '{name}' of task '{task.name}' is forgotten, all else is taken out in part only."
                    listed[file] = cost
            listed.pop("", None)
            return listed, None not in records and not set(stored).intersection(going)
        return {}, False

    def _scores(self) -> Iterator[Checked]:
        folder = self.folder / "scores"
        for name in sorted(name for name in names_in(folder) if name.endswith(".json")):
            yield self._sure(f"scores/{name}", partial(self._small, folder / name, "It is measured again."))

    def _progress(self) -> Iterator[Checked]:
        path = self.folder / "progress.safetensors"
        if exists(path):
            yield self._sure(path.name, partial(self._small, path, "The task starts from its beginning."))

    def _counted(self) -> Iterator[Checked]:
        def check() -> Checked:
            try:
                read_field(self.folder)
            except UnreadableError:
                raise
            except StateError as error:
                mend = partial(count_anew, self.folder), "Counted from nothing again."
                return Finding(FIELD, DAMAGED, str(error)), mend
            return Finding(FIELD, INTACT), None

        if exists(self.folder / FIELD):
            yield self._sure(FIELD, check)

    def _small(self, path: Path, after: str) -> Checked:
        name = path.relative_to(self.folder).as_posix()
        try:
            with open_file(path) as file:
                while file.read(1 << 20):
                    pass
        except RefusedError as error:
            return Finding(name, DAMAGED, f"{path}: {error.strerror}."), _removal(path, after=after)
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            if path.suffix == ".json":
                unseal(path)
            elif read_progress(path) is None:
                raise StateError(f"{path} is damaged: its checksum does not match.")
        except UnreadableError:
            raise
        except StateError as error:
            return Finding(name, DAMAGED, str(error)), _removal(path, after=after)
        return Finding(name, INTACT), None

    def _leftovers(self) -> Iterator[Checked]:
        folders = (self.folder, self.store.generations, self.store.blocks.folder, self.folder / "scores")
        found = [folder / name for folder in folders for name in names_in(folder) if is_temporary(name)]
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            yield Finding("temporary files", LEFTOVER, f"{found[0].name}{more}"), _removal(*found)


def _removal(*paths: Path, after: str = "") -> Mend:
    return partial(_remove, *paths), f"Removed. {after}".strip()


def _remove(*paths: Path) -> None:
    for path in paths:
        if not remove_file(path):
            raise StorageError(
                f"{path} is damaged and could not be removed: check that the disk is writable and this user may "
                "write there, and run the command again."
            )


def _renamed(task: LearnedTask, later: Sequence[LearnedTask]) -> list[tuple[str, str]]:
    """Classes of a task that have another name in its later record; none where some were forgotten meanwhile."""
    now = next((one.classes for one in later if one.name == task.name), ())
    pairs = zip(task.classes, now, strict=True) if len(now) == len(task.classes) else ()
    return [(old, new) for old, new in pairs if old != new]
