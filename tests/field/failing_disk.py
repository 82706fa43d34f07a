"""A disk of which chosen calls fail: every call of `os`, `io` and `fcntl` that touches files below a folder."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from csk_sdk.state import lock, tensorfile

BY_PATH = ("open", "stat", "scandir", "listdir", "mkdir", "replace", "unlink")
BY_DESCRIPTOR = ("write", "fsync", "close", "ftruncate", "read", "fstat")
WRITING = {"mkdir", "replace", "unlink", "write", "fsync", "ftruncate", "open to write"}


class Disk:
    """Every call of `os`, `io` and `fcntl`, and every reading of tensors, that touches files below `root`.

    The call that `fails_at` numbers, from 1, raises `code`; with `for_good` those after it do, too. A full or
    read-only disk refuses only what writes; what only reads does not count then.
    """

    def __init__(self, root: Path, fails_at: int, code: int, for_good: bool = False) -> None:
        self.root = str(root)
        self.fails_at, self.code, self.for_good = fails_at, code, for_good
        self.calls: Counter[str] = Counter()
        # Of each call what it was, and from which lines of csk-sdk it came, the innermost first.
        self.places: list[tuple[str, ...]] = []
        self._descriptors: set[int] = set()

    @property
    def failed(self) -> bool:
        return self.calls.total() >= self.fails_at

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in BY_PATH:
            patch.setattr(os, name, self._by_path(name, getattr(os, name)))
        for name in BY_DESCRIPTOR:
            patch.setattr(os, name, self._by_descriptor(name, getattr(os, name)))
        patch.setattr(io, "open", self._by_path("open", io.open))
        patch.setattr(tensorfile, "safe_open", self._by_path("safe_open", tensorfile.safe_open))
        patch.setattr(lock, "_lock", self._by_descriptor("flock", lock._lock))

    def _by_path(self, name: str, real: Any) -> Any:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, int):
                self._descriptors.discard(path)  # closed where this does not see it
            if isinstance(path, int) or not os.fspath(path).startswith(self.root):
                return real(path, *args, **kwargs)
            flags = args[0] if args else 0
            writes = name == "open" and isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            self._count("open to write" if writes else name, str(path))
            done = real(path, *args, **kwargs)
            if name == "open" and isinstance(done, int):
                self._descriptors.add(done)
            return done

        return call

    def _by_descriptor(self, name: str, real: Any) -> Any:
        def call(descriptor: int, *args: Any, **kwargs: Any) -> Any:
            if descriptor in self._descriptors:
                if name == "close":
                    # POSIX: after an error of close the descriptor is gone.
                    self._descriptors.discard(descriptor)
                    real(descriptor)
                    return self._count(name, descriptor)
                self._count(name, descriptor)
            return real(descriptor, *args, **kwargs)

        return call

    def _count(self, name: str, what: object) -> None:
        if self.code != errno.EIO and name not in WRITING:
            return
        self.calls[name] += 1
        self.places.append((name, *_lines()))
        if self.calls.total() == self.fails_at or (self.for_good and self.failed):
            raise OSError(self.code, os.strerror(self.code), str(what))


def _lines() -> list[str]:
    frame, found = sys._getframe(2), []
    while frame is not None:
        if "csk_sdk" in frame.f_code.co_filename:
            found.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return found
