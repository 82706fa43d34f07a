"""What the loss sees of other classes than the task's."""

from __future__ import annotations

import copy

import torch
from torch.nn import functional as F

from csk_sdk.method.heads import lda_head
from csk_sdk.objectives.classification import PRIOR_PICTURES

from ...data import TaskData
from ..lwf import distillation
from ..replay import Store
from .channels import AllFreer

# The discriminant is too sure of itself; times this, it is calibrated with these 832 features.
CALIBRATION = 0.2


class AllClasses(AllFreer):
    """Cross-entropy over all classes seen, under the discriminant as it is before the task; old answers distilled."""

    name, title = "tried-all-classes", "one loss over all classes seen, distilled; all channels, energy 0.5"
    more_forwards = 1

    def begin_task(self, task: TaskData) -> None:
        features, labels = self.batches.features(self.network, task.train)
        learned = self.statistics.merge(
            self.statistics.empty(self.network.width).add(features.numpy(), labels.numpy(), task.classes)
        )
        weight, bias = lda_head(learned, PRIOR_PICTURES)
        self._weight, self._bias = (torch.from_numpy(array) * CALIBRATION for array in (weight, bias))
        self._old = len(self._bias) - len(task.classes)
        self._network_before = copy.deepcopy(self.network).requires_grad_(False)
        self._labels = torch.from_numpy(self.stream.labels_in_all(task))
        super().begin_task(task)

    def head_parameters(self, task: TaskData) -> list[torch.Tensor]:
        return []

    def over_all(self, features: torch.Tensor) -> torch.Tensor:
        """Scores of all classes seen, the task's included."""
        return features @ self._weight.T + self._bias

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        scores = self.over_all(self.network(x))
        with torch.no_grad():
            before = self.over_all(self._network_before(x))
        loss = F.cross_entropy(scores, self._labels[y])
        return loss + distillation(scores[:, : self._old], before[:, : self._old])


class LatentReplay(AllClasses):
    """And as many old images as new ones in each step, of 2,000 that are kept as what the frozen layers make of them.

    In torch the images themselves: what the frozen layers make of an image never changes, and 8 bits are enough for
    it (decision 0013).
    """

    name, title = (
        "tried-latent-replay",
        "one loss over all classes seen, and replay of the prefix features of 2,000 old images",
    )
    stores_pictures, batches_a_step = True, 2

    def start(self) -> None:
        super().start()
        self._store = Store(self.seed, 2000)
        self._store.keep(self.stream.base, self.stream.labels_in_all(self.stream.base))

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        images, labels = self._store.drawn(len(y))
        replayed = self.over_all(self.network(self.batches.tensor(images)))
        return super().loss(x, y, task) + F.cross_entropy(replayed, torch.from_numpy(labels))

    def end_task(self, task: TaskData) -> None:
        super().end_task(task)
        self._store.keep(task, self._labels.numpy())

    def state_floats(self) -> int:
        return self._store.numbers()
