"""What a learned task leaves: deltas folded into the centers, knowledge added, old heads carried along.

docs/method.md#consolidation.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends.micro import pieces
from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig, augmentation
from csk_sdk.data.labels import Labels
from csk_sdk.formats.stored_tensors import several
from csk_sdk.learning.memory_budget import Plan
from csk_sdk.learning.revision import refit
from csk_sdk.method.calibration import calibrated
from csk_sdk.method.contributions import Contribution, ContributionSum, Lesson
from csk_sdk.method.decisions import Judgement, judge
from csk_sdk.method.drift import Drift, DriftEstimate
from csk_sdk.method.forgetting import estimated_forgetting
from csk_sdk.method.heads import STATISTICS, ClassStatistics, HeadArrays, Shrunk, images_counted
from csk_sdk.method.known_classes import known_among
from csk_sdk.method.left_out import JudgedImages
from csk_sdk.method.mirroring import mirrored_beside, spread_over
from csk_sdk.method.projection import Projector, add_to_centers, leak
from csk_sdk.method.unknown import Familiarity, measured
from csk_sdk.network.domains import domain_tensors
from csk_sdk.network.finite import require_converged, require_learnable_features
from csk_sdk.network.knowledge import (
    Batch,
    FeatureExtractor,
    FeatureSample,
    Tensors,
    learnable_features,
    measure_knowledge,
)
from csk_sdk.network.ledger import MAP, MAPPED, UnledgeredError, digest_of_centers, map_of
from csk_sdk.objectives.classification import PRIOR_PICTURES

Batches = Callable[[], Iterable[Batch]]


@dataclass(frozen=True)
class Consolidated:
    """What a learned task leaves: the next generation's tensors, and per site `||dC B|| / ||dC||`.

    `forgetting` is by old task the percentage points of accuracy that the trained centers were estimated to cost it;
    `heads_only` is whether they were dropped for that. `judgement` is what the decision over all classes makes of the
    task, None where it has no statistics; `apart` are classes that it leaves out. `lesson` is what the task contributes
    under the bundle's untouched network, and `carried` the same as it is counted where centers have moved; None where
    nothing is kept of its classes. `loss` is that of the task's own head where nothing else was trained, or was kept.
    """

    tensors: Tensors
    leaks: dict[str, float]
    forgetting: dict[str, float]
    heads_only: bool = False
    judgement: Judgement | None = None
    apart: tuple[str, ...] = ()
    lesson: Lesson | None = None
    carried: Lesson | None = None
    loss: float | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """What one pass over a task's images tells: second moments by tensor, contributions by class, features."""

    moments: dict[str, NDArray[np.float64]]
    sums: list[ContributionSum]
    sample: FeatureSample


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network, as trained, sees in a task's images: for one decision after the other, and one look.

    `tensors` are those of the next generation so far, of which `kept` are as they were. `drift` is how features have
    moved, `contributions` what the task's classes contribute. `own` is how many parts of the `sample` are of the images
    themselves and not mirrored, `head` the task's own; an image stands for `scale`. `before` are all images' features
    as they were, where they were kept, and `below` what they contributed then, where it was counted.
    """

    tensors: Tensors
    kept: Tensors
    leaks: dict[str, float]
    drift: Drift | None
    contributions: dict[str, Contribution]
    sample: FeatureSample
    own: int
    head: HeadArrays
    scale: float
    before: FeatureSample | None
    below: list[ContributionSum] | None


@dataclass(frozen=True, eq=False)
class Consolidation:
    """From a generation's `tensors` to the next one's, by what the steps on one task left.

    `selected`, `deltas`, `bases` and `projectors` are those of `TaskTraining`, by site; `old_classes` the classes of
    each older task, and `refitted` those of each whose head is made anew of what is known then; `recognised` is how
    often learned classes were right (`method.decisions.Recognised`). Classes that are `apart` have a place in the
    task's own head, and none in what is known.
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
    projectors: Mapping[str, Projector]
    refitted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    recognised: Mapping[str, float] = field(default_factory=dict)
    apart: tuple[str, ...] = ()

    def see(
        self,
        batches: Batches,
        scale: float,
        mirrored: Batches | None,
        measured: Measured | None,
        before: FeatureSample | None,
    ) -> Seen:
        """All that is seen in the task's images once the deltas are in the centers; see `TaskTraining.consolidate`.

        `measured` and `before` are what was seen of the same images while no center had moved, if it was kept.
        """
        # What is going to be replaced is read when that is done: these are the largest tensors.
        # A newer csk-sdk's, which this one does not know, are carried on as they are.
        replaced = {f"moment/{site.name}" for site in self.bundle.manifest.sites}
        replaced |= {f"statistics.{name}" for name in STATISTICS} | {f"center/{name}" for name in self.deltas}
        kept = several(self.tensors, (key for key in self.tensors if key not in replaced))
        tensors = dict(kept)
        leaks = {}
        for name, delta in self.deltas.items():
            # Once more, on the sum of all steps: what rounding left along the basis goes too.
            self.projectors[name].project(delta)
            leaks[name] = leak(delta, self.bases[name])
        tensors |= self.moved_centers()
        were, below = self._features_before(batches, before)
        # The same network has seen the same images already, where no center has moved.
        measured = measured if measured is not None and not self._moved else self.measure(tensors, batches)
        moments, sums, sample = measured.moments, measured.sums, measured.sample
        own = len(sample.parts)
        with np.errstate(over="ignore"):
            for key in list(moments):
                # One by one, and out of memory before another graph is opened.
                tensors[key] = (self.tensors[key] + scale * moments.pop(key)).astype(np.float32)
        if augmentation(self.config, self.bundle.manifest)[0]:
            self._add_mirrored(tensors, mirrored() if mirrored else _mirrored(batches()), sample)
        head = self.bundle.objective.fit_head(*sample.arrays(), self.classes)
        drift = DriftEstimate(self.bundle.manifest.head.features)
        # The sample begins with the same images. The matrices are as large as a small network's kernels, so they are
        # made when no graph is open.
        for old, new in zip(were, sample.parts, strict=False):
            drift.add(old[: len(new)], new)
        contributions = self._totals(sums, scale)
        moved = drift.fit() if were else None
        return Seen(tensors, kept, leaks, moved, contributions, sample, own, head, scale, before, below)

    def _add_mirrored(self, tensors: Tensors, mirrored: Iterable[Batch], sample: FeatureSample) -> None:
        """To a sample of few images as they are, some of the same mirrored."""
        _, labels = sample.arrays()
        wanted = min(mirrored_beside(len(labels)), sample.room)
        if not wanted:
            return
        chosen = spread_over(len(labels), wanted)
        seen, start = [], 0
        with self._extractor(tensors) as extractor:
            for images, _ in self._parts(mirrored):
                rows = chosen[(start <= chosen) & (chosen < start + len(images))] - start
                if len(rows):
                    seen.append(extractor(images[rows]))
                start += len(images)
                if start > chosen[-1]:
                    break
        sample.add(np.concatenate(seen), labels[chosen])

    def settle(self, name: str, seen: Seen) -> Consolidated:
        """The tensors of the next generation, from what was seen: the images are not looked at again."""
        tensors = dict(seen.tensors)
        lesson, carried = None, None
        if self.bundle.objective.tabular:
            self._follow(seen.drift, tensors, None)
            lesson = self._of_table(tensors, seen)
        else:
            if seen.contributions:
                lesson = self._lesson(seen.contributions, self._temperature(seen.sample))
            carried = self._follow(seen.drift, tensors, lesson)
        judgement, head = None, seen.head
        if lesson is not None and not self.bundle.objective.tabular:
            judgement, head = self._decided(tensors, seen, lesson, moved=carried is not None)
        # Whoever asks for classes that are apart knows what older tasks lose.
        forgetting = {} if self.apart else self.forgetting(tensors, seen.drift)
        refit(tensors, self.refitted)
        tensors[f"head/{name}/weight"], tensors[f"head/{name}/bias"] = head
        require_converged({key: value for key, value in tensors.items() if value is not seen.kept.get(key)})
        return Consolidated(
            tensors,
            seen.leaks,
            forgetting,
            judgement=judgement,
            apart=self.apart,
            lesson=lesson,
            carried=carried,
        )

    def moved_centers(self) -> Tensors:
        """The trained centers as the steps have left them, new arrays."""
        centers = {}
        for site in [site for site in self.bundle.manifest.sites if site.name in self.deltas]:
            key = f"center/{site.name}"
            centers[key] = self.tensors[key].copy()
            add_to_centers(centers[key], self.deltas[site.name], self.selected[site.name], site.groups)
        return centers

    @property
    def _moved(self) -> bool:
        return any(np.any(delta) for delta in self.deltas.values())

    def contributed(self, done: Consolidated, seen: Seen, batches: Batches) -> Consolidated:
        """The same, with what the task contributes under the bundle's untouched network, where that is another."""
        if done.carried is None or done.lesson is None:
            return done
        sums = seen.below or self._untouched(batches, seen.before)
        below = self._totals(sums, seen.scale)
        return replace(done, lesson=self._lesson(below, done.lesson.temperature))

    def measure(self, tensors: Mapping[str, NDArray[Any]], batches: Batches) -> Measured:
        """What the network in `tensors` sees in the task: second moments, contributions, features for a head."""
        sample = FeatureSample(self.bundle.manifest.head.features, self.plan.profile.sample_bytes)
        sums = self._sums()

        def keep(features: NDArray[np.float32], labels: Labels) -> None:
            # The same images had finite ones before a center moved.
            if self._moved:
                require_converged({"features": features})
            require_learnable_features(features, self.bundle.manifest.input.noun)
            _count(sums, features, labels)
            sample.add(features, labels)

        moments = measure_knowledge(self.bundle, tensors, self._parts(batches()), keep, self.config.threads)
        return Measured(moments, sums, sample)

    def _sums(self) -> list[ContributionSum]:
        """One for each class, or one for all images where labels are a table; none where nothing is to be kept."""
        if not self.config.class_statistics:
            return []
        count = 1 if self.bundle.objective.tabular else len(self.classes)
        return [ContributionSum(self.bundle.manifest.head.features) for _ in range(count)]

    def _totals(self, sums: list[ContributionSum], scale: float) -> dict[str, Contribution]:
        """What the task's classes contribute, each image standing for `scale`; empty where nothing is kept of them.

        Where labels are a table, each image is one of all classes, with or without them.
        """
        if self.bundle.objective.tabular:
            found = dict.fromkeys(self.classes, sums[0].total()) if sums else {}
        else:
            found = {name: one.total() for name, one in zip(self.classes, sums, strict=False)}
        return {name: one.scaled(scale) for name, one in found.items() if one.count}

    def _lesson(self, contributions: Mapping[str, Contribution], temperature: float | None) -> Lesson:
        """What of it counts in what is known."""
        counted = tuple(name for name in self.classes if name not in self.apart)
        found = {name: one for name, one in contributions.items() if name not in self.apart}
        return Lesson(counted, found, temperature)

    def _of_table(self, tensors: Tensors, seen: Seen) -> Lesson | None:
        """What is kept of the images of a table, for an upgrade: in nothing that decides is it counted.

        Led back to the untouched network's features; None where nobody knows the way.
        """
        try:
            with closing(self.bundle.stored_checkpoint()) as stored:
                matrix = map_of(tensors, stored)
        except UnledgeredError:
            return None
        if not seen.contributions:
            return None
        one = next(iter(seen.contributions.values()))
        if matrix is not None:
            one = Lesson((), {"": one}).led_back(matrix).contributions[""]
        return Lesson((), dict.fromkeys(self.classes, one))

    def _temperature(self, sample: FeatureSample) -> float | None:
        """What is measured on the task, where the bundle brings none."""
        if self._has_temperature:
            return None
        empty = ClassStatistics.empty(self.bundle.manifest.head.features)
        return calibrated(empty, *self._counted(*sample.arrays()), PRIOR_PICTURES).temperature

    @property
    def _has_temperature(self) -> bool:
        with closing(self.bundle.stored_checkpoint()) as stored:
            return "statistics.temperature" in stored

    def _untouched(self, batches: Batches, before: FeatureSample | None) -> list[ContributionSum]:
        """What the bundle's own network sees in the task: the same as `before` where no task has moved it yet.

        Images of a domain as that shows them, which is near: it was measured on the network as it is now.
        """
        sums, centers = self._sums(), self._own_centers()
        if before is not None and self._was_untouched(centers):
            for features, labels in before.pairs:
                _count(sums, features, labels)
            return sums
        with self._features({**centers, **domain_tensors(self.tensors)}, batches) as seen:
            for features, labels in seen:
                _count(sums, features, labels)
        return sums

    def _own_centers(self) -> dict[str, NDArray[Any]]:
        """Those that the bundle came with."""
        with closing(self.bundle.stored_checkpoint()) as stored:
            return {key: stored[key] for key in stored if key.startswith("center/")}

    def _was_untouched(self, centers: Mapping[str, NDArray[Any]]) -> bool:
        """Whether no task had moved any of these until now."""
        return np.array_equal(digest_of_centers(self.tensors), digest_of_centers(centers))

    def _features(
        self, tensors: Mapping[str, NDArray[Any]], batches: Batches
    ) -> closing[Generator[tuple[NDArray[np.float32], Labels]]]:
        """Features of the task as these see it, and labels; closed where not all of them are asked for."""
        found = learnable_features(self.bundle, tensors, self._parts(batches()), self.config.threads)
        return closing(found)

    def _extractor(self, tensors: Mapping[str, NDArray[Any]]) -> closing[FeatureExtractor]:
        return closing(FeatureExtractor(self.bundle, tensors, self.config.threads, release=True))

    def _follow(self, drift: Drift | None, tensors: Tensors, seen: Lesson | None) -> Lesson | None:
        """Carry old heads and statistics over to the features as they are now, and add what was learned.

        What is added, as it is counted when centers have moved: led back to the untouched network's features. None
        where none has.
        """
        old = ClassStatistics.from_tensors(self.tensors)
        followed = drift is not None and self.config.follows_drift
        if drift is not None and followed:
            old = drift.statistics(old)
            for name in _heads_in(tensors):
                tensors[f"head/{name}/weight"] = drift.head(tensors[f"head/{name}/weight"])
        # Of two that are alike, one goes before the next is made.
        old = old if seen is None else seen.after(old)
        old.replace_in(tensors)
        del old
        try:
            with closing(self.bundle.stored_checkpoint()) as stored:
                matrix = map_of(self.tensors, stored)
        except UnledgeredError:
            # Its map ends where someone went on who knows of none.
            return Lesson(self.classes, {}) if seen is not None else None
        if matrix is None and not self._moved:
            return None
        now = digest_of_centers(tensors)
        if matrix is None and drift is not None and followed:
            tensors[MAP], tensors[MAPPED] = drift.forward.astype(np.float32), now
            return None if seen is None else seen.led(drift.undone)
        if matrix is None:
            matrix = np.eye(self.bundle.manifest.head.features)
        elif drift is not None and followed:
            matrix = drift.behind(matrix)
        tensors[MAP], tensors[MAPPED] = matrix.astype(np.float32), now
        return None if seen is None else seen.led_back(matrix)

    def forgetting(self, tensors: Tensors, drift: Drift | None) -> dict[str, float]:
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

    def _features_before(
        self, batches: Batches, kept: FeatureSample | None
    ) -> tuple[list[NDArray[np.float32]], list[ContributionSum] | None]:
        """The task's features as the network was before, batch by batch, as many as fit; none if not needed.

        And what all of them contribute, where that was the bundle's own network: it need not be asked again then.
        """
        if not self._moved:
            return [], None
        if kept is not None:
            return kept.parts, None
        seen: list[NDArray[np.float32]] = []
        wanted = not self.bundle.objective.tabular and self._was_untouched(self._own_centers())
        sums = self._sums() if wanted else []
        room = self.plan.profile.sample_bytes
        with self._features(self.tensors, batches) as found:
            for features, labels in found:
                _count(sums, features, labels)
                if room > 0:
                    seen.append(features)
                    room -= features.nbytes
                elif not sums:
                    break
        return seen, sums or None

    def _decided(
        self, tensors: Tensors, seen: Seen, lesson: Lesson, *, moved: bool
    ) -> tuple[Judgement | None, HeadArrays]:
        """What is to be expected of decisions, and the task's own head.

        The head is made beside what is known of the base and of the task itself. So it is the same whatever was learned
        before it, and forgotten after. Where a center has `moved`, the network holds something of each task anyway, and
        it is all that is known.
        """
        known = ClassStatistics.from_tensors(tensors)
        shrunk = Shrunk.of(known, PRIOR_PICTURES)
        features, labels = seen.sample.arrays()
        both, white = moved or self._first, None
        if shrunk is not None and both and not self.apart and len(features) < known.features:
            # Asked for by both, and no larger than the root.
            white = shrunk.whiten(features.astype(np.float64))
        images = self._images(known, shrunk, seen, white) if lesson.classes else None
        if not both:
            # One root goes before the next is made.
            shrunk = None
            shrunk = Shrunk.of(self._beside_base(seen.contributions), PRIOR_PICTURES, spent=True)
        head = self.bundle.objective.known_head(seen.head, features, labels, shrunk, white)
        del shrunk, white
        return (None if images is None else self._judged(tensors, known, images, lesson.classes)), head

    @property
    def _first(self) -> bool:
        """Whether all that is known from now on is the base, as the bundle has it, and the task."""
        old = ClassStatistics.from_tensors(self.tensors)
        if self.apart or known_among(self.classes, old.counted):
            return False
        with closing(self.bundle.stored_checkpoint()) as stored:
            return old.same_as(ClassStatistics.from_tensors(stored))

    def _beside_base(self, contributions: Mapping[str, Contribution]) -> ClassStatistics:
        with closing(self.bundle.stored_checkpoint()) as stored:
            base = ClassStatistics.from_tensors(stored)
        # Known classes in a new look are no more images of the base's.
        own = {f"\0{name}": one for name, one in contributions.items()}
        return Lesson(tuple(own), own).after(base)

    def _images(
        self, known: ClassStatistics, shrunk: Shrunk | None, seen: Seen, white: NDArray[np.float64] | None
    ) -> JudgedImages | None:
        """The task's own images, as what is known now judges them; `white` begins with them, where it is there."""
        features, labels, classes = self._counted(*seen.sample.arrays(seen.own))
        return JudgedImages.of(known, features, labels, classes, shrunk, white)

    def _judged(
        self, tensors: Tensors, known: ClassStatistics, images: JudgedImages, classes: tuple[str, ...]
    ) -> Judgement:
        """What is to be expected of decisions, and a sketch of how close the task's images are to what is known now."""
        sketch = measured(Familiarity.from_tensors(self.tensors), known, images)
        if sketch is not None:
            tensors.update(sketch.tensors())
        again = known_among(classes, images_counted(self.tensors))
        rng = np.random.default_rng(self.config.seed)
        return judge(known, images, classes, again, self.bundle.manifest.classes, rng, self.recognised)

    def _counted(
        self, features: NDArray[np.float32], labels: Labels
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], tuple[str, ...]]:
        """Of a task's features, labels and classes those that count in what is known."""
        kept = [index for index, name in enumerate(self.classes) if name not in self.apart]
        if len(kept) == len(self.classes):
            return features, labels, self.classes
        rows = np.isin(labels, kept)
        return (
            features[rows],
            np.searchsorted(kept, labels[rows]),
            tuple(self.classes[index] for index in kept),
        )

    def _parts(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        return pieces(batches, self.plan.micro_batch)


def _count(sums: list[ContributionSum], features: NDArray[np.float32], labels: Labels) -> None:
    if labels.ndim > 1:
        for one in sums:
            one.add(features)
        return
    for index, one in enumerate(sums):
        one.add(features[labels == index])


def _heads_in(tensors: Iterable[str]) -> list[str]:
    """The tasks that have a head."""
    return [key.split("/")[1] for key in tensors if key.startswith("head/") and key.endswith("/weight")]


def _mirrored(batches: Iterable[Batch]) -> Iterator[Batch]:
    return ((images[..., ::-1], labels) for images, labels in batches)
