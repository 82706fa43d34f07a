"""What all attacks start from, made once: a bundle, tasks, states after 0, 1 and 2 tasks, and what is in them."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from field.attack import judge
from field.attack.promise import ROOT

# One thread, so that results are the same to the bit; a progress checkpoint after each step.
SETTINGS = (
    "[training]\nthreads = 1\nshift = 1\nfew_shot = 0\ntrain = 'centers'\n"
    "epochs = 4\npatience = 0\ncheckpoint_seconds = 0.0\n"
)
MODEL = ROOT / "examples/digits/digits-base4.onnx"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TASKS = {"01": (4, 5), "02": (6, 7)}


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


def csk_sdk(*arguments: str | Path) -> Done:
    """`csk-sdk ARGUMENTS` in this process."""
    from csk_sdk.cli import app

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app([str(argument) for argument in arguments], prog_name="csk-sdk")
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


class Ground:
    """The folder that `prepare` filled; attacks copy from it and never write into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def following(self) -> Path:
        """Another bundle, to which a device with the first one can be upgraded."""
        return self.folder / "following"

    def state(self, learned: int) -> Path:
        """The state after so many tasks; after 0 there is none."""
        return self.folder / "states" / str(learned)

    def expected(self) -> dict[int, judge.Bits]:
        """The bits of generations 1 and 2 after an undisturbed life."""
        return judge.look(self.state(2)).intact

    def digits(self) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 `(n, 8, 8)` and labels `(n,)`."""
        with np.load(self.folder / "digits.npz") as file:
            return file["images"], file["labels"]

    def of(self, digit: int, begin: int, end: int) -> np.ndarray:
        images, labels = self.digits()
        return images[np.flatnonzero(labels == digit)[begin:end]]

    def workspace(self, place: Path, learned: int = 0, settings: str = SETTINGS) -> Path:
        """A new workspace: links to bundle and tasks, and a state of its own."""
        place.mkdir(parents=True)
        (place / "bundle").symlink_to(self.bundle)
        (place / "tasks").symlink_to(self.folder / "tasks")
        (place / "csk.toml").write_text(settings)
        self.reset(place, learned)
        return place

    def reset(self, place: Path, learned: int) -> None:
        """The workspace's state as it was after so many tasks."""
        shutil.rmtree(place / "state", ignore_errors=True)
        if learned:
            shutil.copytree(self.state(learned), place / "state")


def task_of(ground: Ground, name: str, digits: tuple[int, ...], count: int = 20) -> Any:
    """A task of arrays, to learn from."""
    from csk_sdk import Task

    images = np.concatenate([ground.of(digit, 0, count) for digit in digits])
    labels = np.repeat(np.arange(len(digits)), count)
    return Task.from_arrays(name, images, labels, [NAMES[digit] for digit in digits])


def save_task(path: Path, ground: Ground, digits: tuple[int, ...], count: int = 20) -> None:
    """An npz task of `count` images a digit to learn from, and 5 to test with."""
    arrays = {}
    for prefix, begin, end in (("", 0, count), ("test_", 100, 105)):
        parts = [ground.of(digit, begin, end) for digit in digits]
        arrays[f"{prefix}images"] = np.concatenate(parts)
        arrays[f"{prefix}labels"] = np.repeat(np.arange(len(digits)), [len(part) for part in parts])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, class_names=np.array([NAMES[digit] for digit in digits]), **arrays)


def prepare(folder: Path) -> None:
    """Fill an empty folder; a process of its own does it, so that the harness itself never opens a graph."""
    from sklearn.datasets import load_digits

    from csk_artifacts_builder import BuildOptions, build_artifacts

    ground = Ground(folder)
    loaded = load_digits()
    images = np.round(loaded.images * 255 / 16).astype(np.uint8)
    np.savez(folder / "digits.npz", images=images, labels=loaded.target.astype(np.int64))
    base = {
        "images": np.concatenate([ground.of(digit, 0, 40) for digit in range(4)]),
        "labels": np.repeat(np.arange(4), 40),
    }
    from PIL import Image

    for index, (picture, label) in enumerate(zip(base["images"], base["labels"], strict=True)):
        (folder / "base" / NAMES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / "base" / NAMES[label] / f"{index}.png")
    facts = json.loads(MODEL.with_suffix(".json").read_text())
    normalize = facts["normalize"]
    (folder / "classes.json").write_text(json.dumps(facts["classes"]))
    options = BuildOptions(
        classes=facts["classes"],
        mean=normalize["mean"],
        std=normalize["std"],
        flip=False,
        base_data=folder / "base",
    )
    build_artifacts(MODEL, folder / "bundle", options)
    following = replace(options, features="last", upgrade_from=folder / "bundle")
    build_artifacts(MODEL, ground.following, following)
    for name, digits in TASKS.items():
        save_task(folder / "tasks" / f"{name}.npz", ground, digits)
    place = ground.workspace(folder / "learning")
    for learned in (1, 2):
        done = csk_sdk("train", "--no-evaluate", "--workspace", place)
        assert done.status == 0, done.err
        shutil.copytree(place / "state", ground.state(learned))
    look = judge.look(ground.state(2))
    assert (look.head, look.tasks, sorted(look.intact)) == (2, ("01", "02"), [1, 2])
    shutil.rmtree(place)
