"""How it is trained: longer, with other images, by other losses, averaged."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ...data import TaskData
from .defaults import Defaults


class TwiceAsLong(Defaults):
    """More epochs."""

    name, title, longer = "tried-8-epochs", "8 epochs", 2


class FourTimesAsLong(Defaults):
    """Many more epochs."""

    name, title, longer = "tried-16-epochs", "16 epochs", 4


class Mixup(Defaults):
    """Mixtures of two images and their labels, weights from Beta(0.2, 0.2) (Zhang et al., arXiv 1710.09412)."""

    name, title = "tried-mixup", "mixup"

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        share = float(torch.distributions.Beta(0.2, 0.2).sample())
        order = torch.randperm(len(y))
        scores = self.logits(self.network(share * x + (1 - share) * x[order]), task.name)
        return share * F.cross_entropy(scores, y) + (1 - share) * F.cross_entropy(scores, y[order])


class Rotations(Defaults):
    """Each image turned by 0, 90, 180 and 270 degrees is a class of its own (PASS; Zhu et al., CVPR 2021)."""

    name, title, batches_a_step = "tried-rotations", "rotations as classes of their own", 4

    def begin_task(self, task: TaskData) -> None:
        super().begin_task(task)
        weight, bias = self.heads[task.name]
        self._weight = torch.cat([weight, weight.new_zeros(3 * len(weight), weight.shape[1])])
        self._bias = torch.cat([bias, bias.new_zeros(3 * len(bias))])

    def head_parameters(self, task: TaskData) -> list[torch.Tensor]:
        return [self._weight, self._bias]

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        turned = torch.cat([torch.rot90(x, times, (2, 3)) for times in range(4)])
        labels = torch.cat([y + times * len(task.classes) for times in range(4)])
        return F.cross_entropy(self.network(turned) @ self._weight.T + self._bias, labels)


class Contrastive(Defaults):
    """Cross-entropy and a tenth of the supervised contrastive loss (Khosla et al., arXiv 2004.11362) at 0.1."""

    name, title = "tried-contrastive", "a supervised contrastive loss, too"

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        features = self.network(x)
        loss = F.cross_entropy(self.logits(features, task.name), y)
        unit = F.normalize(features, dim=1)
        others = ~torch.eye(len(y), dtype=torch.bool)
        same = (y[:, None] == y[None]) & others
        scores = (unit @ unit.T / 0.1).masked_fill(~others, -torch.inf)
        likelihood = scores.log_softmax(1).masked_fill(~same, 0.0).sum(1) / same.sum(1).clamp(min=1)
        return loss - 0.1 * likelihood[same.any(1)].sum() / len(y)


class Averaged(Defaults):
    """The mean of the weights over the steps of the second half of the task (Izmailov et al., arXiv 1803.05407)."""

    name, title = "tried-averaged", "weights averaged over the second half"

    def begin_task(self, task: TaskData) -> None:
        super().begin_task(task)
        self._sums = [torch.zeros_like(weight) for weight in self._sites]
        self._count, self._later = 0, False

    def begin_epoch(self, task: TaskData, epoch: int, epochs: int) -> None:
        self._later = epoch >= epochs // 2

    def step(self, schedule: float, head: list[torch.Tensor]) -> None:
        super().step(schedule, head)
        if self._later:
            self._count += 1
            for total, weight in zip(self._sums, self._sites, strict=True):
                total += weight.detach()

    @torch.no_grad()
    def finish(self, task: TaskData) -> None:
        for total, weight in zip(self._sums, self._sites, strict=True):
            weight.copy_(total / self._count)
