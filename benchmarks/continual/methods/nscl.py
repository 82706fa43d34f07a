"""Adam-NSCL: Adam's updates, projected into the null space of old inputs."""

from __future__ import annotations

import torch
from torch import nn

from ..data import TaskData
from .gpm import second_moments
from .method import Method

# Directions whose eigenvalue is at most this multiple of the smallest one are free: 10 in the authors' scripts for ten
# tasks of CIFAR-100.
FREE = 10.0
PICTURES = 500
BETAS, EPSILON = (0.9, 0.999), 1e-8


class AdamNSCL(Method):
    """Uncentered covariance of each layer's input over all tasks; biases stay.

    As the authors' code: the projector `V V^T` is divided by its Frobenius norm. Batch norm is folded here, so its
    penalty has nothing to act on.
    """

    name, title = "adam-nscl", "Adam-NSCL"
    source = "Wang et al., CVPR 2021, arXiv 2103.07113"
    slots = 2
    rate = 0.01
    # The projector's norm divides the step: rates are far larger than Adam's.
    rates = (0.003, 0.01, 0.03)

    def parameters(self) -> list[nn.Parameter]:
        return [conv.weight for conv in self.network.convolutions.values()]

    def start(self) -> None:
        self._names = {conv.weight: name for name, conv in self.network.convolutions.items()}
        self._moments: dict[str, torch.Tensor] = {}
        self.end_task(self.stream.base)

    def begin_task(self, task: TaskData) -> None:
        self._first = {parameter: torch.zeros_like(parameter) for parameter in self.trained}
        self._second = {parameter: torch.zeros_like(parameter) for parameter in self.trained}
        self._steps = dict.fromkeys(self.trained, 0)

    def direction(self, parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
        self._steps[parameter] += 1
        count = self._steps[parameter]
        first = self._first[parameter].mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
        second = self._second[parameter].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        scale = (1 - BETAS[1] ** count) ** 0.5 / (1 - BETAS[0] ** count)
        update = scale * first / (second.sqrt() + EPSILON)
        return (update.reshape(len(update), -1) @ self._free[self._names[parameter]]).reshape(update.shape)

    def end_task(self, task: TaskData) -> None:
        for name, moment in second_moments(self, task, PICTURES).items():
            self._moments[name] = self._moments.get(name, 0.0) + moment
        self._free = {name: free_space(moment) for name, moment in self._moments.items()}

    def extra_flops(self) -> float:
        return sum(
            2.0 * conv.out_channels * self._free[name].numel()
            for name, conv in self.network.convolutions.items()
        )

    def state_floats(self) -> int:
        # The covariances, and the projectors made of them.
        return 2 * sum(moment.numel() for moment in self._moments.values())


def free_space(moment: torch.Tensor) -> torch.Tensor:
    """`V V^T / ||V V^T||` of the eigenvectors whose eigenvalue is at most `FREE` times the smallest."""
    values, vectors = torch.linalg.eigh(moment)
    # Singular values, as the authors take them: what rounding made negative counts by its size.
    values = values.abs()
    free = vectors[:, values <= FREE * values.min()]
    projector = free @ free.T
    return projector / projector.norm()
