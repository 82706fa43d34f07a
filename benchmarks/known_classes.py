"""Noisy images of classes that are known: python benchmarks/known_classes.py --workspace out/cifar100/workspace

The workspace is one that benchmarks/cifar100.py made, with `base-data` beside it. A device gets a few noisy images
of each base class. Accuracy over all base classes on clean and on noisy test images: before, with the new images
merely added to the class statistics, and in balance with the old ones. The network is not trained.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from csk_sdk import Learner, Task
from csk_sdk.method.heads import ClassStatistics, lda_head
from csk_sdk.method.known_classes import with_known_classes
from csk_sdk.objectives.classification import PRIOR_PICTURES

TEST = 30


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, help="another than the workspace's bundle-exact")
    parser.add_argument("--noise", type=float, default=30.0, help="standard deviation in grey levels")
    arguments = parser.parse_args()
    learner = Learner.open(arguments.bundle or arguments.workspace / "bundle-exact", tempfile.mkdtemp())
    old = ClassStatistics.from_tensors(learner.generation.tensors)
    test = Task.from_folder(arguments.workspace / "tasks" / "base").test
    names = tuple(learner.classes)
    clean, labels = pictures(
        test, TEST, names, Task.from_folder(arguments.workspace / "tasks" / "base").classes
    )
    rng = np.random.default_rng(1)

    def noisy(images: np.ndarray) -> np.ndarray:
        return np.clip(images + rng.normal(0.0, arguments.noise, images.shape), 0, 255).astype(np.uint8)

    features = learner.predictor().features
    tests = features(clean), features(noisy(clean))
    folders = arguments.workspace.parent / "base-data"
    drawn = base_pictures(folders, names, 60)
    seen = features(noisy(drawn.reshape(-1, *drawn.shape[2:]))).reshape(len(names), 60, -1)
    print("| noisy images a class | statistics | clean | noisy |\n|---|---|---|---|")
    show("-", "before", old, tests, labels)
    for count in (5, 10, 30, 60):
        x = seen[:, :count].reshape(-1, seen.shape[-1])
        y = np.repeat(np.arange(len(names)), count)
        learned = ClassStatistics.empty(old.features).add(x, y, names)
        show(count, "added", old.merge(learned), tests, labels)
        show(count, "balanced", with_known_classes(old, x, y, names), tests, labels)


def show(count: object, kind: str, statistics: ClassStatistics, tests: tuple, labels: np.ndarray) -> None:
    weight, bias = lda_head(statistics, PRIOR_PICTURES)
    clean, noisy = (100 * float(np.mean((x @ weight.T + bias).argmax(1) == labels)) for x in tests)
    print(f"| {count} | {kind} | {clean:.1f} | {noisy:.1f} |", flush=True)


def pictures(split: object, count: int, names: tuple, classes: tuple) -> tuple[np.ndarray, np.ndarray]:
    chosen = [np.flatnonzero(split.labels == classes.index(name))[:count] for name in names]
    images = np.stack([split.images.read(int(index)) for part in chosen for index in part])
    return images, np.repeat(np.arange(len(names)), [len(part) for part in chosen])


def base_pictures(folder: Path, names: tuple, count: int) -> np.ndarray:
    from PIL import Image

    return np.stack(
        [
            np.stack(
                [
                    np.asarray(Image.open(path).convert("RGB"))
                    for path in sorted((folder / name).iterdir())[:count]
                ]
            )
            for name in names
        ]
    )


if __name__ == "__main__":
    main()
