"""Numbers that are none: a network that computes NaN for a white image, among any number of good ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from field.attack.ground import Ground
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
        threads=1, epochs=1, few_shot=0, label_check=False, max_forgetting=100.0, checkpoint_seconds=0.0
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
