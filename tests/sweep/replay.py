"""The sweep's graphs on this environment's ONNX Runtime: `make sweep`.

    .venv-matrix-1.17.0/bin/python tests/sweep/replay.py out/sweep out/sweep/1.17.0.json

Needs what a device needs, and nothing more. Each case runs in a process that may die of it; then the next one goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from csk_sdk.runtime.sessions import load_onnxruntime
from platforms.conformance import FAILED, run_case

_EACH = "--each"


def each(vectors: Path, names: list[str]) -> None:
    """One line for each case, as soon as it is there."""
    for name in names:
        one = run_case(vectors, name, frozenset())
        deviations = [[d.output, d.deviation, d.tolerance] for d in one.deviations if not d.allowed]
        print(json.dumps([one.name, one.status, one.reason, deviations]), flush=True)


def run(vectors: Path) -> list[dict[str, Any]]:
    """Every case, whatever becomes of the process."""
    todo = list(json.loads((vectors / "index.json").read_text())["cases"])
    found: list[dict[str, Any]] = []
    while todo:
        command = [sys.executable, __file__, _EACH, str(vectors)]
        ran = subprocess.run(command, input="\n".join(todo), capture_output=True, text=True)
        for line in ran.stdout.splitlines():
            name, status, reason, deviations = json.loads(line)
            found.append({"name": name, "status": status, "reason": reason, "deviations": deviations})
        todo = todo[len(ran.stdout.splitlines()) :]
        if todo:
            reason = f"the process died ({ran.returncode})"
            found.append({"name": todo.pop(0), "status": FAILED, "reason": reason, "deviations": []})
    return found


def main(vectors: Path, out: Path) -> None:
    results = run(vectors)
    runtime = f"onnxruntime {load_onnxruntime().__version__}"
    out.write_text(json.dumps({"runtime": runtime, "cases": results}))
    print(f"{runtime}: {len(results)} cases, {sum(one['status'] == FAILED for one in results)} failed")


if __name__ == "__main__":
    if sys.argv[1] == _EACH:
        each(Path(sys.argv[2]), sys.stdin.read().split())
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
