"""Runs a command under a hard limit of resident memory, and says what its peak was.

    python tests/field/memory_limit.py --limit 160MB -- csk-sdk train --workspace W --memory-budget 150MiB

What is limited is the command's own process, imports included. Every few milliseconds its high-water mark VmHWM, which
the kernel keeps itself and which misses no peak between two looks, is compared with the limit; above it, the process
is killed. At its end the kernel's last word (`ru_maxrss`) decides. Linux only; nothing but the standard library is
imported, because a process's peak begins with that of the process that starts it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from time import sleep

_LOOK_SECONDS = 0.005
_UNITS = {"": 1, "MB": 10**6, "MiB": 1 << 20}


@dataclass(frozen=True)
class Run:
    """How a command ended: exit status (negative: by that signal), peak in bytes, and whether that was too much."""

    status: int
    peak: int
    limit: int

    @property
    def kept(self) -> bool:
        """Whether the command came to a good end within the limit."""
        return self.status == 0 and self.peak <= self.limit


def limited(command: list[str], limit: int) -> Run:
    """Run a command, and kill it when it has had more than `limit` bytes resident."""
    child = os.posix_spawnp(command[0], command, os.environ)
    seen = 0
    while True:
        seen = max(seen, _high_water(child))
        if seen > limit:
            os.kill(child, 9)
        done, status, usage = os.wait4(child, 0 if seen > limit else os.WNOHANG)
        if done:
            return Run(os.waitstatus_to_exitcode(status), max(seen, usage.ru_maxrss * 1024), limit)
        sleep(_LOOK_SECONDS)


def _high_water(process: int) -> int:
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)(MB|MiB|)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 160MB or 160MiB")
    return int(found[1]) * _UNITS[found[2]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=_bytes, required=True, help="resident bytes, such as 160MB or 160MiB")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND ...")
    arguments = parser.parse_args()
    run = limited(arguments.command[1:], arguments.limit)
    how = "kept" if run.kept else "NOT kept"
    print(f"Limit {run.limit / 1e6:.1f} MB {how}: peak {run.peak / 1e6:.1f} MB, exit status {run.status}.")
    sys.exit(not run.kept)


if __name__ == "__main__":
    main()
