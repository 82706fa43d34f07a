"""What many tests share: scikit-learn's digits as tasks, and a small bundle whose model knows 0 to 3."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As the Makefile does: some tests compare bits, and BLAS rounds by its number of threads. Before NumPy is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image

from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.demo import digits as demo_digits

REPOSITORY = Path(__file__).parents[1]
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(autouse=True)
def _as_nice_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in the tests' own process, which `watch` would leave slower for all that follow."""
    if hasattr(os, "nice"):
        monkeypatch.setattr(os, "nice", lambda increment: increment)


_fstat = os.fstat


def _synced(descriptor: int) -> None:
    """Refuses what is no open file, as `os.fsync` does."""
    _fstat(descriptor)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Which files are synced, and when, is what tests see: no power fails here. What they start as a process syncs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _synced)
        yield


@dataclass(frozen=True)
class Digits:
    """scikit-learn's digits: images uint8 `(n, 8, 8)`, labels int64 `(n,)`.

    The first 100 of each are to train on, the others to test.
    """

    images: np.ndarray
    labels: np.ndarray

    def of(self, digit: int, begin: int, end: int) -> np.ndarray:
        """Images `begin` to `end` of one digit."""
        return self.images[np.flatnonzero(self.labels == digit)[begin:end]]

    def arrays(self, digits: tuple[int, ...], begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Images of some digits, and their positions in `digits` as labels."""
        parts = [self.of(digit, begin, end) for digit in digits]
        return np.concatenate(parts), np.repeat(np.arange(len(digits)), [len(part) for part in parts])

    def task(self, name: str, digits: tuple[int, ...], train: int = 40, test: int = 40) -> Task:
        """A task of `train` and (other) `test` images per digit, with classes called "four", "five", ..."""
        images, labels = self.arrays(digits, 0, train)
        held_out = dict(
            zip(("test_images", "test_labels"), self.arrays(digits, 100, 100 + test), strict=True)
        )
        classes = [NAMES[digit] for digit in digits]
        return Task.from_arrays(name, images, labels, classes, **held_out if test else {})

    def save(self, task: Task, tasks: Path) -> Path:
        """Write a task of arrays into an inbox, as an npz file."""
        tasks.mkdir(parents=True, exist_ok=True)
        assert task.train is not None
        arrays: dict[str, Any] = {"class_names": np.array(task.classes)}
        for prefix, split in (("", task.train), ("test_", task.test)):
            if split is not None:
                arrays[f"{prefix}images"] = np.stack([split.images.read(i) for i in range(len(split))])
                arrays[f"{prefix}labels"] = split.labels
        path = tasks / f"{task.name}.npz"
        np.savez(path, **arrays)
        return path


@pytest.fixture(scope="session")
def digits() -> Digits:
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return Digits(np.round(loaded.images * 255 / 16).astype(np.uint8), loaded.target.astype(np.int64))


def write_pictures(folder: Path, digits: Digits, chosen: tuple[int, ...], begin: int, end: int) -> Path:
    """`folder/<class>/0000.png` and so on."""
    for digit in chosen:
        (folder / NAMES[digit]).mkdir(parents=True)
        for index, picture in enumerate(digits.of(digit, begin, end)):
            Image.fromarray(picture).save(folder / NAMES[digit] / f"{index:04d}.png")
    return folder


def build_digits_bundle(out: Path, **options: Any) -> Path:
    """A bundle of the demo's base model; `options` are more of BuildOptions."""
    return demo_digits.build_bundle(out, **options)


@pytest.fixture(scope="session")
def base_data(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    """PNGs of the base digits, 40 a class."""
    return write_pictures(tmp_path_factory.mktemp("base") / "base", digits, (0, 1, 2, 3), 0, 40)


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory, base_data: Path) -> Path:
    """A bundle that knows the digits 0 to 3, protected. Read only: copy it before changing it."""
    return build_digits_bundle(tmp_path_factory.mktemp("bundle") / "bundle", base_data=base_data)


@pytest.fixture(scope="session")
def kernels_bundle(tmp_path_factory: pytest.TempPathFactory, base_data: Path) -> Path:
    """The same, whose whole kernels are trainable. Read only."""
    folder = tmp_path_factory.mktemp("kernels") / "bundle"
    return build_digits_bundle(folder, base_data=base_data, sites="kernels")


def open_learner(bundle: Path, state: Path, **settings: Any) -> Learner:
    """A learner on one thread, where results are the same to the bit.

    Shifts, a learning rate of its own, nothing is too much to forget, no images are too few to train on, and steps go
    over all of them: what the tests say shall not hang on the defaults of the day.
    """
    fixed = {
        "threads": 1,
        "shift": 1,
        "learning_rate": 0.05,
        "max_forgetting": 100.0,
        "few_shot": 0,
        "train": "centers",
    }
    fixed["gradient_share"] = 1.0
    return Learner.open(bundle, state, TrainingConfig(**{**fixed, **settings}))


@pytest.fixture
def learner(digits_bundle: Path, tmp_path: Path) -> Learner:
    """Nothing learned yet."""
    return open_learner(digits_bundle, tmp_path / "state")


@pytest.fixture(scope="session")
def sounds_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the 1-d network that knows four kinds of sound, protected. Read only."""
    import sounds
    from csk_artifacts_builder import BuildOptions, build_artifacts

    folder = tmp_path_factory.mktemp("sounds")
    sounds.write_folder(folder / "base", sounds.BASE, 30, seed=1)
    model = REPOSITORY / "examples" / "sounds" / "sounds-base4.onnx"
    described = json.loads(model.with_suffix(".json").read_text())
    options = BuildOptions(
        classes=described["classes"],
        **described["normalize"],
        sample_rate=described["sample_rate"],
        base_data=folder / "base",
        # With those of layers, even unprotected training forgets hardly anything here.
        features="last",
    )
    build_artifacts(model, folder / "bundle", options)
    return folder / "bundle"
