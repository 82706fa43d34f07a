"""Learning one task, as pure as it gets with a runtime inside: warm up, step, consolidate (docs/method.md).

No file is written and no image is read here. `Learner` and `TaskStream` feed batches and commit the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends import StepResult, TrainingStep, open_step
from csk_sdk.backends.micro import pieces
from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import PORTABLE, Site
from csk_sdk.contract.thresholds import integer, number
from csk_sdk.data.labels import Labels
from csk_sdk.errors import DivergedError
from csk_sdk.learning.acceptance import forgets_too_much, require_scale, twins_to_part
from csk_sdk.learning.consolidation import Batches, Consolidated, Consolidation, Measured, Seen
from csk_sdk.learning.gaining import gain_so_far
from csk_sdk.learning.memory_budget import WHOLE, Plan
from csk_sdk.method.gain import Gain
from csk_sdk.method.heads import ClassStatistics, images_counted
from csk_sdk.method.importance import carrying, gradient_norms
from csk_sdk.method.known_classes import contradicted, known_among
from csk_sdk.method.label_check import LabelEvidence
from csk_sdk.method.novelty import novelty
from csk_sdk.method.optimizers import Optimizer, optimizer_of
from csk_sdk.method.projection import Projector, basis, projectors, restrict, threshold
from csk_sdk.method.selection import Sensitivity, select_channels
from csk_sdk.network.finite import require_converged
from csk_sdk.network.knowledge import Batch, FeatureSample, Tensors, learnable_features, require_room
from csk_sdk.objectives.classification import PRIOR_PICTURES

HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"
_IMAGES_PER_FEATURE = integer("warm_up", "images_per_feature")
_BEFORE_BYTES = integer("head", "before_bytes")
_NOVELTY_IMAGES = integer("novelty", "most_images")
_SELECTION_SHARE = number("importance", "selection_share")
_Kept = TypeVar("_Kept")
# Batches of those images that are named by where they come in the batches that a task is warmed up on.
SomeBatches = Callable[[NDArray[np.int64]], Iterator[Batch]]


class TaskTraining:
    """One task being learned, from a generation's tensors towards the next generation's.

    `tensors` are asked for where they are needed, and not kept: best left in their file (`StoredTensors`).

    `old_classes` are the classes of each older task, "base" among them; without, nothing is said about what they lose.
    `refitted` are those of older tasks whose heads are made anew, of what is known in the end. `recognised` is how
    often learned classes were right, as `method.decisions.Recognised` has it.

    Per site: `selected` `(k,)` int64 channels, `deltas` `(rows, k)` float32 center changes on them, `bases`
    `(k, r)` float32 protected directions. `weight` `(n_classes, f)` and `bias` are the task's own head. `evidence` is
    what the labels say about the images, `novelty` how far these are from all that is known, and `norms` `(m,)` float64
    those of the gradients that the first `m` images send back from the head's outputs, once warmed up. Of `plan`, the
    micro-batches and the sample's size count here; the bundle is already as its profile opens it.
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
        refitted: Mapping[str, tuple[str, ...]] | None = None,
        recognised: Mapping[str, float] | None = None,
    ) -> None:
        self._bundle, self._plan = bundle, plan
        self._backend = backend
        self._tensors = tensors
        self._config = config
        self.classes = tuple(classes)
        require_room(bundle.manifest.head.features)
        self._refitted, self._recognised = refitted or {}, {} if recognised is None else recognised
        old = (old_classes or {}).items()
        self._old_classes = {name: classes for name, classes in old if name not in self._refitted}
        self.known = known_among(self.classes, images_counted(self._tensors))
        # Of known classes, those that the images say are others; see `method.known_classes.contradicted`.
        self.contradicted: dict[str, tuple[str, float]] = {}
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
        self.norms: NDArray[np.float64] = np.empty(0, np.float64)
        self._projectors: dict[str, Projector] = {}
        self._optimizer = _optimizer(config)
        self._step: TrainingStep | None = None
        # What was seen of images before it was known that no center would move.
        self._measured: tuple[Batches, Measured] | None = None
        # Whether it has come to that: then no center does.
        self._frozen = False
        # Features of all images before a center moves, where they take little memory: the drift begins with them.
        self._before: tuple[Batches, FeatureSample] | None = None

    def warm_up(self, batches: Batches, some: SomeBatches | None = None) -> None:
        """Fit the head, rank the channels on the task's data, select them, and span what is protected.

        The head starts at its optimum for the features as they are, so that the gradients say what the features
        lack. Four images for each feature are read for the head, or all. For the channels up to `sensitivity_batches`
        of those images that half of the gradient comes from, where `some` gives batches of them; else the first of
        `batches`.
        """
        self._start_head(batches)
        ranked = self._sample(batches) if some is None else self._worth(some)
        sensitivities = {site.name: Sensitivity(site.columns) for site in self.sites}
        every = {site.name: np.arange(site.columns) for site in self.sites}
        unchanged = {site.name: np.zeros((site.rows, site.columns), np.float32) for site in self.sites}
        for batch in ranked:
            gradients = self._run(batch, every, unchanged).centers
            for site in self.sites:
                # Taken out, so that no gradient is in memory during the next run.
                sensitivities[site.name].add(gradients.pop(site.name))
        ratio = self._config.channel_ratio or self._bundle.manifest.channel_ratio
        for site in self.sites:
            chosen = select_channels(sensitivities[site.name].values, ratio)
            self._select(site, chosen, np.zeros((site.rows, len(chosen)), np.float32))
        self._make_projectors()

    def heads_only(self, batches: Batches) -> None:
        """Instead of warming up and stepping, where no center will move: the evidence and the novelty in the images.

        The network sees them as it will when the task is consolidated on the same `batches`: that is kept until then.
        """
        self._frozen = True
        measured = self._consolidation().measure(self._tensors, batches)
        features, labels = measured.sample.arrays()
        self._check(features, labels, labels)
        self._measured = batches, measured

    def _start_head(self, batches: Batches) -> None:
        """The head at its optimum for a sample of the features as they are."""
        sample = FeatureSample(self._bundle.manifest.head.features, self._plan.profile.sample_bytes)
        seen = []
        wanted = min(_IMAGES_PER_FEATURE * self._bundle.manifest.head.features, sample.room)
        all_of = _AllOf(batches)
        for features, labels in self._features(self._sample(all_of, wanted)):
            sample.add(features, labels)
            seen.append(labels)
        if all_of.taken and not sample.full and sample.nbytes <= _BEFORE_BYTES:
            self._before = batches, sample
        features, labels = sample.arrays()
        self._check(features, labels, np.concatenate(seen))
        head = self._objective.fit_head(features, self._targets.scaled(labels), self.classes)
        self.weight, self.bias = self._targets.start(head)
        self.norms = self._norms(features, labels)

    def norms_of(self, batches: Iterable[Batch]) -> NDArray[np.float64]:
        """As `norms` has them, of the images of these batches: with the head that training starts from."""
        # Two graphs at once would be the peak of memory.
        self._step = None
        return np.concatenate([self._norms(*seen) for seen in self._features(batches)])

    def _features(self, batches: Iterable[Batch]) -> Iterator[tuple[NDArray[np.float32], Labels]]:
        """Features as they were before a center moved, and labels."""
        return learnable_features(self._bundle, self._tensors, self._parts(batches), self._config.threads)

    def _norms(self, features: NDArray[np.float32], labels: Labels) -> NDArray[np.float64]:
        logits, scaled = features @ self.weight.T + self.bias, self._targets.scaled(labels)
        return gradient_norms(self._objective.residuals(logits, scaled, self._config))

    def _worth(self, some: SomeBatches) -> Iterator[Batch]:
        """Of the images that the head was fitted on, those that the channels are ranked by."""
        least = self._config.batch_size or self._bundle.manifest.batch_size
        batches = some(carrying(self.norms, _SELECTION_SHARE, least))
        return islice(batches, self._config.sensitivity_batches)

    def _check(self, features: NDArray[np.float32], labels: Labels, seen: Labels) -> None:
        """What the images say of their labels, and of what is known; `seen` are those of all that were looked at."""
        self._targets.see(seen)
        self.evidence = self._objective.evidence(features, labels, self.classes)
        old = self._old_statistics()
        if self._bundle.manifest.input.is_signal:
            require_scale(old, features, labels)
        self.novelty = novelty(old, features[:_NOVELTY_IMAGES])
        if self.known:
            self.contradicted = contradicted(old, PRIOR_PICTURES, features, labels, self.classes)

    def step(self, batch: Batch, schedule: float) -> float:
        """One optimizer step; its loss. `schedule` scales both learning rates.

        Raises DivergedError when the loss is no longer finite.
        """
        self._targets.see(batch[1])
        result = self._run(batch, self.selected, self.deltas)
        loss = result.loss
        if not np.isfinite(loss):
            raise DivergedError(
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
            self._projectors[name].project(update)
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
        """Fold the deltas into the centers and add this task to what is protected (docs/method.md#consolidation).

        `scale` weighs the batches where they are a sample of the task's data. `mirrored` are the batches of mirrored
        images, where `batches` hold prefix features, which cannot be mirrored.
        Where the centers cost an old task more than `max_forgetting` allows, they stay as they were, and the task
        gets its heads only; or, as `on_forgetting` has it, it is refused. A class that would take more than that from
        an old one, since the two cannot be told apart, has a place in the task's own decision only; or the task is
        refused.
        Raises TaskError where it is, or where training ended in numbers that are not finite: committed, they could not
        be unlearned.
        """
        require_converged({HEAD_WEIGHT: self.weight, HEAD_BIAS: self.bias, **self.deltas})
        self._step = None
        self._optimizer = _optimizer(self._config)
        consolidation = self._consolidation()
        measured, before = _seen_in(batches, self._measured), _seen_in(batches, self._before)
        self._measured = self._before = None
        seen = consolidation.see(batches, scale, mirrored, measured, before)
        del measured
        done = consolidation.settle(name, seen)
        if forgets_too_much(done.forgetting, self._config, name):
            self.drop_centers()
            del seen
            seen = consolidation.see(batches, scale, mirrored, None, None)
            done = replace(consolidation.settle(name, seen), forgetting=done.forgetting, heads_only=True)
        apart = twins_to_part(done.judgement, self._config, name, self.classes)
        if apart:
            assert done.judgement is not None
            consolidation = replace(consolidation, apart=apart)
            without = consolidation.settle(name, seen)
            judgement = done.judgement.without(apart, without.judgement)
            done = replace(
                without, forgetting=done.forgetting, heads_only=done.heads_only, judgement=judgement
            )
        done = consolidation.contributed(done, seen, batches)
        self.weight, self.bias = (done.tensors[f"head/{name}/{part}"] for part in ("weight", "bias"))
        return replace(done, loss=self._loss(seen)) if self._frozen else done

    def _loss(self, seen: Seen) -> float:
        """That of the head on the task's images, in the units that steps would have had it in."""
        features, labels = seen.sample.arrays(seen.own)
        scaled = self._targets.scaled
        return self._objective.head_loss(scaled(features @ self.weight.T + self.bias), scaled(labels))

    def gain(self, batches: Batches, held_out: NDArray[np.bool_], done: float) -> Gain:
        """What the steps so far, the share `done` of all, have gained on those of `batches` that are `held_out`.

        Nothing changes: the next step is what it would have been. See `gain_so_far`.
        """
        # A graph of its own is opened for that, and two at once would be the peak of memory.
        self._step = None
        return gain_so_far(self._consolidation(), batches, held_out, _seen_in(batches, self._before), done)

    def stay_frozen(self) -> None:
        """Drop all that was trained: the task is consolidated as one that no step was taken for."""
        self._frozen = True
        self._step = self._before = None
        self.selected, self.deltas, self.bases, self._projectors = {}, {}, {}, {}

    def _consolidation(self) -> Consolidation:
        return Consolidation(
            self._bundle, self._tensors, self.classes, self._config, self._plan, self._old_classes, self.selected,
            self.deltas, self.bases, self._projectors, self._refitted, self._recognised,
        )  # fmt: skip

    def drop_centers(self) -> None:
        """Forget what was trained: the network stays as it was."""
        for delta in self.deltas.values():
            delta[...] = 0.0

    @property
    def protected(self) -> dict[str, str]:
        """By site, how many of the selected channels' directions are kept for older knowledge, as "r/k"."""
        return {name: f"{basis.shape[1]}/{basis.shape[0]}" for name, basis in self.bases.items()}

    def progress(self) -> Tensors:
        """Everything that changes while training, for a progress checkpoint.

        Raises TaskError where training has diverged: a run that went on from there could only end so.
        """
        saved: Tensors = {HEAD_WEIGHT: self.weight, HEAD_BIAS: self.bias}
        for site in self.sites:
            saved[f"selected/{site.name}"] = self.selected[site.name]
            saved[f"delta/{site.name}"] = self.deltas[site.name]
        saved.update({f"targets/{key}": value for key, value in self._targets.tensors().items()})
        saved.update({f"optimizer/{key}": value for key, value in self._optimizer.tensors().items()})
        require_converged(saved)
        return saved

    def resume(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `progress`, to the bit."""
        self.weight, self.bias = saved[HEAD_WEIGHT].copy(), saved[HEAD_BIAS].copy()
        for site in self.sites:
            self._select(site, saved[f"selected/{site.name}"], saved[f"delta/{site.name}"].copy())
        self._make_projectors()
        self._targets.load(_below("targets/", saved))
        self._optimizer.load(_below("optimizer/", saved))

    def _select(self, site: Site, chosen: NDArray[np.int64], delta: NDArray[np.float32]) -> None:
        name = site.name
        self.selected[name], self.deltas[name] = chosen, delta
        energy = threshold(self._config.energy, site.taps)
        self.bases[name] = basis(restrict(self._tensors[f"moment/{name}"], chosen), energy)

    def _make_projectors(self) -> None:
        self._projectors = projectors({site.name: site.rows for site in self.sites}, self.bases)

    def _run(
        self,
        batch: Batch,
        selected: Mapping[str, NDArray[np.int64]],
        deltas: Mapping[str, NDArray[np.float32]],
    ) -> StepResult:
        if self._step is None:
            bundle = self._bundle.view(spinning=self._config.spinning)
            self._step = open_step(
                self._backend, bundle, self._tensors, self._config.threads, self._plan.micro_batch
            )
        images, labels = batch
        return self._step.run(images, self._targets.feeds(labels), (self.weight, self.bias), selected, deltas)

    def _old_statistics(self) -> ClassStatistics:
        return ClassStatistics.from_tensors(self._tensors)

    def _parts(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """As much of a batch at once as the plan allows, where only images count and not batches."""
        return pieces(batches, self._plan.micro_batch)

    def _sample(self, batches: Batches, least: int = 0) -> Iterator[Batch]:
        """The first `sensitivity_batches` batches; more until they are `least` images, and some of each class."""
        seen: list[Labels] = []
        pictures = 0
        for count, batch in enumerate(batches()):
            enough = count >= self._config.sensitivity_batches and pictures >= least
            if enough and not self._objective.missing(np.concatenate(seen), self.classes):
                return
            seen.append(batch[1])
            pictures += len(batch[1])
            yield batch


def _seen_in(batches: Batches, kept: tuple[Batches, _Kept] | None) -> _Kept | None:
    """What was kept of the same batches."""
    return kept[1] if kept is not None and kept[0] == batches else None


class _AllOf:
    """Batches, and whether all of them have been taken."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.taken = False

    def __call__(self) -> Iterator[Batch]:
        yield from self._batches()
        self.taken = True


def _below(prefix: str, saved: Mapping[str, NDArray[Any]]) -> Tensors:
    return {key[len(prefix) :]: value for key, value in saved.items() if key.startswith(prefix)}


def _optimizer(config: TrainingConfig) -> Optimizer:
    return optimizer_of(config.optimizer, config.learning_rate, config.momentum, config.weight_decay)
