"""Learning one task, as pure as it gets with a runtime inside: warm up, step, consolidate (DESIGN 2).

No file is written and no picture is read here. `Learner` and `TaskStream` feed batches and commit the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.acceptance import forgets_too_much
from csk_sdk.backends import StepResult, TrainingStep, open_step
from csk_sdk.backends.micro import pieces
from csk_sdk.budget import WHOLE, Plan
from csk_sdk.bundle import Bundle
from csk_sdk.config import TrainingConfig, augmentation
from csk_sdk.data.labels import Labels
from csk_sdk.errors import TaskError
from csk_sdk.knowledge import Batch, FeatureExtractor, FeatureSample, Tensors, measure_knowledge
from csk_sdk.manifest import PORTABLE, Site
from csk_sdk.method.drift import Drift, DriftEstimate
from csk_sdk.method.forgetting import Movement, estimated_forgetting
from csk_sdk.method.heads import ClassStatistics, HeadArrays
from csk_sdk.method.known_classes import KnownClasses
from csk_sdk.method.label_check import LabelEvidence
from csk_sdk.method.logistic import cross_entropy
from csk_sdk.method.novelty import novelty
from csk_sdk.method.optimizers import SGD, AdamW, Optimizer
from csk_sdk.method.projection import add_to_centers, basis, leak, project, restrict, shared_scratch
from csk_sdk.method.selection import Sensitivity, select_channels

Batches = Callable[[], Iterable[Batch]]

HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"


@dataclass(frozen=True)
class Consolidated:
    """What a learned task leaves: the next generation's tensors, and per site `||dC B|| / ||dC||`.

    `forgetting` is by old task the points of accuracy that the trained centers were estimated to cost it; `heads_only`
    is whether they were dropped for that.
    """

    tensors: Tensors
    leaks: dict[str, float]
    forgetting: dict[str, float]
    heads_only: bool = False


class TaskTraining:
    """One task being learned, from a generation's tensors towards the next generation's.

    `tensors` are asked for where they are needed, and not kept: best left in their file (`StoredTensors`).

    `old_classes` are the classes of each older task, "base" among them; without, nothing is said about what they lose.

    Per site: `selected` `(k,)` int64 channels, `deltas` `(rows, k)` float32 center changes on them, `bases`
    `(k, r)` float32 protected directions. `weight` `(n_classes, f)` and `bias` are the task's own head. `evidence` is
    what the labels say about the pictures, `novelty` how far these are from all that is known, once warmed up. Of
    `plan`, the micro-batches and the sample's size count here; the bundle is already as its profile opens it.
    """

    def __init__(
        self,
        bundle: Bundle,
        tensors: Mapping[str, NDArray[Any]],
        classes: Sequence[str],
        config: TrainingConfig,
        backend: str = PORTABLE,
        old_classes: Mapping[str, tuple[str, ...]] | None = None,
        plan: Plan = WHOLE,
    ) -> None:
        self._bundle, self._plan = bundle, plan
        self._backend = backend
        self._tensors = tensors
        self._config = config
        self.classes = tuple(classes)
        self._old_classes = old_classes or {}
        self.known = KnownClasses(self.classes, self._old_statistics()).names
        self._objective = bundle.objective
        self._targets = self._objective.targets(self.classes, config)
        self.sites: tuple[Site, ...] = bundle.manifest.sites
        self.selected: dict[str, NDArray[np.int64]] = {}
        self.deltas: dict[str, NDArray[np.float32]] = {}
        self.bases: dict[str, NDArray[np.float32]] = {}
        self.weight = np.zeros((0, bundle.manifest.head.features), np.float32)
        self.bias = np.zeros(0, np.float32)
        self.evidence: LabelEvidence | None = None
        self.novelty: float | None = None
        self._scratch: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._optimizer = _optimizer(config)
        self._step: TrainingStep | None = None

    def warm_up(self, batches: Batches) -> None:
        """Fit the head, rank the channels on the task's data, select them, and span what is protected.

        The head starts at its optimum for the features as they are, so that the gradients say what the features
        lack. The first `sensitivity_batches` of `batches` are read, twice.
        """
        self._start_head(batches)
        sensitivities = {site.name: Sensitivity(site.channels) for site in self.sites}
        every = {site.name: np.arange(site.channels) for site in self.sites}
        unchanged = {site.name: np.zeros((site.rows, site.channels), np.float32) for site in self.sites}
        for batch in self._sample(batches):
            gradients = self._run(batch, every, unchanged).centers
            for site in self.sites:
                # Taken out, so that no gradient is in memory during the next run.
                sensitivities[site.name].add(gradients.pop(site.name))
        ratio = self._config.channel_ratio or self._bundle.manifest.channel_ratio
        for site in self.sites:
            chosen = select_channels(sensitivities[site.name].values, ratio)
            self._select(site, chosen, np.zeros((site.rows, len(chosen)), np.float32))
        self._share_scratch()

    def heads_only(self, batches: Batches) -> float:
        """Instead of warming up and stepping: no center will move. The mean cross-entropy of the head that is fitted.

        As `warm_up`, it reads the first `sensitivity_batches`, once, for the evidence and the novelty in them.
        """
        features, labels = self._start_head(batches)
        return cross_entropy(features, labels, self.weight, self.bias)

    def _start_head(self, batches: Batches) -> tuple[NDArray[np.float32], Labels]:
        """The head at its optimum for a sample of the features as they are; these, and their labels."""
        extractor = FeatureExtractor(self._bundle, self._tensors, self._config.threads, release=True)
        sample = FeatureSample(self._bundle.manifest.head.features, self._plan.profile.sample_bytes)
        seen = []
        for images, labels in self._parts(self._sample(batches)):
            sample.add(extractor(images), labels)
            seen.append(labels)
        del extractor
        self._targets.see(np.concatenate(seen))
        features, labels = sample.arrays()
        self.evidence = self._objective.evidence(features, labels, self.classes)
        self.novelty = novelty(self._old_statistics(), features)
        head = self._objective.fit_head(features, self._targets.scaled(labels), self.classes)
        self.weight, self.bias = self._targets.start(head)
        return features, labels

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
            # The gradient becomes the update, in its own memory, and is dropped as soon as it is used.
            update = result.centers.pop(name)
            optimizer.step(name, update, update, delta)
            project(update, self.bases[name], self._scratch[name])
            delta -= update
        optimizer.learning_rate = self._config.head_learning_rate * schedule
        for name, parameter, gradient in (
            (HEAD_WEIGHT, self.weight, result.weight),
            (HEAD_BIAS, self.bias, result.bias),
        ):
            optimizer.step(name, gradient, gradient, parameter)
            parameter -= gradient

    def consolidate(
        self, name: str, batches: Batches, scale: float = 1.0, mirrored: Batches | None = None
    ) -> Consolidated:
        """Fold the deltas into the centers and add this task to what is protected (DESIGN 2.4).

        `scale` weighs the batches where they are a sample of the task's data. `mirrored` are the batches of mirrored
        pictures, where `batches` hold prefix features, which cannot be mirrored.
        Where the centers cost an old task more than `max_forgetting` allows, they stay as they were, and the task
        gets its heads only; or, as `on_forgetting` has it, it is refused.
        Raises TaskError where it is, or where training ended in numbers that are not finite: committed, they could not
        be unlearned.
        """
        _require_finite({HEAD_WEIGHT: self.weight, HEAD_BIAS: self.bias, **self.deltas})
        self._step = None
        self._optimizer = _optimizer(self._config)
        done = self._fold(name, batches, scale, mirrored)
        if not forgets_too_much(done.forgetting, self._config, name):
            return done
        self.drop_centers()
        return replace(
            self._fold(name, batches, scale, mirrored), forgetting=done.forgetting, heads_only=True
        )

    def drop_centers(self) -> None:
        """Forget what was trained: the network stays as it was."""
        for delta in self.deltas.values():
            delta[...] = 0.0

    def _fold(self, name: str, batches: Batches, scale: float, mirrored: Batches | None) -> Consolidated:
        # What is going to be replaced is read when that is done: these are the largest tensors.
        replaced = "moment/", "statistics."
        tensors = {key: self._tensors[key] for key in self._tensors if not key.startswith(replaced)}
        leaks = {}
        for site in [site for site in self.sites if site.name in self.deltas]:
            delta = self.deltas[site.name]
            # Once more, on the sum of all steps: what rounding left along the basis goes too.
            project(delta, self.bases[site.name], self._scratch[site.name])
            leaks[site.name] = leak(delta, self.bases[site.name])
            key = f"center/{site.name}"
            tensors[key] = tensors[key].copy()
            add_to_centers(tensors[key], delta, self.selected[site.name], site.groups)
        threads = self._config.threads
        before = self._features_before(batches)
        moments, learned, sample = self._seen(tensors, batches, scale)
        with np.errstate(over="ignore"):
            for key in list(moments):
                # One by one, and out of memory before another graph is opened.
                tensors[key] = (self._tensors[key] + scale * moments.pop(key)).astype(np.float32)
        if augmentation(self._config, self._bundle.manifest)[0]:
            extractor = FeatureExtractor(self._bundle, tensors, threads, release=True)
            for images, labels in self._parts(mirrored() if mirrored else _mirrored(batches())):
                if sample.full:
                    break
                sample.add(extractor(images), labels)
            del extractor
        self.weight, self.bias = self._objective.fit_head(*sample.arrays(), self.classes)
        drift, movement = DriftEstimate(self._bundle.manifest.head.features), Movement()
        # The sample begins with the same pictures. The matrices are as large as a small network's kernels, so they are
        # made when no graph is open.
        for old, new in zip(before, sample.parts, strict=False):
            drift.add(old[: len(new)], new)
            movement.add(old[: len(new)], new)
        drifted = drift.fit()
        # Each matrix of features by features goes as soon as it is used: of several layers, they are the peak here.
        del drift
        self._follow(drifted, tensors, learned)
        del learned
        forgetting = self._forgetting(tensors, drifted, movement)
        tensors[f"head/{name}/weight"], tensors[f"head/{name}/bias"] = self.weight, self.bias
        _require_finite(tensors)
        return Consolidated(tensors, leaks, forgetting)

    def _seen(
        self, tensors: Tensors, batches: Batches, scale: float
    ) -> tuple[dict[str, NDArray[np.float64]], ClassStatistics, FeatureSample]:
        """What the network in `tensors` sees in the task: second moments, statistics to keep, features for a head."""
        features = self._bundle.manifest.head.features
        sample = FeatureSample(features, self._plan.profile.sample_bytes)
        repeated = KnownClasses(self.classes, self._old_statistics())

        def keep(features: NDArray[np.float32], labels: Labels) -> None:
            _require_finite({"features": features})
            repeated.add(features, labels)
            sample.add(features, labels)

        moments, learned = measure_knowledge(
            self._bundle,
            tensors,
            self._parts(batches()),
            self.classes,
            self._config.threads,
            on_features=keep,
        )
        if not self._config.class_statistics:
            return moments, ClassStatistics.empty(features), sample
        return moments, repeated.balance(learned, scale), sample

    @property
    def _moved(self) -> bool:
        return any(np.any(delta) for delta in self.deltas.values())

    def _forgetting(self, tensors: Tensors, drift: Drift, movement: Movement) -> dict[str, float]:
        """What the heads in `tensors` lose on the features as they are now, by old task; empty where nothing moved."""
        if not self._moved:
            return {}
        names = [
            key.split("/")[1] for key in self._tensors if key.startswith("head/") and key.endswith("/weight")
        ]

        def heads(of: Mapping[str, NDArray[Any]]) -> dict[str, HeadArrays]:
            return {name: (of[f"head/{name}/weight"], of[f"head/{name}/bias"]) for name in names}

        rng = np.random.default_rng(self._config.seed)
        return estimated_forgetting(
            self._old_statistics(),
            {name: self._old_classes.get(name, ()) for name in names},
            heads(self._tensors),
            heads(tensors),
            drift,
            movement.unexplained(drift),
            rng,
        )

    def _features_before(self, batches: Batches) -> list[NDArray[np.float32]]:
        """The task's features as the network was before, batch by batch, as many as fit; none if not needed."""
        if not self._moved:
            return []
        extractor = FeatureExtractor(self._bundle, self._tensors, self._config.threads, release=True)
        kept: list[NDArray[np.float32]] = []
        room = self._plan.profile.sample_bytes
        for images, _ in self._parts(batches()):
            kept.append(extractor(images))
            room -= kept[-1].nbytes
            if room <= 0:
                break
        return kept

    def _follow(self, drift: Drift, tensors: Tensors, learned: ClassStatistics) -> None:
        """Carry old heads and statistics over to the features as they are now, and add what was learned."""
        old = self._old_statistics()
        if self._moved and self._config.follows_drift:
            old = drift.statistics(old)
            for key in [key for key in tensors if key.startswith("head/") and key.endswith("/weight")]:
                tensors[key] = drift.head(tensors[key])
        old.merge(learned).replace_in(tensors)

    @property
    def protected(self) -> dict[str, str]:
        """By site, how many of the selected channels' directions are kept for older knowledge, as "r/k"."""
        return {name: f"{basis.shape[1]}/{basis.shape[0]}" for name, basis in self.bases.items()}

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
        self._share_scratch()
        self._targets.load(_below("targets/", saved))
        self._optimizer.load(_below("optimizer/", saved))

    def _select(self, site: Site, chosen: NDArray[np.int64], delta: NDArray[np.float32]) -> None:
        name = site.name
        self.selected[name], self.deltas[name] = chosen, delta
        self.bases[name] = basis(restrict(self._tensors[f"moment/{name}"], chosen), self._config.energy)

    def _share_scratch(self) -> None:
        self._scratch = shared_scratch({site.name: site.rows for site in self.sites}, self.bases)

    def _run(
        self,
        batch: Batch,
        selected: Mapping[str, NDArray[np.int64]],
        deltas: Mapping[str, NDArray[np.float32]],
    ) -> StepResult:
        if self._step is None:
            self._step = open_step(
                self._backend, self._bundle, self._tensors, self._config.threads, self._plan.micro_batch
            )
        images, labels = batch
        return self._step.run(images, self._targets.feeds(labels), (self.weight, self.bias), selected, deltas)

    def _old_statistics(self) -> ClassStatistics:
        return ClassStatistics.from_tensors(self._tensors)

    def _parts(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """As much of a batch at once as the plan allows, where only pictures count and not batches."""
        return pieces(batches, self._plan.micro_batch)

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


def _mirrored(batches: Iterable[Batch]) -> Iterator[Batch]:
    return ((images[..., ::-1], labels) for images, labels in batches)


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
