"""The lessons that benchmarks/lesson_times.py measures: of CIFAR-100 as it is, or scaled up for a larger network."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.continual.data import Pictures, Split, Stream, TaskData, cut, facts_of
from numpy.typing import NDArray
from PIL import Image

# How many tasks a protocol of benchmarks/continual cuts the classes into, by classes a task.
PROTOCOLS = {5: "10x5", 10: "5x10"}
OWN_SIDE = 32
# Of large images, so many of a class are known from the base, and tested.
_FEW_KNOWN, _FEW_TESTED, _FEW_TESTED_KNOWN = 20, 20, 10
_SIZE = re.compile(r"(5|10)x([1-9]\d*)(?:@(224))?")


@dataclass(frozen=True)
class Size:
    """Classes of a lesson, training images of each, and pixels of their sides: `5x20`, `5x20@224`."""

    classes: int
    images: int
    side: int = OWN_SIDE

    @classmethod
    def of(cls, text: str) -> Size:
        """Raises ValueError for what is none."""
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(
                f"size is '{text}'; it must be 5 or 10 classes x images, perhaps with @224: 5x20."
            )
        return cls(int(match[1]), int(match[2]), int(match[3] or OWN_SIDE))


def lesson_of(
    size: Size, number: int, model: Path, data: Path, cache: Path
) -> tuple[Stream, TaskData, dict[str, Any]]:
    """The stream, its task `number`, whose images the same number draws, and the facts of the model."""
    facts = facts_of(model)
    stream = cut(f"{PROTOCOLS[size.classes]}@{size.images}", Pictures(data, cache), facts, number)
    task = stream.tasks[number]
    if size.side == OWN_SIDE:
        return stream, task, facts
    known = replace(
        stream.base, train=_few(stream.base.train, _FEW_KNOWN), test=_few(stream.base.test, _FEW_TESTED_KNOWN)
    )
    task = scaled(replace(task, test=_few(task.test, _FEW_TESTED)), size.side)
    _few_pictures(data / "cifar100-train.zip", facts["classes"], cache / f"base-data-{model.stem}")
    # Where earlier builds look for it.
    if not (cache / "base-data").exists():
        (cache / "base-data").symlink_to(f"base-data-{model.stem}")
    return replace(stream, base=scaled(known, size.side), tasks=(task,)), task, facts


def scaled(task: TaskData, side: int) -> TaskData:
    """Its images with sides of so many pixels."""
    return replace(
        task,
        train=Split(_scaled(task.train.images, side), task.train.labels),
        test=Split(_scaled(task.test.images, side), task.test.labels),
    )


def _scaled(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    found = np.empty((len(images), side, side, images.shape[-1]), np.uint8)
    for image, out in zip(images, found, strict=True):
        out[:] = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    return found


def _few(split: Split, count: int) -> Split:
    """The first images of each class."""
    kept = np.sort(
        np.concatenate([np.flatnonzero(split.labels == label)[:count] for label in np.unique(split.labels)])
    )
    return Split(split.images[kept], split.labels[kept])


def _few_pictures(archive: Path, classes: list[str], folder: Path) -> None:
    """The base data of a bundle: where they lie already, benchmarks/continual unpacks no others."""
    if folder.exists():
        return
    with zipfile.ZipFile(archive) as zipped:
        for name in classes:
            files = sorted(
                file for file in zipped.namelist() if file.startswith(f"{name}/") and file[-1] != "/"
            )
            (folder / name).mkdir(parents=True)
            for file in files[:_FEW_KNOWN]:
                with Image.open(io.BytesIO(zipped.read(file))) as picture:
                    picture.convert("RGB").save(folder / name / Path(file).name)
