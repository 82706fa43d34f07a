"""A disk of its own, so that it can be really full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, size: str, inodes: int = 0) -> Iterator[Path]:
    """A tmpfs of `size`, such as "64k", at `folder`; skips the test where this user may not mount one."""
    folder.mkdir()
    command = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size={size},nr_inodes={inodes}" if inodes else f"size={size}",
        "tmpfs",
        str(folder),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"needs mount: {error}")
    if done.returncode != 0:
        pytest.skip(f"may not mount a tmpfs of {size}: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
