"""What does the next base model keep of what a device has learned?

    python benchmarks/ota_networks.py --data DIR --model cifar100-base50.onnx --out out/living
    python benchmarks/living.py ota --data DIR --model cifar100-base50.onnx --out docs/results/living.json

csk-sdk learns five tasks of ten classes of CIFAR-100 on a bundle of the model; then that device is upgraded, without
any image of these classes, to a bundle of `further.onnx`, of `other.onnx` (both of ota_networks.py, in --cache), and of
the model itself with other options. Beside it, a device that learns the same images on that bundle. Heads only
(`few_shot` large): what is compared is the carrying over, and trained centers do not survive from one network to
another. Accuracy in percent on all test images, among all 100 classes, and on average over the five tasks among their
own ten; where only options differ, means over draws of what is learned. Rows of networks that are not in --cache are
kept from --out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.continual.data import Pictures, Stream, cut, facts_of
from numpy.typing import NDArray
from PIL import Image

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner, Task, TrainingConfig, upgrade

# Images of a class of the base to build with.
BASE = 100
# How often what is learned is drawn anew where only options differ: of one draw, accuracies differ by a few tenths.
DRAWS = 3
Seen = list[tuple[str, NDArray[np.float32], NDArray[np.str_]]]
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
    # All there are is one draw.
    draws = DRAWS if options.images < len(pictures.of("train", facts["classes"][0])) else 1
    streams = [cut(f"5x10@{options.images}", pictures, facts, seed) for seed in range(draws)]
    base = streams[0].base
    folder = _base(options.cache, pictures, base.classes)
    old = _built(options.cache / "ota-old", options.model, folder, facts)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.cache) as place:
        device = Path(place)
        learned = [_learned(old, device / str(seed), stream) for seed, stream in enumerate(streams)]
        print("as it was:", _accuracies(learned[0], _seen(learned[0], streams[0])), flush=True)
        print(
            "| upgraded to | features kept | map tells, % | learned again | carried over | difference "
            "| tasks again | tasks carried |"
        )
        print("|" + "---|" * 8)
        for title, (name, more) in UPGRADES.items():
            model = options.model if name is None else options.cache / name
            if not model.exists():
                print(f"{model} is not there: what was measured before stays", flush=True)
                rows += [row for row in _before(options) if row["upgraded to"] == title]
                continue
            new = _built(
                options.cache / f"ota-{title.replace(' ', '-').replace(',', '')}",
                model,
                folder,
                facts,
                upgrade_from=old,
                **more,
            )
            found: dict[str, list[dict[str, float]]] = {"again": [], "carried": []}
            seen: Seen = []
            for seed, stream in enumerate(streams[: draws if name is None else 1]):
                again = _learned(new, device / "again", stream)
                shutil.copytree(old, device / "carried" / "bundle")
                shutil.copytree(device / str(seed), device / "carried" / "state")
                upgrade(device / "carried/bundle", device / "carried/state", new)
                carried = Learner.open(device / "carried/bundle", device / "carried/state", CONFIG)
                # No center is trained: the features are the bundle's.
                seen = seen or _seen(again, stream)
                found["again"].append(_accuracies(again, seen))
                found["carried"].append(_accuracies(carried, seen))
                for part in ("carried", "again"):
                    shutil.rmtree(device / part)
            about = again.bundle.manifest.upgrade
            assert about is not None
            means = {
                kind: {key: float(np.mean([one[key] for one in some])) for key in some[0]}
                for kind, some in found.items()
            }
            differences = [
                round(one["all"] - other["all"], 2)
                for one, other in zip(found["carried"], found["again"], strict=True)
            ]
            row = {
                "upgraded to": title,
                "kept": f"{about.kept} of {again.bundle.manifest.head.features}",
                "explained": 100 * about.explained,
                **means,
                "differences": differences,
            }
            rows.append(row)
            ours, theirs = means["carried"], means["again"]
            print(
                f"| {title} | {row['kept']} | {row['explained']:.0f} | {theirs['all']:.1f} | {ours['all']:.1f} | "
                f"{differences} | {theirs['tasks']:.1f} | {ours['tasks']:.1f} |",
                flush=True,
            )
    return rows


def _before(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of an earlier run, of as many images."""
    found = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    rows: list[dict[str, Any]] = found.get(options.name, [])
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


def _learned(bundle: Path, state: Path, stream: Stream) -> Learner:
    learner = Learner.open(bundle, state, CONFIG)
    for task in stream.tasks:
        learner.learn(Task.from_arrays(task.name, task.train.images, task.train.labels, list(task.classes)))
    return learner


def _seen(learner: Learner, stream: Stream) -> Seen:
    """By part of the stream its test images' features, and their class names."""
    return [
        (task.name, learner.features(task.test.images), np.array(task.classes)[task.test.labels])
        for task in (stream.base, *stream.tasks)
    ]


def _accuracies(learner: Learner, seen: Seen) -> dict[str, float]:
    right, own = [], []
    head = learner.head()
    for name, features, truth in seen:
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
