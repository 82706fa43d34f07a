"""A long life: hundreds of tasks in one process, on a tiny network. python tests/field/soak.py --tasks 300

Two lives. In the first, the device learns ten tasks, then five more, goes back to the tenth, learns five others, and
so on: it learns hundreds and knows fifteen at most, so nothing may grow. At the end it knows what it knew after task
10, and its resident memory must be within 4 % of what it was when it first knew that again, having gone back twice:
what going back loads stays, and is no growth.

With `--keep-all` it keeps every task. Then heads, statistics and records of hundreds of classes are knowledge, and do
grow: by what their shapes ask for in a generation, and by no more than 32 KiB of resident memory a task (a generation
is in memory several times while the next one is made).

In both, open file descriptors stay, the state is no larger than its generations, and the first task is still known as
it was right after it was learned. Writes `--out`/soak.json; exits 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.version import __version__

TESTS = Path(__file__).parents[1]
LEVEL_AFTER, TOLERANCE, MOST_FORGOTTEN = 10, 0.04, 5.0
ROUND, MEMORY_PER_TASK = 5, 32 << 10
KEEP = 8  # the default of State.open

# On the workstation, so to say: in another process, whose libraries do not count as the device's memory.
PREPARE = """
import sys
from pathlib import Path
import numpy as np
from sklearn.datasets import load_digits
from conftest import Digits, build_digits_bundle, write_pictures
out, found = Path(sys.argv[1]), load_digits()
digits = Digits(np.round(found.images * 255 / 16).astype(np.uint8), found.target.astype(np.int64))
build_digits_bundle(out / "bundle", base_data=write_pictures(out / "base", digits, (0, 1, 2, 3), 0, 40))
np.savez(out / "digits.npz", **{str(digit): digits.of(digit, 0, 140) for digit in range(4, 10)})
"""
Digits = dict[int, NDArray[np.uint8]]


def prepare(out: Path) -> Digits:
    """Build the bundle in `out`; 140 images of each digit from 4 to 9."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    subprocess.run([sys.executable, "-c", PREPARE, str(out)], env=environment, check=True)
    with np.load(out / "digits.npz") as arrays:
        return {int(name): arrays[name] for name in arrays}


def task(digits: Digits, number: int) -> Task:
    """Two of the digits with names of their own: 20 images each to learn, 40 others to test. The first: 4 and 5."""
    rng = np.random.default_rng(number)
    pair = (4, 5) if number == 1 else tuple(int(digit) for digit in rng.permutation(list(digits))[:2])
    images = np.concatenate([digits[digit][rng.permutation(100)[:20]] for digit in pair])
    tests = np.concatenate([digits[digit][100:] for digit in pair])
    names = [f"{number:04d}-{digit}" for digit in pair]
    return Task.from_arrays(
        f"{number:04d}", images, np.repeat([0, 1], 20), names, tests, np.repeat([0, 1], 40)
    )


def resident() -> int:
    """Bytes of memory that this process needs now: without what is free already and only not given back."""
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # GNU libc; others have nothing to trim
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(learner: Learner, first: Task) -> dict[str, float]:
    """Everything that is watched."""
    assert first.test is not None
    pictures = [first.test.images.read(index) for index in range(len(first.test))]
    truth = [first.classes[label] for label in first.test.labels]
    files = [path for path in learner.state.folder.rglob("*") if path.is_file()]
    return {
        "tasks": len(learner.tasks),
        "rss": resident(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "state": sum(path.stat().st_size for path in files),
        "generation": sum(tensor.nbytes for tensor in learner.generation.tensors.values()),
        "first_task": 100.0 * float(np.mean(learner.predict(pictures, first.name).labels == np.array(truth))),
    }


def grown(learner: Learner, tasks: int) -> int:
    """Bytes that `tasks` more tasks of two classes add to a generation, by the shapes of what they need.

    A head's weight and bias (float32), sums and counts (float64), and the names as JSON.
    """
    features = learner.bundle.manifest.head.features
    names = sum(len(json.dumps(name)) + 2 for name in learner.tasks[-1].classes)
    return tasks * (2 * 4 * (features + 1) + 2 * 8 * (features + 1) + names + 2)


def _line(row: dict[str, float]) -> str:
    return (
        f"{row['learned']:5} learned, {row['tasks']:3} known   {row['rss'] / 2**20:7.1f} MiB   "
        f"{row['descriptors']:3} descriptors   state {row['state'] / 2**20:6.2f} MiB   "
        f"first task {row['first_task']:5.1f} %"
    )


def main() -> None:
    """Learn, measure every ten tasks, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--keep-all", action="store_true", help="never go back: hundreds of tasks are known")
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    given = parser.parse_args()
    if given.tasks < LEVEL_AFTER + 20:
        parser.error(
            f"--tasks must be at least {LEVEL_AFTER + 20}: memory is level after {LEVEL_AFTER + 10}."
        )
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    digits = prepare(given.out)
    learner = Learner.open(
        given.out / "bundle",
        given.out / "state",
        TrainingConfig(threads=1, epochs=2, few_shot=0, train="centers"),
    )
    first = task(digits, 1)
    rows, begun = [], time.monotonic()
    for number in range(1, given.tasks + 1):
        learner.learn(first if number == 1 else task(digits, number))
        if number > LEVEL_AFTER and number % ROUND == 0 and not given.keep_all:
            learner.rollback(f"{LEVEL_AFTER:04d}")
        if number == 1 or number % 10 == 0:
            rows.append({"learned": number, **measure(learner, first)})
            print(_line(rows[-1]), flush=True)
    after_first, level, last = rows[0], rows[1 if given.keep_all else 2], rows[-1]
    more = int(last["tasks"] - level["tasks"])
    memory = f"memory within {TOLERANCE:.0%} of its level after {int(level['learned'])} tasks"
    if more:
        memory += f", and {MEMORY_PER_TASK >> 10} KiB for each task known since"
    checks = {
        memory: last["rss"] <= (1 + TOLERANCE) * level["rss"] + more * MEMORY_PER_TASK,
        "as many file descriptors": last["descriptors"] == level["descriptors"],
        "a generation grew by heads and statistics alone": last["generation"] - level["generation"]
        <= grown(learner, more),
        # Tensors of `keep` + 1 generations; in records, 1 KiB a task in each of them and one line of history.
        "the state is no larger than its generations": last["state"]
        <= (KEEP + 1) * (max(row["generation"] for row in rows) + 1024 * (last["tasks"] + ROUND) + 65536)
        + 1024 * last["learned"],
        "the first task is still known": last["first_task"] >= after_first["first_task"] - MOST_FORGOTTEN,
    }
    summary = {
        "csk_sdk": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "seconds": round(time.monotonic() - begun, 1),
        "memory_change_percent": round(100 * (last["rss"] / level["rss"] - 1), 2),
        "memory_bytes_per_task": round((last["rss"] - level["rss"]) / more) if more else 0,
        "state_bytes_per_task": round(
            (last["state"] - level["state"]) / (last["learned"] - level["learned"])
        ),
        "generation_bytes_per_task": round((last["generation"] - level["generation"]) / more) if more else 0,
        "checks": checks,
        "rows": rows,
    }
    (given.out / "soak.json").write_text(json.dumps(summary, indent=1) + "\n")
    for name, holds in checks.items():
        print(f"{'yes' if holds else 'NO ':3}  {name}")
    print({key: summary[key] for key in summary if key.endswith(("_percent", "_per_task", "seconds"))})
    sys.exit(not all(checks.values()))


if __name__ == "__main__":
    main()
