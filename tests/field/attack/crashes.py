"""One of the contents that a power cut may leave on the simulated disk, drawn by chance."""

from __future__ import annotations

import random

from field.simulated_disk import Bytes, Recorder, Tree, _Replay


def one_crash(recorder: Recorder, rng: random.Random, everything: bool = False) -> tuple[int, Tree]:
    """A moment of the log, and the disk after a power cut there: what no sync covers is lost, torn or there.

    With `everything`, nothing is lost: what a killed process leaves.
    """
    replay = _Replay(recorder)
    moment = rng.randrange(len(recorder.log) + 1)
    fates: dict[int, str] = {}
    if not everything:
        for index in replay._volatile(moment):
            operation = recorder.log[index]
            torn = isinstance(operation, Bytes) and operation.data and len(operation.data) > 1
            fates[index] = rng.choice(("none", "half", "zeros", "all") if torn else ("none", "all"))
    return moment, replay.tree(moment, lambda index: fates.get(index, "all"))
