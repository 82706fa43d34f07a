"""Fixtures of domains: a state whose device sees the digits through haze, and what Python makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.demo import digits

Pixels = NDArray[np.uint8]
# So many images of the base's classes in their order, without labels: more than a domain takes. And of the task's.
SHOWN, TAUGHT = 560, 80


def faint(images: Pixels) -> Pixels:
    """A hazy camera: hardly any contrast left."""
    return (images >> 3) + np.uint8(60)


def write_domains(out: Path, bundle: Path, data: digits.Digits, settings: TrainingConfig) -> None:
    """`state/` knows the domain `faint`, and then a task that was learned in it; `told.json`: what Python said."""
    out.mkdir()
    learner = Learner.open(bundle, out / "state", settings)
    known = np.isin(data.train_labels, range(4))
    adapted = learner.adapt("faint", faint(data.train_images[known][:SHOWN, ..., None]))
    name, members = next(iter(digits.TASKS.items()))
    own = np.flatnonzero(np.isin(data.train_labels, members))[:TAUGHT]
    labels = np.searchsorted(members, data.train_labels[own])
    classes = [digits.NAMES[digit] for digit in members]
    pictures = faint(data.train_images[own][..., None])
    learned = learner.learn(Task.from_arrays(name, pictures, labels, classes))
    tested = data.test_images[..., None]
    told = {
        "adapted": adapted.to_json(),
        "because": learned.heads_only_because,
        "warnings": learned.warnings,
        "faint": learner.predict(faint(tested)).labels.tolist(),
        "plain": learner.predict(tested).labels.tolist(),
    }
    (out / "told.json").write_text(json.dumps(told) + "\n", encoding="utf-8")
