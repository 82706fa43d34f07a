"""The lock of a state as Windows has it: a stand-in for `msvcrt` locks one byte of a file, as that does."""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from csk_sdk import StateLockedError
from csk_sdk.state import lock


class Bytes:
    """Which byte of which file is locked, and by which descriptor."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert count == 1
        key = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        if mode == self.LK_UNLCK:
            assert self.held.pop(key) == descriptor
        elif key in self.held:
            raise PermissionError(errno.EACCES, "Permission denied")
        else:
            self.held[key] = descriptor


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, Bytes]:
    """The same module, as it is loaded there."""
    found = Bytes()
    monkeypatch.setitem(sys.modules, "msvcrt", found)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "platform", "win32")
    assert lock.__file__ is not None
    spec = importlib.util.spec_from_file_location("lock_of_windows", lock.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.undo()
    return module, found


def test_one_writer_at_a_time(windows: tuple[ModuleType, Bytes], tmp_path: Path) -> None:
    module, locked = windows
    with module.StateLock(tmp_path):
        ((_, place),) = locked.held
        # Far behind the text: such locks are mandatory, and others read who holds it.
        assert place > len((tmp_path / "lock").read_bytes())
        with (
            pytest.raises(StateLockedError, match=rf"\(pid {os.getpid()}\) is writing to"),
            module.StateLock(tmp_path),
        ):
            pass
    assert locked.held == {}
    with module.StateLock(tmp_path):
        assert len(locked.held) == 1
