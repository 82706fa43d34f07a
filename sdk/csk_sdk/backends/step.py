"""One training step as every backend computes it: a batch and parameters in, loss and gradients out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StepResult:
    """Mean loss of the batch, and its gradients, float32; the arrays are the caller's, to be overwritten.

    `centers` are by site name, `(rows, k)` like the deltas; `weight` is `(n_classes, f)`, `bias` `(n_classes,)`.
    """

    loss: float
    centers: dict[str, NDArray[np.float32]]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


class TrainingStep(Protocol):
    """A generation's network, opened for training. It keeps nothing between two runs."""

    def run(
        self,
        images: NDArray[np.float32],
        targets: Mapping[str, NDArray[Any]],
        head: tuple[NDArray[np.float32], NDArray[np.float32]],
        selected: Mapping[str, NDArray[np.int64]],
        deltas: Mapping[str, NDArray[np.float32]],
    ) -> StepResult:
        """Loss and gradients at the given parameters; updates are the caller's.

        `images` is `(n, c, h, w)` or `(n, c, length)`. `targets` are the inputs that `Targets.feeds` gives, by name:
        `label`, and what differs from its default. `head` is weight `(n_classes, f)` and bias `(n_classes,)`. By
        site name, `selected` `(k,)` are distinct input channels and `deltas` `(rows, k)` the change of their centers.
        """
        ...
