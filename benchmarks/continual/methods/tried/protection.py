"""How much of what old inputs use is protected, and how firmly."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from ..csko import leading
from .defaults import Defaults


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


def _spectrum(moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues, largest first, and eigenvectors."""
    values, vectors = torch.linalg.eigh(moment.double())
    return values.flip(0).clamp(min=0), vectors.flip(1)


def _damping(vectors: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    """B with `B B^T = V diag(importance) V^T`."""
    return (vectors * importance.clamp(min=0).sqrt()).float()
