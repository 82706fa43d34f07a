"""Learning from batches as they come: the application feeds, nothing is stored on disk before the commit."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends import AUTO, choose_backend
from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import AUTO as DECIDED
from csk_sdk.config import TrainingConfig, augmentation
from csk_sdk.data.augment import augment
from csk_sdk.data.labels import Labels
from csk_sdk.errors import ConfigError, DivergedError, TaskError
from csk_sdk.learning.acceptance import unfamiliar
from csk_sdk.learning.consolidation import Batches
from csk_sdk.learning.few_shot import DOMAINS, FEW_SHOT, NO_GAIN, heads_because
from csk_sdk.learning.life import LearnReport, TaskLife, Trained, require_possible
from csk_sdk.learning.memory_budget import plan_for
from csk_sdk.learning.prefix_cache import AUTO as WHERE_IT_FITS
from csk_sdk.learning.prefix_cache import OFF
from csk_sdk.learning.stopping import StreamStopping
from csk_sdk.learning.training import TaskTraining
from csk_sdk.learning.unlearnable import Numbered, naming
from csk_sdk.method.gain import Gain
from csk_sdk.network.knowledge import Batch
from csk_sdk.runtime.peak_memory import in_memory
from csk_sdk.state import State

# uint8 images, or float32 signals, at the model's size.
Pixels = NDArray[Any]


# How many times as many batches are held back while a class is still missing.
_HELD = 4


class TaskStream:
    """One task, learned batch by batch.

        with learner.stream("02-boats", classes=["ferry", "canoe"]) as stream:
            for images, labels in camera:              # uint8 RGB (n, h, w, c), integer labels into classes
                loss = stream.observe(images, labels)

    A model of signals is fed int16 or float `(n, length, c)`.

    The first batches are held back until the channels can be selected on them, then every batch is one
    training step. On leaving the block, the task is consolidated on a uniform sample of at most `reservoir`
    images, which never leaves memory, and committed. An exception inside the block commits nothing.
    Where the bundle's loss is not cross-entropy, labels are a table `(n, classes)`. A class of which no image has
    come yet is masked out of the loss. Where fewer images a class came than `few_shot`, the network stays as it was
    and the classes get heads on it. Labels that say nothing about the first images are a TaskError
    (`label_check`); with `train = auto`, half of the batches that were held back are held out to decide what is
    trained, and where training does not pay, those that follow are taken into the sample only. `warnings` are sentences
    about what else looks wrong. The application may reuse its arrays: what is kept of a batch is copied. Not
    thread-safe: one thread feeds a stream; others may predict meanwhile.

    `seconds` (those that learning takes, not the camera), `flops` and `memory_budget` hold as for `Learner.learn`:
    once training has `ended`, further batches are taken into the sample only. `epochs` and `patience` count epochs,
    and a stream is one, unless the application says with `end_epoch` that it has fed all of its data once. After the
    block `report` is what `Learner.learn` returns.

    Entering the block raises StateLockedError while another process or thread learns, and TaskError where a task of
    this name was learned; leaving it raises TaskError where a class has no image, or the labels say nothing.
    """

    def __init__(
        self,
        bundle: Bundle,
        state: State,
        name: str,
        classes: Sequence[str],
        config: TrainingConfig,
        reservoir: int = 512,
        backend: str = AUTO,
        replaces: bool | None = None,
    ) -> None:
        self._replaces = replaces
        self._objective = bundle.objective
        self._objective.require_names(name, classes)
        # A setting of another loss is refused now, and not when the first images have come.
        self._objective.targets(classes, config)
        self._backend = choose_backend(backend, bundle)
        require_possible(bundle, name, classes, config, self._backend)
        if config.prefix_cache not in (OFF, WHERE_IT_FITS):
            raise ConfigError(
                f"prefix_cache is {config.prefix_cache}, and a stream trains on each batch once: there is nothing to "
                f"keep. Set prefix_cache to {OFF} or {WHERE_IT_FITS}, or learn a task of files or arrays."
            )
        self._bundle, self._state, self._config = bundle, state, replace(config, prefix_cache=OFF)
        self._name, self._classes = name, tuple(classes)
        self._noun = bundle.manifest.input.noun
        self._batch_size = config.batch_size or bundle.manifest.batch_size
        self._held: list[tuple[Pixels, Labels]] = []
        # With what number each was fed.
        self._sample: list[tuple[Pixels, Any, int]] = []
        # The first one with each trait that the sample must not lack: of each class, for one.
        self._first: dict[Hashable, tuple[Pixels, Any, int]] = {}
        # What `observe` was called with, while it runs.
        self._fed: Numbered | None = None
        self._reservoir = reservoir
        self._rng = np.random.default_rng(config.seed)
        self._seen = 0
        self._steps = 0
        self._loss = 0.0
        self._begun = time.monotonic()
        self._entered = False
        # Seconds that learning has taken, and since when it goes on.
        self._taken, self._since = 0.0, 0.0
        self._stopping = StreamStopping(config, bundle.manifest, self._batch_size)
        self._training: TaskTraining | None = None
        # Why only heads are fitted, as far as it is known by now; and what held-out images of so many said of training.
        self._heads_because = ""
        self._gain: Gain | None = None
        self._asked = 0
        self.warnings: tuple[str, ...] = ()
        self.report: LearnReport | None = None
        self._flip, self._shift = augmentation(config, bundle.manifest)

    def __enter__(self) -> TaskStream:
        with ExitStack() as stack:
            stack.enter_context(self._state.lock())
            generation = stack.enter_context(self._state.opened())
            # Checked again, now that no other process can commit a task of this name.
            self._life = TaskLife(
                self._bundle, self._state, generation, self._name, self._classes, self._config, self._backend,
                self._replaces,
            )  # fmt: skip
            manifest, config, domains = self._bundle.manifest, self._config, self._life.fixed == DOMAINS
            plan = plan_for(
                manifest, config, self._backend, self._reservoir, self._held_at_most, domains=domains
            )
            self._life.follow(plan)
            self._life.require_room()
            self._held_open = stack.pop_all()
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with in_memory():
                    self._commit()
        except DivergedError as diverged:
            raise self._naming(diverged) from None
        finally:
            self._entered = False
            self._held_open.close()

    def observe(
        self, images: NDArray[Any] | Sequence[NDArray[Any]], labels: Sequence[Any] | NDArray[Any]
    ) -> float | None:
        """Learn from one batch; the loss, or None while batches are still being held back.

        `images` are uint8 RGB `(n, h, w, c)` or a list of `(h, w, c)` (OpenCV gives BGR: turn them), or signals, int16
        or float `(n, length, c)`; `labels` `(n,)` integers into `classes`, or a table `(n, classes)`. An empty batch is
        none. Once training has ended, it is the last step's loss. Raises TaskError for images, signals or labels that
        do not fit, outside the block, and where training diverges; ConfigError where `flops` do not make one step of
        this batch.
        """
        self._require_entered()
        self._since = time.monotonic()
        try:
            with in_memory():
                return self._observe(images, labels)
        except DivergedError as error:
            raise self._naming(error) from None
        finally:
            self._fed = None
            self._taken += time.monotonic() - self._since

    @property
    def ended(self) -> bool:
        """Whether training has ended before the stream: by `seconds`, `flops`, `epochs` or a plateau."""
        return self._stopping.over

    def end_epoch(self) -> bool:
        """Say that all data were fed once more, which is what `epochs` and `patience` count; whether training ended.

        What is held back until then is trained on first. Raises TaskError where its labels say nothing, and outside the
        block.
        """
        self._require_entered()
        self._since = time.monotonic()
        try:
            if self._training is None and self._held and not self._why_heads():
                self._begin()
            self._stopping.end_epoch()
        except DivergedError as error:
            raise self._naming(error) from None
        finally:
            self._taken += time.monotonic() - self._since
        return self.ended

    def _require_entered(self) -> None:
        if not self._entered:
            raise TaskError(
                f"The stream of task '{self._name}' is not open: feed it inside `with learner.stream(...) as stream:`, "
                "and begin another one for another task."
            )

    def _observe(self, images: Any, labels: Any) -> float | None:
        pixels = self._bundle.preprocessing.stack(images)
        given = self._objective.batch_labels(labels, len(pixels), self._classes)
        if not len(given):
            return self._loss if self._training is not None else None
        self._remember(pixels, given)
        if self._training is not None:
            return self._step(self._training, pixels, given)
        self._held.append((pixels.copy(), given.copy()))
        present = np.concatenate([held for _, held in self._held])
        complete = not self._objective.missing(present, self._classes)
        # A class that does not show up must not fill the memory.
        enough = self._config.sensitivity_batches * (1 if complete else _HELD)
        if len(self._held) >= enough:
            return self._begin()
        return None

    def _begin(self) -> float:
        """Select on the held batches, then train on them; the last one's loss."""
        # Too few images are known at the end only: more may come.
        why = self._why_heads()
        self._heads_because = "" if why == FEW_SHOT else why
        if self._heads_because:
            self._warmed_up(self._held_batches, heads_only=True)
            self._held = []
            return self._loss
        training = self._warmed_up(self._held_batches, heads_only=False)
        for number, batch in enumerate(self._held):
            if number == self._probe:
                self._decide(training)
            self._step(training, *batch)
        self._held = []
        return self._loss

    @property
    def _probe(self) -> int:
        """After how many of the held batches it is decided whether to go on; -1 for never."""
        return len(self._held) // 2 if self._config.train == DECIDED and not self._objective.tabular else -1

    def _decide(self, training: TaskTraining) -> None:
        """Stop training where what it has gained, on held batches that it has not seen, is not clear."""
        probe = self._probe
        self._gain, self._asked = Gain(0), self._seen
        if probe:
            # How many batches are to come is not known: what is held back is taken for all.
            rates = [_rate(step) for step in range(len(self._held))]
            done = sum(rates[:probe]) / sum(rates)
            sizes = [len(labels) for _, labels in self._held]
            held_out = np.arange(sum(sizes)) >= sum(sizes[:probe])
            self._gain = training.gain(self._held_batches, held_out, done)
        if not self._gain.pays(self._config.max_forgetting):
            self._heads_because = NO_GAIN
            training.stay_frozen()

    def _warmed_up(self, batches: Batches, heads_only: bool) -> TaskTraining:
        """Training that begins on these batches; with `heads_only`, nothing but heads is fitted to them."""
        training = self._life.open()
        self._life.warm_up(batches, heads_only)
        self.warnings = unfamiliar(training.novelty, self._noun)
        self._training = training
        return training

    def _held_batches(self) -> Iterator[Batch]:
        return (self._normalised(*held) for held in self._held)

    def _step(self, training: TaskTraining, pixels: Pixels, labels: Labels) -> float:
        if self._heads_because or not self._stopping.affords(len(pixels)):
            return self._loss
        moved = augment(pixels, self._rng, self._flip, self._shift)
        self._loss = training.step(self._normalised(moved, labels), _rate(self._steps))
        self._steps += 1
        self._stopping.took(len(pixels), self._loss, self._taken + time.monotonic() - self._since)
        return self._loss

    @property
    def _held_at_most(self) -> int:
        """How many images are in memory at most: those held back, and the sample."""
        return _HELD * self._config.sensitivity_batches * self._batch_size + self._reservoir

    def _why_heads(self) -> str:
        """Why only heads are to be fitted, by the images that have come; "" where centers may be trained."""
        return self._heads_because or heads_because(
            self._seen, self._classes, self._objective, self._config, fixed=self._life.fixed
        )

    def _remember(self, pixels: Pixels, labels: Labels) -> None:
        """Reservoir sampling (Vitter, 1985): every image seen is equally likely to be in the sample."""
        numbers = range(self._seen, self._seen + len(pixels))
        self._fed = numbers, pixels
        for picture, label, number in zip(pixels, labels.copy(), numbers, strict=True):
            self._seen += 1
            for trait in self._objective.traits(label):
                if trait not in self._first:
                    self._first[trait] = picture.copy(), label, number
            if len(self._sample) < self._reservoir:
                self._sample.append((picture.copy(), label, number))
            else:
                place = int(self._rng.integers(self._seen))
                if place < self._reservoir:
                    self._sample[place] = (picture.copy(), label, number)

    def _naming(self, error: DivergedError) -> DivergedError:
        return naming(
            error, self._life, self._in_memory(), lambda number: f"{self._noun} {number} of those fed"
        )

    def _in_memory(self) -> Iterator[Numbered]:
        """What was fed last, what is held back, and the sample."""
        if self._fed is not None:
            yield self._fed
        first = 0
        for pixels, _ in self._held:
            yield range(first, first + len(pixels)), pixels
            first += len(pixels)
        for pixels, _, number in self._sample:
            yield (number,), pixels[None]

    def _commit(self) -> None:
        # A head over all classes needs an image of each, and chance may have dropped those of a rare one.
        sampled = {trait for _, label, _ in self._sample for trait in self._objective.traits(label)}
        for trait, first in self._first.items():
            if trait not in sampled:
                self._sample.append(first)
                sampled.update(self._objective.traits(first[1]))
        labels = [label for _, label, _ in self._sample]
        unseen = self._objective.missing(np.array(labels), self._classes) if labels else self._classes
        if unseen:
            lacking = self._objective.lacking.format(noun=self._noun, name=repr(unseen[0]))
            raise TaskError(f"Task '{self._name}' {lacking}; nothing was committed.")
        self._heads_because = self._why_heads()
        if self._training is not None and self._heads_because == FEW_SHOT:
            # Batches were so small, or a class so late, that steps were taken before this could be known.
            self._training.stay_frozen()
        elif self._training is None and self._heads_because:
            # What is committed on: it is not looked at again.
            self._warmed_up(self._sampled, heads_only=True)
            self._held = []
        elif self._training is None:
            self._begin()
        trained = Trained(
            stepped=self._stopping.pictures,
            images=self._seen,
            epochs=0 if self._heads_because else max(1, self._stopping.epochs),
            loss=self._loss,
            heads_because=self._heads_because,
            begun=self._begun,
            stopped=self._stopping.reason,
            scale=self._seen / len(self._sample),
            gain=self._gain,
            asked=self._asked,
        )
        self.report = self._life.commit(self._sampled, trained)
        self.warnings = self.report.warnings

    def _sampled(self) -> Iterator[Batch]:
        size = self._batch_size
        for start in range(0, len(self._sample), size):
            pictures, labels, _ = zip(*self._sample[start : start + size], strict=True)
            yield self._normalised(np.stack(pictures), np.array(labels))

    def _normalised(self, pixels: Pixels, labels: Labels) -> Batch:
        return self._bundle.preprocessing.normalize(pixels), labels


def _rate(step: int) -> float:
    """Factor of the learning rate at `step`: how long a stream is nobody knows, so it rises over 10 steps and stays."""
    return min(1.0, (step + 1) / 10)
