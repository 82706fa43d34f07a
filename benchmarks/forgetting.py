"""Estimated against true forgetting: python benchmarks/forgetting.py --workspace out/cifar100/workspace

The workspace is one that benchmarks/cifar100.py made. Under each setting a device learns the first tasks with nothing
forbidden, and the estimate that `max_forgetting` goes by is put beside what the old tasks really lost on their test
images. `--images` per class keep it short.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from csk_sdk import Inbox, Learner, Task, TrainingConfig

SETTINGS = {
    "defaults": {},
    "all channels": {"channel_ratio": 1.0},
    "rate 0.05": {"learning_rate": 0.05},
    "rate 0.15, all channels": {"learning_rate": 0.15, "channel_ratio": 1.0},
    "energy 0.5, all channels": {"energy": 0.5, "channel_ratio": 1.0},
    "no projection": {"energy": 0.0},
    "no projection, all channels": {"energy": 0.0, "channel_ratio": 1.0},
    "no projection, all channels, rate 0.03": {"energy": 0.0, "channel_ratio": 1.0, "learning_rate": 0.03},
    "no projection, all channels, rate 0.1": {"energy": 0.0, "channel_ratio": 1.0, "learning_rate": 0.1},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, help="another than the workspace's bundle-exact")
    parser.add_argument("--images", type=int, default=64, help="training images per class")
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--only", choices=SETTINGS, help="one setting")
    arguments = parser.parse_args()
    inbox = Inbox(arguments.workspace / "tasks")
    names = [name for name in inbox.names() if name != "base"][: arguments.tasks]
    tests = {name: thinned(inbox.open(name), None, 50 if name != "base" else 25) for name in ["base", *names]}
    trains = [thinned(inbox.open(name), arguments.images, None) for name in names]
    rows = []
    for label, settings in SETTINGS.items():
        if arguments.only in (None, label):
            bundle = arguments.bundle or arguments.workspace / "bundle-exact"
            for row in live(bundle, settings, trains, tests):
                rows.append({"setting": label, **row})
                print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


def thinned(task: Task, train: int | None, test: int | None) -> Task:
    """The first images of each class, in memory, so that they are decoded once."""
    parts = {}
    for split, count in (("train", train), ("test", test)):
        found = getattr(task, split)
        if found is not None and count:
            chosen = np.concatenate(
                [np.flatnonzero(found.labels == c)[:count] for c in range(len(task.classes))]
            )
            images = np.stack([found.images.read(int(index)) for index in chosen])
            parts[split] = images, found.labels[chosen]
    made = Task.from_arrays(task.name, *(parts.get("train") or parts["test"]), list(task.classes))
    return made if "train" in parts else replace(made, train=None, test=made.train)


def live(bundle: Path, settings: dict, trains: list[Task], tests: dict[str, Task]) -> list[dict]:
    config = TrainingConfig(threads=1, max_forgetting=100.0, few_shot=0, train="centers", **settings)
    learner, rows = Learner.open(bundle, tempfile.mkdtemp(), config), []
    before = measured(learner, [tests["base"]])
    for task in trains:
        report = learner.learn(task)
        after = measured(learner, [tests[name] for name in [*before, task.name]])
        lost = {name: before[name] - after[name] for name in before}
        rows.append(
            {
                "task": task.name,
                "estimated": report.forgetting,
                "true": round(max(lost.values()), 2),
                "of": max(lost, key=lambda name: lost[name]),
                "new": after[task.name],
            }
        )
        before = after
    return rows


def measured(learner: Learner, tasks: list[Task]) -> dict[str, float]:
    rows = learner.score(tasks).rows[-1]
    return {name: row["task"] for name, row in rows.items()}


def table(rows: list[dict]) -> str:
    lines = ["| setting | task | estimated | true | new task |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['setting']} | {r['task']} | {r['estimated']:.1f} | {r['true']:.1f} | {r['new']:.1f} |"
        for r in rows
    ]
    if len(rows) > 2:
        pairs = np.array([(r["estimated"], r["true"]) for r in rows])
        lines.append(f"\ncorrelation {np.corrcoef(pairs.T)[0, 1]:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
