"""Bundles that follow one another, and devices that are upgraded to them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from conftest import Digits, open_learner, write_pictures
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner, upgrade
from csk_sdk.demo import digits as demo_digits

HEADS = {"few_shot": 10**6}
TASKS = {"01": (4, 5, 6), "02": (7, 8, 9)}
ALL = tuple(range(10))


@dataclass(frozen=True)
class Bundles:
    """One bundle that devices have, and others built to follow it: with other options, and of another network."""

    folder: Path
    base: Path

    @classmethod
    def made(cls, folder: Path, digits: Digits) -> Bundles:
        return cls(folder, write_pictures(folder / "base", digits, (0, 1, 2, 3), 0, 60))

    @property
    def old(self) -> Path:
        return self.build("old")

    def build(self, name: str, model: Path | None = None, **options: Any) -> Path:
        """A bundle, built once; all but "old" say how to upgrade from that one."""
        out = self.folder / name
        if not out.exists():
            after = {} if name == "old" else {"upgrade_from": self.old}
            path, facts = demo_digits.model_files()
            known = {"classes": facts["classes"], **facts["normalize"], "flip": False, "base_data": self.base}
            build_artifacts(model or path, out, BuildOptions(**{**known, **after, **options}))
        return out


def used(bundle: Path, place: Path, digits: Digits, **settings: Any) -> Learner:
    """A device in the folder `place` with a copy of the bundle, which has learned two tasks of three digits each."""
    shutil.copytree(bundle, place / "bundle")
    learner = open_learner(place / "bundle", place / "state", **settings)
    for task, classes in TASKS.items():
        learner.learn(digits.task(task, classes))
    return learner


def upgraded(learner: Learner, new: Path, **options: Any) -> tuple[Learner, Any]:
    bundle, state = learner.bundle.folder, learner.state.folder
    report = upgrade(bundle, state, new, **options)
    return open_learner(bundle, state, **HEADS), report


def known(learner: Learner) -> dict[str, np.ndarray]:
    return dict(learner.generation.tensors)


def further(folder: Path, seed: int = 0) -> Path:
    """The demo's network with other weights: each kernel a little off, as training would leave it."""
    model = onnx.load(demo_digits.model_files()[0])
    rng = np.random.default_rng(seed)
    for one in model.graph.initializer:
        array = numpy_helper.to_array(one)
        if array.ndim == 4:
            moved = array + 0.1 * array.std() * rng.normal(size=array.shape).astype(np.float32)
            one.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), one.name))
    path = folder / "further.onnx"
    onnx.save(model, path)
    return path
