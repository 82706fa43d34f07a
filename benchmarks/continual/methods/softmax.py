"""Fine-tuning with one softmax over all classes seen: what class-incremental learning without a method is."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..data import TaskData
from .method import Method


class OneSoftmax(Method):
    """All weights; the head grows by each task's classes, and the loss is over all classes seen so far."""

    name, title = "one-softmax", "full fine-tuning, one softmax"

    def start(self) -> None:
        self._weight, self._bias = (tensor.clone() for tensor in self.network.head)

    def begin_task(self, task: TaskData) -> None:
        if not self.stream.domains:
            weight, bias = self.heads[task.name]
            self._weight = torch.cat([self._weight.detach(), weight.detach()])
            self._bias = torch.cat([self._bias.detach(), bias.detach()])
        self._weight.requires_grad_(True)
        self._bias.requires_grad_(True)
        self._labels = torch.from_numpy(self.stream.labels_in_all(task))

    def head_parameters(self, task: TaskData) -> list[torch.Tensor]:
        return [self._weight, self._bias]

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        return F.cross_entropy(self.network(x) @ self._weight.T + self._bias, self._labels[y])

    def scores(self, features: torch.Tensor) -> torch.Tensor | None:
        return features @ self._weight.T + self._bias
