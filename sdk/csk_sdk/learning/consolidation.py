"""What a learned task leaves: deltas folded into the centers, knowledge added, old heads carried along.

docs/method.md#consolidation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends.micro import pieces
from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig, augmentation
from csk_sdk.data.labels import Labels
from csk_sdk.learning.memory_budget import Plan
from csk_sdk.method.calibration import calibrated
from csk_sdk.method.drift import Drift, DriftEstimate
from csk_sdk.method.forgetting import estimated_forgetting
from csk_sdk.method.heads import ClassStatistics, HeadArrays
from csk_sdk.method.known_classes import KnownClasses
from csk_sdk.method.projection import add_to_centers, leak, project
from csk_sdk.method.unknown import Familiarity, measured
from csk_sdk.network.finite import require_converged, require_learnable_features
from csk_sdk.network.knowledge import (
    Batch,
    FeatureExtractor,
    FeatureSample,
    Tensors,
    known_tensors,
    measure_knowledge,
)
from csk_sdk.objectives.classification import PRIOR_PICTURES

Batches = Callable[[], Iterable[Batch]]


@dataclass(frozen=True)
class Consolidated:
    """What a learned task leaves: the next generation's tensors, and per site `||dC B|| / ||dC||`.

    `forgetting` is by old task the percentage points of accuracy that the trained centers were estimated to cost it;
    `heads_only` is whether they were dropped for that.
    """

    tensors: Tensors
    leaks: dict[str, float]
    forgetting: dict[str, float]
    heads_only: bool = False


@dataclass(frozen=True, eq=False)
class Consolidation:
    """From a generation's `tensors` to the next one's, by what the steps on one task left.

    `selected`, `deltas`, `bases` and `scratch` are those of `TaskTraining`, by site; `old_classes` the classes of each
    older task.
    """

    bundle: Bundle
    tensors: Mapping[str, NDArray[Any]]
    classes: tuple[str, ...]
    config: TrainingConfig
    plan: Plan
    old_classes: Mapping[str, tuple[str, ...]]
    selected: Mapping[str, NDArray[np.int64]]
    deltas: Mapping[str, NDArray[np.float32]]
    bases: Mapping[str, NDArray[np.float32]]
    scratch: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]

    def fold(self, name: str, batches: Batches, scale: float, mirrored: Batches | None) -> Consolidated:
        """The tensors of the next generation, from the deltas as they are; see `TaskTraining.consolidate`."""
        # What is going to be replaced is read when that is done: these are the largest tensors.
        # A newer csk-sdk's, which this one does not know, are carried on as they are.
        known = known_tensors(self.tensors, self.bundle.manifest.sites)
        replaced = {key for key in known if key.startswith(("moment/", "statistics."))}
        tensors = {key: self.tensors[key] for key in self.tensors if key not in replaced}
        leaks = {}
        for site in [site for site in self.bundle.manifest.sites if site.name in self.deltas]:
            delta = self.deltas[site.name]
            # Once more, on the sum of all steps: what rounding left along the basis goes too.
            project(delta, self.bases[site.name], self.scratch[site.name])
            leaks[site.name] = leak(delta, self.bases[site.name])
            key = f"center/{site.name}"
            tensors[key] = tensors[key].copy()
            add_to_centers(tensors[key], delta, self.selected[site.name], site.groups)
        threads = self.config.threads
        before = self._features_before(batches)
        moments, learned, sample = self._seen(tensors, batches, scale)
        own = len(sample.parts)
        with np.errstate(over="ignore"):
            for key in list(moments):
                # One by one, and out of memory before another graph is opened.
                tensors[key] = (self.tensors[key] + scale * moments.pop(key)).astype(np.float32)
        if augmentation(self.config, self.bundle.manifest)[0]:
            extractor = FeatureExtractor(self.bundle, tensors, threads, release=True)
            for images, labels in self._parts(mirrored() if mirrored else _mirrored(batches())):
                if sample.full:
                    break
                sample.add(extractor(images), labels)
            del extractor
        weight, bias = self.bundle.objective.fit_head(*sample.arrays(), self.classes)
        drift = DriftEstimate(self.bundle.manifest.head.features)
        # The sample begins with the same images. The matrices are as large as a small network's kernels, so they are
        # made when no graph is open.
        for old, new in zip(before, sample.parts, strict=False):
            drift.add(old[: len(new)], new)
        drifted = drift.fit() if before else None
        # Each matrix of features by features goes as soon as it is used: of several layers, they are the peak here.
        del drift
        known_now = self._follow(drifted, tensors, learned)
        if learned.classes:
            del learned
            self._sketch(tensors, known_now, sample, own)
        del known_now
        forgetting = self._forgetting(tensors, drifted)
        tensors[f"head/{name}/weight"], tensors[f"head/{name}/bias"] = weight, bias
        foreign = set(self.tensors) - known
        require_converged({key: value for key, value in tensors.items() if key not in foreign})
        return Consolidated(tensors, leaks, forgetting)

    @property
    def _moved(self) -> bool:
        return any(np.any(delta) for delta in self.deltas.values())

    def _seen(
        self, tensors: Tensors, batches: Batches, scale: float
    ) -> tuple[dict[str, NDArray[np.float64]], ClassStatistics, FeatureSample]:
        """What the network in `tensors` sees in the task: second moments, statistics to keep, features for a head."""
        features = self.bundle.manifest.head.features
        sample = FeatureSample(features, self.plan.profile.sample_bytes)
        known = ClassStatistics.from_tensors(self.tensors)
        repeated = KnownClasses(self.classes, known)

        def keep(features: NDArray[np.float32], labels: Labels) -> None:
            # The same images had finite ones before a center moved.
            if self._moved:
                require_converged({"features": features})
            require_learnable_features(features, self.bundle.manifest.input.noun)
            repeated.add(features, labels)
            sample.add(features, labels)

        moments, learned = measure_knowledge(
            self.bundle,
            tensors,
            self._parts(batches()),
            self.classes,
            self.config.threads,
            on_features=keep,
        )
        if not self.config.class_statistics:
            return moments, ClassStatistics.empty(features), sample
        if learned.classes and known.temperature is None:
            learned = calibrated(learned, *sample.arrays(), self.classes, PRIOR_PICTURES)
        return moments, repeated.balance(learned, scale), sample

    def _forgetting(self, tensors: Tensors, drift: Drift | None) -> dict[str, float]:
        """What the heads in `tensors` lose on the features as they are now, by old task; empty where nothing moved."""
        if drift is None:
            return {}
        names = _heads_in(self.tensors)

        def heads(of: Mapping[str, NDArray[Any]]) -> dict[str, HeadArrays]:
            return {name: (of[f"head/{name}/weight"], of[f"head/{name}/bias"]) for name in names}

        rng = np.random.default_rng(self.config.seed)
        return estimated_forgetting(
            ClassStatistics.from_tensors(self.tensors),
            {name: self.old_classes.get(name, ()) for name in names},
            heads(self.tensors),
            heads(tensors),
            drift,
            rng,
        )

    def _features_before(self, batches: Batches) -> list[NDArray[np.float32]]:
        """The task's features as the network was before, batch by batch, as many as fit; none if not needed."""
        if not self._moved:
            return []
        extractor = FeatureExtractor(self.bundle, self.tensors, self.config.threads, release=True)
        kept: list[NDArray[np.float32]] = []
        room = self.plan.profile.sample_bytes
        for images, _ in self._parts(batches()):
            kept.append(extractor(images))
            require_learnable_features(kept[-1], self.bundle.manifest.input.noun)
            room -= kept[-1].nbytes
            if room <= 0:
                break
        return kept

    def _follow(self, drift: Drift | None, tensors: Tensors, learned: ClassStatistics) -> ClassStatistics:
        """Carry old heads and statistics over to the features as they are now, and add what was learned."""
        old = ClassStatistics.from_tensors(self.tensors)
        if drift is not None and self.config.follows_drift:
            old = drift.statistics(old)
            for name in _heads_in(tensors):
                tensors[f"head/{name}/weight"] = drift.head(tensors[f"head/{name}/weight"])
        known = old.merge(learned)
        known.replace_in(tensors)
        return known

    def _sketch(self, tensors: Tensors, known: ClassStatistics, sample: FeatureSample, parts: int) -> None:
        """How close the task's images are to what is known now, of the first `parts` of the sample."""
        features, labels = sample.arrays(parts)
        old = Familiarity.from_tensors(self.tensors)
        sketch = measured(old, known, features, labels, self.classes, PRIOR_PICTURES)
        if sketch is not None:
            tensors.update(sketch.tensors())

    def _parts(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        return pieces(batches, self.plan.micro_batch)


def _heads_in(tensors: Iterable[str]) -> list[str]:
    """The tasks that have a head."""
    return [key.split("/")[1] for key in tensors if key.startswith("head/") and key.endswith("/weight")]


def _mirrored(batches: Iterable[Batch]) -> Iterator[Batch]:
    return ((images[..., ::-1], labels) for images, labels in batches)
