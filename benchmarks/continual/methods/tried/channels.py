"""What is trained: channels, stages, biases."""

from __future__ import annotations

import torch
from torch import nn

from ...data import TaskData
from ...network import watching
from ..csko import leading
from ..method import Method
from .defaults import Defaults


class Half(Defaults):
    """More channels."""

    name, title, ratio = "tried-half", "half of the channels", 0.5


class All(Defaults):
    """No selection."""

    name, title, ratio = "tried-all", "all channels", 1.0


class AllFreer(All):
    """No selection, less protected: what decision 0012 found best."""

    name, title, energy = "tried-all-energy-50", "all channels, energy 0.5", 0.5


class Random(Defaults):
    """Channels drawn at random."""

    name, title = "tried-random", "channels drawn at random"

    def sensitivities(self, task: TaskData) -> dict[nn.Parameter, torch.Tensor]:
        rng = torch.Generator().manual_seed(self.seed + len(self.heads))
        return {weight: torch.rand(weight.shape[1], generator=rng) for weight in self._sites}


class ByInput(Defaults):
    """The channels that are most active on the task."""

    name, title = "tried-by-input", "channels by the task's mean square input"

    @torch.no_grad()
    def sensitivities(self, task: TaskData) -> dict[nn.Parameter, torch.Tensor]:
        sums: dict[str, torch.Tensor] = {}

        def see(name: str, x: torch.Tensor) -> None:
            sums[name] = sums.get(name, 0.0) + x.square().sum((0, 2, 3))

        with watching(self.network, list(self._sites.values()), see):
            for x, _ in self.batches.plain(self.batches.sample(task.train, 512)):
                self.network(x)
        return {weight: sums[name] for weight, name in self._sites.items()}


class ByNovelty(Defaults):
    """The channels whose gradient is largest after the projection of all channels, which is what a step can use."""

    name, title = "tried-surviving", "channels by the gradient that the projection leaves"

    def sensitivities(self, task: TaskData) -> dict[nn.Parameter, torch.Tensor]:
        sums = {weight: torch.zeros(weight.shape[1]) for weight in self._sites}
        bases = {weight: leading(self._moments[name], self.energy) for weight, name in self._sites.items()}
        for x, y in self.batches.shuffled(self.batches.sample(task.train, 512)):
            gradients = torch.autograd.grad(Method.loss(self, x, y, task), list(self._sites))
            for weight, gradient in zip(self._sites, gradients, strict=True):
                center = gradient[:, :, 1, 1]
                sums[weight] += (center - center @ bases[weight] @ bases[weight].T).square().sum(0)
        return sums


class ByBudget(Defaults):
    """A quarter of all channels, wherever they are most sensitive for the numbers they cost."""

    name, title = "tried-budget", "a quarter of all channels over all sites, by sensitivity for each number"

    def select(self, task: TaskData) -> dict[nn.Parameter, list[int]]:
        found = self.sensitivities(task)
        density = torch.cat([one / len(weight) for weight, one in found.items()])
        least = density.sort(descending=True).values[round(self.ratio * len(density)) - 1]
        chosen = {
            weight: torch.nonzero(one / len(weight) >= least).flatten().tolist()
            for weight, one in found.items()
        }
        return {weight: channels or [int(found[weight].argmax())] for weight, channels in chosen.items()}


class Reselected(Defaults):
    """Channels are selected again before each epoch."""

    name, title = "tried-reselected", "channels selected again in every epoch"

    def begin_epoch(self, task: TaskData, epoch: int, epochs: int) -> None:
        if epoch:
            self.choose(task)


class LastStage(Defaults):
    """The last stage only."""

    name, title, stages = "tried-one-stage", "the last stage only", 1


class ThreeStages(Defaults):
    """One stage more."""

    name, title, stages = "tried-three-stages", "the last three stages", 3


class AllStages(Defaults):
    """Every 3x3 convolution."""

    name, title, stages = "tried-all-stages", "all stages", 4


class Biases(Defaults):
    """The sites' biases, too; nothing can protect these."""

    name, title = "tried-biases", "biases, too"

    def parameters(self) -> list[nn.Parameter]:
        centers = super().parameters()
        names = [self._sites[weight] for weight in centers]
        self._biases = [self.network.convolutions[name].bias for name in names]
        return centers + [bias for bias in self._biases if bias is not None]

    def direction(self, parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
        if parameter in self._sites:
            return super().direction(parameter, gradient)
        return self.with_momentum(parameter, gradient)

    def share(self, parameter: nn.Parameter) -> float:
        return super().share(parameter) if parameter in self._sites else 1.0
