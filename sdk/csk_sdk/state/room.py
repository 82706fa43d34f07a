"""How much room on the disk a commit takes: known before a lesson, and not when all its steps are done."""

from __future__ import annotations

from collections.abc import Sequence

from csk_sdk.formats.stored_tensors import InFiles, JoinedTensors
from csk_sdk.method.contributions import DIRECTIONS, MIXTURES
from csk_sdk.state import blocks
from csk_sdk.state.generation import Generation

# Of one task, beside the names of its classes.
_RECORD_BYTES = 4096
# Of a contribution's file, beside its numbers.
_CONTRIBUTION_BYTES = 256


def commit_bytes(
    parent: Generation, classes: Sequence[str], features: int, images: int | None, trained: bool
) -> int:
    """How many bytes the commit after `parent` will write, about: with a head, and means, of these classes more.

    And with what they contribute, of so many `images` (None: of many); twice where centers are `trained`, which also
    changes all blocks.
    """
    held = parent.tensors
    size = held.nbytes if isinstance(held, InFiles) else sum(one.nbytes for one in held.values())
    behind = held.bytes_behind if isinstance(held, JoinedTensors) else 0
    if _known(parent) + len(classes) >= blocks.BLOCK_CLASSES:
        # Twice, since copies may come with it: a block has one from the second commit on that lists it.
        size = 2 * (size if trained else size - behind)
    rows = len(classes) * (DIRECTIONS + MIXTURES)
    rows = len(classes) + (rows if images is None else min(rows, images))
    contributed = 4 * features * rows + len(classes) * _CONTRIBUTION_BYTES
    if trained:
        contributed *= 2
        size += 0 if "ledger.map" in held else 4 * features**2
    # A head and a mean for each class, in float32; contributions; a record, with the names; HEAD.
    size += 4 * len(classes) * (2 * features + 1) + contributed
    return size + sum(map(len, classes)) + _RECORD_BYTES


def _known(generation: Generation) -> int:
    """How many classes are known, those of the base among them."""
    tensors = generation.tensors
    counted = len(tensors["statistics.counts"]) if "statistics.counts" in tensors else 0
    return max(counted, sum(len(task.classes) for task in generation.tasks))
