"""Learning from batches as they come: the application feeds, nothing is stored on disk before the commit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends import AUTO, choose_backend, require_ready
from csk_sdk.bundle import Bundle
from csk_sdk.config import TrainingConfig, augmentation
from csk_sdk.data.augment import augment
from csk_sdk.errors import TaskError
from csk_sdk.measure import peak_rss_bytes
from csk_sdk.predicting import require_new_task
from csk_sdk.state import Generation, LearnedTask, State
from csk_sdk.training import Batch, TaskTraining

Pixels = NDArray[np.uint8]


# How many times as many batches are held back while a class is still missing.
_PATIENCE = 4


class TaskStream:
    """One task, learned batch by batch.

        with learner.stream("02-boats", classes=["ferry", "canoe"]) as stream:
            for images, labels in camera:              # uint8 (n, h, w, c), integer labels into classes
                loss = stream.observe(images, labels)

    The first batches are held back until the channels can be selected on them, then every batch is one
    training step. On leaving the block, the task is consolidated on a uniform sample of at most `reservoir`
    pictures, which never leaves memory, and committed. An exception inside the block commits nothing.
    The application may reuse its arrays: what is kept of a batch is copied.
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
    ) -> None:
        if len(set(classes)) < 2:
            raise TaskError(
                f"Task '{name}' has fewer than two classes; a task needs at least two to tell apart."
            )
        self._backend = choose_backend(backend, bundle)
        require_ready(self._backend, bundle, name, classes)
        self._bundle, self._state, self._config = bundle, state, config
        self._name, self._classes = name, tuple(classes)
        self._held: list[tuple[Pixels, NDArray[np.int64]]] = []
        self._sample: list[tuple[Pixels, int]] = []
        self._first: dict[int, Pixels] = {}
        self._reservoir = reservoir
        self._rng = np.random.default_rng(config.seed)
        self._seen = 0
        self._steps = 0
        self._loss = 0.0
        self._begun = time.monotonic()
        self._training: TaskTraining | None = None
        self._flip, self._shift = augmentation(config, bundle.manifest)

    def __enter__(self) -> TaskStream:
        self._lock = self._state.lock()
        self._lock.__enter__()
        try:
            self._generation: Generation = self._state.load()
            # Again, now that no other process can commit a task of this name.
            require_new_task(self._generation, self._bundle.manifest.classes, self._name, self._classes)
        except BaseException as error:
            self._lock.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._commit()
        finally:
            self._lock.__exit__(kind, error, trace)

    def observe(
        self, images: Pixels | Sequence[Pixels], labels: Sequence[int] | NDArray[np.int64]
    ) -> float | None:
        """Learn from one batch; the loss, or None while batches are still being held back.

        Raises TaskError for pictures or labels that do not fit.
        """
        pixels = self._bundle.preprocessing.stack(images)
        indices = np.asarray(labels, np.int64)
        if indices.shape != (len(pixels),):
            raise TaskError(f"{len(pixels)} pictures came with labels of shape {indices.shape}.")
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self._classes):
            raise TaskError(
                f"Labels run from {indices.min()} to {indices.max()}, but there are {len(self._classes)} classes."
            )
        if not len(indices):
            return self._loss if self._training is not None else None
        self._remember(pixels, indices)
        if self._training is not None:
            return self._step(self._training, pixels, indices)
        self._held.append((pixels.copy(), indices.copy()))
        present = np.unique(np.concatenate([held for _, held in self._held]))
        complete = len(present) == len(self._classes)
        # A class that does not show up must not fill the memory.
        enough = self._config.sensitivity_batches * (1 if complete else _PATIENCE)
        if len(self._held) >= enough:
            return self._begin()
        return None

    def _begin(self) -> float:
        """Select on the held batches, then train on them."""
        training = TaskTraining(
            self._bundle, self._generation.tensors, self._classes, self._config, self._backend
        )
        training.warm_up(lambda: (self._normalised(*held) for held in self._held))
        held, self._held, self._training = self._held, [], training
        return [self._step(training, *batch) for batch in held][-1]

    def _step(self, training: TaskTraining, pixels: Pixels, labels: NDArray[np.int64]) -> float:
        moved = augment(pixels, self._rng, self._flip, self._shift)
        # The length of a stream is not known, so the learning rate rises over 10 steps and then stays.
        self._loss = training.step(self._normalised(moved, labels), min(1.0, (self._steps + 1) / 10))
        self._steps += 1
        return self._loss

    def _remember(self, pixels: Pixels, labels: NDArray[np.int64]) -> None:
        """Reservoir sampling (Vitter, 1985): every picture seen is equally likely to be in the sample."""
        for picture, label in zip(pixels, labels.tolist(), strict=True):
            self._seen += 1
            if label not in self._first:
                self._first[label] = picture.copy()
            if len(self._sample) < self._reservoir:
                self._sample.append((picture.copy(), label))
            else:
                place = int(self._rng.integers(self._seen))
                if place < self._reservoir:
                    self._sample[place] = (picture.copy(), label)

    def _commit(self) -> None:
        unseen = [name for label, name in enumerate(self._classes) if label not in self._first]
        if unseen:
            raise TaskError(f"Task '{self._name}' saw no picture of {unseen[0]!r}; nothing was committed.")
        if self._training is None:
            self._begin()
        assert self._training is not None
        # A head over all classes needs a picture of each, and chance may have dropped those of a rare one.
        sampled = {label for _, label in self._sample}
        self._sample += [(first, label) for label, first in self._first.items() if label not in sampled]
        result = self._training.consolidate(self._name, self._sampled, self._seen / len(self._sample))
        learned = LearnedTask(
            name=self._name,
            classes=self._classes,
            epochs=1,
            images=self._seen,
            seconds=round(time.monotonic() - self._begun, 3),
            loss=self._loss,
            peak_rss_bytes=peak_rss_bytes(),
            config=self._config.to_json(),
        )
        self._state.commit(self._generation.number, (*self._generation.tasks, learned), result.tensors)

    def _sampled(self) -> Iterator[Batch]:
        size = self._config.batch_size or self._bundle.manifest.batch_size
        for start in range(0, len(self._sample), size):
            pictures, labels = zip(*self._sample[start : start + size], strict=True)
            yield self._normalised(np.stack(pictures), np.array(labels, np.int64))

    def _normalised(self, pixels: Pixels, labels: NDArray[np.int64]) -> Batch:
        return self._bundle.preprocessing.normalize(pixels), labels
