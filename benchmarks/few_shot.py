"""Is training worth it with few images? python benchmarks/few_shot.py --workspace out/cifar100/workspace

The workspace is one that benchmarks/cifar100.py made. For each number of images a class, tasks are drawn: ten of the
later classes of CIFAR-100, and images of them; or five of the digits that the demo's network does not know. Each is
learned twice from the same bundle: with its centers trained as by default, and with heads only. Accuracies on test
images of the task (told the task), and of the task and the base over all classes. A draw's gain is the difference of
the two; the table gives its mean, its standard error over the draws, and how often it was above 0.
`--trained "energy=0.5 channel_ratio=1"` trains with other settings.
"""

import argparse
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from csk_sdk import Inbox, Learner, Task, TrainingConfig

TESTED, TESTED_BASE = 50, 10
HEADS = {"learning_rate": 0.0, "epochs": 1}


def main() -> None:
    parser = options(__doc__, draws=8)
    parser.add_argument("--pictures", type=int, nargs="+", default=[5, 10, 20, 50, 100])
    parser.add_argument("--trained", default="", help="settings of the trained arm, as NAME=NUMBER ...")
    arguments = parser.parse_args()
    settings = {name: json.loads(value) for name, value in (p.split("=") for p in arguments.trained.split())}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for family in arguments.family:
            for pictures in arguments.pictures:
                gains = []
                for draw in range(arguments.draws):
                    bundle, task, base = drawn(family, arguments, Path(folder), pictures, draw)
                    gains.append((arm(bundle, task, base, HEADS), arm(bundle, task, base, settings)))
                    print(json.dumps([family, pictures, draw, *gains[-1]]), flush=True)
                rows.append(row(family, pictures, gains))
    print("| task | images a class | heads only, told / all | trained | gain, told | gain, all classes |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))


def options(description: str | None, draws: int) -> argparse.ArgumentParser:
    """What every benchmark on drawn tasks is told."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, help="another than the workspace's bundle-exact")
    parser.add_argument("--draws", type=int, default=draws)
    parser.add_argument(
        "--family", choices=["CIFAR-100", "digits"], nargs="+", default=["CIFAR-100", "digits"]
    )
    return parser


def drawn(
    family: str, arguments: argparse.Namespace, folder: Path, pictures: int, draw: int
) -> tuple[Path, Task, Task]:
    """A bundle, a task with so many images a class, and the base's tests; `folder` keeps what is built."""
    rng = np.random.default_rng((pictures, draw))
    if family == "digits":
        return digits(folder, pictures, rng)
    return (
        arguments.bundle or arguments.workspace / "bundle-exact",
        *cifar(arguments.workspace, pictures, rng),
    )


def arm(bundle: Path, task: Task, base: Task, settings: dict) -> tuple[float, float]:
    """Accuracy of the task when it is told, and over all classes on the images of task and base."""
    with tempfile.TemporaryDirectory() as state:
        learner = Learner.open(
            bundle, state, TrainingConfig(threads=1, few_shot=0, train="centers", **settings)
        )
        learner.learn(task)
        return scored(learner, task, base)


def scored(learner: Learner, task: Task, base: Task) -> tuple[float, float]:
    """Accuracy of the task when it is told, and over all classes on the images of task and base."""
    scores = learner.score([base, task]).rows[-1]
    images = [scores[name]["images"] for name in ("base", task.name)]
    everything = [scores[name]["class"] for name in ("base", task.name)]
    return scores[task.name]["task"], float(np.average(everything, weights=images))


def row(family: str, pictures: int, gains: list) -> str:
    values = np.array(gains)  # draws, arms, scenarios
    differences = values[:, 1] - values[:, 0]
    means = values.mean(0)
    cells = []
    for gain in differences.T:
        error = gain.std(ddof=1) / math.sqrt(len(gain))
        cells.append(f"{gain.mean():+.2f} ± {error:.2f}, above 0 in {np.sum(gain > 0)} of {len(gain)}")
    arms = " | ".join(f"{told:.1f} / {everything:.1f}" for told, everything in means)
    return f"| {family} | {pictures} | {arms} | {' | '.join(cells)} |"


def cifar(workspace: Path, pictures: int, rng: np.random.Generator) -> tuple[Task, Task]:
    inbox = Inbox(workspace / "tasks")
    parts: list = []
    opened = [inbox.open(name) for name in inbox.names() if name != "base"]
    later = [(task, label) for task in opened for label in range(len(task.classes))]
    for position in rng.choice(len(later), 10, replace=False):
        task, label = later[position]
        parts.append(
            (
                task.classes[label],
                read(task.train, label, pictures, rng),
                read(task.test, label, TESTED, None),
            )
        )
    found = inbox.open("base")
    base = [
        (name, read(found.test, label, TESTED_BASE, None), None) for label, name in enumerate(found.classes)
    ]
    return task_of("new", parts), tests_of(base)


def read(split: object, label: int, count: int, rng: np.random.Generator | None) -> np.ndarray:
    of_class = np.flatnonzero(split.labels == label)
    chosen = (rng.permutation(of_class) if rng is not None else of_class)[:count]
    return np.stack([split.images.read(int(index)) for index in chosen])


def task_of(name: str, parts: list) -> Task:
    names = [name for name, _, _ in parts]
    stacked = []
    for position in (1, 2):
        images = [part[position] for part in parts]
        stacked += [np.concatenate(images), np.repeat(np.arange(len(parts)), [len(part) for part in images])]
    return Task.from_arrays(
        name, stacked[0], stacked[1], names, test_images=stacked[2], test_labels=stacked[3]
    )


def tests_of(parts: list) -> Task:
    images = [part[1] for part in parts]
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in images])
    made = Task.from_arrays("base", np.concatenate(images), labels, [name for name, _, _ in parts])
    return replace(made, train=None, test=made.train)


def digits(folder: Path, pictures: int, rng: np.random.Generator) -> tuple[Path, Task, Task]:
    from csk_artifacts_builder import BuildOptions, build_artifacts
    from csk_sdk.demo.digits import BASE_DIGITS, NAMES, load, model_files, write_folders

    loaded, bundle = load(), folder / "bundle"
    if not bundle.exists():
        model, facts = model_files()
        write_folders(loaded, folder / "base", folder / "tasks")
        known = {"classes": facts["classes"], **facts["normalize"], "flip": False}
        build_artifacts(model, bundle, BuildOptions(**known, base_data=folder / "base"))

    def of(digit: int, train: bool, count: int | None) -> np.ndarray:
        images, labels = (
            (loaded.train_images, loaded.train_labels) if train else (loaded.test_images, loaded.test_labels)
        )
        return rng.permutation(images[labels == digit])[:count]

    new = rng.choice([digit for digit in range(10) if digit not in BASE_DIGITS], 5, replace=False)
    task = task_of("new", [(NAMES[d], of(d, True, pictures), of(d, False, None)) for d in new])
    return bundle, task, tests_of([(NAMES[d], of(d, False, None), None) for d in BASE_DIGITS])


if __name__ == "__main__":
    main()
