"""Elastic weight consolidation."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..data import TaskData
from .method import Method

PENALTY = 1000.0
# Batches that a task's Fisher information is averaged over.
FISHER_BATCHES = 100


class EWC(Method):
    """Quadratic penalty to what earlier tasks held important, all tasks in one sum (as in Schwarz et al., 2018).

    Importance is the mean over batches of the squared gradient of the loss, as widely used implementations take it.
    """

    name, title = "ewc", "EWC"
    source = "Kirkpatrick et al., PNAS 2017, arXiv 1612.00796"

    def start(self) -> None:
        self._importance = [torch.zeros_like(parameter) for parameter in self.trained]
        self._anchor = [parameter.detach().clone() for parameter in self.trained]
        self.end_task(self.stream.base)

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        penalty = sum(
            (importance * (parameter - anchor).square()).sum()
            for importance, parameter, anchor in zip(
                self._importance, self.trained, self._anchor, strict=True
            )
        )
        return super().loss(x, y, task) + PENALTY * penalty

    def end_task(self, task: TaskData) -> None:
        found = fisher(self, task)
        for importance, one in zip(self._importance, found, strict=True):
            importance.add_(one)
        self._anchor = [parameter.detach().clone() for parameter in self.trained]

    def state_floats(self) -> int:
        return 2 * sum(parameter.numel() for parameter in self.trained)


def fisher(method: Method, task: TaskData) -> list[torch.Tensor]:
    """Mean over batches of the squared gradient of the cross-entropy, for each trained parameter."""
    sums = [torch.zeros_like(parameter) for parameter in method.trained]
    sample = method.batches.sample(task.train, 16 * FISHER_BATCHES)
    count = 0
    for x, y in method.batches.shuffled(sample):
        loss = F.cross_entropy(method.logits(method.network(x), task.name), y)
        gradients = torch.autograd.grad(loss, method.trained)
        for one, gradient in zip(sums, gradients, strict=True):
            one.add_(gradient.square())
        count += 1
    return [one / count for one in sums]
