"""What a whole lesson costs, beside an earlier build and beside torch: one process a lesson, in turn.

    python benchmarks/lesson_times.py --data DIR --model cifar100-base50.onnx --torch PYTHON --before CHECKOUT \
        --sizes 5x20 5x100 --rounds 3 --out docs/results/lesson-times.json --write docs/lesson-times.md

`--sizes` are classes and training images a class; of `5x20@224` the images are scaled up for the network of
`--model-224`, which benchmarks/lesson_network.py makes. Every way learns the same images of CIFAR-100 in the same
round, on one thread, and is tested on the same test images. `--before` is a checkout of an earlier commit, whose own
builder makes its bundle. `--torch` is a Python with torch and csk-sdk's extra `benchmarks`, `--ort-training` one with
its extra `ort-training-test` (the two never share an environment), and `--node` a Node, for which `npm run build:tools`
was run in device_runners/js. A way whose program is not given has no row, nor one that `--ways` leaves out. What
`--out` has of other sizes is kept. Linux only: the peak of memory is begun anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FROZEN = {"few_shot": 10**6}
TRAINED = {"few_shot": 0, "train": "centers"}
# The build before trained centers by default, and may know no other way.
TRAINED_BEFORE = {"few_shot": 0}
NOW, BEFORE, TORCH, ORT_TRAINING, NODE, WASM = "now", "before", "torch", "ort-training", "node", "wasm"
INT8 = {"precision": "int8"}


@dataclass(frozen=True)
class Way:
    """A row of the tables: `by` is the build or runtime that learns, `method` one of benchmarks/continual for torch."""

    title: str
    by: str
    method: str = ""
    build: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


WAYS = {
    "heads": Way("csk-sdk, heads on the frozen backbone", NOW, settings=FROZEN),
    "heads-before": Way("heads, the build before", BEFORE, settings=FROZEN),
    "auto": Way("csk-sdk, train = auto", NOW, settings={**TRAINED, "train": "auto"}),
    "centers": Way("csk-sdk, centers", NOW, settings=TRAINED),
    "centers-before": Way("centers, the build before", BEFORE, settings=TRAINED_BEFORE),
    "int8": Way("csk-sdk, centers, int8", NOW, build=INT8, settings=TRAINED),
    "int8-before": Way("centers, int8, the build before", BEFORE, build=INT8, settings=TRAINED_BEFORE),
    "node-heads": Way("csk-sdk in Node, heads", NODE, settings=FROZEN),
    "node-centers": Way("csk-sdk in Node, centers", NODE, settings=TRAINED),
    "node-int8": Way("csk-sdk in Node, centers, int8", NODE, build=INT8, settings=TRAINED),
    "wasm-heads": Way("csk-sdk in WebAssembly, heads", WASM, settings=FROZEN),
    "wasm-centers": Way("csk-sdk in WebAssembly, centers", WASM, settings=TRAINED),
    "wasm-int8": Way("csk-sdk in WebAssembly, centers, int8", WASM, build=INT8, settings=TRAINED),
    "ort-training": Way(
        "onnxruntime-training, the centers of csk-sdk",
        ORT_TRAINING,
        build={"backend": "ort-training"},
        settings=TRAINED,
    ),
    "torch-heads": Way("torch, head only", TORCH, "head-only"),
    "torch-fecam": Way("torch, FeCAM", TORCH, "fecam"),
    "torch-full": Way("torch, full fine-tuning", TORCH, "finetune"),
}
# What each way is compared with, by the goals that were set for it.
BASES = {
    "heads": ("heads-before", "torch-heads"),
    "auto": ("centers", "centers-before"),
    "centers": ("centers-before", "torch-full", "ort-training"),
    "int8": ("int8-before", "torch-full", "ort-training"),
    **{f"{where}-{way}": (way,) for where in (NODE, WASM) for way in ("heads", "centers", "int8")},
}
PARTS = ("front", "steps", "behind")


def main() -> None:
    options = _options()
    if options.one:
        _one(options)
        return
    found = json.loads(options.out.read_text()) if options.out.exists() else {"sizes": {}}
    with tempfile.TemporaryDirectory() as folder:
        options.place = Path(folder)
        for size in options.sizes:
            found["sizes"][size] = _measured(options, size)
            found["machine"] = (
                f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
            )
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    if options.write:
        options.write.write_text(page(found))


def _measured(options: argparse.Namespace, size: str) -> dict[str, list[dict[str, float]]]:
    """By way, what each round gave."""
    rows: dict[str, list[dict[str, float]]] = {}
    given = {
        NOW: True, BEFORE: options.before, TORCH: options.torch, ORT_TRAINING: options.ort_training,
        NODE: options.node, WASM: options.node,
    }  # fmt: skip
    ways = [name for name in WAYS if name in options.ways and given[WAYS[name].by]]
    for number in range(options.rounds):
        # Not always the same one behind the same other.
        for name in ways[number % len(ways) :] + ways[: number % len(ways)]:
            row = _in_a_process(options, name, size, number)
            rows.setdefault(name, []).append(row)
            print(size, number, name, row, flush=True)
    return {name: rows[name] for name in ways}


def _in_a_process(options: argparse.Namespace, name: str, size: str, number: int) -> dict[str, float]:
    way = WAYS[name]
    root = options.before if way.by == BEFORE else ROOT
    packages = [root / "sdk", root / "artifacts_builder", root / "device_runners", root]
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        "PYTHONPATH": os.pathsep.join(str(one) for one in packages),
    }
    large = size.endswith("@224")
    # Earlier builds called bundles of two networks by one name.
    cache = options.cache / "224" if large else options.cache
    cache.mkdir(parents=True, exist_ok=True)
    python = {TORCH: options.torch, ORT_TRAINING: options.ort_training}.get(way.by) or sys.executable
    command = [
        python, str(Path(__file__).resolve()), "--one", name, "--data", options.data, "--cache", cache,
        *("--model", options.model_224 if large else options.model),
        *("--sizes", size, "--rounds", number, "--out", options.place / "one.json"),
        *(("--node", options.node) if options.node else ()),
    ]  # fmt: skip
    subprocess.run(
        [str(part) for part in command],
        check=True,
        env=environment,
        cwd=options.place,
        stdout=subprocess.DEVNULL,
    )
    found: dict[str, float] = json.loads((options.place / "one.json").read_text())
    return found


def _one(options: argparse.Namespace) -> None:
    """One lesson, in this process."""
    way, (size,), number = WAYS[options.one], options.sizes, options.rounds
    # Another build's modules stand in front of this folder's.
    sys.path.remove(str(ROOT))
    sys.path.append(str(ROOT))
    from benchmarks.lesson_data import Size, lesson_of

    stream, task, facts = lesson_of(Size.of(size), number, options.model, options.data, options.cache)
    learn = {TORCH: _by_torch, NODE: _by_javascript, WASM: _by_javascript}.get(way.by, _by_product)
    options.out.write_text(json.dumps(learn(way, stream, task, options, facts)))


def _by_javascript(
    way: Way, stream: Any, task: Any, options: argparse.Namespace, _: dict[str, Any]
) -> dict[str, float]:
    from benchmarks.continual.product import bundle
    from benchmarks.lesson_javascript import learned

    built = bundle(options.model, options.data, options.cache, way.build)
    return learned(options.node, way.by, built, way.settings, stream, task)


def _by_product(way: Way, stream: Any, task: Any, options: argparse.Namespace, _: Any) -> dict[str, float]:
    from benchmarks.continual.product import bundle

    from csk_sdk import Learner, Task, TrainingConfig

    # Imports are not counted, and opening a bundle would be what imports it.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: F401

    built = bundle(options.model, options.data, options.cache, way.build)
    given = Task.from_arrays(task.name, task.train.images, task.train.labels, list(task.classes))
    backend = way.build.get("backend", "auto")
    used = _Used()
    begun: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as state:
        learner = Learner.open(built, Path(state), TrainingConfig(threads=1, **way.settings), backend=backend)
        learner.learn(
            given, on_progress=lambda progress: begun.setdefault(progress.phase, used.so_far()["cpu"])
        )
        row = used.so_far()
        behind = begun["consolidate"]
        front = begun.get("train", behind)
        row |= {"front": front, "steps": behind - front, "behind": row["cpu"] - behind}

        def right(one: Any, name: str | None, every: int = 1) -> float:
            images, labels = one.test.images[::every], one.test.labels[::every]
            said = learner.predict(images) if name is None else learner.predict(images, name)
            return 100 * float(np.mean(np.asarray(said.labels) == np.array(one.classes)[labels]))

        return {
            **row,
            "task": right(task, task.name),
            "all": right(task, None),
            "base": right(stream.base, None, 5),
        }


def _by_torch(
    way: Way, stream: Any, task: Any, options: argparse.Namespace, facts: dict[str, Any]
) -> dict[str, float]:
    from dataclasses import replace

    import torch
    from benchmarks.continual import torch_runs
    from benchmarks.continual.__main__ import _rate
    from benchmarks.continual.data import Split
    from benchmarks.continual.methods import METHODS
    from benchmarks.continual.network import Network
    from benchmarks.continual.pictures import Batches

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Network(options.model, METHODS[way.method].layers)
    side = task.train.images.shape[1]
    batches = Batches(facts["normalize"], 0, side // 16)
    known = torch_runs._base_statistics(network, stream, batches, options.cache)
    stream = replace(stream, tasks=(task,))
    method = METHODS[way.method](network, stream, batches, 0, _rate(way.method))
    method.heads["base"] = network.head
    life = torch_runs.Life(method, known, {"base": network.head})
    method.start()
    # The stream's own benchmark looks at test images in front of a task.
    few = replace(task, test=Split(task.test.images[:1], task.test.labels[:1]))
    used = _Used()
    torch_runs.learn(life, few, batches, torch_runs.EPOCHS)
    row = used.so_far()
    torch_runs._evaluate(life, stream, batches, 1)
    (base, all_classes), (_, own) = life.rows["class, our head"][-1], life.rows["task, our head"][-1]
    return {**row, "task": own, "all": all_classes, "base": base}


def _memory(name: str) -> float:
    """A line of the process's memory in MiB, such as VmRSS."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


class _Used:
    """What a lesson takes, from when this is made."""

    def __init__(self) -> None:
        # The peak begins anew (Linux).
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _memory("VmRSS")
        self._begun, self._used = time.monotonic(), time.process_time()

    def so_far(self) -> dict[str, float]:
        """CPU and wall time in seconds, and the peak of resident memory in MiB over what was there before."""
        cpu, wall = time.process_time() - self._used, time.monotonic() - self._begun
        return {"cpu": cpu, "wall": wall, "peak": _memory("VmHWM") - self._before}


def page(found: dict[str, Any]) -> str:
    """The page of what was found."""
    parts = [HEAD.format(machine=found["machine"])]
    for size, rows in found["sizes"].items():
        classes, images = size.split("x")
        middle = {
            name: {key: statistics.median(row[key] for row in of) for key in of[0]}
            for name, of in rows.items()
        }
        rounds = len(next(iter(rows.values())))
        count, _, side = images.partition("@")
        scaled = SCALED.format(side=side) if side else ""
        parts.append(f"## {classes} classes of {count} images{scaled and f' of {side}x{side}'}\n")
        parts.append(f"{scaled}Medians of {rounds} lessons.\n")
        parts.append(
            "| | CPU, s | by the clock, s | peak, MiB | task-incremental, % | class-incremental, % | base, % |\n"
            "|---|---|---|---|---|---|---|"
        )
        for name, one in middle.items():
            values = (f"{one[key]:.{digits}f}" for key, digits in SHOWN)
            parts.append(f"| {WAYS[name].title} | {' | '.join(values)} |")
        parts.append(
            "\nCPU time over that of another way, round by round, median:\n\n| | of | |\n|---|---|---|"
        )
        for name, others in BASES.items():
            for other in others:
                if name in rows and other in rows:
                    pairs = zip(rows[name], rows[other], strict=True)
                    ratio = statistics.median(mine["cpu"] / theirs["cpu"] for mine, theirs in pairs)
                    parts.append(f"| {WAYS[name].title} | {WAYS[other].title} | {ratio:.2f} |")
        parts += _parts(rows)
        parts.append("")
    return "\n".join(parts)


def _parts(rows: dict[str, list[dict[str, float]]]) -> list[str]:
    """Where the CPU time of a lesson goes, and behind the steps over that of Python, round by round."""
    told = {name: of for name, of in rows.items() if all(part in row for row in of for part in PARTS)}
    if not told:
        return []
    lines = [
        "\nCPU seconds in front of the steps, of them, and behind them:\n",
        "| | in front | steps | behind | behind, of Python's |\n|---|---|---|---|---|",
    ]
    for name, of in told.items():
        where, _, way = name.partition("-")
        python = told.get(way) if where in (NODE, WASM) else None
        ratio = ""
        if python:
            pairs = zip(of, python, strict=True)
            ratio = f"{statistics.median(mine['behind'] / theirs['behind'] for mine, theirs in pairs):.2f}"
        seconds = (f"{statistics.median(row[part] for row in of):.2f}" for part in PARTS)
        lines.append(f"| {WAYS[name].title} | {' | '.join(seconds)} | {ratio} |")
    return lines


SCALED = (
    "ResNet-18 with random weights, and CIFAR's images scaled up to {side}x{side}: what is said of time and memory\n"
    "holds for any weights, accuracies say nothing. The base's statistics are of 20 images a class. "
)
SHOWN = (("cpu", 2), ("wall", 2), ("peak", 0), ("task", 1), ("all", 1), ("base", 1))
HEAD = """# What a whole lesson costs

Written by `python benchmarks/lesson_times.py --write docs/lesson-times.md` from
[results/lesson-times.json](results/lesson-times.json); do not edit it by hand.

CIFAR-100 on a network of 1.2 million parameters that knows 50 classes: one lesson, from opening the bundle to what is
committed on the disk, in a process of its own and on one thread; reading images and imports are not counted. *Peak*: of
resident memory, over what the process had when the lesson began. Every way learns the same images in a round, one
behind the other; class- and task-incremental accuracy are of the lesson's classes, *base* that of the base's among all.
*The build before* is commit 36b1ee1 of 2026-11-28 with its own bundle. In torch, methods are those of
[the streams](results.md), on the network's last features, with heads fitted as csk-sdk's, and without guards; nothing
of them is written to the disk. *Base* is over a fifth of its test images, in torch over all.
onnxruntime-training is csk-sdk's backend of that name, which trains all centers of a site and uses a quarter, in an
environment of its own. WebAssembly runs in Node, whose engine is Chromium's, since a page cannot ask for CPU time. In
both, compiling JavaScript counts, which whoever learns again has behind them ([a second task](javascript.md#a-task)).

{machine}; the machine did other work, too, so that ratios say more than seconds.

Aimed at, for five classes of 100 images: heads at most 0.35 of the build before and 1.3 of torch's head only, centers
at most 0.55, int8 at most 0.5; for ten of 500, of torch's full fine-tuning: centers at most 0.9, int8 0.6, heads 0.2.
Of a lesson of heads six tenths are a pass over its images; the rest is what a lesson does for known classes, and says
of the new ones. In one that trains, steps go over [the images that the gradient comes
from](decisions/0039-gradient-share.md). A task-incremental accuracy here is of 500 test images.
"""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--torch", help="a Python with torch; without, no row of torch")
    parser.add_argument("--ort-training", help="a Python with onnxruntime-training; without, no row of it")
    parser.add_argument("--node", help="Node; without, no row of JavaScript")
    parser.add_argument("--model-224", type=Path, help="for sizes with @224")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS), metavar="WAY")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit; without, no row of it")
    parser.add_argument("--sizes", nargs="*", default=["5x20", "5x100"])
    parser.add_argument("--rounds", type=int, default=3, help="lessons, of other classes each")
    parser.add_argument("--cache", type=Path, default=Path("out/lesson-times").resolve())
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/lesson-times.json")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if any(size.endswith("@224") for size in options.sizes) and not (options.one or options.model_224):
        parser.error("sizes with @224 need --model-224: benchmarks/lesson_network.py makes one")
    return options


if __name__ == "__main__":
    main()
