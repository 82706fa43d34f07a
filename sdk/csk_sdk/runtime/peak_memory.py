"""What a run costs, as the operating system tells it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csk_sdk.errors import TaskError


def peak_rss_bytes() -> int:
    """The process's highest resident memory so far, in bytes; 0 where the system does not tell."""
    # On Linux, getrusage would not do: a process starts with the peak of the one that started it.
    if (found := _from_proc("VmHWM")) is not None:
        return found
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def resident_bytes() -> int:
    """The process's resident memory now, in bytes; where only the peak is told, that."""
    found = _from_proc("VmRSS")
    return peak_rss_bytes() if found is None else found


def available_bytes() -> int | None:
    """What the system can give to this process, in bytes, swap included; None where it does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    found = dict(re.findall(r"^(MemAvailable|SwapFree):\s+(\d+) kB", lines, re.MULTILINE))
    return sum(int(size) << 10 for size in found.values()) if "MemAvailable" in found else None


@contextmanager
def in_memory() -> Iterator[None]:
    """Within the block, running out of memory is a TaskError. What was committed stays."""
    try:
        yield
    except MemoryError as error:
        raise TaskError(
            "This device ran out of memory. Try a smaller batch_size, a memory_budget, or a bundle of fewer sites "
            "(`csk-sdk build-artifacts --trainable`)."
        ) from error


def _from_proc(field: str) -> int | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
