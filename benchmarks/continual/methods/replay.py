"""Experience replay: a small store of old pictures, as many in each step as new ones."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from csk_sdk.data.augment import augment

from ..data import Split, TaskData
from .softmax import OneSoftmax

STORED = 200


class Replay(OneSoftmax):
    """One softmax over all classes seen; 200 pictures, the same number of every class seen, drawn at random.

    Each step sees as many stored pictures as new ones, and so costs twice as much.
    """

    name, title = "replay", "experience replay, 200 pictures"
    source = "Chaudhry et al., 2019, arXiv 1902.10486"
    stores_pictures = True
    batches_a_step = 2

    def start(self) -> None:
        super().start()
        self._rng = np.random.default_rng(self.seed)
        base = self.stream.base
        self._stored: dict[int, np.ndarray] = {}
        self._keep(base, self.stream.labels_in_all(base))

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        images, labels = self._drawn(len(y))
        both = torch.cat([x, self.batches.tensor(augment(images, self._rng, True, 2))])
        target = torch.cat([self._labels[y], torch.from_numpy(labels)])
        return F.cross_entropy(self.network(both) @ self._weight.T + self._bias, target)

    def end_task(self, task: TaskData) -> None:
        self._keep(task, self._labels.numpy())

    def state_floats(self) -> int:
        return sum(images.size for images in self._stored.values())

    def _keep(self, task: TaskData, labels: np.ndarray) -> None:
        """Add the task's classes to the store and level all classes to the same number."""
        for label, name in zip(labels, range(len(task.classes)), strict=True):
            found = task.train.images[task.train.labels == name]
            if int(label) in self._stored:
                found = np.concatenate([found, self._stored[int(label)]])
            self._stored[int(label)] = found[self._rng.permutation(len(found))]
        each, extra = divmod(STORED, len(self._stored))
        for place, label in enumerate(self._stored):
            self._stored[label] = self._stored[label][: each + (place < extra)]

    def _drawn(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        store = Split(
            np.concatenate(list(self._stored.values())),
            np.concatenate([np.full(len(images), label) for label, images in self._stored.items()]),
        )
        index = self._rng.integers(0, len(store.labels), count)
        return store.images[index], store.labels[index]
