"""Gradient projection memory."""

from __future__ import annotations

import torch
from torch import nn

from ..data import TaskData
from ..network import patches, watching
from .method import Method

# 0.97 for the first task and 0.003 more for every later one, as the authors' CIFAR-100 script.
THRESHOLD, GROWTH = 0.97, 0.003
SAMPLES = 125


class GPM(Method):
    """Gradients lose what lies in the span of old inputs, then plain SGD; biases stay.

    The span is that of 125 images a task (for the base, too), by singular vectors that hold 97 % of the energy.
    """

    name, title = "gpm", "GPM"
    slots = 0
    # Without momentum, and with most directions taken, it takes far larger steps to learn anything.
    rates = (0.03, 0.1, 0.3)
    source = "Saha et al., ICLR 2021, arXiv 2103.09762"

    def parameters(self) -> list[nn.Parameter]:
        return [conv.weight for conv in self.network.convolutions.values()]

    def start(self) -> None:
        self._bases: dict[str, torch.Tensor] = {}
        self._names = {conv.weight: name for name, conv in self.network.convolutions.items()}
        self._tasks = 0
        self.end_task(self.stream.base)

    def direction(self, parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
        basis = self._bases[self._names[parameter]]
        flat = gradient.reshape(len(gradient), -1)
        return (flat - flat @ basis @ basis.T).reshape(gradient.shape)

    def end_task(self, task: TaskData) -> None:
        threshold = THRESHOLD + GROWTH * self._tasks
        for name, moment in second_moments(self, task, SAMPLES).items():
            old = self._bases.get(name, torch.zeros(len(moment), 0))
            self._bases[name] = extended(old, moment, threshold)
        self._tasks += 1

    def extra_flops(self) -> float:
        return sum(
            4.0 * conv.out_channels * self._bases[name].numel()
            for name, conv in self.network.convolutions.items()
        )

    def state_floats(self) -> int:
        return sum(basis.numel() for basis in self._bases.values())


def extended(old: torch.Tensor, moment: torch.Tensor, threshold: float) -> torch.Tensor:
    """The basis `(d, r)` and the new directions that bring its share of `moment`'s energy to `threshold`.

    moment: `R R^T` `(d, d)` of the new task's inputs, whose eigenvectors are the left singular vectors of R. Equations
    5, 8 and 9 of the paper: what the basis explains already counts; the residual's leading directions follow.
    """
    exact, basis = moment, old
    total = exact.trace()
    outside = torch.eye(len(exact)) - basis @ basis.T
    residual = outside @ exact @ outside
    values, vectors = torch.linalg.eigh((residual + residual.T) / 2)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    reached = (total - residual.trace()) / total + torch.cumsum(values, 0) / total
    # As many directions as it takes to reach the threshold; none where the basis does already.
    start = float((total - residual.trace()) / total)
    count = 0 if start >= threshold else int((reached < threshold).sum()) + 1
    count = min(count, len(exact) - basis.shape[1])
    return torch.linalg.qr(torch.cat([basis, vectors[:, :count]], 1))[0]


@torch.no_grad()
def second_moments(method: Method, task: TaskData, pictures: int) -> dict[str, torch.Tensor]:
    """`sum x x^T` `(d, d)` over the patches x that each convolution sees, on `pictures` images of the task."""
    convolutions = method.network.convolutions
    sums: dict[str, torch.Tensor] = {}

    def see(name: str, x: torch.Tensor) -> None:
        seen = patches(convolutions[name], x)
        sums[name] = sums.get(name, 0.0) + seen.T @ seen

    with method.network.exact(), watching(method.network, list(convolutions), see):
        for x, _ in method.batches.plain(method.batches.sample(task.train, pictures)):
            method.network(x)
    return sums
