"""What a bundle's loss means for everything around the training graph.

The loss decides what labels are, how a head is fitted exactly, what a prediction says, and how it is measured. An
`Objective` holds these answers for one loss, without state; `Targets` is what one task's training accumulates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import LABEL
from csk_sdk.data.labels import Labels
from csk_sdk.data.tasks import Split, Task
from csk_sdk.errors import ConfigError, TaskError
from csk_sdk.method.heads import ClassStatistics, Shrunk
from csk_sdk.method.label_check import LabelEvidence

Tensors = dict[str, NDArray[Any]]
HeadArrays = tuple[NDArray[np.float32], NDArray[np.float32]]
NamedHead = tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.float32]]


class _Said(NamedTuple):
    labels: NDArray[Any]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]


class Prediction(_Said):
    """What is said of `n` images; the columns of `probabilities` are in the order of `classes`. Immutable.

    By the bundle's loss:

    - cross-entropy: `labels` `(n,)` class names, `probabilities` `(n, len(classes))` float32, rows sum to 1
    - binary-cross-entropy: `labels` `(n,)` tuples of the names above 0.5, `probabilities` each on its own
    - mse: `labels` `(n, len(classes))` float32 values of the targets `classes`, in their own units, no `probabilities`

    It unpacks as these three: `labels, probabilities, classes = learner.predict(images)`. Beside them, and None for
    other losses than cross-entropy, and where nothing was measured that could tell (no `--base-data` and no task yet,
    or none since this version; the next task measures it):

    - `distance` `(n,)` float32, above 0: how unlike all that is known; about 1 in the middle of a class, no unit
    - `known` `(n,)` bool: False where only the share `reject` of images of known classes is further; `labels` then
      holds the best guess all the same

    And with any loss, None where no domain is known (`Learner.adapt`):

    - `domains` `(n,)`: the name of the domain that each image is told to be of, None for none
    """

    distance: NDArray[np.float32] | None = None
    known: NDArray[np.bool_] | None = None
    domains: tuple[str | None, ...] | None = None


# Details of a measure by class; they name classes, so they are told, and not kept.
CLASSES = "classes"


@dataclass(frozen=True)
class Measure:
    """How good predictions are: `score` is the metric in percent; `details` are figures of their own units."""

    score: float
    details: dict[str, Any] = field(default_factory=dict)


class Targets:
    """What the training graph is told of one task's labels. This one: the labels themselves.

    `see` is given the sample that training starts from, then every batch before it is stepped on.
    """

    def start(self, head: HeadArrays) -> HeadArrays:
        """The head that training starts from, made of the best one for the labels seen."""
        return head

    def see(self, labels: Labels) -> None:
        """Take note of labels that training is about to use."""

    def scaled(self, labels: Labels) -> Labels:
        """Labels in the units that the loss is computed in."""
        return labels

    def feeds(self, labels: Labels) -> Tensors:
        """The training model's inputs for one batch; those with a default only where they differ from it."""
        return {LABEL: self.scaled(labels)}

    def tensors(self) -> Tensors:
        """What a progress checkpoint must hold."""
        return {}

    def load(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `tensors` gave."""


class Objective(ABC):
    """The answers for one loss.

    `metric` names the measure. `tabular` says whether labels are a table rather than one class each. `outputs` is what
    a head's outputs are: "classes" or "targets". Below `suspicious`, the measure of the source model on its own data
    says that the data or the preprocessing is wrong. `lacking` says of a task what it means that a name is `missing`.
    """

    loss: ClassVar[str]
    metric: ClassVar[str]
    tabular: ClassVar[bool] = False
    outputs: ClassVar[str] = "classes"
    suspicious: ClassVar[float] = 50.0
    lacking: ClassVar[str] = "saw no {noun} of {name}"

    def require(self, task: Task) -> None:
        """Raise TaskError where the task's labels are not those of this loss."""
        for split in (task.train, task.test):
            if split is not None:
                self.require_split(split, f"Task '{task.name}'", task.classes)

    @abstractmethod
    def require_split(self, split: Split, where: str, names: Sequence[str]) -> None:
        """Raise TaskError where a split's labels are not those of this loss; `where` begins the message."""

    def require_names(self, task: str, names: Sequence[str]) -> None:
        """Raise TaskError where a task has too few classes, or targets, to learn."""
        if not names:
            raise TaskError(f"Task '{task}' has no {self.outputs}: name at least one.")

    @abstractmethod
    def batch_labels(self, given: Any, pictures: int, names: Sequence[str]) -> Labels:
        """Labels that an application hands over with a batch. Raises TaskError where they do not fit."""

    @abstractmethod
    def blank_labels(self, pictures: int, names: Sequence[str]) -> Labels:
        """Labels of the right form that say nothing, to try a training step with."""

    @abstractmethod
    def missing(self, labels: Labels, names: Sequence[str]) -> list[str]:
        """Those of `names` of which `labels` tell too little to learn them."""

    @abstractmethod
    def traits(self, label: Any) -> Iterable[Hashable]:
        """What a sample of the task must have at least one image of, as far as it is in this image."""

    def targets(self, names: Sequence[str], config: TrainingConfig) -> Targets:
        """What one task's training accumulates. Raises ConfigError for a setting of another loss."""
        if config.label_smoothing:
            raise ConfigError(
                f"label_smoothing is {config.label_smoothing}, but this bundle's loss is {self.loss}, and only "
                "cross-entropy has smoothed labels: set it to 0."
            )
        return Targets()

    @abstractmethod
    def fit_head(self, features: NDArray[np.float32], labels: Labels, names: Sequence[str]) -> HeadArrays:
        """The best head for features `(n, f)` float32 as they are: weight `(names, f)`, bias `(names,)`."""

    def known_head(
        self,
        head: HeadArrays,
        features: NDArray[np.float32],
        labels: Labels,
        shrunk: Shrunk | None,
        white: NDArray[np.float64] | None = None,
    ) -> HeadArrays:
        """What `fit_head` found of these features and labels, and what is known beside.

        `shrunk` is the covariance within known classes, the task's among them; None where it shows no spread. `white`
        are the features under it, where they are there already.
        """
        return head

    @abstractmethod
    def head_loss(self, logits: NDArray[np.float32], labels: Labels) -> float:
        """The mean loss, as training has it, of a head that says `logits` `(n, names)` in the units of `labels`."""

    @abstractmethod
    def residuals(
        self, logits: NDArray[np.float32], labels: Labels, config: TrainingConfig
    ) -> NDArray[np.float64]:
        """The gradient `(n, names)` of each image's loss by its `logits`, up to a factor that all images share."""

    def evidence(
        self, features: NDArray[np.float32], labels: Labels, names: Sequence[str]
    ) -> LabelEvidence | None:
        """Whether labels say anything about features `(n, f)`; None where this loss has no such check."""
        return None

    def statistics(
        self,
        known: ClassStatistics,
        features: NDArray[np.float32],
        labels: Labels,
        names: Sequence[str],
    ) -> ClassStatistics:
        """Class statistics with one more batch in them, where this loss has use for them; here it has not."""
        return known

    @abstractmethod
    def head_of_all(self, statistics: ClassStatistics, heads: Sequence[NamedHead]) -> NamedHead:
        """One head over everything learned, from class statistics or the tasks' own heads, oldest first."""

    @abstractmethod
    def predict(self, logits: NDArray[np.float32], names: tuple[str, ...]) -> Prediction:
        """What logits `(n, names)` say."""

    @abstractmethod
    def measure(
        self, logits: NDArray[np.float32], outputs: Sequence[str], labels: Labels, names: Sequence[str]
    ) -> Measure:
        """How right logits `(n, outputs)` are for labels over `names`, each of which is one of `outputs`."""


def side_by_side(heads: Sequence[NamedHead]) -> NamedHead:
    """All outputs of several heads; where two have one of the same name, the later head's."""
    rows = {
        name: (weight, bias)
        for names, weights, biases in heads
        for name, weight, bias in zip(names, weights, biases, strict=True)
    }
    weights, biases = zip(*rows.values(), strict=True)
    return tuple(rows), np.stack(weights), np.stack(biases)


def columns_of(names: Sequence[str], outputs: Sequence[str]) -> NDArray[np.int64]:
    """Where each of `names` is in `outputs`."""
    place = {name: index for index, name in enumerate(outputs)}
    return np.array([place[name] for name in names], np.int64)
