"""Experience replay: a small store of old images, as many in each step as new ones."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from csk_sdk.data.augment import augment

from ..data import TaskData
from .softmax import OneSoftmax

STORED = 200


class Store:
    """Old images, the same number of every class seen, at most `total`, drawn at random: `images`, by class."""

    def __init__(self, seed: int, total: int) -> None:
        self._rng, self._total = np.random.default_rng(seed), total
        self.images: dict[int, np.ndarray] = {}

    def keep(self, task: TaskData, labels: np.ndarray) -> None:
        """Add the task's classes, numbered by `labels` `(classes,)`, and level all classes to the same number."""
        for label, name in zip(labels, range(len(task.classes)), strict=True):
            found = task.train.images[task.train.labels == name]
            if int(label) in self.images:
                found = np.concatenate([found, self.images[int(label)]])
            self.images[int(label)] = found[self._rng.permutation(len(found))]
        each, extra = divmod(self._total, len(self.images))
        for place, label in enumerate(self.images):
            self.images[label] = self.images[label][: each + (place < extra)]

    def drawn(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`count` augmented images, drawn with replacement, and their labels."""
        images = np.concatenate(list(self.images.values()))
        labels = np.concatenate([np.full(len(found), label) for label, found in self.images.items()])
        index = self._rng.integers(0, len(labels), count)
        return augment(images[index], self._rng, True, 2), labels[index]

    def numbers(self) -> int:
        """Stored values."""
        return sum(images.size for images in self.images.values())


class Replay(OneSoftmax):
    """One softmax over all classes seen; 200 images, the same number of every class seen, drawn at random.

    Each step sees as many stored images as new ones, and so costs twice as much.
    """

    name, title = "replay", "experience replay, 200 images"
    source = "Chaudhry et al., 2019, arXiv 1902.10486"
    stores_pictures = True
    batches_a_step = 2

    def start(self) -> None:
        super().start()
        self._store = Store(self.seed, STORED)
        self._store.keep(self.stream.base, self.stream.labels_in_all(self.stream.base))

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        images, labels = self._store.drawn(len(y))
        both = torch.cat([x, self.batches.tensor(images)])
        target = torch.cat([self._labels[y], torch.from_numpy(labels)])
        return F.cross_entropy(self.network(both) @ self._weight.T + self._bias, target)

    def end_task(self, task: TaskData) -> None:
        self._store.keep(task, self._labels.numpy())

    def state_floats(self) -> int:
        return self._store.numbers()
