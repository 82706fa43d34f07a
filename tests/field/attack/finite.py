"""Numbers that are none: a network that computes NaN for a white image, among any number of good ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from field.attack.ground import Ground, task_of
from field.attack.promise import GUARANTEES, Tries, promise


@promise(
    GUARANTEES,
    "predict, features, evaluate, every loss, one task's head or all classes",
    "the images of a task, in any pass over them",
    tries=80,
    least=4,
)
def nothing_comes_of_nan(tries: Tries, ground: Ground, place: Path) -> None:
    """One white image anywhere: predictions and tasks with it are refused, and nothing is committed or kept."""
    from csk_sdk import Learner, Task, TaskError
    from csk_sdk.config import TrainingConfig
    from learner.not_finite import WHITE, fragile_bundle, pictures

    bundle = fragile_bundle(place / "fragile", loss="cross-entropy")
    config = TrainingConfig(
        threads=1,
        epochs=1,
        few_shot=0,
        train="centers",
        label_check=False,
        max_forgetting=100.0,
        checkpoint_seconds=0.0,
    )
    for number in tries:
        shutil.rmtree(place / "state", ignore_errors=True)
        learner = Learner.open(bundle, place / "state", config)
        count = tries.rng.randint(8, 40)
        images = pictures(count)
        labels = np.arange(count) % 2
        if number % 2:
            learner.learn(Task.from_arrays("01", images, labels, ["c", "d"]))
        bad = images.copy()
        bad[tries.rng.randrange(count)] = WHITE
        acts: list[Any] = [
            lambda learner=learner, bad=bad: learner.predict(bad),
            lambda learner=learner, bad=bad: learner.features(bad),
            lambda learner=learner, bad=bad, labels=labels: learner.learn(
                Task.from_arrays("02", bad, labels, ["e", "f"])
            ),
        ]
        for act in acts:
            with tries.one(f"{count} images, one of them white"):
                try:
                    act()
                except TaskError as error:
                    assert "not finite" in str(error), str(error)
                    assert str(error).endswith(".")
                else:
                    raise AssertionError("NaN was taken for an answer")
                assert learner.generation.number == number % 2
                assert not (place / "state/progress.safetensors").exists()


@promise(
    GUARANTEES,
    "losses, gradients, centers, second moments, heads and statistics of a task",
    tries=20,
    least=2,
)
def nothing_comes_of_what_diverges(tries: Tries, ground: Ground, place: Path) -> None:
    """Learning rates that no training survives: told, and no number of it is committed or kept."""
    from csk_sdk import Learner, TaskError
    from csk_sdk.config import TrainingConfig

    for number in tries:
        shutil.rmtree(place / "state", ignore_errors=True)
        fixed = {
            "threads": 1,
            "few_shot": 0,
            "train": "centers",
            "max_forgetting": 100.0,
            "checkpoint_seconds": 0.0,
            "epochs": 2,
        }
        rate = tries.rng.choice(["learning_rate", "head_learning_rate"])
        wild = {rate: 10.0 ** tries.rng.randint(12, 38), "optimizer": tries.rng.choice(["sgd", "adamw"])}
        learner = Learner.open(ground.bundle, place / "state", TrainingConfig(**fixed))
        with tries.one(str(wild)):
            if number % 2:
                learner.learn(task_of(ground, "01", (4, 5)))
            try:
                learner.learn(task_of(ground, "02", (6, 7)), {**fixed, **wild})
            except TaskError as error:
                assert "Nothing was committed." in str(error)
                assert learner.generation.number == number % 2
            else:  # a run that ended finite is one that was committed
                assert _finite(learner.state.load().tensors), "what diverged is in a generation"
            saved = learner.state.load_progress()
            assert saved is None or _finite(saved[0]), "what diverged is in a progress checkpoint"


@promise(GUARANTEES, "heads and statistics of a state, a bundle's checkpoint", tries=40, least=4)
def stored_numbers_that_are_none(tries: Tries, ground: Ground, place: Path) -> None:
    """One number of a stored head, of the statistics or of a checkpoint is none, and sealed: no answer comes of it."""
    from csk_sdk import BundleError, Learner, StateError
    from csk_sdk.bundle.folder import Bundle
    from csk_sdk.state import State
    from csk_sdk.state.tensorfile import packed
    from field.test_hostile_bundles import Hostile

    picture = ground.of(4, 0, 1)
    opened = Bundle.open(ground.bundle)
    for number in tries:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        value = tries.rng.choice([np.nan, np.inf, -np.inf])
        if number % 4 == 3:
            folder = Path(shutil.copytree(ground.bundle, place / "bundle"))
            hostile = Hostile(folder, json.loads((folder / "manifest.json").read_text()))
            tensors = {name: array.copy() for name, array in opened.checkpoint().items()}
            names = [one for one, array in tensors.items() if array.dtype.kind == "f" and array.size]
            name = tries.rng.choice(names)
            tensors[name].reshape(-1)[tries.rng.randrange(tensors[name].size)] = value
            (folder / "checkpoint.safetensors").write_bytes(packed(tensors))
            hostile.finish()
            with tries.one(f"{value} in {name} of the checkpoint"):
                try:
                    Bundle.open(place / "bundle").checkpoint()
                except BundleError as error:
                    assert "not finite" in str(error), str(error)
                else:
                    raise AssertionError("it was opened")
            continue
        shutil.copytree(ground.state(2), place / "state")
        state = State.open(place / "state", opened.id, opened.checkpoint())
        whole = state.load()
        tensors = {name: array.copy() for name, array in whole.tensors.items()}
        name = tries.rng.choice(["head/01/weight", "head/02/bias", "statistics.means"])
        tensors[name].reshape(-1)[tries.rng.randrange(tensors[name].size)] = value
        with state.lock():
            state.commit(2, whole.tasks, tensors)
        with tries.one(f"{value} in {name} of the state"):
            learner = Learner.open(ground.bundle, place / "state")
            task = name.split("/")[1] if name.startswith("head/") else None
            try:
                learner.predict(picture, task)
            except StateError as error:
                assert "roll back" in str(error), str(error)
            else:
                raise AssertionError("NaN was taken for an answer")
            assert learner.rollback("01").number == 1


@promise(GUARANTEES, "samples of a float signal", tries=100, least=4)
def samples_that_are_no_numbers(tries: Tries, ground: Ground, place: Path) -> None:
    """One sample of any signal, in an array or in a file: refused before a network sees it."""
    from csk_sdk import Task, TaskError
    from csk_sdk.contract.manifest import InputSpec, PreprocessingSpec
    from csk_sdk.data.preprocess_signals import SignalPreprocessing
    from csk_sdk.data.signals import FileSignals

    spec = PreprocessingSpec((0.0,), (1.0,), resize="none", scale=1.0 / 32768.0)
    preprocessing = SignalPreprocessing(spec, InputSpec("signal", 1, (50,)))
    for number in tries:
        signals = tries.numpy.normal(size=(6, 50, 1)).astype(tries.rng.choice([np.float32, np.float64]))
        at = tries.rng.randrange(6)
        signals[at, tries.rng.randrange(50), 0] = tries.rng.choice([np.nan, np.inf, -np.inf])
        with tries.one(f"{signals.dtype}"):
            try:
                if number % 2:
                    np.save(place / "x.npy", signals[at])
                    preprocessing.to_size(FileSignals([place / "x.npy"]).read(0), "x")
                else:
                    task = Task.from_signals("01", signals, [0, 1] * 3, ["a", "b"])
                    assert task.train is not None
                    preprocessing.to_size(task.train.images.read(at), "x")
            except TaskError as error:
                assert str(error).endswith("."), str(error)
            else:
                raise AssertionError("it was taken for a signal")


def _finite(tensors: Mapping[str, np.ndarray]) -> bool:
    return all(np.isfinite(one).all() for one in tensors.values() if one.dtype.kind == "f")
