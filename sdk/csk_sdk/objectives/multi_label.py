"""Binary cross-entropy: each image has any number of classes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import BINARY_CROSS_ENTROPY
from csk_sdk.data.labels import Labels
from csk_sdk.errors import TaskError
from csk_sdk.method.label_check import LabelEvidence, table_evidence
from csk_sdk.method.logistic import binary_logistic_heads
from csk_sdk.method.task_metrics import mean_average_precision
from csk_sdk.objectives.objective import HeadArrays, Measure, Prediction, columns_of
from csk_sdk.objectives.tables import TableObjective


class MultiLabel(TableObjective):
    """Independent decisions: sigmoids, and mean average precision."""

    loss = BINARY_CROSS_ENTROPY
    metric = "mAP"
    form = (
        "give labels (n, classes) of 0 and 1, one column for each of class_names, or a metadata.csv of such columns "
        "beside the images"
    )

    def require_values(self, labels: Labels, names: Sequence[str], where: str) -> None:
        """Each label must be 0 or 1."""
        odd = np.argwhere((labels != 0.0) & (labels != 1.0))
        if odd.size:
            row, column = odd[0]
            raise TaskError(
                f"{where}label '{names[column]}' of image {row} is {labels[row, column]:g}, and must be 0 or 1 in a "
                f"bundle built with --loss {self.loss}. For other numbers, build it with --loss mse."
            )

    def traits(self, label: Any) -> Iterable[Hashable]:
        """An image with each class, and one without."""
        return enumerate(label.tolist())

    def fit_head(self, features: NDArray[np.float32], labels: Labels, names: Sequence[str]) -> HeadArrays:
        """A logistic regression for each class."""
        return binary_logistic_heads(features, labels)

    def head_loss(self, logits: NDArray[np.float32], labels: Labels) -> float:
        """Mean binary cross-entropy."""
        logits = logits.astype(np.float64)
        return float(np.mean(np.logaddexp(0.0, logits) - labels * logits))

    def residuals(
        self, logits: NDArray[np.float32], labels: Labels, config: TrainingConfig
    ) -> NDArray[np.float64]:
        """Each probability less what it should be."""
        found: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64))) - labels
        return found

    def evidence(
        self, features: NDArray[np.float32], labels: Labels, names: Sequence[str]
    ) -> LabelEvidence | None:
        """Accuracy on images left out, each class against its absence."""
        return table_evidence(features, labels)

    def predict(self, logits: NDArray[np.float32], names: tuple[str, ...]) -> Prediction:
        """Sigmoids, and the classes above 0.5."""
        probabilities = (0.5 * (1.0 + np.tanh(0.5 * logits))).astype(np.float32)
        labels = np.empty(len(logits), object)
        for index, row in enumerate(logits > 0.0):
            labels[index] = tuple(name for name, holds in zip(names, row, strict=True) if holds)
        return Prediction(labels, probabilities, names)

    def measure(
        self, logits: NDArray[np.float32], outputs: Sequence[str], labels: Labels, names: Sequence[str]
    ) -> Measure:
        """Mean average precision in percent. Raises TaskError where no image has any of the classes."""
        if not labels.any():
            raise TaskError("No test image has any of its task's classes: add some that have.")
        return Measure(100.0 * mean_average_precision(logits[:, columns_of(names, outputs)], labels))
