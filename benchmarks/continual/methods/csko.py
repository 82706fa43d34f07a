"""This project's method written once more in torch, to take it apart: which element, which channels, which protection.

The product has no switch for most of these; rows made here are labelled as torch's. What is left out: int8.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from csk_sdk.method.drift import DriftEstimate

from ..data import TaskData
from ..network import patches, watching
from .method import Method

SENSITIVITY_BATCHES = 32


class Centers(Method):
    """Kernel elements of the last two stages, selected channels, projected SGD with momentum, heads that follow drift.

    `elements` are positions in the 3x3 kernel, row by row: 4 is the center. `ratio` is the share of input channels,
    `energy` the share of the old inputs' second moment that a step must not touch, 0 for no projection, `stages` how
    many of the last ones are trained.
    """

    name, title = "csko-torch", "centers, selected, projected"
    elements: ClassVar[tuple[int, ...]] = (4,)
    ratio: ClassVar[float] = 0.25
    energy: ClassVar[float] = 0.8
    stages: ClassVar[int] = 2
    follows: ClassVar[bool] = True

    def parameters(self) -> list[nn.Parameter]:
        widths = sorted({conv.out_channels for conv in self.network.convolutions.values()})
        self._sites = {
            conv.weight: name
            for name, conv in self.network.convolutions.items()
            if conv.kernel_size == (3, 3) and conv.out_channels in widths[-self.stages :]
        }
        return list(self._sites)

    def start(self) -> None:
        self._moments: dict[str, torch.Tensor] = {}
        self._remember(self.stream.base)

    def begin_task(self, task: TaskData) -> None:
        self._before = self.batches.features(self.network, task.train)[0] if self.follows else None
        self.choose(task)

    def choose(self, task: TaskData) -> None:
        """Select channels and take the bases that their steps are projected with."""
        chosen = self.select(task)
        self._columns, self._bases = {}, {}
        for weight, name in self._sites.items():
            columns = torch.tensor([c * 9 + e for c in chosen[weight] for e in self.elements])
            self._columns[weight] = columns
            place = torch.tensor(
                [c * len(self.elements) + i for c in chosen[weight] for i in range(len(self.elements))]
            )
            self._bases[weight] = self.protected(weight, self._moments[name][place][:, place])

    def direction(self, parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
        columns, basis = self._columns[parameter], self._bases[parameter]
        flat = self.with_momentum(parameter, gradient).reshape(len(gradient), -1)
        chosen = flat[:, columns]
        update = torch.zeros_like(flat)
        update[:, columns] = chosen - chosen @ basis @ basis.T
        return update.reshape(gradient.shape)

    def protected(self, weight: nn.Parameter, moment: torch.Tensor) -> torch.Tensor:
        """B `(d, r)` such that a step `u` becomes `u (I - B B^T)`, from the second moment `(d, d)` of old inputs."""
        return leading(moment, self.energy)

    def sensitivities(self, task: TaskData) -> dict[nn.Parameter, torch.Tensor]:
        """Per site the summed squared gradient `(c_in,)` of each input channel's elements on the task."""
        sums = {weight: torch.zeros(weight.shape[1]) for weight in self._sites}
        for count, (x, y) in enumerate(self.batches.shuffled(task.train)):
            if count == SENSITIVITY_BATCHES:
                break
            gradients = torch.autograd.grad(Method.loss(self, x, y, task), list(self._sites))
            for weight, gradient in zip(self._sites, gradients, strict=True):
                sums[weight] += gradient.flatten(2)[:, :, list(self.elements)].square().sum((0, 2))
        return sums

    def end_task(self, task: TaskData) -> None:
        self._remember(task)

    def followed(self, features: torch.Tensor) -> DriftEstimate | None:
        """The drift of the task's features from before it to `features` `(n, f)`, of the same images."""
        if self._before is None:
            return None
        estimate = DriftEstimate(features.shape[1])
        estimate.add(self._before.numpy(), features.numpy())
        return estimate

    def share(self, parameter: nn.Parameter) -> float:
        return self.ratio * len(self.elements) / 9

    def kept(self, convolution: nn.Conv2d) -> float:
        # One element sees each pixel once, and with a stride only some.
        seen = 1 / convolution.stride[0] ** 2 if len(self.elements) == 1 else 1.0
        return self.ratio * seen

    def extra_flops(self) -> float:
        return sum(4.0 * len(weight) * self._bases[weight].numel() for weight in self._sites)

    def state_floats(self) -> int:
        return sum(moment.numel() for moment in self._moments.values())

    def select(self, task: TaskData) -> dict[nn.Parameter, list[int]]:
        """Per site the most sensitive input channels."""
        return {
            weight: sorted(
                one.argsort(descending=True, stable=True)[: max(1, round(self.ratio * len(one)))].tolist()
            )
            for weight, one in self.sensitivities(task).items()
        }

    @torch.no_grad()
    def _remember(self, task: TaskData) -> None:
        """Add the task's second moments, of the trained elements' inputs, to what is protected."""
        convolutions = self.network.convolutions

        def see(name: str, x: torch.Tensor) -> None:
            conv = convolutions[name]
            seen = patches(conv, x)
            seen = seen.reshape(len(seen), conv.in_channels, 9)[:, :, list(self.elements)].flatten(1)
            self._moments[name] = self._moments.get(name, 0.0) + seen.T @ seen

        with self.network.exact(), watching(self.network, list(self._sites.values()), see):
            for x, _ in self.batches.plain(self.batches.sample(task.train, 5000)):
                self.network(x)


class AllChannels(Centers):
    """No selection."""

    name, title, ratio = "csko-torch-all-channels", "centers, all channels, projected", 1.0


class NoProjection(Centers):
    """Selection only."""

    name, title, energy, follows = "csko-torch-no-projection", "centers, selected, no projection", 0.0, False


class Corner(Centers):
    """The upper left element instead of the center."""

    name, title, elements = "csko-torch-corner", "corner element, selected, projected", (0,)


class WholeKernel(Centers):
    """All nine elements."""

    name, title, elements = "csko-torch-kernel", "whole kernels, selected, projected", tuple(range(9))


class WholeKernelAllChannels(WholeKernel):
    """All elements of all channels of the same layers."""

    name, title, ratio = "csko-torch-kernel-all-channels", "whole kernels, all channels, projected", 1.0


class PlainCenters(Centers):
    """Neither selection nor projection."""

    name, title = "csko-torch-plain", "centers, all channels, no projection"
    ratio, energy, follows = 1.0, 0.0, False


class JointCenters(PlainCenters):
    """Every step trains every center: what joint training uses."""

    name, title = "joint-centers", "centers of all channels"

    def direction(self, parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(9)
        mask[list(self.elements)] = 1.0
        return self.with_momentum(parameter, gradient * mask.view(1, 1, 3, 3))

    def extra_flops(self) -> float:
        return 0.0

    def state_floats(self) -> int:
        return 0


class NoFollowing(Centers):
    """Old heads and statistics stay as they were."""

    name, title, follows = (
        "csko-torch-no-following",
        "centers, selected, projected, heads do not follow",
        False,
    )


ABLATIONS = (
    Centers, AllChannels, NoProjection, PlainCenters, NoFollowing, Corner, WholeKernel, WholeKernelAllChannels,
)  # fmt: skip


def leading(moment: torch.Tensor, energy: float) -> torch.Tensor:
    """The leading eigenvectors `(d, r)` that hold `energy` of the trace."""
    values, vectors = torch.linalg.eigh(moment.double())
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    if energy == 0.0:
        return vectors[:, :0].float()
    count = int(torch.searchsorted(torch.cumsum(values, 0), energy * values.sum())) + 1
    return vectors[:, :count].float()
