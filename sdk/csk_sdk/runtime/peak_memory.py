"""What a run costs, as the operating system tells it."""

from __future__ import annotations

import re
import sys
from pathlib import Path


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


def _from_proc(field: str) -> int | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
