"""The numbered generations of a state folder and HEAD: what is committed, what is intact, what is debris.

The rename of HEAD is the commit. HEAD also holds the last number ever committed, so a file with a higher
number is the debris of a crash, and never that of a generation that was rolled back from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from csk_sdk.errors import StateError
from csk_sdk.formats.opening import RefusedError, open_file
from csk_sdk.formats.stored_tensors import InFiles, StoredTensors
from csk_sdk.state.atomic import (
    UnreadableError,
    clear_temporaries,
    exists,
    file_identity,
    is_temporary,
    make_folder,
    names_in,
    remove_file,
    replace_file,
    unreadable,
)
from csk_sdk.state.blocks import BlockFiles
from csk_sdk.state.generation import GenerationRecord
from csk_sdk.state.outlines import Outline, Outlines, RecordLink
from csk_sdk.state.sealing import seal, unseal
from csk_sdk.state.versions import Needs, NewerStateError, read_needs

BASE = "base"
"""The name under which `rollback --to` finds generation 0, the bundle's own checkpoint."""

IDENTITY = "state.json"
_NUMBERED = re.compile(r"(\d{6,})\.(json|safetensors)")


class GenerationStore:
    """`HEAD` and `generations/` in the state folder `folder`; generation 0 is nowhere in it.

    Locking and the bundle are the business of `State`, which also completes the error messages.
    """

    def __init__(self, folder: Path, bundle_id: str) -> None:
        self.folder = folder
        self._bundle_id = bundle_id
        self.head_path = folder / "HEAD"
        self.outlines = Outlines()
        self.generations = folder / "generations"
        self.blocks = BlockFiles(folder)
        # A lesson asks for the current record half a dozen times, and it lists every task.
        self._last_read: tuple[int, tuple[Any, Any], GenerationRecord] | None = None

    def begin(self) -> None:
        """Write the first HEAD where there is nothing yet, so that a lost one can be told from a first."""
        if self._is_fresh():
            self.write_head(0, 0)

    def read_head(self) -> tuple[int, int]:
        """The current generation's number, and the last one ever committed; (0, 0) when there is none.

        Raises StateError when HEAD is damaged, or lost although there are generations.
        """
        if self._is_fresh():
            return 0, 0
        if not exists(self.head_path):
            raise StateError(f"{self.head_path} is missing although generations are stored.")
        raw = unseal(self.head_path)
        head, last = raw.get("head"), raw.get("last")
        if type(head) is not int or type(last) is not int or not 0 <= head <= last:
            raise StateError(f"{self.head_path} is damaged (head {head!r}, last {last!r}).")
        return head, last

    def write_head(self, head: int, last: int) -> None:
        """Make `head` the current generation, atomically.

        HEAD names the bundle, too, so that a lost state.json can be written again. What else it says stays.
        """
        known: dict[str, Any] = {}
        with suppress(StateError):
            known = unseal(self.head_path)
        replace_file(
            self.head_path, seal({**known, "head": head, "last": last, "bundle_id": self._bundle_id})
        )

    def last(self) -> int:
        """The last number ever committed; when HEAD is damaged, the last one that has a record."""
        return self._numbers_of_head()[1]

    def needs(self) -> Needs:
        """Who may read and write this state: what state.json asks for, the current record, and the newest intact one.

        The newest counts after a rollback, too: its csk-sdk may keep more here than generations.
        """
        head, last = self._numbers_of_head()
        current = self._needs_of_current(head)
        found = self._needs_of_all().both(current or Needs())
        for number in self._newest_first(last):
            if needs := current if number == head else self._needs_of(number):
                return found.both(needs)
        return found

    def _newest_first(self, last: int) -> Iterator[int]:
        """The numbers up to `last` that may have a record; others, as many as tasks, only where that one has none."""
        yield last
        yield from sorted((number for number in self.numbers_of("json") if number < last), reverse=True)

    def require_current(self) -> None:
        """Raise NewerStateError where only a newer csk-sdk may read state.json or the current record.

        Damage is another matter.
        """
        current = self._needs_of(self._numbers_of_head()[0])
        self._needs_of_all().both(current or Needs()).require_reader(self.folder)

    def _numbers_of_head(self) -> tuple[int, int]:
        """As `read_head`; where HEAD is damaged, 0, and the last number that has a record."""
        try:
            return self.read_head()
        except StateError:
            return 0, max(self.numbers_of("json"), default=0)

    def _needs_of_all(self) -> Needs:
        with suppress(StateError):
            version = unseal(self.folder / IDENTITY).get("schema_version")
            if type(version) is int:
                return Needs(version, version)
        return Needs()

    def _needs_of_current(self, head: int) -> Needs | None:
        """The same as of any other; who is about to write asks for the whole record next, which is read once so."""
        with suppress(StateError):
            return self.record(head).needs if head else None
        return self._needs_of(head)

    def _needs_of(self, number: int) -> Needs | None:
        """What the record of a generation asks for; None where there is none, or it is damaged."""
        with suppress(StateError, ValueError):
            return Needs.of(self.outlines.read(self.record_path(number)).said) if number else None
        return None

    def record(self, number: int) -> GenerationRecord:
        """The record of a committed generation.

        Raises StateError when it is unknown or damaged, NewerStateError where only a newer csk-sdk may read it.
        """
        if not 1 <= number <= (last := self.last()):
            raise StateError(f"{self.folder} has no generation {number}; the last one is {last}.")
        path, tensors = self.record_path(number), self.tensors_path(number)
        before = file_identity(path), file_identity(tensors)
        known = self._last_read
        if known is not None and known[:2] == (number, before) and None not in before:
            return known[2]
        record = GenerationRecord.read(path, tensors, self.blocks.tasks_behind)
        if record.number != number:
            raise StateError(f"{path} is the record of generation {record.number}.")
        self._last_read = number, before, record
        return record

    def link(self, number: int) -> RecordLink:
        """Of a record, what leads on from it. Raises as `record` does."""
        path = self.record_path(number)
        outline = self.outlines.read(path)
        link = RecordLink.of(outline, path, self.tensors_path(number), self.blocks.tasks_behind)
        if link.number != number:
            raise StateError(f"{path} is the record of generation {link.number}.")
        return link

    def blocks_of(self, number: int) -> tuple[str, ...]:
        """The blocks that a record lists, there or not. Raises StateError where it cannot be read."""
        path = self.record_path(number)
        outline = self.outlines.read(path)
        read_needs(outline.said, path)
        for name in outline.blocks:
            self.blocks.paths(name)
        return outline.blocks

    def records(self, certain: bool = False) -> list[GenerationRecord]:
        """All readable records of committed generations, oldest first.

        With `certain`, raises UnreadableError where the disk does not give one back. Damaged ones are left out, and
        those that only a newer csk-sdk may read.
        """
        return [record for number in self.committed("json") if (record := self.readable(number, certain))]

    def verify(self, number: int) -> GenerationRecord:
        """Check record, tensors and blocks of a committed generation against their checksums.

        Raises StateError, naming the file, when it is unknown, pruned, truncated or otherwise damaged; UnreadableError
        where the disk does not give it back.
        """
        record = self._verify_own(number)
        for name in record.blocks:
            self.blocks.place(name)
        return record

    def opened(self, number: int) -> tuple[GenerationRecord, InFiles]:
        """The record of a generation, and its tensors, left in their files; checked, and raising, as `verify`."""
        record = self._verify_own(number)
        return record, self.blocks.join(record.blocks, StoredTensors(self.tensors_path(number)))

    def _verify_own(self, number: int) -> GenerationRecord:
        """The same without its blocks."""
        record = self.record(number)
        path = self.tensors_path(number)
        try:
            size = path.stat().st_size
            if size != record.size:
                raise StateError(f"{path} is damaged: it has {size} bytes instead of {record.size}.")
            with open_file(path) as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise StateError(f"{path} is missing (old generations are pruned).") from None
        except RefusedError as error:
            raise StateError(f"{path} cannot be read ({error.strerror}).") from error
        except OSError as error:
            raise unreadable(path, error) from error
        if sha256 != record.sha256:
            raise StateError(f"{path} is damaged: its checksum does not match.")
        return record

    def is_intact(self, number: int, certain: bool = False) -> bool:
        """Whether `verify` passes.

        With `certain`, raises UnreadableError where the disk leaves that open, and NewerStateError where only a newer
        csk-sdk can tell.
        """
        try:
            self.verify(number)
        except StateError as error:
            if certain and isinstance(error, UnreadableError | NewerStateError):
                raise
            return False
        return True

    def way(self, certain: bool = False) -> list[GenerationRecord]:
        """The records from the current generation back to 0, newest first, as far as damage allows.

        Where a record is unreadable, or HEAD is, the way cannot be known any more; then all the other
        readable records follow, newest first: any of them is better than nothing. With `certain`, raises
        UnreadableError where the disk does not give one back. Raises NewerStateError where only a newer csk-sdk may
        read one.
        """
        records: list[GenerationRecord] = []
        try:
            number, _ = self.read_head()
            while number != 0:
                records.append(self.record(number))
                number = records[-1].parent
        except NewerStateError:
            raise
        except StateError as error:
            if certain and isinstance(error, UnreadableError):
                raise
            seen = {record.number for record in records}
            records += [record for record in reversed(self.records(certain)) if record.number not in seen]
        return records

    def write(self, record: GenerationRecord, tensors: bytes) -> None:
        """Store a generation and make it the current one: tensors, then record, then HEAD."""
        text = record.to_bytes()
        path, beside = self.record_path(record.number), self.tensors_path(record.number)
        make_folder(self.generations)
        replace_file(beside, tensors)
        replace_file(path, text)
        self.write_head(record.number, record.number)
        # What was written is not read again, as long as its files are these.
        self.outlines.wrote(path, record.outline())
        self.outlines.tasks = record.own
        self._last_read = record.number, (file_identity(path), file_identity(beside)), record

    def write_record(self, record: GenerationRecord) -> None:
        """Replace the record of a generation, and nothing else."""
        self._replace_record(record.number, record.to_bytes(), record.outline())

    def shorten(self, number: int) -> None:
        """Leave in the record of a generation the task learned last alone; nothing happens where it can't be read."""
        outline = self.outlines.read(self.record_path(number))
        raw = outline.shortened(self.blocks.tasks_behind(outline.blocks, stored=False))
        if raw is not None:
            self._replace_record(number, seal(raw), Outline.of(raw))

    def _replace_record(self, number: int, text: bytes, outline: Outline) -> None:
        path = self.record_path(number)
        replace_file(path, text)
        self.outlines.wrote(path, outline)

    def clear_debris(self) -> None:
        """Remove what crashed commits left behind. Call it only with the lock held and HEAD readable."""
        last = self.read_head()[1]
        clear_temporaries(self.folder)
        for name in names_in(self.generations):
            numbered = _NUMBERED.fullmatch(name)
            if is_temporary(name) or (numbered and int(numbered[1]) > last):
                remove_file(self.generations / name)

    def way_back(self, damaged: int | None = None) -> str:
        """The sentence that tells a user what to do when generation `damaged`, or HEAD (None), is damaged."""
        try:
            head = self.read_head()[0]
        except StateError:
            head = None
        if head is not None and damaged != head:
            return f"Generation {head} stays the current one."
        try:
            self.needs().require_writer(self.folder)
        except NewerStateError as error:
            return str(error)
        for record in self.way():
            if record.number != damaged and record.task and self.is_intact(record.number):
                return (
                    f"`csk-sdk rollback --to {record.task}` returns to generation {record.number}, "
                    "which is intact."
                )
        return f"`csk-sdk rollback --to {BASE}` returns to the bundle's own checkpoint."

    def numbers(self) -> set[int]:
        """All numbers that have a record or tensors, debris included."""
        records, tensors = self.listed()
        return records | tensors

    def stamp(self, number: int) -> tuple[int, ...]:
        """Of a generation, its number and what the file system says of its record; without a record, the number."""
        try:
            found = self.record_path(number).stat()
        except OSError:
            return (number,)
        return number, found.st_ino, found.st_mtime_ns

    def record_path(self, number: int) -> Path:
        """Where a generation's record lies."""
        return self.generations / f"{number:06d}.json"

    def tensors_path(self, number: int) -> Path:
        """Where a generation's tensors lie."""
        return self.generations / f"{number:06d}.safetensors"

    def readable(self, number: int, certain: bool = False) -> GenerationRecord | None:
        """The record of a committed generation, None where none can be read; `certain` as in `records`."""
        try:
            return self.record(number)
        except StateError as error:
            if certain and isinstance(error, UnreadableError):
                raise
            return None

    def numbers_of(self, suffix: str) -> set[int]:
        """The numbers that have a file of this kind, "json" or "safetensors"."""
        records, tensors = self.listed()
        return records if suffix == "json" else tensors

    def committed(self, suffix: str) -> list[int]:
        """Those of them that were ever committed, in order: others are debris."""
        last = self.last()
        return sorted(number for number in self.numbers_of(suffix) if number <= last)

    def listed(self) -> tuple[set[int], set[int]]:
        """The numbers that have a record, and those that have tensors."""
        records: set[int] = set()
        tensors: set[int] = set()
        for name in names_in(self.generations):
            numbered = _NUMBERED.fullmatch(name)
            if numbered:
                (records if numbered[2] == "json" else tensors).add(int(numbered[1]))
        return records, tensors

    def _is_fresh(self) -> bool:
        return not (exists(self.head_path) or self.numbers())
