"""What was tried to learn more under projection: each class changes one thing of the defaults.

All see the features of layers, as csk-sdk's defaults do. What pays is in the product, and the others are here to
show why not.
"""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from csk_sdk.method.heads import lda_head
from csk_sdk.objectives.classification import PRIOR_PICTURES

from ..data import TaskData
from ..network import watching
from .csko import Centers, leading
from .finetune import HeadOnly
from .lwf import distillation
from .replay import Store


class Defaults(Centers):
    """What the others are compared with."""

    name, title, layers = "tried-defaults", "the defaults", True


class Untrained(HeadOnly):
    """No step changes the network."""

    name, title, layers = "tried-heads", "heads only", True


# --- how much is protected


class Energy50(Defaults):
    """Less is protected."""

    name, title, energy = "tried-energy-50", "energy 0.5", 0.5


class Energy65(Defaults):
    """Less is protected."""

    name, title, energy = "tried-energy-65", "energy 0.65", 0.65


class Energy90(Defaults):
    """More is protected."""

    name, title, energy = "tried-energy-90", "energy 0.9", 0.9


class ByDepth(Defaults):
    """The energy falls, or rises, evenly from the first site to the last."""

    first: ClassVar[float]
    last: ClassVar[float]

    def protected(self, weight: nn.Parameter, moment: torch.Tensor) -> torch.Tensor:
        names = list(self._sites.values())
        place = names.index(self._sites[weight]) / (len(names) - 1)
        return leading(moment, self.first + (self.last - self.first) * place)


class DeepFree(ByDepth):
    """The last sites may change most."""

    name, title, first, last = (
        "tried-energy-falls",
        "energy from 0.95 at the first site to 0.6 at the last",
        0.95,
        0.6,
    )


class ShallowFree(ByDepth):
    """The first sites may change most."""

    name, title, first, last = (
        "tried-energy-rises",
        "energy from 0.6 at the first site to 0.95 at the last",
        0.6,
        0.95,
    )


class EffectiveRank(Defaults):
    """As many directions as the entropy of the spectrum counts."""

    name, title = "tried-effective-rank", "energy by the spectrum: its effective rank"

    def protected(self, weight: nn.Parameter, moment: torch.Tensor) -> torch.Tensor:
        values, vectors = _spectrum(moment)
        shares = values / values.sum()
        rank = float(torch.exp(-(shares * torch.log(shares.clamp(min=1e-30))).sum()))
        return vectors[:, : round(rank)].float()


class NullSpace(Defaults):
    """Steps only where the spectrum is within ten times its smallest value: Adam-NSCL's criterion."""

    name, title = "tried-null-space", "null space: eigenvalues up to 10 times the smallest"

    def protected(self, weight: nn.Parameter, moment: torch.Tensor) -> torch.Tensor:
        values, vectors = _spectrum(moment)
        return vectors[:, values > 10 * values.min()].float()


class Scaled(Defaults):
    """Scaled gradient projection: every direction is damped by its importance, `(a + 1) l / (a l + max l)`.

    Saha & Roy, AAAI 2023, arXiv 2302.01386, equation 5; here the importances are those of all old tasks together.
    """

    a: ClassVar[float]

    def protected(self, weight: nn.Parameter, moment: torch.Tensor) -> torch.Tensor:
        values, vectors = _spectrum(moment)
        importance = (self.a + 1) * values / (self.a * values + values.max())
        return _damping(vectors, importance)


class Scaled1(Scaled):
    """Soft."""

    name, title, a = "tried-scaled-1", "scaled projection, a = 1", 1.0


class Scaled10(Scaled):
    """Firmer: what the paper uses."""

    name, title, a = "tried-scaled-10", "scaled projection, a = 10", 10.0


class Scaled100(Scaled):
    """Nearly a null space."""

    name, title, a = "tried-scaled-100", "scaled projection, a = 100", 100.0


class Halfway(Defaults):
    """The mean of the projected and the free step: what averaging the two optima is to first order."""

    name, title = "tried-connector", "the mean of projected and free steps"

    def protected(self, weight: nn.Parameter, moment: torch.Tensor) -> torch.Tensor:
        return leading(moment, self.energy) * 0.5**0.5


# --- what is trained


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
            gradients = torch.autograd.grad(Centers.loss(self, x, y, task), list(self._sites))
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

    name, title = "tried-biases", "and biases"

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


# --- how it is trained


class TwiceAsLong(Defaults):
    """More epochs."""

    name, title, longer = "tried-8-epochs", "8 epochs", 2


class FourTimesAsLong(Defaults):
    """Many more epochs."""

    name, title, longer = "tried-16-epochs", "16 epochs", 4


class Mixup(Defaults):
    """Mixtures of two pictures and their labels, weights from Beta(0.2, 0.2) (Zhang et al., arXiv 1710.09412)."""

    name, title = "tried-mixup", "mixup"

    def loss(self, x: torch.Tensor, y: torch.Tensor, task: TaskData) -> torch.Tensor:
        share = float(torch.distributions.Beta(0.2, 0.2).sample())
        order = torch.randperm(len(y))
        scores = self.logits(self.network(share * x + (1 - share) * x[order]), task.name)
        return share * F.cross_entropy(scores, y) + (1 - share) * F.cross_entropy(scores, y[order])


class Rotations(Defaults):
    """Each picture turned by 0, 90, 180 and 270 degrees is a class of its own (PASS; Zhu et al., CVPR 2021)."""

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

    name, title = "tried-contrastive", "and a supervised contrastive loss"

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


# --- what the loss sees of other classes

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
    """And as many old pictures as new ones in each step, of 2,000 that are kept as what the frozen layers make of them.

    In torch the pictures themselves: what the frozen layers make of a picture never changes, and 8 bits are enough for
    it (decision 0013).
    """

    name, title = "tried-latent-replay", "and replay of the prefix features of 2,000 old pictures"
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


TRIED = (
    Defaults, Untrained, Energy50, Energy65, Energy90, DeepFree, ShallowFree, EffectiveRank, NullSpace, Scaled1,
    Scaled10, Scaled100, Halfway, Half, All, AllFreer, Random, ByInput, ByNovelty, ByBudget, Reselected, LastStage,
    ThreeStages, AllStages, Biases, TwiceAsLong, FourTimesAsLong, Mixup, Rotations, Contrastive, Averaged, AllClasses,
    LatentReplay,
)  # fmt: skip


def _spectrum(moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues, largest first, and eigenvectors."""
    values, vectors = torch.linalg.eigh(moment.double())
    return values.flip(0).clamp(min=0), vectors.flip(1)


def _damping(vectors: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    """B with `B B^T = V diag(importance) V^T`."""
    return (vectors * importance.clamp(min=0).sqrt()).float()
