"""`Learner`: a bundle and a state, opened together; everything an application needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle import Bundle
from csk_sdk.config import TrainingConfig, augmentation
from csk_sdk.data.augment import augment
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.tasks import Split, Task
from csk_sdk.evaluation import Evaluation, require_scenario, score_tasks
from csk_sdk.export import export_model
from csk_sdk.measure import peak_rss_bytes
from csk_sdk.method.optimizers import cosine
from csk_sdk.predicting import LinearHead, Prediction, Predictor, require_new_task
from csk_sdk.state import BASE, Generation, LearnedTask, State
from csk_sdk.stream import TaskStream
from csk_sdk.training import Batch, TaskTraining


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
    """What learning one task took. `leak` is the largest `||dC B|| / ||dC||` of any site."""

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

    def to_json(self) -> dict[str, Any]:
        """Plain values for `train --json`."""
        return asdict(self)


OnProgress = Callable[[Progress], None]


class Learner:
    """Learns task after task, predicts, exports. Open it with `Learner.open`.

        learner = Learner.open("bundle", state="state")
        learner.learn(Task.from_folder("tasks/01-birds"))
        labels, probabilities, classes = learner.predict(images)
        learner.export("model.onnx")

    One process writes to a state at a time; any number may read.
    """

    def __init__(self, bundle: Bundle, state: State, config: TrainingConfig) -> None:
        self.bundle = bundle
        self.state = state
        self.config = config
        self._predictor: Predictor | None = None

    @classmethod
    def open(
        cls, bundle: Path | str, state: Path | str = "state", config: TrainingConfig | None = None
    ) -> Learner:
        """Open a bundle with the state learned on it; the state folder is made at the first commit.

        Raises BundleError, StateError.
        """
        opened = Bundle.open(bundle)
        return cls(opened, State.open(state, opened.id, opened.checkpoint()), config or TrainingConfig())

    @property
    def generation(self) -> Generation:
        """The committed generation that predictions come from."""
        return self.predictor().generation

    @property
    def tasks(self) -> tuple[LearnedTask, ...]:
        """The learned tasks, oldest first."""
        return self.generation.tasks

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that a class-incremental prediction decides between, in its order."""
        return self.head().classes

    def predictor(self) -> Predictor:
        """The committed generation, opened for predictions; it stays that one when another is committed."""
        if self._predictor is None or self._predictor.generation.number != self.state.head():
            self._predictor = Predictor(self.bundle, self.state.load(), self.config.threads)
        return self._predictor

    def head(self, task: str | None = None) -> LinearHead:
        """The linear head of one task ("base" for the source model's own), or of all classes when None."""
        return self.predictor().head(task)

    def learn(
        self, task: Task, config: TrainingConfig | None = None, on_progress: OnProgress | None = None
    ) -> LearnReport:
        """Learn one task and commit a new generation.

        An interrupted run is resumed where its last progress checkpoint was, with the same result.
        Raises TaskError for data that cannot be learned, StateLockedError while another process learns.
        """
        config = config or self.config
        task.require_trainable()
        with self.state.lock():
            return _LearnRun(self, task, config, on_progress or (lambda _: None)).run()

    def stream(self, name: str, classes: Sequence[str], config: TrainingConfig | None = None) -> TaskStream:
        """Learn a task from batches that the application feeds: see `TaskStream`."""
        self.require_new(name, classes)
        return TaskStream(self.bundle, self.state, name, classes, config or self.config)

    def features(self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Features `(n, f)` of uint8 pictures, `(n, h, w, c)` or a list of `(h, w, c)`."""
        return self.predictor().features(images)

    def predict(
        self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], task: str | None = None
    ) -> Prediction:
        """Class names and probabilities of uint8 pictures, `(n, h, w, c)` or a list of `(h, w, c)`.

        With `task`, among that task's classes (task-incremental); without, among all learned so far.
        Raises TaskError for pictures of a wrong type, or a task that is not learned.
        """
        predictor = self.predictor()
        return predictor.head(task).predict(predictor.features(images))

    def evaluate(self, tasks: Sequence[Task], scenario: str = "task") -> Evaluation:
        """Accuracies on the test splits of `tasks`; the row is kept, so that later calls show forgetting.

        `scenario` is "task" (task-incremental) or "class" (class-incremental).
        """
        require_scenario(scenario)
        return score_tasks(self, tasks).evaluation(scenario)

    def export(self, path: Path | str, task: str | None = None) -> None:
        """Write an ordinary inference ONNX model over all classes, or over one task's.

        Its input is the source model's input. Raises StorageError where it cannot be written.
        """
        predictor = self.predictor()
        export_model(self.bundle, predictor.generation, predictor.head(task), Path(path))

    def rollback(self, task: str) -> Generation:
        """Return to the generation in which `task` had just been learned ("base": before the first task).

        Raises StateError for a task that is not on the way here.
        """
        with self.state.lock():
            self.state.rollback(0 if task == BASE else self.state.generation_of(task))
            self.state.clear_progress()
        return self.generation

    def require_new(self, name: str, classes: Sequence[str] = ()) -> None:
        """Raise TaskError where a task of this name is learned already, or a name cannot be used."""
        require_new_task(self.generation, self.bundle.manifest.classes, name, classes)

    def batches(
        self, split: Split, batch_size: int = 64
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """A split's pictures at the model's size, uint8 `(n, h, w, c)`, and labels, in order."""
        pixels = PixelCache(split, self.bundle.preprocessing, 0)
        for start in range(0, len(split), batch_size):
            index = np.arange(start, min(start + batch_size, len(split)))
            yield pixels.batch(index), split.labels[index]


class _LearnRun:
    """One call of `Learner.learn`: check, select, train, consolidate, commit."""

    def __init__(self, learner: Learner, task: Task, config: TrainingConfig, on_progress: OnProgress) -> None:
        learner.require_new(task.name, task.classes)
        assert task.train is not None
        self._state, self._bundle = learner.state, learner.bundle
        self._generation = learner.generation
        self._task, self._split, self._config = task, task.train, config
        self._report = on_progress
        self._pixels = PixelCache(task.train, learner.bundle.preprocessing)
        self._batch_size = config.batch_size or learner.bundle.manifest.batch_size
        self._flip, self._shift = augmentation(config, learner.bundle.manifest)
        self._per_epoch = -(-len(task.train) // self._batch_size)
        self._steps = self._per_epoch * config.epochs
        self._order = -1, np.empty(0, np.int64)
        self._training = TaskTraining(learner.bundle, self._generation.tensors, task.classes, config)

    def run(self) -> LearnReport:
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
        for start in range(0, len(order), self._batch_size):
            index = order[start : start + self._batch_size]
            yield self._bundle.preprocessing.normalize(self._pixels.batch(index)), self._split.labels[index]
