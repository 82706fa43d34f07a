from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import csk_sdk
from csk_sdk.errors import StateLockedError, StorageError
from csk_sdk.state import lock
from csk_sdk.state.lock import StateLock

HOLD = """
import sys
from pathlib import Path
from csk_sdk.state.lock import StateLock
with StateLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A second process that holds the lock of `folder` until its stdin is closed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(csk_sdk.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=600)
        process.stdout.close()


def test_a_second_process_is_named_and_keeps_others_out(tmp_path: Path) -> None:
    with holder(tmp_path / "state") as process:
        with pytest.raises(StateLockedError) as caught, StateLock(tmp_path / "state"):
            pass
        assert str(caught.value) == (
            f"Another process (pid {process.pid}) is writing to {tmp_path / 'state'}. "
            "Wait for it to finish, or stop it; nothing was changed."
        )
    with StateLock(tmp_path / "state") as held:
        assert held.held


def test_kill_minus_nine_frees_it(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
        process.wait(timeout=600)
        with StateLock(tmp_path) as held:
            assert held.held


def test_says_when_it_is_this_very_process(tmp_path: Path) -> None:
    first, second = StateLock(tmp_path), StateLock(tmp_path)
    with first:
        for blocked in (second, first):
            with pytest.raises(StateLockedError, match=rf"This process \(pid {os.getpid()}\)"), blocked:
                pass
        assert first.held
        assert not second.held
    assert not first.held
    with second:
        assert second.held


def test_the_file_tells_humans_who_holds_it_and_a_stale_one_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / lock.LOCK_FILE
    path.write_text("pid 1\nsomething long that crashed years ago, and longer than what follows it\n" * 9)
    with StateLock(tmp_path):
        assert path.read_text() == f"pid {os.getpid()}\n{' '.join(sys.argv)}\n"
    assert path.read_text() == ""


def test_freed_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StateLock(tmp_path):
        raise KeyboardInterrupt
    with StateLock(tmp_path):
        pass


def test_a_full_disk_does_not_keep_anyone_from_an_existing_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(lock.os, "write", full)
        with StateLock(tmp_path) as held:
            assert held.held
            with (
                pytest.raises(StateLockedError, match=r"^Another process is writing to "),
                StateLock(tmp_path),
            ):
                pass


def test_file_systems_that_cannot_lock_or_create_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(lock, "_lock", unsupported)
        with (
            pytest.raises(
                StorageError, match=r"has no locks \(No locks available\), so that two processes could"
            ),
            StateLock(tmp_path),
        ):
            pass
    (tmp_path / "state" / lock.LOCK_FILE).mkdir(parents=True)
    with pytest.raises(StorageError, match="could not create"), StateLock(tmp_path / "state"):
        pass
