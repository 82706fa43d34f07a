"""The state folder of a device: generations, HEAD, scores, and the progress of the task being learned.

    state.json                      the schema, and the bundle that the state belongs to
    HEAD                            the current generation, and the last number ever committed
    generations/000001.safetensors  the tensors of a generation; pruned when old
    generations/000001.json         its record: parent, tasks, checksum of the tensors; kept as history
    blocks/SHA256.safetensors       tasks that lie further back, with a copy of each that generations share
    ledger/SHA256.safetensors       what a class of a task contributed; removed when no stored generation lists it
    scores/000001.json              accuracies measured with that generation
    progress.safetensors            checkpoint of the task being learned
    lock                            held by the one process that writes

Every file is replaced as a whole, and reading one never executes anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from csk_sdk.contract.sentences import said
from csk_sdk.errors import ConfigError, StateError, StateLockedError
from csk_sdk.formats.stored_tensors import InFiles, StoredTensors
from csk_sdk.state.atomic import (
    UnreadableError,
    clear_temporaries,
    make_folder,
    names_in,
    remove_file,
    replace_file,
)
from csk_sdk.state.forgetting import finish_forgetting
from csk_sdk.state.generation import Generation, GenerationRecord, LearnedTask
from csk_sdk.state.identity import check_identity, write_identity
from csk_sdk.state.ledger import LedgerFiles
from csk_sdk.state.lock import StateLock
from csk_sdk.state.outlines import RecordLink
from csk_sdk.state.progress import read_progress, write_progress
from csk_sdk.state.pruning import prune, prune_shared
from csk_sdk.state.sealing import seal, unseal
from csk_sdk.state.store import BASE, GenerationStore
from csk_sdk.state.tensorfile import check_dtypes, encode
from csk_sdk.state.versions import DOMAIN, WITH_BLOCKS, WITH_DOMAINS, WRITTEN, Needs, NewerStateError

# A temporary file this old (seconds) was left by a process that died.
_ABANDONED = 3600.0


Checked = TypeVar("Checked")

# The bundle's checkpoint, or what reads it: then it is in memory only while generation 0 is in use.
Base = Mapping[str, np.ndarray] | Callable[[], Mapping[str, np.ndarray]]


class State:
    """A state folder, opened with the bundle that it belongs to.

    Reading needs no lock and creates nothing. Writing needs `with state.lock():` around it and raises
    StateError without. It raises StorageError when the disk is full or refuses; committed generations
    stay as they are. Where a newer csk-sdk wrote what only such a one may read, or write to, a StateError says so, and
    nothing is written. Threads may read one object at once; one of them writes.
    """

    def __init__(self, folder: Path, bundle_id: str, base: Base, keep: int) -> None:
        self.folder = folder
        self.bundle_id = bundle_id
        self._base = base
        self._keep = keep
        self._lock = StateLock(folder)
        self._store = GenerationStore(folder, bundle_id)
        self._ledger = LedgerFiles(folder)
        self._scores = folder / "scores"
        self._progress = folder / "progress.safetensors"
        self._asked = 0
        # When, and for which generation, that was last done.
        self._purged = (0, 0)

    @classmethod
    def open(cls, folder: Path | str, bundle_id: str, base: Base, *, keep: int = 8) -> State:
        """Open the state in `folder`, which need not exist yet, with its bundle's id and checkpoint `base`.

        `keep` is how many generations keep their tensors, those on the way to the current one first; the current
        one and its parent always do.

        Raises StateError when the state is damaged, belongs to another bundle, or only a newer csk-sdk may read it;
        ConfigError when `keep` is below 1.
        """
        if keep < 1:
            raise ConfigError(f"keep is {keep}; it must be at least 1.")
        state = cls(Path(folder), bundle_id, base, keep)
        check_identity(state._store, bundle_id)
        return state

    def lock(self) -> StateLock:
        """The lock that writers hold: `with state.lock(): ...`. Raises StateLockedError on entering."""
        return self._lock

    def require_writable(self) -> None:
        """Raise StateError where only a newer csk-sdk may write here, as every method that writes does: this, early."""
        self._store.needs().require_writer(self.folder)

    def head(self) -> int:
        """The number of the current generation; 0 when nothing is learned.

        Raises StateError when HEAD is damaged, or lost although there are generations.
        """
        return self._read_head()[0]

    def stamp(self) -> tuple[int, ...]:
        """What tells the current generation from another, and from one of its number in a state that was begun anew.

        Its number, and of its record, which is written once, where it lies and when it was written. Raises StateError
        as `head` does.
        """
        return self._store.stamp(self.head())

    def load(self, number: int | None = None) -> Generation:
        """Read a generation, by default the current one; generation 0 is the bundle's own checkpoint.

        Generation 0's tensors are the caller's own, as read-only views; others are fresh arrays.
        Raises StateError, naming the file and the way back, when it is unknown, pruned or damaged.
        """
        if number is not None:
            return self._load(number)
        number = self.head()
        while True:
            try:
                return self._load(number)
            except StateError:
                # A writer may have committed, and pruned what was current a moment ago; then there is a newer one.
                moved, number = number, self.head()
                if moved == number:
                    raise

    @contextmanager
    def opened(self) -> Iterator[Generation]:
        """The current generation, its tensors left in their file: each is read whenever it is asked for.

        The file is closed behind the block. Raises StateError as `load` does, now or when a tensor is asked for.
        """
        generation = self._load(self.head(), resident=False)
        try:
            yield generation
        finally:
            if isinstance(generation.tensors, InFiles):
                generation.tensors.close()

    def _load(self, number: int, resident: bool = True) -> Generation:
        if number == 0:
            base = self._base() if callable(self._base) else self._base
            if resident or not isinstance(base, StoredTensors):
                base = {name: _read_only(tensor) for name, tensor in base.items()}
            return Generation(0, None, (), base)
        record, stored = self._checked(number, self._store.opened)
        tensors = stored.resident() if resident else stored
        return Generation(number, record.parent, record.tasks, tensors, record.created, record.hidden)

    def commit(
        self,
        parent: int,
        tasks: Sequence[LearnedTask],
        tensors: Mapping[str, np.ndarray],
        *,
        hidden: Sequence[str] | None = None,
        purged: Sequence[int] = (),
    ) -> Generation:
        """Store a new generation, learned from `parent`, and make it the current one, atomically.

        `tasks` are all learned so far, oldest first. The number is one more than any committed before.
        `hidden` are classes of the base that do not count from now on, by default those of `parent`. Afterwards old
        tensors beyond `keep` are removed, and of the generations `purged` all but their numbers: a crash in between is
        made up for before anything else is written. Returns it with the very arrays passed in.

        Raises StateError when not locked, `parent` is unknown, or a dtype is not one that a state holds;
        StorageError when it cannot be written: the current generation is then still the one before
        (only a failing fsync of the folder, after the rename of HEAD, leaves the new one current).
        """
        check_dtypes(tensors)
        self._prepare_to_write()
        # Behind a new generation nobody would know any more what is to go.
        self._purge(certain=True)
        _, last = self._read_head()
        before = self._store.record(parent) if parent != 0 else None
        self._store.clear_debris()
        created = datetime.now(UTC).isoformat(timespec="seconds")
        written = {id(task) for task in before.tasks} if before else set()
        known = tuple(task if id(task) in written else task.as_written() for task in tasks)
        divided = self._store.blocks.divide(known, tensors, before.blocks if before else ())
        data = encode(divided.rest)
        needs = WITH_BLOCKS if divided.names else WRITTEN
        if any(name.startswith(DOMAIN) for name in tensors):
            needs = needs.both(WITH_DOMAINS)
        record = GenerationRecord(
            last + 1,
            parent,
            created,
            known,
            hashlib.sha256(data).hexdigest(),
            len(data),
            hidden=tuple((before.hidden if before else ()) if hidden is None else hidden),
            purged=tuple(purged),
            blocks=divided.names,
            blocked=divided.tasks,
            needs=needs.both(before.needs if before else Needs()),
            more=before.more if before else {},
        )
        self._store.write(record, data)
        self._purge()
        prune(self._store, self._keep, always={record.number, parent})
        prune_shared(self._store, self._ledger)
        return Generation(record.number, parent, record.tasks, dict(tensors), created, record.hidden)

    def keep_contribution(self, tensors: Mapping[str, np.ndarray]) -> str:
        """Keep what a class of a task contributed, for the next commit to list; its name.

        Raises StateError when not locked, StorageError when it cannot be written.
        """
        self._prepare_to_write()
        return self._ledger.write(tensors)

    def contribution(self, name: str) -> dict[str, np.ndarray]:
        """What `keep_contribution` kept. Raises StateError where it is missing or damaged."""
        return self._ledger.read(name)

    def images_of(self, name: str) -> float | None:
        """Of how many images the contribution `name` is; None where it is missing or damaged."""
        return self._ledger.images(name)

    def numbers_with(
        self, changed: Iterable[LearnedTask], kept: Iterable[LearnedTask], names: Collection[str]
    ) -> list[int]:
        """The committed generations that hold what is to be forgotten: of the tasks `changed`, or of classes `names`.

        One that has the lesson of such a task holds what is forgotten of it, whatever it is called there: renaming and
        merging keep it, and forgetting leaves no generation that has it. The same is true of a lesson, unless its task
        is among those `kept`, that taught one of `names` in any generation. Those whose records are damaged may hold
        it, and are among them.

        Raises UnreadableError where the disk does not give a record back.
        """

        def named(task: LearnedTask) -> bool:
            return not set(names).isdisjoint(task.classes)

        last = self._store.last()
        told: dict[int, list[tuple[object, bool]] | None] = {}
        for number in sorted(number for number in self._store.numbers() if number <= last):
            record = self._store.readable(number, certain=True)
            told[number] = None if record is None else [(one.lesson, named(one)) for one in record.tasks]
        lessons = {lesson for tasks in told.values() for lesson, has_name in tasks or () if has_name}
        gone = (lessons - {task.lesson for task in kept}) | {task.lesson for task in changed}
        return [
            number
            for number, tasks in told.items()
            if tasks is None or any(has_name or lesson in gone for lesson, has_name in tasks)
        ]

    def finish_forgetting(self) -> None:
        """Remove what a commit that forgets was interrupted before it removed. Everything that writes does so first.

        Raises StateError when not locked, UnreadableError where the disk leaves open what is to go; StorageError when
        something cannot be removed.
        """
        self._check_locked()
        self._purge(certain=True)

    def _purge(self, certain: bool = False) -> None:
        """What the current generation was committed for to be forgotten, and may still be there, goes.

        Of a damaged HEAD, nobody knows what that is; a rollback mends it. With `certain`, raises UnreadableError where
        the disk does not give the current record back.
        """
        try:
            head = self._store.read_head()[0]
        except StateError:
            return
        done = self._lock.times, head
        if self._purged != done and (record := self._store.readable(head, certain) if head else None):
            finish_forgetting(self._store, self._ledger, record)
            # Nobody else writes meanwhile.
            self._purged = done

    def rollback(self, number: int) -> None:
        """Make `number` the current generation; later ones stay stored until they are pruned.

        0 is the bundle's own checkpoint. Also repairs a damaged or lost HEAD.
        Raises StateError when not locked, or the generation is unknown, pruned or damaged.
        """
        self._prepare_to_write()
        if number != 0:
            self._checked(number, self._store.verify)
        self._store.write_head(number, self._store.last())

    def history(self) -> list[RecordLink]:
        """Of the records from the current generation back to, not including, 0, newest first: what leads from each on.

        Raises StateError when HEAD or one of the records is damaged.
        """
        records: list[RecordLink] = []
        number = self.head()
        while number != 0:
            try:
                records.append(self._store.link(number))
            except NewerStateError:
                raise
            except StateError as error:
                mend = " `csk-sdk verify --repair` writes it again." if records else ""
                raise StateError(f"{error} {self._store.way_back(number)}{mend}") from error
            number = records[-1].parent
        return records

    def records(self) -> list[GenerationRecord]:
        """All readable records of committed generations, oldest first, also of those rolled back from."""
        return self._store.records()

    def generation_of(self, task_name: str) -> int:
        """The newest intact generation that ended with this task: on the way from the current one back, or else of
        those that were rolled back from, as long as they are there.

        BASE is 0, unless a task has that name. Raises StateError, listing the known names, if there is none.
        """
        way = self._store.way()
        seen = {record.number for record in way}
        others = [record for record in reversed(self._store.records()) if record.number not in seen]
        of_task = [record.number for record in (*way, *others) if record.task == task_name]
        for number in of_task:
            if self._store.is_intact(number):
                return number
        if task_name == BASE:
            return 0
        stored = [
            record.task for record in (*reversed(way), *reversed(others)) if record.stored and record.task
        ]
        known = dict.fromkeys([BASE, *stored])
        problem = f"{self.folder} has no generation of task {task_name!r}."
        if of_task:
            problem = f"Generation {of_task[0]} of task {task_name!r} is pruned or damaged."
        elif (together := _carried_with(task_name, (*way, *others))) is not None:
            problem = said(
                "carried_together",
                task=task_name,
                others=", ".join(task.name for task in together.tasks if task.name != task_name),
                back="`csk-sdk upgrade --back`",
                rollback=f"`csk-sdk rollback --to {together.task}`",
            )
        raise StateError(f"{problem} Known: {', '.join(known)}.")

    def generation_at(self, task_name: str) -> int:
        """Where `rollback` to a task leads: 0 for BASE, else `generation_of` it."""
        return 0 if task_name == BASE else self.generation_of(task_name)

    def save_scores(self, number: int, row: Mapping[str, Any]) -> None:
        """Keep `row` (JSON values), measured with generation `number`; replaces an earlier one.

        It takes no lock, but where it is the first of a state; then nothing is kept while somebody else writes,
        nor where only a newer csk-sdk may write. Raises StorageError when it cannot be written.
        """
        try:
            self.require_writable()
        except NewerStateError:
            return
        text = seal({"generation": number, "scores": dict(row)})
        try:
            self._begin()
        except StateLockedError:
            return  # whoever is beginning this state says which bundle it belongs to
        make_folder(self._scores)
        clear_temporaries(self._scores, _ABANDONED)
        replace_file(self._scores / f"{number:06d}.json", text)

    def load_scores(self) -> dict[int, dict[str, Any]]:
        """The saved rows by generation number, ascending. Damaged ones are left out: measure them again."""
        rows = {}
        for path in self._score_files():
            try:
                saved = unseal(path)
                rows[int(saved["generation"])] = dict(saved["scores"])
            except (StateError, KeyError, TypeError, ValueError, OverflowError):
                continue
        return dict(sorted(rows.items()))

    def _score_files(self) -> list[Path]:
        try:
            return [self._scores / name for name in names_in(self._scores) if name.endswith(".json")]
        except StateError:
            return []

    def save_progress(self, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Replace the progress checkpoint by `tensors` and `meta` (JSON values).

        Raises StateError when not locked or for another dtype, StorageError when it cannot be written.
        """
        self._prepare_to_write()
        write_progress(self._progress, tensors, meta)

    def load_progress(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """The progress checkpoint, or None when there is none or it is damaged.

        A damaged one is deleted if this object holds the lock (without it, it might just be replaced). One that the
        disk does not give back is left, and counts as none.
        """
        try:
            progress = read_progress(self._progress)
        except UnreadableError:
            return None
        if progress is None and self._lock.held:
            remove_file(self._progress)
        return progress

    def clear_progress(self) -> None:
        """Remove the progress checkpoint, if any. Raises StateError when not locked."""
        self._check_locked()
        remove_file(self._progress)

    def _read_head(self) -> tuple[int, int]:
        try:
            return self._store.read_head()
        except StateError as error:
            raise StateError(f"{error} {self._store.way_back()}") from error

    def _checked(self, number: int, check: Callable[[int], Checked]) -> Checked:
        """What `check` gives of a generation; where it is damaged, the error says what leads back."""
        try:
            return check(number)
        except NewerStateError:
            raise
        except StateError as error:
            raise StateError(f"{error} {self._store.way_back(number)}") from error

    def _check_locked(self) -> None:
        if not self._lock.held:
            raise StateError(f"{self.folder} is not locked for writing: write inside `with state.lock():`.")

    def _prepare_to_write(self) -> None:
        self._check_locked()
        if self._asked != self._lock.times:
            # Once for each time that the lock is taken: nobody else writes meanwhile.
            self.require_writable()
            self._asked = self._lock.times
        self._claim()
        self._store.begin()
        self._purge()

    def _claim(self) -> None:
        if not check_identity(self._store, self.bundle_id):
            write_identity(self._store, self.bundle_id)

    def _begin(self) -> None:
        """Say which bundle a new state belongs to, under the lock: another process may be beginning it for another."""
        if self._lock.held:
            self._claim()
        elif not check_identity(self._store, self.bundle_id):
            with StateLock(self.folder):
                self._claim()


def _read_only(tensor: np.ndarray) -> np.ndarray:
    # Generation 0 lives in this process's memory only: whoever wrote into it would lose the way back to it.
    view = tensor.view()
    view.flags.writeable = False
    return view


def _carried_with(task: str, records: Iterable[GenerationRecord]) -> GenerationRecord | None:
    """The generation that an upgrade began a state with, if it brought this task and others."""
    began = (record for record in records if record.parent == 0 and len(record.tasks) > 1)
    return next((record for record in began if any(one.name == task for one in record.tasks)), None)
