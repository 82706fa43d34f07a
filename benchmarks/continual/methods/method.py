"""What a method is: the parameters it trains, its loss, its step, and what it keeps of a task."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn import functional as F

from csk_sdk.method.heads import ClassStatistics

from ..data import Stream, TaskData
from ..network import Network
from ..pictures import Batches

MOMENTUM = 0.9
# Of every method's head, as csk-sdk's default.
HEAD_RATE = 0.005


class Method:
    """Full fine-tuning by SGD with momentum; the others change one or two of these steps.

    `rate` is the peak of the cosine schedule for the network, found on the first task (`rates.py`) from `RATES`.
    `frozen` says that no feature ever changes, so that nothing is trained.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str] = ""
    rate: ClassVar[float] = 0.01
    rates: ClassVar[tuple[float, ...]] = (0.0003, 0.001, 0.003, 0.01)
    frozen: ClassVar[bool] = False
    # Whether heads see the features that csk-sdk's builder makes by default, and not the network's last ones only.
    layers: ClassVar[bool] = False
    stores_pictures: ClassVar[bool] = False
    # What a step costs beside its one batch: optimizer slots, further forward passes, further batches.
    slots: ClassVar[int] = 1
    more_forwards: ClassVar[int] = 0
    batches_a_step: ClassVar[int] = 1
    # How many times the epochs of the others it trains for.
    longer: ClassVar[int] = 1

    def __init__(
        self, network: Network, stream: Stream, batches: Batches, seed: int, rate: float | None = None
    ):
        self.network, self.stream, self.batches, self.seed = network, stream, batches, seed
        self.peak = self.rate if rate is None else rate
        self.heads: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        # Of all classes known before the task; set by whoever drives the method.
        self.statistics = ClassStatistics.empty(network.width)
        self._momentum: dict[torch.nn.Parameter, torch.Tensor] = {}
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        self.trained = [] if self.frozen else self.parameters()
        for parameter in self.trained:
            parameter.requires_grad_(True)

    # --- what methods change

    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters of the network that are trained; the head always is."""
        return list(self.network.parameters())

    def start(self) -> None:
        """What the workstation prepares from the base data, before the first task."""

    def begin_task(self, task: TaskData) -> None:
        """Before the first step; `heads[task.name]` is fitted to the features as they are."""

    def begin_epoch(self, task: TaskData, epoch: int, epochs: int) -> None:
        """Before the first step of each of the `epochs` passes over the task, counted from 0."""

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        """Loss of a batch: cross-entropy over the task's own classes."""
        return F.cross_entropy(self.logits(self.network(x), task.name), y)

    def direction(self, parameter: torch.nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
        """What is subtracted from a parameter, times the rate."""
        return self.with_momentum(parameter, gradient)

    def finish(self, task: TaskData) -> None:
        """After the last step, before features are measured again."""

    def end_task(self, task: TaskData) -> None:
        """After the last step; `heads[task.name]` is fitted to the final features."""

    def scores(self, features: torch.Tensor) -> torch.Tensor | None:
        """The method's own scores `(n, classes seen)` over all classes seen, in the stream's order, if it has any."""
        return None

    def state_floats(self) -> int:
        """Numbers kept between tasks to protect old knowledge, heads apart; stored images count a number a value."""
        return 0

    def share(self, parameter: torch.nn.Parameter) -> float:
        """The share of a trained parameter's elements that are trained."""
        return 1.0

    def kept(self, convolution: torch.nn.Conv2d) -> float:
        """The share of a trained convolution's input that its weight gradient needs."""
        return 1.0

    def extra_flops(self) -> float:
        """Floating-point operations of a step that are not the network's: projections."""
        return 0.0

    # --- what they share

    def logits(self, features: torch.Tensor, name: str) -> torch.Tensor:
        """Logits of one task's head."""
        weight, bias = self.heads[name]
        return features @ weight.T + bias

    def with_momentum(self, parameter: torch.nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
        """`m <- 0.9 m + g`."""
        kept = self._momentum.get(parameter)
        kept = gradient.clone() if kept is None else kept.mul_(MOMENTUM).add_(gradient)
        self._momentum[parameter] = kept
        return kept

    def forget_momentum(self) -> None:
        """An optimizer does not outlive its task."""
        self._momentum.clear()

    def head_parameters(self, task: TaskData) -> list[torch.Tensor]:
        """The leaf tensors of the head that the steps train."""
        return list(self.heads[task.name])

    def step(self, schedule: float, head: list[torch.Tensor]) -> None:
        """One step from the gradients that are there."""
        with torch.no_grad():
            for parameter in self.trained:
                if parameter.grad is not None:
                    direction = self.direction(parameter, parameter.grad)
                    parameter.sub_(direction, alpha=self.peak * schedule)
                    parameter.grad = None
            for tensor in head:
                if tensor.grad is not None:
                    tensor.sub_(self.with_momentum(tensor, tensor.grad), alpha=HEAD_RATE * schedule)
                    tensor.grad = None
