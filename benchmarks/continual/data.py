"""The images of a benchmark, decoded once, and the tasks that a protocol cuts them into."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .corruptions import CORRUPTIONS

# How many later classes are learned: all fifty, in the order of the json beside the model.
STREAMS = {"5x10": 10, "10x5": 5, "25x2": 2, "9x10": 10, "18x5": 5}
# Those of a base that knows ten classes.
COLD = ("9x10", "18x5")
BASE = "base"
# Between the first row of a matrix and its last one, the base is measured on one test image in so many.
BASE_SHARE = 5
_PROTOCOL = re.compile(r"(?P<kind>5x10|10x5|25x2|9x10|18x5|domain)(@(?P<images>[1-9]\d*))?")


@dataclass(frozen=True)
class Split:
    """Images `(n, h, w, 3)` uint8, and labels `(n,)` int64 into the task's classes."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class TaskData:
    """One task of a stream; `classes` are names in label order."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split


@dataclass(frozen=True)
class Stream:
    """What the network knew (`base`) and what it meets, in order.

    `classes` are all class names in label order, the base's first; `domains` says whether tasks show known classes in
    a new look, so that all tasks share one head.
    """

    base: TaskData
    tasks: tuple[TaskData, ...]
    domains: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """All names, in the order in which they are met."""
        return tuple(dict.fromkeys(name for task in (self.base, *self.tasks) for name in task.classes))

    def labels_in_all(self, task: TaskData) -> NDArray[np.int64]:
        """Index into `classes` of each of the task's classes."""
        position = {name: index for index, name in enumerate(self.classes)}
        return np.array([position[name] for name in task.classes], np.int64)


class Pictures:
    """`cifar100-{train,test}.zip` of a folder as arrays by class, kept decoded in `cache`."""

    def __init__(self, data: Path, cache: Path) -> None:
        self._splits = {split: _decoded(data, split, cache) for split in ("train", "test")}

    def of(self, split: str, name: str) -> NDArray[np.uint8]:
        """All images of one class, `(n, 32, 32, 3)`, in file-name order."""
        images, labels, names = self._splits[split]
        return images[labels == int(np.flatnonzero(names == name)[0])]

    def split(self, split: str, classes: tuple[str, ...], count: int | None = None, seed: int = 0) -> Split:
        """The images of `classes`, at most `count` of each, drawn by `seed`."""
        images, labels = [], []
        for label, name in enumerate(classes):
            found = self.of(split, name)
            if count is not None and count < len(found):
                found = found[np.sort(np.random.default_rng((seed, label)).permutation(len(found))[:count])]
            images.append(found)
            labels.append(np.full(len(found), label, np.int64))
        return Split(np.concatenate(images), np.concatenate(labels))


def _decoded(data: Path, split: str, cache: Path) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any]]:
    kept = cache / f"cifar100-{split}.npz"
    if not kept.exists():
        images, labels = [], []
        with zipfile.ZipFile(data / f"cifar100-{split}.zip") as archive:
            files = sorted(name for name in archive.namelist() if name.endswith(".png"))
            names = sorted({name.partition("/")[0] for name in files})
            for name in files:
                with Image.open(io.BytesIO(archive.read(name))) as picture:
                    images.append(np.asarray(picture.convert("RGB")))
                labels.append(names.index(name.partition("/")[0]))
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(kept, images=np.stack(images), labels=np.array(labels), names=np.array(names))
    with np.load(kept) as arrays:
        return arrays["images"], arrays["labels"], arrays["names"]


def facts_of(model: Path) -> dict[str, Any]:
    """The json beside the model: its classes, the later ones in order, the normalisation."""
    facts: dict[str, Any] = json.loads(model.with_suffix(".json").read_text())
    return facts


def cut(protocol: str, pictures: Pictures, facts: dict[str, Any], seed: int = 0) -> Stream:
    """The stream of a protocol of STREAMS, or `domain`, with `@N` at most N training images a class.

    The seed draws the images where N is given, and the noise of corrupted ones. Raises ValueError for another name, or
    a base with another number of classes to learn.
    """
    match = _PROTOCOL.fullmatch(protocol)
    if match is None:
        raise ValueError(
            f"protocol is '{protocol}'; it must be {', '.join(STREAMS)} or domain, perhaps with @N."
        )
    count = None if match["images"] is None else int(match["images"])
    known = tuple(facts["classes"])
    base = TaskData(BASE, known, pictures.split("train", known), pictures.split("test", known))
    if match["kind"] == "domain":
        return Stream(base, _domains(base, pictures, count, seed), domains=True)
    later = facts["later_classes_in_order"]
    size = STREAMS[match["kind"]]
    if match["kind"] != f"{len(later) // size}x{size}" or len(later) % size:
        raise ValueError(f"protocol is '{protocol}', and {len(later)} classes are left to be learned.")
    tasks = []
    for start in range(0, len(later), size):
        classes = tuple(sorted(later[start : start + size]))
        train = pictures.split("train", classes, count, seed)
        tasks.append(TaskData(f"{start // size + 1:02d}", classes, train, pictures.split("test", classes)))
    return Stream(base, tuple(tasks), domains=False)


def _domains(base: TaskData, pictures: Pictures, count: int | None, seed: int) -> tuple[TaskData, ...]:
    """The base classes behind one corruption after another; other images of the training set each time if it can."""
    tasks = []
    for number, (name, corrupt) in enumerate(CORRUPTIONS.items()):
        train = pictures.split("train", base.classes, count, seed + number)
        rng = np.random.default_rng((seed, number))
        splits = [Split(corrupt(part.images, rng), part.labels) for part in (train, base.test)]
        tasks.append(TaskData(name, base.classes, *splits))
    return tuple(tasks)
