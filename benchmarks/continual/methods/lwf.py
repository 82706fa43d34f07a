"""Learning without forgetting."""

from __future__ import annotations

import copy

import torch
from torch.nn import functional as F

from ..data import TaskData
from .method import Method

TEMPERATURE = 2.0
WEIGHT = 1.0


class LwF(Method):
    """Distils the old heads' answers to the new images, from the network as it was before the task.

    Sum over old heads of `KL(old / T || new / T)` with T = 2 and weight 1. Old heads stay as they were fitted; the
    paper lets them move too.
    """

    name, title = "lwf", "LwF"
    more_forwards = 1
    source = "Li & Hoiem, ECCV 2016, arXiv 1606.09282"

    def begin_task(self, task: TaskData) -> None:
        self._before = copy.deepcopy(self.network).requires_grad_(False)
        self._old = [name for name in self.heads if name != task.name]

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        features = self.network(x)
        with torch.no_grad():
            before = self._before(x)
        loss = F.cross_entropy(self.logits(features, task.name), y)
        for name in self._old:
            loss = loss + WEIGHT * distillation(self.logits(features, name), self.logits(before, name))
        return loss

    def state_floats(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())


def distillation(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of `KL(softmax(target / T) || softmax(logits / T))`."""
    return F.kl_div(
        F.log_softmax(logits / TEMPERATURE, dim=1),
        F.softmax(target / TEMPERATURE, dim=1),
        reduction="batchmean",
    )
