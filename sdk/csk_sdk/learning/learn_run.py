"""One task learned from start to commit, resumable at any step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends import require_ready
from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig, augmentation
from csk_sdk.data.augment import augment
from csk_sdk.data.broken import without_broken
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.tasks import Task
from csk_sdk.learning.acceptance import require_learnable, warnings_about, worst_of
from csk_sdk.learning.consolidation import Consolidated
from csk_sdk.learning.few_shot import because, few_shot_notes, is_few_shot
from csk_sdk.learning.memory_budget import Plan, plan_for, require_budget
from csk_sdk.learning.prefix_cache import OFF, PrefixCache, choose_place
from csk_sdk.learning.stopping import EPOCHS, Stopping
from csk_sdk.learning.training import TaskTraining
from csk_sdk.method.optimizers import cosine, warm_up_steps
from csk_sdk.network.knowledge import Batch, Tensors
from csk_sdk.network.predicting import require_new_task, task_classes
from csk_sdk.network.profiles import FAST, PROFILES, in_profile
from csk_sdk.runtime.peak_memory import peak_rss_bytes
from csk_sdk.state import Generation, LearnedTask, State
from csk_sdk.state.atomic import require_room
from csk_sdk.state.generation import commit_bytes
from csk_sdk.version import __version__


@dataclass(frozen=True)
class Progress:
    """Where a training run is: `phase` is "check", "prefix", "select", "train" or "consolidate".

    `note` is a sentence for the user, at the beginning of a run with a memory budget.
    """

    phase: str
    step: int = 0
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float = float("nan")
    note: str = ""


@dataclass(frozen=True)
class LearnReport:
    """What learning one task took.

    `leak` is the largest `||dC B|| / ||dC||` of any site. `protected` says for each site how many of the selected
    channels' directions the projection kept for older knowledge, as "r/k": at k/k the site could learn nothing.
    `forgetting` is how many points of accuracy the trained centers were estimated to cost the old task that loses most,
    and `heads_only` whether they stayed as they were, `heads_only_because` of which setting: "max-forgetting" where
    they were dropped for that, "few-shot" where the pictures were too few to train on (`epochs` is then 0, and `loss`
    that of the head), else "". `known` are the classes that were known before, and updated.
    `stopped` is what ended training: "epochs", "plateau", "seconds" or "flops". `warnings` are sentences about what
    looks wrong, though not wrong enough to refuse the task. `skipped` are the pictures that were left out, each with
    what is wrong with it (`skip_broken`).
    `peak_rss_bytes` is the whole process's, as `memory_budget` is; `profile` and `micro_batch` (None: batches whole)
    say how it was kept.
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
    forgetting: float
    heads_only: bool
    known: tuple[str, ...] = ()
    stopped: str = EPOCHS
    warnings: tuple[str, ...] = ()
    heads_only_because: str = ""
    memory_budget: int | None = None
    profile: str = "fast"
    micro_batch: int | None = None
    skipped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for `train --json`."""
        return asdict(self)


OnProgress = Callable[[Progress], None]
# What a progress checkpoint says beside the identity of its run.
_PROGRESS = ("step", "loss", "seconds", "profile", "micro_batch", "plateau")


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
        assert task.train is not None
        self._given = len(task.train)
        if config.skip_broken:
            on_progress(Progress("check"))
            task = without_broken(task, bundle.preprocessing)
        require_ready(backend, bundle, task.name, task.classes, config)
        assert task.train is not None
        bundle.objective.require(task)
        self._source, self._state, self._generation = bundle, state, generation
        require_budget(bundle, config)
        place = choose_place(config, bundle, len(task.train), backend)
        # What "auto" came to: the record of the task says so, and another choice is another run.
        config = replace(config, precision=bundle.precision, prefix_cache=place)
        self._task, self._split, self._config = task, task.train, config
        self._backend = backend
        self._report = on_progress
        self._few = is_few_shot(len(task.train), task.classes, bundle.objective, config, config.epochs)
        plan = plan_for(bundle.manifest, config, backend, len(task.train))
        self._pixels = PixelCache(task.train, bundle.preprocessing, plan.pixel_bytes)
        self._batch_size = config.batch_size or bundle.manifest.batch_size
        self._flip, self._shift = augmentation(config, bundle.manifest)
        self._per_epoch = -(-len(task.train) // self._batch_size)
        self._stopping = Stopping(config, bundle.manifest, self._per_epoch, self._batch_size)
        self._steps = self._stopping.steps
        self._order = -1, np.empty(0, np.int64)
        # Tensors and facts of a newer csk-sdk in the progress checkpoint that this run goes on from.
        self._foreign: tuple[Tensors, dict[str, Any]] = {}, {}
        self._follow(plan)

    def _follow(self, plan: Plan) -> None:
        """Learn as planned."""
        self._plan = plan
        self._bundle = in_profile(
            self._source, plan.profile, self._state.folder, limited=plan.budget is not None
        )
        tensors, config = self._generation.tensors, self._config
        self._prefix = None
        if config.prefix_cache != OFF:
            self._prefix = PrefixCache(self._bundle, tensors, self._pixels, config, self._state.folder)
        self._training = TaskTraining(
            self._bundle.view(from_prefix=True) if self._prefix else self._bundle,
            tensors,
            self._task.classes,
            config,
            self._backend,
            task_classes(self._generation, self._bundle.manifest.classes),
            plan,
        )

    def run(self) -> LearnReport:
        """Learn and commit."""
        with self._prefix or nullcontext():
            return self._learn()

    def _learn(self) -> LearnReport:
        begun = time.monotonic()
        self._report(Progress("check", note=self._plan.sentence))
        # Now, and not when all steps are done.
        size = commit_bytes(self._generation, self._task.classes, self._source.manifest.head.features)
        require_room(self._state.folder, size, f"learning {self._task.name}")
        self._pixels.verify()
        identity = self._identity()
        first, loss, before = self._restore(identity)
        if self._prefix is not None:
            self._report(Progress("prefix"))
            self._prefix.fill(self._batch_size)
        if first == 0:
            loss = self._warm_up()
        steps = 0
        if not self._few:
            loss, steps = self._train(first, loss, identity, begun - before)
        epochs = -(-steps // self._per_epoch)
        self._report(Progress("consolidate", steps, steps, epochs, epochs, loss))
        result = self._training.consolidate(
            self._task.name, self._plain_batches, mirrored=self._mirrored_batches if self._prefix else None
        )
        learned = LearnedTask(
            name=self._task.name,
            classes=self._task.classes,
            epochs=epochs,
            images=len(self._split),
            seconds=round(time.monotonic() - begun + before, 3),
            loss=loss,
            peak_rss_bytes=peak_rss_bytes(),
            config=self._config.to_json(),
            protected=self._training.protected,
            notes=self._notes(result),
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
            protected=learned.protected,
            forgetting=round(worst_of(result.forgetting)[1], 2),
            heads_only=self._few or result.heads_only,
            heads_only_because=because(self._few, result.heads_only),
            known=self._training.known,
            stopped=self._stopping.reason,
            # What names files is told, and not kept in the state.
            warnings=(*self._task.unread, *learned.notes),
            skipped=self._task.skipped,
            memory_budget=self._plan.budget,
            profile=self._plan.profile.name,
            micro_batch=self._plan.micro_batch,
        )

    def _warm_up(self) -> float:
        """Warm up, and be sure that there is something to learn; the head's loss where only heads are."""
        loss = 0.0
        if self._few:
            loss = self._training.heads_only(self._plain_batches)
        else:
            self._report(Progress("select"))
            self._training.warm_up(self._plain_batches)
        noun = self._bundle.manifest.input.noun
        require_learnable(self._training.evidence, self._config, self._task.name, noun)
        return loss

    def _notes(self, result: Consolidated) -> tuple[str, ...]:
        noun = self._bundle.manifest.input.noun
        notes = warnings_about(
            self._training.novelty, result.forgetting, result.heads_only, self._config, noun
        )
        if self._task.skipped:
            # Without their names, which no state holds.
            count = f"{len(self._task.skipped)} of {self._given} {noun}s"
            notes = (f"{count} could not be read and were left out.", *notes)
        return notes + (few_shot_notes(len(self._split), self._task.classes, noun) if self._few else ())

    def _train(self, first: int, loss: float, identity: dict[str, Any], begun: float) -> tuple[float, int]:
        """All steps from `first`; the mean loss of the last epoch, and how many steps there were.

        Depends on seed and step, not on resuming (but for a budget of seconds).
        """
        config = self._config
        saved = time.monotonic()
        warmup = warm_up_steps(self._per_epoch)
        done, seen = first, self._seen(first)
        for step in range(first, self._steps):
            epoch, position = divmod(step, self._per_epoch)
            loss = 0.0 if position == 0 else loss
            batch = self._training_batch(epoch, position)
            loss += self._training.step(batch, cosine(step, self._steps, warmup)) * len(batch[1])
            done = step + 1
            seen = self._seen(done)
            self._report(Progress("train", done, self._steps, epoch + 1, config.epochs, loss / seen))
            if self._stopping.over(done, time.monotonic() - begun, loss / seen):
                break
            if time.monotonic() - saved >= config.checkpoint_seconds:
                meta = {**identity, "step": done, "loss": loss, "seconds": time.monotonic() - begun}
                meta |= {"profile": self._plan.profile.name, "micro_batch": self._plan.micro_batch}
                meta |= {"plateau": self._stopping.memory}
                tensors, more = self._foreign
                self._state.save_progress({**tensors, **self._training.progress()}, {**more, **meta})
                saved = time.monotonic()
        return loss / seen, done

    def _seen(self, steps: int) -> int:
        """Pictures seen in the epoch of the last of so many steps."""
        return min(((steps - 1) % self._per_epoch + 1) * self._batch_size, len(self._split))

    def _restore(self, identity: dict[str, Any]) -> tuple[int, float, float]:
        """Step to go on from, its running loss, and the seconds spent before; zeros for a fresh start."""
        found = self._state.load_progress()
        if found is None:
            return 0, 0.0, 0.0
        tensors, meta = found
        if any(meta.get(key) != value for key, value in identity.items()):
            # Another run's; it stays until this one has something better to keep in its place.
            return 0, 0.0, 0.0
        plan = replace(
            self._plan, profile=PROFILES[meta.get("profile", FAST.name)], micro_batch=meta.get("micro_batch")
        )
        if plan != self._plan:
            # Today's process has a little more or less memory: to the bit, the run goes on as it was begun.
            self._follow(plan)
        self._training.resume(tensors)
        self._stopping.resume(meta["plateau"])
        known = self._training.progress()
        self._foreign = (
            {key: value for key, value in tensors.items() if key not in known},
            {key: value for key, value in meta.items() if key not in (*identity, *_PROGRESS)},
        )
        return int(meta["step"]), float(meta["loss"]), float(meta["seconds"])

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a progress checkpoint to be continued."""
        config = self._config.to_json()
        for name in ("checkpoint_seconds", "spinning", "time_limit"):  # of no consequence for the result
            config.pop(name)
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
        if self._prefix is not None:
            return self._prefix.training(index, epoch), self._split.labels[index]
        rng = np.random.default_rng((seed, epoch, position))
        pixels = augment(self._pixels.batch(index), rng, self._flip, self._shift)
        return self._bundle.preprocessing.normalize(pixels), self._split.labels[index]

    def _plain_batches(self) -> Iterator[Batch]:
        """The whole split once, shuffled by the seed, without augmentation."""
        order = self._plain_order()
        if self._prefix is not None:
            yield from self._prefix.plain(self._batch_size, order)
            return
        for pixels, labels in self._pixels.batches(self._batch_size, order):
            yield self._bundle.preprocessing.normalize(pixels), labels

    def _mirrored_batches(self) -> Iterator[Batch]:
        assert self._prefix is not None
        return self._prefix.mirrored(self._batch_size, self._plain_order())

    def _plain_order(self) -> NDArray[np.int64]:
        return np.random.default_rng(self._config.seed).permutation(len(self._split))
