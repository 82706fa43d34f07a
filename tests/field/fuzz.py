"""Fuzz the readers with coverage feedback (atheris, libFuzzer): python tests/field/fuzz.py --minutes 30

Each target runs in a process of its own for its share of the time. A crash, an error that csk-sdk does not raise on
purpose, an input that takes longer than 20 s or more than 1 GiB stops it, and its input is kept in `--out`. Corpora
are kept there, too, so that the next run goes on from them. What was run is written to `--out`/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

# Readers and what they rest on; instrumenting all of NumPy would only slow them down.
INSTRUMENTED = ["csk_sdk", "zipfile", "json", "PIL", "numpy.lib.format", "numpy.lib._format_impl"]
SECONDS_EACH, MEBIBYTES = 20, 1024
LAST_LINES = 60


def fuzz_one(name: str, corpus: Path, seconds: int) -> None:
    """Run one target in this process until the time is over. Never returns."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from field import fuzz_targets

    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(fuzz_targets.seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS_EACH}",
        f"-rss_limit_mb={MEBIBYTES}",
        f"-artifact_prefix={corpus.parent}/finding-{name}-",
        "-max_len=8192",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], fuzz_targets.TARGETS[name])
    atheris.Fuzz()


def run(name: str, out: Path, seconds: int) -> dict[str, object]:
    """One target in a process of its own: how often it ran, its peak memory, and whether something was found."""
    begun = time.monotonic()
    command = [sys.executable, __file__, "--one", name, "--seconds", str(seconds), "--out", str(out)]
    from field import fuzz_targets

    environment = {**os.environ, "CSK_FUZZ_SCRATCH": str(fuzz_targets.SCRATCH)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
    (out / f"{name}.log").write_text(done.stderr, encoding="utf-8")
    return {
        "target": name,
        "iterations": int(stats.get("number_of_executed_units", 0)),
        "peak_rss_mib": int(stats.get("peak_rss_mb", 0)),
        "seconds": round(time.monotonic() - begun, 1),
        "finding": done.returncode != 0,
        "exit": done.returncode,
        # Where it stopped: what a person who cannot reach `--out` has to go on.
        "last": done.stderr.splitlines()[-LAST_LINES:] if done.returncode else [],
    }


def _told(result: dict[str, object]) -> list[str]:
    """The end of the log of a target that found something, its traceback and its input in it."""
    if not result["finding"]:
        return []
    last = result["last"]
    assert isinstance(last, list)
    return [f"  exit {result['exit']}\n", *(f"  | {line}\n" for line in last)]


def main() -> None:
    """Share the minutes among the targets, print a line for each, exit 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        fuzz_one(given.one, given.out / given.one, given.seconds)
    from field import fuzz_targets

    names = given.target or list(fuzz_targets.TARGETS)
    given.out.mkdir(parents=True, exist_ok=True)
    share = max(1, round(60 * given.minutes / len(names)))
    results = []
    for name in names:
        results.append(run(name, given.out, share))
        print("{target:12} {iterations:>12,} iterations {peak_rss_mib:>5} MiB".format(**results[-1]), end="")
        print("   FINDING: see " + str(given.out) if results[-1]["finding"] else "", flush=True)
        print(*_told(results[-1]), sep="", end="", flush=True)
    total = sum(int(str(result["iterations"])) for result in results)
    seconds = sum(float(str(result["seconds"])) for result in results)
    print(f"{'all':12} {total:>12,} iterations in {seconds / 60:.1f} minutes")
    summary = {"python": platform.python_version(), "machine": platform.machine(), "targets": results}
    (given.out / "results.json").write_text(json.dumps(summary, indent=1) + "\n")
    sys.exit(any(result["finding"] for result in results))


if __name__ == "__main__":
    main()
