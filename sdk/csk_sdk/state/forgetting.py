"""What a commit that forgets removes from a state: as a whole, or else when something is written the next time.

Such a commit lists in its record the generations that hold what is to be forgotten. What they alone need goes first,
and they themselves last: as long as something of them is left, the forgetting is not finished.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from csk_sdk.contract.sentences import said
from csk_sdk.errors import StateError, StorageError
from csk_sdk.state.atomic import UnreadableError, exists, remove_file, storage_error, sync_folder
from csk_sdk.state.generation import GenerationRecord
from csk_sdk.state.ledger import LedgerFiles
from csk_sdk.state.progress import read_progress
from csk_sdk.state.pruning import link_of
from csk_sdk.state.store import GenerationStore


def finish_forgetting(store: GenerationStore, ledger: LedgerFiles, record: GenerationRecord) -> None:
    """Remove what `record`, the current one, was committed for to be forgotten; nothing happens once it is gone.

    Raises StorageError where something cannot be removed: what is to be forgotten must not stay unnoticed;
    UnreadableError where the disk leaves open what that is.
    """
    if unforgotten(store, record):
        forget_progress(store, record.number)
        forget_shared(store, ledger, record.purged)
        forget_generations(store, unforgotten(store, record))


def unforgotten(store: GenerationStore, record: GenerationRecord) -> list[int]:
    """The generations that were to go with the commit of `record`, and of which something is left."""
    return [number for number in record.purged if number < record.number and _is_left(store, number)]


def forget_progress(store: GenerationStore, head: int) -> None:
    """Remove the progress checkpoint of a lesson that began before `head` was committed: nothing goes on from it."""
    path = store.folder / "progress.safetensors"
    saved = read_progress(path)
    if saved is None or saved[1].get("generation") != head:
        _remove(path)


def forget_shared(store: GenerationStore, ledger: LedgerFiles, purged: Collection[int]) -> None:
    """Remove contributions and blocks that no generation but those `purged` lists."""
    stored = [number for number in store.committed("safetensors") if number not in purged]
    # Of what has no readable record the tensors are of no use, and neither is what it needs.
    links = [link for number in stored if (link := link_of(store, number))]
    blocks = {name for link in links for name in link.blocks}
    own = frozenset().union(*(link.files for link in links))
    left = ledger.keep(own.union(*(_files_of(store, name) for name in blocks)))
    for path in left + store.blocks.keep(blocks):
        raise StorageError(said("not_removed", path=str(path)))
    for folder in (store.folder, ledger.folder, store.blocks.folder):
        _sync(folder)


def forget_generations(store: GenerationStore, numbers: Collection[int]) -> None:
    """Remove all of these generations but that they were there: tensors, scores, and what records tell of tasks."""
    for number in numbers:
        for path in (store.tensors_path(number), _scores_path(store, number)):
            _remove(path)
        record = store.readable(number, certain=True)
        if record is None:
            # Unreadable, and so of no use; its names must go, too.
            _remove(store.record_path(number))
        elif _tells(record):
            store.write_record(record.without_tasks())


def _is_left(store: GenerationStore, number: int) -> bool:
    if exists(store.tensors_path(number)) or exists(_scores_path(store, number)):
        return True
    record = store.readable(number, certain=True)
    return exists(store.record_path(number)) if record is None else _tells(record)


def _tells(record: GenerationRecord) -> bool:
    return bool(record.tasks or record.hidden or record.blocks)


def _files_of(store: GenerationStore, block: str) -> frozenset[str]:
    try:
        return store.blocks.read(block).files
    except UnreadableError:
        raise
    except StateError:
        return frozenset()


def _scores_path(store: GenerationStore, number: int) -> Path:
    return store.folder / "scores" / f"{number:06d}.json"


def _sync(folder: Path) -> None:
    """What was removed there stays so, whatever becomes of what is removed next."""
    try:
        if exists(folder):
            sync_folder(folder)
    except OSError as error:
        raise storage_error(error, f"remove files in {folder}") from error


def _remove(path: Path) -> None:
    if not remove_file(path):
        raise StorageError(said("not_removed", path=str(path)))
