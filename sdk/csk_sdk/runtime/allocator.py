"""Giving memory back to the system while a graph is opened.

Opening a graph makes and drops a copy of each kernel several times over (folded, transposed, packed). glibc keeps
dropped blocks below a threshold, which grows with what is dropped (up to 32 MiB), so those copies stay with the process
as garbage that no other allocation fits into: docs/decisions/0009.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# From malloc.h; the threshold is what glibc starts with, and setting it ends its growth.
_M_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 128 << 10


def give_back() -> None:
    """Give what is left of dropped small blocks back to the system: a graph that is closed leaves megabytes."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@contextmanager
def returning_memory() -> Iterator[None]:
    """Within the block, large blocks go back to the system when they are dropped; before and behind it, small ones too.

    On other C libraries than glibc, which do not hoard, nothing is done.
    """
    give_back()  # what an earlier graph has left
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
    try:
        yield
    finally:
        give_back()


@cache
def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "malloc_trim") else None
