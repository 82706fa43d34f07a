"""How does a device's life scale: known tasks, images in a task, classes in a task?

    python benchmarks/scale.py --out docs/results/scale.json     (about ten minutes on a quiet core)

Three tables, of the demo's network on 8x8 images and one thread. The first learns one small task after another (two
classes, four images each) and looks, at some numbers of known tasks, at the CPU time of the tasks around it, at what
opening the state and its first prediction takes, and at what they leave on the disk and in memory. The others learn one
task of many images, or of many classes, each in a process of its own whose peak memory is told.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.demo.digits import build_bundle
from csk_sdk.runtime.peak_memory import peak_rss_bytes, resident_bytes

AROUND = 5
CONFIG = TrainingConfig(threads=1)


def drawn(classes: int, pictures: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images `(classes * images, 8, 8)` around one random image for each class, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(classes * pictures) % classes
    means = rng.integers(0, 256, (classes, 8, 8)).astype(np.float32)
    noisy = means[labels] + rng.normal(0, 40, (len(labels), 8, 8)).astype(np.float32)
    return np.clip(noisy, 0, 255).astype(np.uint8), labels


def task(number: int, classes: int = 2, pictures: int = 4) -> Task:
    """One of classes with names of its own."""
    names = [f"{number}-{index}" for index in range(classes)]
    return Task.from_arrays(f"{number:05d}", *drawn(classes, pictures, number), names)


def bytes_in(folder: Path) -> int:
    """Of all files in a folder."""
    return sum(size for _, size in files_in(folder).values())


def files_in(folder: Path) -> dict[Path, tuple[int, int]]:
    """By its path, a file's inode and bytes: each change of a state makes a new file."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (status.st_ino, status.st_size) for path, status in found.items()}


def written(before: dict[Path, tuple[int, int]], after: dict[Path, tuple[int, int]]) -> int:
    """The bytes of what is new."""
    return sum(one[1] for path, one in after.items() if before.get(path) != one)


def opening(bundle: Path, state: Path) -> dict[str, float]:
    """CPU milliseconds of opening a state and of the first and a later prediction of one image, over all classes."""
    picture = drawn(1, 1, 0)[0]
    begun = time.process_time()
    learner = Learner.open(bundle, state, CONFIG)
    opened = time.process_time()
    learner.predict(picture)
    first = time.process_time()
    for _ in range(20):
        learner.predict(picture)
    then = time.process_time()
    return {
        "open_ms": 1e3 * (opened - begun),
        "first_ms": 1e3 * (first - opened),
        "predict_ms": 50 * (then - first),
    }


def openings(bundle: Path, state: Path) -> dict[str, float]:
    """The median of several: other processes take a share of a short look's caches."""
    found = [opening(bundle, state) for _ in range(AROUND)]
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def life(bundle: Path, state: Path, tiers: list[int]) -> list[dict[str, Any]]:
    """What tasks cost around each number of known ones."""
    learner = Learner.open(bundle, state, CONFIG)
    rows, times = [], []
    for number in range(1, max(tiers) + 1):
        before = files_in(state) if number in tiers else {}
        begun = time.process_time()
        learner.learn(task(number))
        times.append(time.process_time() - begun)
        if number in tiers:
            newest = state / "generations" / f"{number:06d}"
            row = {
                "known": number,
                "learn_s": statistics.median(times[-AROUND:]),
                **openings(bundle, state),
                "tensors_bytes": newest.with_suffix(".safetensors").stat().st_size,
                "record_bytes": newest.with_suffix(".json").stat().st_size,
                "state_bytes": bytes_in(state),
                "written_bytes": written(before, files_in(state)),
                "resident_bytes": resident_bytes(),
            }
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def one_task(bundle: Path, state: Path, classes: int, pictures: int) -> dict[str, Any]:
    """A fresh device learns a single task."""
    learner = Learner.open(bundle, state, CONFIG)
    given = task(1, classes, pictures)
    before, begun = peak_rss_bytes(), time.process_time()
    report = learner.learn(given)
    return {
        "classes": classes,
        "pictures": report.images,
        "learn_s": time.process_time() - begun,
        "peak_bytes": report.peak_rss_bytes,
        "before_bytes": before,
    }


def apart(bundle: Path, classes: int, pictures: int) -> dict[str, Any]:
    """The same in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", str(bundle), folder, str(classes), str(pictures)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    print(done.stdout.strip(), file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def mib(count: float) -> str:
    """In MiB, or in kB where that is little."""
    return f"{count / 2**20:,.0f} MiB" if count >= 2**20 else f"{count / 1e3:,.0f} kB"


def each_class(few: dict[str, Any], many: dict[str, Any]) -> str:
    """What one known class more costs, between two numbers of known tasks."""
    classes = 2 * (many["known"] - few["known"])

    def more(key: str, times: float) -> float:
        return times * float(many[key] - few[key]) / classes

    costs = (
        f"{more('learn_s', 1e3):.3f} ms of a lesson",
        f"{more('first_ms', 1):.3f} ms of a first prediction",
        f"{more('predict_ms', 1):.4f} ms of a later one",
        f"{more('written_bytes', 1e-3):.1f} kB that a commit writes",
        f"{more('state_bytes', 1e-3):.1f} kB of the state",
        f"{more('resident_bytes', 1e-3):.1f} kB of memory",
    )
    return f"Between {few['known']:,} and {many['known']:,} tasks, a known class costs {', '.join(costs)}."


def page(found: dict[str, Any]) -> str:
    """The tables of docs/device-memory.md."""
    lines = [
        "| known tasks | learning one more | open | first prediction | a later one | tensors | record | "
        "a commit writes | state | resident |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    shown = ("tensors", "record", "written", "state", "resident")
    for row in found["life"]:
        sizes = " | ".join(mib(row[f"{name}_bytes"]) for name in shown)
        lines.append(
            f"| {row['known']:,} | {row['learn_s']:.3f} s | {row['open_ms']:.0f} ms | {row['first_ms']:.0f} ms | "
            f"{row['predict_ms']:.2f} ms | {sizes} |"
        )
    # The first task of a process has more to do than others.
    if len(found["life"]) > 2:
        lines += ["", each_class(found["life"][1], found["life"][-1])]
    lines += ["", "| one task | CPU time | for each image | peak memory |", "|---|---|---|---|"]
    for row in found["tasks"]:
        lines.append(
            f"| {row['classes']:,} classes, {row['pictures']:,} images | {row['learn_s']:.1f} s | "
            f"{1e3 * row['learn_s'] / row['pictures']:.2f} ms | {mib(row['peak_bytes'])} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the tables, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--known", type=int, nargs="+", default=[1, 10, 50, 100, 200, 400, 1000])
    parser.add_argument("--pictures", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 500, 2000])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        bundle, folder, *counts = given.one
        print(json.dumps(one_task(Path(bundle), Path(folder) / "state", *map(int, counts))))
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = build_bundle(Path(folder) / "bundle")
        found: dict[str, Any] = {
            "versions": {name: metadata.version(name) for name in ("numpy", "onnxruntime")},
            "python": platform.python_version(),
            "life": life(bundle, Path(folder) / "state", sorted(given.known)),
            "tasks": [
                *(apart(bundle, 10, count // 10) for count in given.pictures),
                *(apart(bundle, count, 4) for count in given.classes),
            ],
        }
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(page(found))


if __name__ == "__main__":
    main()
