"""Cross-entropy: each image has one class."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import CLASS_MASK, CROSS_ENTROPY, LABEL_SMOOTHING
from csk_sdk.contract.thresholds import number
from csk_sdk.data.labels import Labels
from csk_sdk.data.tasks import Split
from csk_sdk.errors import TaskError
from csk_sdk.formats.given import array_of
from csk_sdk.formats.wording import plural
from csk_sdk.method.heads import ClassStatistics, Shrunk, lda_head
from csk_sdk.method.label_check import LabelEvidence, class_evidence
from csk_sdk.method.logistic import cross_entropy, known_head, logistic_head
from csk_sdk.objectives.objective import (
    CLASSES,
    HeadArrays,
    Measure,
    NamedHead,
    Objective,
    Prediction,
    Targets,
    Tensors,
    side_by_side,
)

PRIOR_PICTURES = number("discriminant", "prior_images")

_SEEN = "seen"


class ClassTargets(Targets):
    """Classes that no image has come of yet are masked out.

    A stream knows its classes before it has seen them all, and a softmax over absent ones would only learn that
    they are absent.
    """

    def __init__(self, classes: int, smoothing: float) -> None:
        self._seen = np.zeros(classes, np.bool_)
        self._smoothing = np.float32(smoothing)

    def start(self, head: HeadArrays) -> HeadArrays:
        """A class without an image starts from zeros: it is not held improbable for being late."""
        weight, bias = head
        weight[~self._seen], bias[~self._seen] = 0.0, 0.0
        return head

    def see(self, labels: Labels) -> None:
        """Let the labels' classes through."""
        self._seen[labels] = True

    def feeds(self, labels: Labels) -> Tensors:
        """Label, and smoothing and mask where they do anything."""
        feeds = super().feeds(labels)
        if self._smoothing:
            feeds[LABEL_SMOOTHING] = np.asarray(self._smoothing)
        if not self._seen.all():
            feeds[CLASS_MASK] = self._seen
        return feeds

    def tensors(self) -> Tensors:
        """Which classes were seen, `(classes,)` uint8."""
        return {_SEEN: self._seen.astype(np.uint8)}

    def load(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `tensors` gave."""
        self._seen = saved[_SEEN].astype(np.bool_)


class Classification(Objective):
    """One decision: softmax, accuracy, and over all classes a discriminant from class statistics."""

    loss = CROSS_ENTROPY
    metric = "accuracy"

    def require_split(self, split: Split, where: str, names: Sequence[str]) -> None:
        """Labels must be one class per image."""
        if split.labels.ndim != 1:
            raise TaskError(
                f"{where} has a table of labels {split.labels.shape}, but this bundle learns one class per image: "
                "give labels (n,), indices into class_names, or folders <class>/; or build the bundle with --loss "
                "binary-cross-entropy (any number of classes per image) or mse (numbers)."
            )

    def require_names(self, task: str, names: Sequence[str]) -> None:
        """At least one class."""
        if not names:
            raise TaskError(f"Task '{task}' has no class: name at least one.")

    def batch_labels(self, given: Any, pictures: int, names: Sequence[str]) -> Labels:
        """Integers `(images,)` into `names`."""
        labels = array_of(given, "labels")
        if labels.size and labels.dtype.kind not in "iu":
            raise TaskError(f"labels is {labels.dtype}, and must be integers: indices into the classes.")
        labels = labels.astype(np.int64)
        if labels.shape != (pictures,):
            raise TaskError(f"{plural(pictures, 'image')} came with labels of shape {labels.shape}.")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
            classes = plural(len(names), "class", "classes")
            raise TaskError(f"Labels run from {labels.min()} to {labels.max()}, but the task has {classes}.")
        return labels

    def blank_labels(self, pictures: int, names: Sequence[str]) -> Labels:
        """The first class."""
        return np.zeros(pictures, np.int64)

    def missing(self, labels: Labels, names: Sequence[str]) -> list[str]:
        """Classes without an image."""
        counts = np.bincount(labels, minlength=len(names))
        return [name for name, count in zip(names, counts, strict=True) if not count]

    def traits(self, label: Any) -> Iterable[Hashable]:
        """An image of each class."""
        return (int(label),)

    def targets(self, names: Sequence[str], config: TrainingConfig) -> Targets:
        """Smoothing, and a mask of the classes seen."""
        return ClassTargets(len(names), config.label_smoothing)

    def fit_head(self, features: NDArray[np.float32], labels: Labels, names: Sequence[str]) -> HeadArrays:
        """Multinomial logistic regression; of one class alone, zeros."""
        if len(names) < 2:
            return np.zeros((1, features.shape[1]), np.float32), np.zeros(1, np.float32)
        return logistic_head(features, labels, len(names))

    def known_head(
        self,
        head: HeadArrays,
        features: NDArray[np.float32],
        labels: Labels,
        shrunk: Shrunk | None,
        white: NDArray[np.float64] | None = None,
    ) -> HeadArrays:
        """The mean of it and of one in the metric of what is known."""
        if shrunk is None or len(head[1]) < 2:
            return head
        return known_head(head, features, labels, shrunk, white)

    def head_loss(self, logits: NDArray[np.float32], labels: Labels) -> float:
        """Mean cross-entropy."""
        return cross_entropy(logits, labels)

    def residuals(
        self, logits: NDArray[np.float32], labels: Labels, config: TrainingConfig
    ) -> NDArray[np.float64]:
        """Probabilities less what they should be."""
        exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        found: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
        smoothing = config.label_smoothing
        found -= smoothing / found.shape[1]
        found[np.arange(len(labels)), labels] -= 1.0 - smoothing
        return found

    def evidence(
        self, features: NDArray[np.float32], labels: Labels, names: Sequence[str]
    ) -> LabelEvidence | None:
        """Accuracy on images left out, the classes' mean."""
        return class_evidence(features, labels, len(names))

    def statistics(
        self,
        known: ClassStatistics,
        features: NDArray[np.float32],
        labels: Labels,
        names: Sequence[str],
    ) -> ClassStatistics:
        """Sums of the features, class by class."""
        return known.add(features, labels, names)

    def head_of_all(self, statistics: ClassStatistics, heads: Sequence[NamedHead]) -> NamedHead:
        """Linear discriminant analysis over all classes with statistics.

        Without statistics of the base classes (no --base-data) and before the first task, it is the source model's
        own head; afterwards those classes cannot be weighed against the new ones, and are left out. Where a task was
        learned without class statistics, all heads decide together; each was fitted against its own task's classes
        only, so that their logits are not made to be compared.
        """
        known = frozenset(statistics.classes)
        if not all(known.issuperset(names) for names, _, _ in heads[1:]):
            return side_by_side(heads)
        if not statistics.classes:
            return heads[0]
        return (statistics.classes, *lda_head(statistics, PRIOR_PICTURES))

    def predict(self, logits: NDArray[np.float32], names: tuple[str, ...]) -> Prediction:
        """Softmax, and the most probable class."""
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        labels = np.array(names)[probabilities.argmax(axis=1)]
        return Prediction(labels, probabilities.astype(np.float32), names)

    def measure(
        self, logits: NDArray[np.float32], outputs: Sequence[str], labels: Labels, names: Sequence[str]
    ) -> Measure:
        """Accuracy in percent; by class, too, with the class that most others are taken for, and how many.

        A class that is no output, since it could not be told from an older one, is never right.
        """
        place = {name: index for index, name in enumerate(outputs)}
        said, columns = logits.argmax(axis=1), np.array([place.get(name, -1) for name in names], np.int64)
        correct = int(np.sum(said == columns[labels]))
        by_class = {
            name: _told(said[labels == label], int(columns[label]), outputs)
            for label, name in enumerate(names)
            if np.any(labels == label)
        }
        return Measure(100.0 * correct / len(labels), {CLASSES: by_class})


def _told(said: NDArray[np.int64], own: int, outputs: Sequence[str]) -> dict[str, Any]:
    """Of images of one class, `own` of the outputs or -1, what was said."""
    right = int(np.sum(said == own))
    counts = np.bincount(said[said != own], minlength=len(outputs))
    most = int(counts.argmax())
    percent = 100.0 / len(said)
    return {
        "images": len(said),
        "accuracy": round(percent * right, 2),
        "confused": outputs[most] if counts[most] else "",
        "share": round(percent * int(counts[most]), 2),
    }
