"""What does the next base model keep of what a device has learned?

    python benchmarks/ota_networks.py --data DIR --model cifar100-base50.onnx --out out/living
    python benchmarks/living.py ota --data DIR --model cifar100-base50.onnx --out docs/results/living.json

csk-sdk learns five tasks of ten classes of CIFAR-100 on a bundle of the model; then that device is upgraded, without
any image of these classes, to a bundle of `further.onnx`, of `other.onnx` (both of ota_networks.py, in --cache), and of
the model itself with other options. Beside it, a device that learns the same images on that bundle. Heads only
(`few_shot` large): what is compared is the carrying over, and trained centers do not survive from one network to
another. Accuracy in percent among all 100 classes, and on average over the five tasks among their own ten.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.continual.data import Pictures, TaskData, cut, facts_of
from numpy.typing import NDArray
from PIL import Image

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner, Task, TrainingConfig, upgrade

# Images of a class: of the base to build with, and of all to test with.
BASE, TESTED = 100, 50
CONFIG = TrainingConfig(threads=1, few_shot=10**6)
# By title: the network's file, None for the model itself, and options of the build.
UPGRADES: dict[str, tuple[str | None, dict[str, Any]]] = {
    "trained further": ("further.onnx", {}),
    "another architecture": ("other.onnx", {}),
    "the same, --features last": (None, {"features": "last"}),
    "the same, --precision int8": (None, {"precision": "int8"}),
}


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of the table, printed as they come."""
    facts = facts_of(options.model)
    pictures = Pictures(options.data, options.cache)
    stream = cut(f"5x10@{options.images}", pictures, facts, 0)
    folder = _base(options.cache, pictures, stream.base.classes)
    old = _built(options.cache / "ota-old", options.model, folder, facts)
    tested = [_few(task) for task in (stream.base, *stream.tasks)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.cache) as place:
        device = Path(place)
        learned = _learned(old, device / "state", stream.tasks)
        print("as it was:", _accuracies(learned, tested), flush=True)
        print(
            "| upgraded to | features kept | map tells, % | learned again | carried over | difference "
            "| tasks again | tasks carried |"
        )
        print("|" + "---|" * 8)
        for title, (name, more) in UPGRADES.items():
            model = options.model if name is None else options.cache / name
            new = _built(
                options.cache / f"ota-{title.replace(' ', '-').replace(',', '')}",
                model,
                folder,
                facts,
                upgrade_from=old,
                **more,
            )
            shutil.copytree(old, device / "carried" / "bundle")
            shutil.copytree(device / "state", device / "carried" / "state")
            upgrade(device / "carried/bundle", device / "carried/state", new)
            carried = Learner.open(device / "carried/bundle", device / "carried/state", CONFIG)
            ours = _accuracies(carried, tested)
            again = _accuracies(_learned(new, device / "again", stream.tasks), tested)
            about = carried.bundle.manifest.upgrade
            assert about is not None
            row = {
                "upgraded to": title,
                "kept": f"{about.kept} of {carried.bundle.manifest.head.features}",
                "explained": 100 * about.explained,
                "again": again,
                "carried": ours,
            }
            rows.append(row)
            print(
                f"| {title} | {row['kept']} | {row['explained']:.0f} | {again['all']:.1f} | {ours['all']:.1f} | "
                f"{ours['all'] - again['all']:+.1f} | {again['tasks']:.1f} | {ours['tasks']:.1f} |",
                flush=True,
            )
            for part in ("carried", "again"):
                shutil.rmtree(device / part)
    return rows


def _base(cache: Path, pictures: Pictures, classes: tuple[str, ...]) -> Path:
    """`DIR/<class>/*.png` of the base, so many a class."""
    folder = cache / f"ota-base-{BASE}"
    if not folder.exists():
        for name in classes:
            (folder / name).mkdir(parents=True)
            for number, image in enumerate(pictures.of("train", name)[:BASE]):
                Image.fromarray(image).save(folder / name / f"{number:04d}.png")
    return folder


def _built(out: Path, model: Path, base: Path, facts: dict[str, Any], **more: Any) -> Path:
    if not out.exists():
        options = BuildOptions(classes=facts["classes"], **facts["normalize"], base_data=base, **more)
        build_artifacts(model, out, options)
    return out


def _learned(bundle: Path, state: Path, tasks: tuple[TaskData, ...]) -> Learner:
    learner = Learner.open(bundle, state, CONFIG)
    for task in tasks:
        learner.learn(Task.from_arrays(task.name, task.train.images, task.train.labels, list(task.classes)))
    return learner


def _few(task: TaskData) -> tuple[str, NDArray[np.uint8], NDArray[np.str_]]:
    """A task's name, the first test images of each class, and their class names."""
    kept = np.concatenate(
        [np.flatnonzero(task.test.labels == label)[:TESTED] for label in range(len(task.classes))]
    )
    return task.name, task.test.images[kept], np.array(task.classes)[task.test.labels[kept]]


def _accuracies(
    learner: Learner, tested: list[tuple[str, NDArray[np.uint8], NDArray[np.str_]]]
) -> dict[str, float]:
    right, own = [], []
    head = learner.head()
    for name, images, truth in tested:
        features = learner.features(images)
        right.append(np.array(head.classes)[head.logits(features).argmax(axis=1)] == truth)
        if name != "base":
            mine = learner.head(name)
            own.append(np.mean(np.array(mine.classes)[mine.logits(features).argmax(axis=1)] == truth))
    return {
        "all": 100 * float(np.mean(np.concatenate(right))),
        "base": 100 * float(np.mean(right[0])),
        "new": 100 * float(np.mean(np.concatenate(right[1:]))),
        "tasks": 100 * float(np.mean(own)),
    }
