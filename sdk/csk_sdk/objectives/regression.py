"""Mean squared error: each image has numbers, not classes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import MSE
from csk_sdk.data.labels import Labels
from csk_sdk.method.ridge import ridge_head
from csk_sdk.method.task_metrics import r_squared, root_mean_squared_error
from csk_sdk.objectives.objective import HeadArrays, Measure, Prediction, Targets, Tensors, columns_of
from csk_sdk.objectives.tables import TableObjective

_MEAN, _SCALE = "mean", "scale"


class ScaledTargets(Targets):
    """Targets in standard units while training, so that a learning rate means the same for degrees and for meters.

    Mean and deviation are those of the first labels seen, and stay.
    """

    def __init__(self) -> None:
        self._mean = np.zeros(0, np.float32)
        self._scale = np.ones(0, np.float32)

    def see(self, labels: Labels) -> None:
        """Take mean and deviation of the first labels."""
        if not self._mean.size:
            deviation = labels.std(axis=0, dtype=np.float64)
            self._mean = labels.mean(axis=0, dtype=np.float64).astype(np.float32)
            self._scale = np.where(deviation > 0.0, deviation, 1.0).astype(np.float32)

    def scaled(self, labels: Labels) -> Labels:
        """`(labels - mean) / deviation`."""
        scaled: Labels = (labels - self._mean) / self._scale
        return scaled

    def tensors(self) -> Tensors:
        """Mean and deviation, `(targets,)` float32 each."""
        return {_MEAN: self._mean, _SCALE: self._scale}

    def load(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `tensors` gave."""
        self._mean, self._scale = saved[_MEAN].copy(), saved[_SCALE].copy()


class Regression(TableObjective):
    """Values: ridge regression, and the share of the variance that is explained."""

    loss = MSE
    metric = "R2"
    outputs = "targets"
    suspicious = 0.0
    form = (
        "give labels (n, targets), one column of numbers for each of target_names, or a metadata.csv of such columns "
        "beside the images"
    )

    def traits(self, label: Any) -> Iterable[Hashable]:
        """None: no single image is needed."""
        return ()

    def targets(self, names: Sequence[str], config: TrainingConfig) -> Targets:
        """Labels in standard units."""
        super().targets(names, config)
        return ScaledTargets()

    def fit_head(self, features: NDArray[np.float32], labels: Labels, names: Sequence[str]) -> HeadArrays:
        """Ridge regression."""
        return ridge_head(features, labels)

    def head_loss(self, logits: NDArray[np.float32], labels: Labels) -> float:
        """Mean squared error."""
        return float(np.mean(np.square(logits.astype(np.float64) - labels)))

    def residuals(
        self, logits: NDArray[np.float32], labels: Labels, config: TrainingConfig
    ) -> NDArray[np.float64]:
        """Values less what they should be."""
        found: NDArray[np.float64] = logits.astype(np.float64) - labels
        return found

    def predict(self, logits: NDArray[np.float32], names: tuple[str, ...]) -> Prediction:
        """The values themselves."""
        return Prediction(logits.astype(np.float32), np.empty((len(logits), 0), np.float32), names)

    def measure(
        self, logits: NDArray[np.float32], outputs: Sequence[str], labels: Labels, names: Sequence[str]
    ) -> Measure:
        """R squared in percent, and the root mean squared error of each target in its own unit."""
        values = logits[:, columns_of(names, outputs)]
        errors = root_mean_squared_error(values, labels).tolist()
        return Measure(100.0 * r_squared(values, labels), {"rmse": dict(zip(names, errors, strict=True))})
