"""Attack every promise of docs/guarantees.md and docs/state.md: make attack, or python -m field.attack --minutes 10

The minutes say how much is tried, not when it ends: 10 are all of it, about as long on two quiet cores. Each attack
runs in a process of its own, two at a time; chance is seeded, so that a run tries the same as the one before. A table
goes to the terminal, everything to --out, and with --page a page of the docs is written. Exits 1 where a promise broke.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from field.attack import page
from field.attack.attacks import PROMISES
from field.attack.harness import Harness

WHOLE = 10.0


def main() -> None:
    """Attack, tell, and exit 1 where anything broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=WHOLE, help="how much is tried; 10 is all of it")
    parser.add_argument("--only", action="append", help="only this promise; may be given several times")
    parser.add_argument("--out", type=Path, default=Path("out/attack.json"))
    parser.add_argument("--page", type=Path, help="write the page of the docs, too")
    given = parser.parse_args()
    unknown = set(given.only or []) - {*PROMISES, page.KILLED}
    if unknown:
        parser.error(f"no promise is called {', '.join(sorted(unknown))}: choose from {', '.join(PROMISES)}")
    names = [name for name in PROMISES if not given.only or name in given.only]
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="csk-attack-"))
    harness = Harness(folder, given.minutes / WHOLE)
    try:
        harness.prepare()
        found = harness.run([n for n in names if n != page.KILLED], kills=page.KILLED in names)
        cpu = harness.forks.cpu_seconds()
    finally:
        harness.forks.close()
        shutil.rmtree(folder, ignore_errors=True)
    result = {
        "minutes": given.minutes,
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": cpu,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "promises": page.gathered(found),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if given.page:
        given.page.write_text(page.document(result), encoding="utf-8")
    print(*page.broken(result), page.summary(result), sep="\n")
    sys.exit(any(one["faults"] for one in result["promises"].values()))


if __name__ == "__main__":
    main()
