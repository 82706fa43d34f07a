"""csk-sdk's training step beside those of other runtimes, in one interleaved run: what `make bench` runs.

    python -m bench --write          from the folder benchmarks

Every method is a process of its own, in the environment of its peer, with one thread, the same network, batch and
sites. In each round every process does one turn of steps. Times are CPU seconds of the process, medians over all
rounds; peaks are resident memory over that after imports. All processes run on one core: this one's, if `--core`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

from bench import extras, growth, plot, report
from bench.cases import CASES, PEERS, Case, methods_of, prepared_by
from bench.driver import Measured, measure, prepare
from bench.page import paste

REPOSITORY = Path(__file__).parents[2]
PAGE, PICTURE = REPOSITORY / "docs/benchmarks.md", REPOSITORY / "docs/images/benchmarks.png"
NUMBERS = REPOSITORY / "docs/results/benchmarks.json"


def main() -> None:
    arguments = parsed()
    # Steps one after another on one core: what else the machine does then costs all of them alike.
    if arguments.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.core})
    pythons = {peer: Path(sys.executable) for peer in PEERS[:3]}
    for peer in PEERS:
        if given := getattr(arguments, peer):
            pythons[peer] = given
    root: Path = arguments.out.absolute()
    if arguments.prepare:
        first = {peer: pythons[peer] for peer in PEERS[:2]}
        needed = [(case, pythons) for case in chosen(arguments.only, None)]
        for case, peers in needed + [(case, first) for case in growth.SIZES]:
            print(case.title, prepared(case, peers, root) or "is prepared", flush=True)
        return
    results = {}
    for case in chosen(arguments.only, arguments.rounds):
        results[case.title] = run(case, pythons, root)
        print(report.steps(case, results[case.title]) + "\n", flush=True)
    print(report.targets(results), "\n\n" + report.absent(results), sep="")
    sections = {
        "steps": report.all_steps(results),
        "targets": report.targets(results),
        "absent": report.absent(results),
    }
    content = {
        **described(results),
        "steps": {title: [asdict(row) for row in rows] for title, rows in results.items()},
    }
    if extras.prepared(root):
        more, numbers = extras.all_of(pythons, root, timed=not arguments.steps_only)
        sections |= more
        sections["targets"] = report.targets(results, extras.computed_targets(root))
        content |= numbers
    sections["machine"] = report.machine(content)
    (root / "bench.json").write_text(json.dumps(content, indent=1) + "\n")
    if arguments.write:
        plot.draw(results, PICTURE)
        NUMBERS.write_text(json.dumps(content) + "\n")
        paste(PAGE, sections)
        print(f"wrote {PAGE}, {PICTURE}, {NUMBERS}")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "out/bench", help="models, bundles, logs, bench.json"
    )
    parser.add_argument("--only", action="append", metavar="PATTERN", help="cases whose title this matches")
    parser.add_argument("--rounds", type=int, help="another number of rounds")
    parser.add_argument("--core", type=int, default=0, help="run everything on this core (0)")
    parser.add_argument("--steps-only", action="store_true", help="leave out growth, start and time by op")
    parser.add_argument(
        "--prepare", action="store_true", help="only export the networks and build the bundles"
    )
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and its image")
    for peer in PEERS:
        parser.add_argument(
            f"--{peer.replace('_', '-')}",
            type=Path,
            metavar="PYTHON",
            help=f"the interpreter of {peer}'s environment",
        )
    return parser.parse_args()


def chosen(only: list[str] | None, rounds: int | None) -> list[Case]:
    """The cases to measure."""
    cases = [case for case in CASES if not only or any(re.search(part, case.title) for part in only)]
    return [replace(case, rounds=rounds) for case in cases] if rounds else cases


def run(case: Case, pythons: dict[str, Path], root: Path) -> list[Measured]:
    """Prepare every peer, then measure those that could be prepared."""
    failed = prepared(case, pythons, root)
    able = {peer: python for peer, python in pythons.items() if peer not in failed}
    rows = measure(case, able, root)
    for row in rows:
        row.missing = failed.get(row.key.split("/")[0], row.missing)
    return rows


def prepared(case: Case, pythons: dict[str, Path], root: Path) -> dict[str, str]:
    """Let every peer of a case write what it needs; of those that cannot, why."""
    peers = [peer for peer in prepared_by(methods_of(case)) if peer in pythons]
    reasons = {peer: prepare(case, peer, pythons[peer], root) for peer in peers}
    return {peer: reason for peer, reason in reasons.items() if reason}


def described(results: dict[str, list[Measured]]) -> dict[str, Any]:
    """Machine, date and versions."""
    versions = {"python": platform.python_version()}
    for rows in results.values():
        for row in rows:
            versions.update(row.versions)
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "system": system,
        "versions": versions,
    }


def processor() -> str:
    """The processor's name, and the instructions that int8 needs to be fast."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    fast = [
        flag for flag in ("avx512_vnni", "avx_vnni", "asimddp", "i8mm") if re.search(rf"\b{flag}\b", text)
    ]
    return f"{name[1] if name else platform.machine()} with {', '.join(fast) or 'no int8 dot products'}"


if __name__ == "__main__":
    main()
