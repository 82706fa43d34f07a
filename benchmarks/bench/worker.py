"""A process that serves one method of one peer, and speaks JSON lines with the driver.

    python -m bench.worker prepare PEER CASE FOLDER            write what `open_method` needs, and end
    python -m bench.worker serve PEER CASE FOLDER METHOD       open it, then wait for turns

A peer is a module with `prepare(case, folder)`, `open_method(case, method, folder)`, which returns a function that
does one step, and `versions()`. It may raise `UnavailableError` to say why there is no such row. Standard library and
NumPy only: this file runs in every peer's environment.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from bench.cases import Case
from bench.peers import UnavailableError


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes; 0 where the system does not tell."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def serve(peer: Any, case: Case, folder: Path, method: str, out: TextIO) -> None:
    """Open the method, and do the turns that arrive on standard input until it ends."""
    # What importing took at its worst is not part of the peak.
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("peak memory includes imports: /proc/self/clear_refs cannot be written", file=sys.stderr)
    imported = resident("VmRSS")
    begun = time.perf_counter()
    step = peer.open_method(case, method, folder)
    opened = time.perf_counter() - begun
    reply(out, {"open_seconds": opened, "versions": peer.versions()})
    for line in sys.stdin:
        turn = json.loads(line)
        for _ in range(turn["untimed"]):
            step()
        cpu, wall = [], []
        for _ in range(turn["steps"]):
            cpu_begun, wall_begun = time.process_time(), time.perf_counter()
            step()
            cpu.append(time.process_time() - cpu_begun)
            wall.append(time.perf_counter() - wall_begun)
        reply(out, {"cpu": cpu, "wall": wall, "peak": resident("VmHWM") - imported})


def reply(out: TextIO, message: dict[str, Any]) -> None:
    """One JSON line."""
    print(json.dumps(message), file=out, flush=True)


def main() -> None:
    action, name, case, folder, *method = sys.argv[1:]
    # Libraries print: what they say goes to standard error, and only replies to the driver.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        peer = importlib.import_module(f"bench.peers.{name}")
        if action == "prepare":
            peer.prepare(Case.from_json(case), Path(folder))
            reply(out, {"prepared": True})
        else:
            serve(peer, Case.from_json(case), Path(folder), method[0], out)
    except UnavailableError as error:
        reply(out, {"unavailable": str(error)})
    except Exception as error:
        traceback.print_exc()
        first = next(iter(str(error).strip().splitlines()), "")
        reply(out, {"unavailable": f"{type(error).__name__}: {first[:200]}"})


if __name__ == "__main__":
    main()
