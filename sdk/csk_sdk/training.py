"""Learning one task, as pure as it gets with a runtime inside: warm up, step, consolidate (DESIGN 2).

No file is written and no picture is read here. `Learner` and `TaskStream` feed batches and commit the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends import StepResult, TrainingStep, open_step
from csk_sdk.bundle import Bundle
from csk_sdk.config import TrainingConfig, augmentation
from csk_sdk.data.labels import Labels
from csk_sdk.errors import TaskError
from csk_sdk.knowledge import (
    HEAD_SAMPLE_BYTES,
    Batch,
    FeatureExtractor,
    FeatureSample,
    Tensors,
    measure_knowledge,
)
from csk_sdk.manifest import PORTABLE, Site
from csk_sdk.method.drift import Drift, DriftEstimate
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.optimizers import SGD, AdamW, Optimizer
from csk_sdk.method.projection import add_to_centers, basis, leak, project, restrict, scratch_for
from csk_sdk.method.selection import Sensitivity, select_channels

Batches = Callable[[], Iterable[Batch]]

HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"


@dataclass(frozen=True)
class Consolidated:
    """What a learned task leaves: the next generation's tensors, and per site `||dC B|| / ||dC||`."""

    tensors: Tensors
    leaks: dict[str, float]


class TaskTraining:
    """One task being learned, from a generation's tensors towards the next generation's.

    Per site: `selected` `(k,)` int64 channels, `deltas` `(rows, k)` float32 center changes on them, `bases`
    `(k, r)` float32 protected directions. `weight` `(n_classes, f)` and `bias` are the task's own head.
    """

    def __init__(
        self,
        bundle: Bundle,
        tensors: Tensors,
        classes: Sequence[str],
        config: TrainingConfig,
        backend: str = PORTABLE,
    ) -> None:
        self._bundle = bundle
        self._backend = backend
        self._tensors = tensors
        self._config = config
        self.classes = tuple(classes)
        self._objective = bundle.objective
        self._targets = self._objective.targets(self.classes, config)
        self.sites: tuple[Site, ...] = bundle.manifest.sites
        self.selected: dict[str, NDArray[np.int64]] = {}
        self.deltas: dict[str, NDArray[np.float32]] = {}
        self.bases: dict[str, NDArray[np.float32]] = {}
        self.weight = np.zeros((0, bundle.manifest.head.features), np.float32)
        self.bias = np.zeros(0, np.float32)
        self._updates: dict[str, NDArray[np.float32]] = {}
        self._scratch: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._optimizer = _optimizer(config)
        self._step: TrainingStep | None = None

    def warm_up(self, batches: Batches) -> None:
        """Fit the head, rank the channels on the task's data, select them, and span what is protected.

        The head starts at its optimum for the features as they are, so that the gradients say what the features
        lack. The first `sensitivity_batches` of `batches` are read, twice.
        """
        extractor = FeatureExtractor(self._bundle, self._tensors, self._config.threads, release=True)
        sample = FeatureSample(self._bundle.manifest.head.features)
        seen = []
        for images, labels in self._sample(batches):
            sample.add(extractor(images), labels)
            seen.append(labels)
        del extractor
        self._targets.see(np.concatenate(seen))
        features, labels = sample.arrays()
        head = self._objective.fit_head(features, self._targets.scaled(labels), self.classes)
        self.weight, self.bias = self._targets.start(head)
        sensitivities = {site.name: Sensitivity(site.channels) for site in self.sites}
        every = {site.name: np.arange(site.channels) for site in self.sites}
        unchanged = {site.name: np.zeros((site.rows, site.channels), np.float32) for site in self.sites}
        for batch in self._sample(batches):
            gradients = self._run(batch, every, unchanged).centers
            for site in self.sites:
                sensitivities[site.name].add(gradients[site.name])
        ratio = self._config.channel_ratio or self._bundle.manifest.channel_ratio
        for site in self.sites:
            chosen = select_channels(sensitivities[site.name].values, ratio)
            self._select(site, chosen, np.zeros((site.rows, len(chosen)), np.float32))

    def step(self, batch: Batch, schedule: float) -> float:
        """One optimizer step; its loss. `schedule` scales both learning rates.

        Raises TaskError when the loss is no longer finite.
        """
        self._targets.see(batch[1])
        result = self._run(batch, self.selected, self.deltas)
        loss = result.loss
        if not np.isfinite(loss):
            raise TaskError(
                f"The training loss became {loss}: lower --learning-rate, and check this task's data. "
                "Nothing was committed."
            )
        # A step that overflows is told by the next loss, or by `consolidate`: NumPy's warnings are only noise.
        with np.errstate(over="ignore", invalid="ignore"):
            self._update(result, schedule)
        return loss

    def _update(self, result: StepResult, schedule: float) -> None:
        optimizer = self._optimizer
        optimizer.learning_rate = self._config.learning_rate * schedule
        for site in self.sites:
            name, delta = site.name, self.deltas[site.name]
            update = self._updates[name]
            optimizer.step(name, result.centers[name], update, delta)
            project(update, self.bases[name], self._scratch[name])
            delta -= update
        optimizer.learning_rate = self._config.head_learning_rate * schedule
        for name, parameter, gradient in (
            (HEAD_WEIGHT, self.weight, result.weight),
            (HEAD_BIAS, self.bias, result.bias),
        ):
            optimizer.step(name, gradient, gradient, parameter)
            parameter -= gradient

    def consolidate(self, name: str, batches: Batches, scale: float = 1.0) -> Consolidated:
        """Fold the deltas into the centers and add this task to what is protected (DESIGN 2.4).

        `scale` weighs the batches where they are a sample of the task's data.
        Raises TaskError where training ended in numbers that are not finite: committed, they could not be
        unlearned.
        """
        _require_finite({HEAD_WEIGHT: self.weight, HEAD_BIAS: self.bias, **self.deltas})
        self._step = None
        tensors = dict(self._tensors)
        leaks = {}
        for site in self.sites:
            delta = self.deltas[site.name]
            # Once more, on the sum of all steps: what rounding left along the basis goes too.
            project(delta, self.bases[site.name], self._scratch[site.name])
            leaks[site.name] = leak(delta, self.bases[site.name])
            key = f"center/{site.name}"
            tensors[key] = tensors[key].copy()
            add_to_centers(tensors[key], delta, self.selected[site.name], site.groups)
        sample = FeatureSample(self._bundle.manifest.head.features)
        drift = DriftEstimate(self._bundle.manifest.head.features)
        threads = self._config.threads
        before = iter(self._features_before(batches))

        def keep(features: NDArray[np.float32], labels: Labels) -> None:
            _require_finite({"features": features})
            sample.add(features, labels)
            old = next(before, None)
            if old is not None:
                drift.add(old, features)

        moments, learned = measure_knowledge(
            self._bundle, tensors, batches(), self.classes, threads, on_features=keep
        )
        if augmentation(self._config, self._bundle.manifest)[0]:
            extractor = FeatureExtractor(self._bundle, tensors, threads, release=True)
            for images, labels in batches():
                if sample.full:
                    break
                sample.add(extractor(images[..., ::-1]), labels)
        self.weight, self.bias = self._objective.fit_head(*sample.arrays(), self.classes)
        with np.errstate(over="ignore"):
            for key, moment in moments.items():
                tensors[key] = (tensors[key] + scale * moment).astype(np.float32)
        if not self._config.class_statistics:
            learned = ClassStatistics.empty(self._bundle.manifest.head.features)
        if scale != 1.0:
            learned = ClassStatistics(
                learned.classes, learned.gram * scale, learned.sums * scale, learned.counts * scale
            )
        self._follow(drift.fit(), tensors, learned)
        tensors[f"head/{name}/weight"], tensors[f"head/{name}/bias"] = self.weight, self.bias
        _require_finite(tensors)
        return Consolidated(tensors, leaks)

    @property
    def _drifted(self) -> bool:
        return self._config.follows_drift and any(np.any(delta) for delta in self.deltas.values())

    def _features_before(self, batches: Batches) -> list[NDArray[np.float32]]:
        """The task's features as the network was before, batch by batch, as many as fit; none if not needed."""
        if not self._drifted:
            return []
        extractor = FeatureExtractor(self._bundle, self._tensors, self._config.threads, release=True)
        kept: list[NDArray[np.float32]] = []
        room = HEAD_SAMPLE_BYTES
        for images, _ in batches():
            kept.append(extractor(images))
            room -= kept[-1].nbytes
            if room <= 0:
                break
        return kept

    def _follow(self, drift: Drift, tensors: Tensors, learned: ClassStatistics) -> None:
        """Carry old heads and statistics over to the features as they are now, and add what was learned."""
        old = self._old_statistics()
        if self._drifted:
            old = drift.statistics(old)
            for key in [key for key in tensors if key.startswith("head/") and key.endswith("/weight")]:
                tensors[key] = drift.head(tensors[key])
        tensors.update(old.merge(learned).tensors())

    def progress(self) -> Tensors:
        """Everything that changes while training, for a progress checkpoint."""
        saved: Tensors = {HEAD_WEIGHT: self.weight, HEAD_BIAS: self.bias}
        for site in self.sites:
            saved[f"selected/{site.name}"] = self.selected[site.name]
            saved[f"delta/{site.name}"] = self.deltas[site.name]
        saved.update({f"targets/{key}": value for key, value in self._targets.tensors().items()})
        saved.update({f"optimizer/{key}": value for key, value in self._optimizer.tensors().items()})
        return saved

    def resume(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `progress`, to the bit."""
        self.weight, self.bias = saved[HEAD_WEIGHT].copy(), saved[HEAD_BIAS].copy()
        for site in self.sites:
            self._select(site, saved[f"selected/{site.name}"], saved[f"delta/{site.name}"].copy())
        self._targets.load(_below("targets/", saved))
        self._optimizer.load(_below("optimizer/", saved))

    def _select(self, site: Site, chosen: NDArray[np.int64], delta: NDArray[np.float32]) -> None:
        name = site.name
        self.selected[name], self.deltas[name] = chosen, delta
        self.bases[name] = basis(restrict(self._tensors[f"moment/{name}"], chosen), self._config.energy)
        self._updates[name] = np.empty_like(delta)
        self._scratch[name] = scratch_for(site.rows, self.bases[name])

    def _run(
        self,
        batch: Batch,
        selected: Mapping[str, NDArray[np.int64]],
        deltas: Mapping[str, NDArray[np.float32]],
    ) -> StepResult:
        if self._step is None:
            self._step = open_step(self._backend, self._bundle, self._tensors, self._config.threads)
        images, labels = batch
        return self._step.run(images, self._targets.feeds(labels), (self.weight, self.bias), selected, deltas)

    def _old_statistics(self) -> ClassStatistics:
        return ClassStatistics.from_tensors(self._tensors)

    def _sample(self, batches: Batches) -> Iterator[Batch]:
        """The first `sensitivity_batches` batches, and more until they tell something of each class."""
        seen: list[Labels] = []
        for count, batch in enumerate(batches()):
            if count >= self._config.sensitivity_batches and not self._objective.missing(
                np.concatenate(seen), self.classes
            ):
                return
            seen.append(batch[1])
            yield batch


def _below(prefix: str, saved: Mapping[str, NDArray[Any]]) -> Tensors:
    return {key[len(prefix) :]: value for key, value in saved.items() if key.startswith(prefix)}


def _require_finite(tensors: Mapping[str, NDArray[Any]]) -> None:
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise TaskError(
                f"Training diverged ('{name}' is no longer finite): lower --learning-rate, and check this "
                "task's data. Nothing was committed."
            )


def _optimizer(config: TrainingConfig) -> Optimizer:
    if config.optimizer == "adamw":
        return AdamW(config.learning_rate, weight_decay=config.weight_decay)
    return SGD(config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)
