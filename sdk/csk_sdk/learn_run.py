"""One task learned from start to commit, resumable at any step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from csk_sdk.backends import require_ready
from csk_sdk.bundle import Bundle
from csk_sdk.config import TrainingConfig, augmentation
from csk_sdk.data.augment import augment
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.tasks import Task
from csk_sdk.knowledge import Batch
from csk_sdk.measure import peak_rss_bytes
from csk_sdk.method.optimizers import cosine
from csk_sdk.predicting import require_new_task
from csk_sdk.state import Generation, LearnedTask, State
from csk_sdk.training import TaskTraining
from csk_sdk.version import __version__


@dataclass(frozen=True)
class Progress:
    """Where a training run is: `phase` is "check", "select", "train" or "consolidate"."""

    phase: str
    step: int = 0
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float = float("nan")


@dataclass(frozen=True)
class LearnReport:
    """What learning one task took.

    `leak` is the largest `||dC B|| / ||dC||` of any site. `protected` says for each site how many of the selected
    channels' directions the projection kept for older knowledge, as "r/k": at k/k the site could learn nothing.
    """

    task: str
    classes: tuple[str, ...]
    images: int
    epochs: int
    loss: float
    seconds: float
    peak_rss_bytes: int
    generation: int
    leak: float
    resumed_at_step: int
    protected: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `train --json`."""
        return asdict(self)


OnProgress = Callable[[Progress], None]


class LearnRun:
    """One call of `Learner.learn`, under the state's lock: check, select, train, consolidate, commit."""

    def __init__(
        self,
        bundle: Bundle,
        state: State,
        generation: Generation,
        task: Task,
        config: TrainingConfig,
        backend: str,
        on_progress: OnProgress,
    ) -> None:
        require_new_task(generation, bundle.manifest.classes, task.name, task.classes)
        require_ready(backend, bundle, task.name, task.classes, config)
        assert task.train is not None
        bundle.objective.require(task)
        self._bundle, self._state, self._generation = bundle, state, generation
        self._task, self._split, self._config = task, task.train, config
        self._backend = backend
        self._report = on_progress
        self._pixels = PixelCache(task.train, bundle.preprocessing)
        self._batch_size = config.batch_size or bundle.manifest.batch_size
        self._flip, self._shift = augmentation(config, bundle.manifest)
        self._per_epoch = -(-len(task.train) // self._batch_size)
        self._steps = self._per_epoch * config.epochs
        self._order = -1, np.empty(0, np.int64)
        self._training = TaskTraining(bundle, generation.tensors, task.classes, config, backend)

    def run(self) -> LearnReport:
        """Learn and commit."""
        begun = time.monotonic()
        self._report(Progress("check"))
        self._pixels.verify()
        identity = self._identity()
        first, loss, before = self._restore(identity)
        if first == 0:
            self._report(Progress("select"))
            self._training.warm_up(self._plain_batches)
        loss = self._train(first, loss, identity, begun - before)
        self._report(
            Progress("consolidate", self._steps, self._steps, self._config.epochs, self._config.epochs, loss)
        )
        result = self._training.consolidate(self._task.name, self._plain_batches)
        learned = LearnedTask(
            name=self._task.name,
            classes=self._task.classes,
            epochs=self._config.epochs,
            images=len(self._split),
            seconds=round(time.monotonic() - begun + before, 3),
            loss=loss,
            peak_rss_bytes=peak_rss_bytes(),
            config=self._config.to_json(),
        )
        parent = self._generation
        committed = self._state.commit(parent.number, (*parent.tasks, learned), result.tensors)
        self._state.clear_progress()
        return LearnReport(
            task=learned.name,
            classes=learned.classes,
            images=learned.images,
            epochs=learned.epochs,
            loss=loss,
            seconds=learned.seconds,
            peak_rss_bytes=learned.peak_rss_bytes,
            generation=committed.number,
            leak=max(result.leaks.values(), default=0.0),
            resumed_at_step=first,
            protected={
                name: f"{basis.shape[1]}/{basis.shape[0]}" for name, basis in self._training.bases.items()
            },
        )

    def _train(self, first: int, loss: float, identity: dict[str, Any], begun: float) -> float:
        """All steps from `first`; the mean loss of the last epoch. Depends on seed and step, not on resuming."""
        config = self._config
        saved = time.monotonic()
        warmup = min(self._per_epoch // 2, 50)
        for step in range(first, self._steps):
            epoch, position = divmod(step, self._per_epoch)
            loss = 0.0 if position == 0 else loss
            batch = self._training_batch(epoch, position)
            loss += self._training.step(batch, cosine(step, self._steps, warmup)) * len(batch[1])
            done = step + 1
            seen = min((position + 1) * self._batch_size, len(self._split))
            self._report(Progress("train", done, self._steps, epoch + 1, config.epochs, loss / seen))
            if time.monotonic() - saved >= config.checkpoint_seconds and done < self._steps:
                meta = {**identity, "step": done, "loss": loss, "seconds": time.monotonic() - begun}
                self._state.save_progress(self._training.progress(), meta)
                saved = time.monotonic()
        return loss / len(self._split)

    def _restore(self, identity: dict[str, Any]) -> tuple[int, float, float]:
        """Step to go on from, its running loss, and the seconds spent before; zeros for a fresh start."""
        found = self._state.load_progress()
        if found is None:
            return 0, 0.0, 0.0
        tensors, meta = found
        if any(meta.get(key) != value for key, value in identity.items()):
            # Another run's; it stays until this one has something better to keep in its place.
            return 0, 0.0, 0.0
        self._training.resume(tensors)
        return int(meta["step"]), float(meta["loss"]), float(meta["seconds"])

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a progress checkpoint to be continued."""
        config = self._config.to_json()
        config.pop("checkpoint_seconds")
        return {
            "task": self._task.name,
            "fingerprint": self._task.fingerprint(),
            "generation": self._generation.number,
            "config": config,
            "backend": self._backend,
            # Another version or backend may step differently, and half a task each would be neither.
            "version": __version__,
        }

    def _training_batch(self, epoch: int, position: int) -> Batch:
        """Shuffled by (seed, epoch) and augmented by (seed, epoch, position), so that any step can be redone."""
        seed = self._config.seed
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((seed, epoch)).permutation(len(self._split))
        index = self._order[1][position * self._batch_size : (position + 1) * self._batch_size]
        rng = np.random.default_rng((seed, epoch, position))
        pixels = augment(self._pixels.batch(index), rng, self._flip, self._shift)
        return self._bundle.preprocessing.normalize(pixels), self._split.labels[index]

    def _plain_batches(self) -> Iterator[Batch]:
        """The whole split once, shuffled by the seed, without augmentation."""
        order = np.random.default_rng(self._config.seed).permutation(len(self._split))
        for pixels, labels in self._pixels.batches(self._batch_size, order):
            yield self._bundle.preprocessing.normalize(pixels), labels
