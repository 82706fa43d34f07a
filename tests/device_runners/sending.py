"""What is sent to a board, whatever leads there."""

from __future__ import annotations

import os
from pathlib import Path

from csk_device_runners.ssh import Board, fingerprint


def sent_once(board: Board, tmp_path: Path) -> Path:
    """A folder with a hidden one, an empty file and a space, which arrives whole in `tmp_path / "board"`, and once."""
    source = tmp_path / "a folder"
    (source / ".hidden").mkdir(parents=True)
    (source / ".hidden/x y.bin").write_bytes(os.urandom(300_000))
    (source / "empty").touch()
    assert board.send(source, "tasks/it's")
    assert not board.send(source, "tasks/it's")
    assert fingerprint(tmp_path / "board/tasks/it's") == fingerprint(source)
    return source
