"""What a learner knows of the digits, and batches of them."""

from __future__ import annotations

import numpy as np

from conftest import NAMES, Digits
from csk_sdk import Learner

HELD_OUT = 100, 170


def accuracy(learner: Learner, digits: Digits, chosen: tuple[int, ...], task: str | None = None) -> float:
    """Share of images that no test trains on whose class name is predicted."""
    images, labels = digits.arrays(chosen, *HELD_OUT)
    truth = np.array([NAMES[digit] for digit in chosen])[labels]
    return float(np.mean(learner.predict(images, task).labels == truth))


def batches(digits: Digits, chosen: tuple[int, ...], size: int = 16) -> list[tuple[np.ndarray, np.ndarray]]:
    images, labels = digits.arrays(chosen, 0, 40)
    order = np.random.default_rng(0).permutation(len(images))
    return [(images[part], labels[part]) for part in np.array_split(order, len(order) // size)]


def same_tensors(left: Learner, right: Learner) -> bool:
    first, second = left.generation.tensors, right.generation.tensors
    return first.keys() == second.keys() and all(first[k].tobytes() == second[k].tobytes() for k in first)
