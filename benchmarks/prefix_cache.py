"""What keeping the features of the frozen stem gains and costs: numbers of docs/decisions/0013.

    python benchmarks/prefix_cache.py --workspace out/cifar100/workspace --bundle bundle-int8 --out out/prefix.json

The workspace is that of benchmarks/cifar100.py. Lives differ in precision and in how prefix features are kept; each
learns the first tasks from `--pictures` of every class, in a process of its own on one thread. Seconds are CPU time of
learning one task, mean over the tasks, as other programs may be running. `--only` picks lives by a part of their name.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.learning.prefix_cache import feature_bytes
from csk_sdk.runtime.peak_memory import peak_rss_bytes

LIVES = {
    f"{precision}, {name}": {"precision": precision, **settings}
    for precision in ("int8", "exact")
    for name, settings in {
        "off": {"prefix_cache": "off"},
        "1 view": {"prefix_cache": "memory", "prefix_views": 1},
        "2 views": {"prefix_cache": "memory", "prefix_views": 2},
        "4 views": {"prefix_cache": "memory", "prefix_views": 4},
        "4 views, disk": {"prefix_cache": "disk", "prefix_views": 4},
    }.items()
} | {"in turn, off": {"precision": "int8", "prefix_cache": "off"}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--bundle", default="bundle-int8")
    parser.add_argument("--out", type=Path, default=Path("out/prefix.json"))
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=100, help="of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the lives' names")
    parser.add_argument("--life", choices=LIVES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.life:
        print(json.dumps(live(arguments, LIVES[arguments.life], arguments.life.startswith("in turn"))))
        return
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    print(f"{'':22}{'s/task':>8}{'ACC':>8}{'BWT':>8}{'all classes':>13}{'kept MB':>9}{'peak MB':>9}")
    for name in (name for name in LIVES if arguments.only in name):
        command = [sys.executable, *sys.argv, "--life", name]
        result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        found[name] = result
        print(
            f"{name:22}{result['seconds']:8.1f}{result['acc']:8.2f}{result['bwt']:8.2f}{result['all']:13.2f}"
            f"{result['kept'] / 1e6:9.1f}{result['peak'] / 1e6:9.0f}",
            flush=True,
        )
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def live(arguments: argparse.Namespace, settings: dict, in_turn: bool = False) -> dict:
    config = TrainingConfig(threads=1, seed=arguments.seed, few_shot=0, train="centers", **settings)
    names = [f"{number:02d}" for number in range(1, arguments.tasks + 1)]
    tasks = [
        some(Task.from_folder(arguments.workspace / "tasks" / name), arguments.pictures) for name in names
    ]
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner.open(arguments.workspace / arguments.bundle, folder, config)
        seconds, new = [], []
        for task in tasks:
            begun = time.process_time()
            # In turn: what a change of precision between tasks costs; predictions are int8 all along.
            precision = ("int8", "exact")[len(new) % 2] if in_turn else settings["precision"]
            learner.learn(task, replace(config, precision=precision))
            seconds.append(time.process_time() - begun)
            new.append(accuracy(learner, task, task.name))
        peak = peak_rss_bytes()
        last = [accuracy(learner, task, task.name) for task in tasks]
        whole = [accuracy(learner, task, None) for task in tasks]
    kept = 0
    if settings["prefix_cache"] != "off":
        kept = (
            len(tasks[0].train)
            * settings["prefix_views"]
            * feature_bytes(learner.bundle.view(settings["precision"]))
        )
    return {
        "seconds": float(np.mean(seconds)),
        "acc": float(np.mean(last)),
        "bwt": float(np.mean(np.subtract(last, new)[:-1])),
        "all": float(np.mean(whole)),
        "kept": kept,
        "peak": peak,
    }


def some(task: Task, each: int) -> Task:
    """The first images of every class to train on, the first 50 to test on."""
    arrays = []
    for split, count in ((task.train, each), (task.test, 50)):
        index = np.concatenate(
            [np.flatnonzero(split.labels == label)[:count] for label in range(len(task.classes))]
        )
        arrays.append((np.stack([split.images.read(int(i)) for i in index]), split.labels[index]))
    (images, labels), (test_images, test_labels) = arrays
    return Task.from_arrays(
        task.name, images, labels, task.classes, test_images=test_images, test_labels=test_labels
    )


def accuracy(learner: Learner, task: Task, head: str | None) -> float:
    """Percent right."""
    images = np.stack([task.test.images.read(index) for index in range(len(task.test))])
    return 100 * float(
        np.mean(learner.predict(images, head).labels == np.array(task.classes)[task.test.labels])
    )


if __name__ == "__main__":
    main()
