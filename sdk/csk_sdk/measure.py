"""What a run costs, as the operating system tells it."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def peak_rss_bytes() -> int:
    """The process's highest resident memory so far, in bytes; 0 where the system does not tell."""
    # On Linux, getrusage would not do: a process starts with the peak of the one that started it.
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
        return int(found[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
