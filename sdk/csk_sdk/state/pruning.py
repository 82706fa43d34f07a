"""Which generations keep their tensors, and which only their record."""

from __future__ import annotations

from contextlib import suppress

from csk_sdk.errors import StateError, StorageError
from csk_sdk.state.atomic import UnreadableError, remove_file
from csk_sdk.state.ledger import LedgerFiles
from csk_sdk.state.outlines import RecordLink
from csk_sdk.state.store import GenerationStore


def prune(store: GenerationStore, keep: int, always: set[int]) -> None:
    """Remove the tensors of all but `keep` generations, and those in `always`.

    Those on the way from the current one back come first, newest first: that they are there is what `keep`
    promises. Room that they leave goes to the newest of those that were rolled back from. A file that is cut
    short does not count, and what has no readable record is left alone: it may be all that can be rescued.
    A record without tensors keeps the task learned last, which is what history is about: kept whole, records
    would grow with the square of the number of tasks.
    """
    # Which ones to keep is known once all of them can be read; the next commit looks again.
    with suppress(UnreadableError):
        _prune(store, keep, always)


def prune_shared(store: GenerationStore, ledger: LedgerFiles) -> None:
    """Remove the contributions and blocks that no generation with tensors lists.

    Where one of them cannot be read, all stay: they may be what can be rescued.
    """
    with suppress(StateError):
        links = [store.link(number) for number in store.committed("safetensors")]
        blocks = {name for link in links for name in link.blocks}
        own = frozenset().union(*(link.files for link in links))
        ledger.keep(own.union(*(store.blocks.read(name).files for name in blocks)))
        store.blocks.keep(blocks)


def _prune(store: GenerationStore, keep: int, always: set[int]) -> None:
    # Only what has tensors is read, and the way that leads there: with each task learned there is one record more.
    records, tensors = store.listed()
    links = {number: link_of(store, number) for number in tensors}
    stored = {number for number, link in links.items() if link is not None and link.stored}
    way = _way_through(store, stored, links)
    others = sorted(stored.difference(way), reverse=True)
    kept = [number for number in (*way, *others) if number in stored][:keep]
    for number in sorted(stored - always - set(kept)):
        if remove_file(store.tensors_path(number)):
            tensors.discard(number)
    # The newest that have none; older ones were shortened when they were among these.
    for number in sorted(records - tensors)[-2 * keep - 2 :]:
        link = link_of(store, number)
        if link is not None and (link.tasks > 1 or link.blocks):
            # Not worth failing a commit that has succeeded: the next one does it.
            with suppress(StateError, StorageError):
                store.shorten(number)


def link_of(store: GenerationStore, number: int) -> RecordLink | None:
    """Of a record that can be read, what leads on from it."""
    try:
        return store.link(number)
    except UnreadableError:
        raise
    except StateError:
        return None


def _way_through(store: GenerationStore, wanted: set[int], links: dict[int, RecordLink | None]) -> list[int]:
    """The numbers from the current one back, while some of `wanted` lie ahead and records are readable."""
    way, left = [], set(wanted)
    number = store.read_head()[0]
    while number and left:
        way.append(number)
        left.discard(number)
        link = links.get(number) or link_of(store, number)
        number = link.parent if link else 0
    return way
