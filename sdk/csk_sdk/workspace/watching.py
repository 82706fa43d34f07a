"""`Watcher`: learn whatever lands in the inbox, one task after another, for as long as the device runs."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from csk_sdk.errors import CskError, StateLockedError, StorageError, TaskError
from csk_sdk.learner import Learner
from csk_sdk.learning.learn_run import Progress
from csk_sdk.learning.life import LearnReport
from csk_sdk.network.predicting import task_names
from csk_sdk.workspace.conditions import Conditions
from csk_sdk.workspace.folder import Workspace


class Stopped(Exception):
    """Raised out of a training step once the watcher was told to stop."""


class _Held(Exception):
    """Raised out of a training step once it must not go on now; says why."""


@dataclass(frozen=True)
class Happened:
    """What a watcher tells of: one line of a log.

    `event` is "learned" (then `report` says what it took), "set aside" (the task is no good; it is looked at
    again once its files change), "later" (another process learns, or the disk is full: tried again), "paused" (it is
    paused, or what it waits for does not hold; in the middle of the task that it names, or before any), "resumed"
    (that is over) or "stopped" (in the middle of a task, which goes on when the watcher is started again). `reason` is
    a sentence.
    """

    event: str
    task: str
    reason: str = ""
    report: LearnReport | None = None


# What changes while files are being copied: how many there are, their bytes, the newest change in ns, and how many
# folders cannot be read.
_Signature = tuple[int, int, int, int]


class Watcher:
    """Learns the tasks of a workspace's inbox as they come, in the order of their names.

    A task is taken once none of its files has changed for `settle` seconds, so that one that is still being copied
    is left alone. A task that cannot be learned, for whatever reason, is set aside and the next one is taken. `poll` is
    the time in seconds between two looks at the inbox: those that were ready at one are learned one after another, each
    looked at once more, without another look at all of them. `conditions` say when to learn; a task that they end in
    its middle goes on from its last progress checkpoint once they hold again.
    """

    def __init__(
        self,
        space: Workspace,
        learner: Learner,
        settle: float = 10.0,
        poll: float = 5.0,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions or Conditions(space.tasks)
        self._conditions.require_told()
        self._asked = -math.inf
        self._space, self._learner = space, learner
        self._settle, self._poll = settle, poll
        self._stop = Event()
        # Of each task that waits: its files as they were last seen, and since when (monotonic seconds).
        self._seen: dict[str, tuple[_Signature, float]] = {}
        self._aside: dict[str, _Signature] = {}
        self._paths: dict[str, list[Path]] = {}
        # What was ready at the last look at the whole inbox, and when that was (monotonic seconds).
        self._queue: deque[str] = deque()
        self._looked = -math.inf

    def stop(self) -> None:
        """End `run` soon: at the next training step, or at once while it waits. May be called by a signal handler."""
        self._stop.set()

    def run(self, once: bool = False) -> Iterator[Happened]:
        """Learn until told to stop, and tell what happens; with `once`, until nothing waits any more, or must not now.

        What would be told again at every look is told once. Raises what no other task would mend: BundleError,
        StateError, ConfigError.
        """
        self._learner.state.require_writable()
        told, held = None, ""
        while not self._stop.is_set():
            if hindrance := self._conditions.hindrance():
                if hindrance != held:
                    yield Happened("paused", "", hindrance)
                if once:
                    return
                held = hindrance
                self._stop.wait(self._poll)
                continue
            if held:
                held = ""
                yield Happened("resumed", "")
            happened = self._look()
            if happened is None and once and not self._seen:
                return
            if happened is not None and happened != told:
                yield happened
            told = happened
            if happened is not None and happened.event == "paused":
                held = happened.reason
            elif happened is None or happened.event == "later":
                self._stop.wait(self._poll)

    def _look(self) -> Happened | None:
        """Learn the first task whose files have settled; None where there is none."""
        if not self._queue or time.monotonic() - self._looked >= self._poll:
            try:
                self._queue = deque(self._ready())
            except TaskError as error:  # the inbox cannot be listed
                return Happened("later", "", str(error))
        while self._queue:
            name = self._queue.popleft()
            if self._is_as_seen(name) and (happened := self._learn(name)) is not None:
                return happened
        return None

    def _is_as_seen(self, name: str) -> bool:
        """Whether a task's files are still those of the last look; else they have to settle again."""
        signature = _signature(self._paths.get(name, []))
        if signature is None:
            del self._seen[name]
        elif not self._was(name, signature):
            self._seen[name] = (signature, time.monotonic())
        return signature is not None and self._was(name, signature) and self._has_settled(name)

    def _has_settled(self, name: str) -> bool:
        return time.monotonic() - self._seen[name][1] >= self._settle

    def _ready(self) -> list[str]:
        """The tasks whose files have settled, by name; notes the others' files on the way."""
        self._looked = now = time.monotonic()
        waiting = {name: signature for name, signature in self._waiting() if signature is not None}
        self._aside = {name: it for name, it in self._aside.items() if waiting.get(name) == it}
        self._seen = {
            name: (signature, self._seen[name][1] if self._was(name, signature) else now)
            for name, signature in waiting.items()
            if name not in self._aside
        }
        return [name for name in sorted(self._seen) if now - self._seen[name][1] >= self._settle]

    def _was(self, name: str, signature: _Signature) -> bool:
        return name in self._seen and self._seen[name][0] == signature

    def _waiting(self) -> Iterator[tuple[str, _Signature | None]]:
        """Every task of the inbox that is not learned, and its files."""
        known = self._known()
        self._paths = self._space.inbox.found()
        for name, paths in self._paths.items():
            if name not in known:
                yield name, _signature(paths)

    def _known(self) -> set[str]:
        return set(task_names(self._learner.generation, self._learner.bundle.manifest.classes))

    def _learn(self, name: str) -> Happened | None:
        signature = self._seen[name][0]
        try:
            task = self._space.inbox.open(name)
            if task.train is None:  # images to test with; those to learn from may follow
                self._aside[name] = signature
                return None
            report = self._learner.learn(task, on_progress=self._on_progress)
        except TaskError as error:
            if name in self._known():  # by another process, since the last look
                return None
            self._aside[name] = signature
            return Happened("set aside", name, str(error))
        except (StateLockedError, StorageError) as error:
            self._queue.clear()
            return Happened("later", name, str(error))
        except CskError:
            raise  # of bundle, state or settings: no other task would fare better
        except _Held as held:
            return Happened("paused", name, str(held))
        except Stopped:
            return Happened("stopped", name, "It goes on when the watcher is started again.")
        except Exception as error:
            # One task's fault, or csk-sdk's with this task: the others are learned all the same.
            self._aside[name] = signature
            return Happened("set aside", name, _unexpected(error))
        return Happened("learned", name, report=report)

    def _on_progress(self, _: Progress) -> None:
        if self._stop.is_set():
            raise Stopped
        now = time.monotonic()
        if now - self._asked >= self._poll:
            self._asked = now
            if reason := self._conditions.hindrance(learning=True):
                raise _Held(reason)


def _unexpected(error: Exception) -> str:
    said = (str(error) or "no reason given").splitlines()[0][:300].rstrip(".")
    return f"Learning it failed in a way that csk-sdk did not expect ({type(error).__name__}: {said})."


def _signature(paths: list[Path]) -> _Signature | None:
    """The files of a task; None where there are none to train on yet, or they vanish while they are counted.

    What cannot be read is no reason to wait: opening the task says what is wrong with it.
    """
    files, size, newest, unreadable = 0, 0, 0, 0
    for path in paths:
        try:
            for status in _files(path):
                files, size, newest = files + 1, size + status.st_size, max(newest, status.st_mtime_ns)
            newest = max(newest, path.stat().st_mtime_ns)
        except FileNotFoundError:
            return None
        except OSError:
            unreadable += 1
    return (files, size, newest, unreadable) if files or unreadable else None


def _files(path: Path) -> Iterator[os.stat_result]:
    """The state of an npz file, or of every file in a folder. Raises OSError where one cannot be looked at."""
    if not path.is_dir():
        yield path.stat()
        return
    problems: list[OSError] = []
    for folder, _, names in os.walk(path, onerror=problems.append):
        for name in names:
            yield (Path(folder) / name).lstat()
    if problems:
        raise problems[0]
