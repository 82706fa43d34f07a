"""What a run costs, as the operating system tells it."""

from __future__ import annotations

import sys


def peak_rss_bytes() -> int:
    """The process's highest resident memory so far, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
