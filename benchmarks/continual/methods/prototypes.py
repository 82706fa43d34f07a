"""Exemplar-free methods on frozen features: what they keep is statistics of each class."""

from __future__ import annotations

import numpy as np
import torch

from csk_sdk.method.logistic import logistic_head

from ..data import TaskData
from .method import Method

TUKEY = 0.5
SHRINK_DIAGONAL = SHRINK_OTHERS = 1.0


class FeCAM(Method):
    """Mahalanobis distance to each class, with a covariance of its own.

    As the authors' code for CIFAR-100: features to the power 1/2 (Tukey), covariance of them shrunk twice, then
    scaled to correlations; distances between unit vectors.
    """

    name, title, frozen = "fecam", "FeCAM (frozen features)", True
    source = "Goswami et al., NeurIPS 2023, arXiv 2309.14062"

    def start(self) -> None:
        self._means: list[torch.Tensor] = []
        self._inverses: list[torch.Tensor] = []
        self.end_task(self.stream.base)

    def end_task(self, task: TaskData) -> None:
        features, labels = self.batches.features(self.network, task.train)
        for label in range(len(task.classes)):
            own = features[labels == label].double()
            self._means.append(unit(own.mean(0).clamp(min=0).pow(TUKEY)))
            covariance = torch.cov(own.clamp(min=0).pow(TUKEY).T)
            self._inverses.append(torch.linalg.pinv(correlation(shrunk(shrunk(covariance))), hermitian=True))

    def scores(self, features: torch.Tensor) -> torch.Tensor | None:
        given = unit(features.double().clamp(min=0).pow(TUKEY))
        columns = []
        for mean, inverse in zip(self._means, self._inverses, strict=True):
            difference = given - mean
            columns.append(-((difference @ inverse) * difference).sum(1))
        return torch.stack(columns, 1)

    def state_floats(self) -> int:
        return sum(
            mean.numel() + inverse.numel() for mean, inverse in zip(self._means, self._inverses, strict=True)
        )


class FeTrIL(Method):
    """A classifier over all classes, old ones shown as pseudo-features: a new class's features, moved to the old mean.

    The new class is the one whose mean is nearest. The classifier is csk-sdk's exact logistic head; the paper's is a
    linear SVM or a trained layer.
    """

    name, title, frozen = "fetril", "FeTrIL (frozen features)", True
    source = "Petit et al., WACV 2023, arXiv 2211.13131"

    def start(self) -> None:
        features, labels = self.batches.features(self.network, self.stream.base.train)
        self._means = [features[labels == label].mean(0) for label in range(len(self.stream.base.classes))]
        self._head = self.network.head

    def end_task(self, task: TaskData) -> None:
        features, labels = self.batches.features(self.network, task.train)
        new = [features[labels == label] for label in range(len(task.classes))]
        means = torch.stack([one.mean(0) for one in new])
        shown = []
        for mean in self._means:
            nearest = int(torch.cosine_similarity(means, mean[None]).argmax())
            shown.append(new[nearest] - means[nearest] + mean)
        shown += new
        self._means += list(means)
        target = np.concatenate([np.full(len(one), label) for label, one in enumerate(shown)])
        weight, bias = logistic_head(torch.cat(shown).numpy(), target, len(shown))
        self._head = torch.from_numpy(weight), torch.from_numpy(bias)

    def scores(self, features: torch.Tensor) -> torch.Tensor | None:
        return features @ self._head[0].T + self._head[1]

    def state_floats(self) -> int:
        return sum(mean.numel() for mean in self._means)


def unit(x: torch.Tensor) -> torch.Tensor:
    """Vectors of length 1 along the last axis."""
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def shrunk(covariance: torch.Tensor) -> torch.Tensor:
    """The covariance, plus its mean variance on the diagonal and its mean covariance off it."""
    size = len(covariance)
    eye = torch.eye(size, dtype=covariance.dtype)
    diagonal = covariance.diagonal().mean()
    others = (covariance.sum() - covariance.trace()) / (size * (size - 1))
    return covariance + SHRINK_DIAGONAL * diagonal * eye + SHRINK_OTHERS * others * (1 - eye)


def correlation(covariance: torch.Tensor) -> torch.Tensor:
    """Scaled to ones on the diagonal."""
    deviation = covariance.diagonal().sqrt()
    return covariance / (deviation[:, None] * deviation[None, :])
