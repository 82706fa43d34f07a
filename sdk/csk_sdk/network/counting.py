"""Counting a learner's predictions, where the device's owner has asked for it (`state/field.py`).

Counts wait in memory, and are added to the file every half minute and when the learner or the process ends. A count
that cannot be written never costs a prediction: it waits for the next time, and a process that is killed loses it.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import numpy as np

from csk_sdk.errors import CskError, StateLockedError
from csk_sdk.network.predicting import Predictor
from csk_sdk.objectives import Prediction
from csk_sdk.state.field import SHARES, Day, add_days, is_counting, merged

_EVERY_SECONDS = 30.0
# Another process holds the file for as long as it takes to write it.
_TRIES, _PAUSE_SECONDS = 5, 0.02


class Counter:
    """Counts predictions of the state in `folder`. Thread-safe; `clock` gives seconds since 1970."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._waiting = _Waiting(folder)
        self._clock = clock
        self._flushed = clock()
        weakref.finalize(self, self._waiting.flush, _TRIES)

    def add(self, predictor: Predictor, said: Prediction) -> None:
        """Count what was said by `predictor`; nothing happens where nothing is to be counted."""
        if not is_counting(self._waiting.folder):
            return
        now = self._clock()
        day, number = datetime.fromtimestamp(now, UTC).date().isoformat(), predictor.generation.number
        found = Day(day, number, answers=len(said.labels))
        distance = predictor.distance()
        if said.distance is not None and said.known is not None and distance is not None:
            found += Day(
                day,
                number,
                measured=len(said.distance),
                unknown=int(np.count_nonzero(~said.known)),
                beyond=tuple(
                    int(np.count_nonzero(said.distance > distance.limit(share))) for share in SHARES
                ),
            )
        self._waiting.add(found)
        # A clock that is set back must not stop it.
        if not 0.0 <= now - self._flushed < _EVERY_SECONDS:
            self._flushed = now
            self.flush()

    def flush(self) -> None:
        """Add what waits to the file, if that can be written now."""
        self._waiting.flush(1)


class _Waiting:
    """Counts that are not in the file yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._days: tuple[Day, ...] = ()
        self._lock = Lock()
        self._process = os.getpid()

    def add(self, day: Day) -> None:
        with self._lock:
            if self._process != os.getpid():  # a copy of its parent's, which writes them itself
                self._process, self._days = os.getpid(), ()
            self._days = merged((*self._days, day))

    def flush(self, tries: int) -> None:
        with self._lock:
            if not self._days or self._process != os.getpid():
                return
            for left in reversed(range(tries)):
                try:
                    add_days(self.folder, self._days)
                    self._days = ()
                    return
                except StateLockedError:
                    if left:
                        time.sleep(_PAUSE_SECONDS)
                except (CskError, OSError):
                    return
