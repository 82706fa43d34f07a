"""One task learned from start to commit, resumable at any step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import AUTO, TrainingConfig, augmentation
from csk_sdk.contract.manifest import CENTERS
from csk_sdk.contract.sentences import said
from csk_sdk.contract.thresholds import integer
from csk_sdk.data.augment import augment
from csk_sdk.data.broken import without_broken
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.tasks import Task
from csk_sdk.errors import DivergedError
from csk_sdk.formats.schema import load_schema, violation
from csk_sdk.formats.wording import plural
from csk_sdk.learning.consolidation import Batches
from csk_sdk.learning.few_shot import DOMAINS, NO_GAIN, heads_because, undecided_note
from csk_sdk.learning.life import LearnReport, TaskLife, Trained
from csk_sdk.learning.memory_budget import Plan, plan_for
from csk_sdk.learning.prefix_cache import OFF, PrefixCache, choose_place
from csk_sdk.learning.step_order import StepOrder
from csk_sdk.learning.stopping import EPOCHS, Stopping
from csk_sdk.learning.unlearnable import Numbered, naming
from csk_sdk.method.gain import Gain
from csk_sdk.method.importance import carrying
from csk_sdk.method.optimizers import cosine, warm_up_steps
from csk_sdk.network.knowledge import Batch, Tensors
from csk_sdk.network.profiles import FAST, PROFILES
from csk_sdk.state import Generation, State
from csk_sdk.version import __version__

_MOST_HELD_OUT = integer("gain", "most_images")
# In a progress checkpoint: over which images the steps go, `(n,)` uint8.
_STEPPED = "stepped"
# And what `train` was by default where it was begun; builds for which that was CENTERS do not say.
_DEFAULT_TRAIN = "default_train"
# Settings of no consequence for the result.
_NO_MATTER = ("checkpoint_seconds", "spinning", "time_limit")


@dataclass(frozen=True)
class Progress:
    """Where a training run is. Immutable.

    - `phase`: "check", "prefix", "select", "train" or "consolidate"
    - `step` of `steps`, `epoch` of `epochs`: counted from 1 while training, else 0
    - `loss`: of the last step, NaN before there is one
    - `note`: a sentence for the user, at the beginning of a run with a memory budget; else empty
    """

    phase: str
    step: int = 0
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float = float("nan")
    note: str = ""


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
        replaces: bool | None = None,
    ) -> None:
        self._life = life = TaskLife(
            bundle, state, generation, task.name, task.classes, config, backend, replaces
        )
        self._replaces = bool(replaces)
        assert task.train is not None
        self._given = len(task.train)
        if config.skip_broken:
            on_progress(Progress("check"))
            task = without_broken(task, bundle.preprocessing)
        assert task.train is not None
        bundle.objective.require(task)
        # Of a domain, whole images are seen again, from their pixels on.
        place = OFF if life.fixed == DOMAINS else choose_place(config, bundle, len(task.train), backend)
        life.config = replace(life.config, prefix_cache=place)
        self._task, self._split, self._config = task, task.train, life.config
        self._report = on_progress
        # Why only heads are fitted, or ""; and what held-out images said of training, once they were asked.
        self._heads_because = heads_because(
            len(task.train), task.classes, bundle.objective, config, config.epochs, life.fixed
        )
        self._gain: Gain | None = None
        plan = plan_for(bundle.manifest, config, backend, len(task.train), domains=life.fixed == DOMAINS)
        self._pixels = PixelCache(task.train, bundle.preprocessing, plan.pixel_bytes)
        self._batch_size = config.batch_size or bundle.manifest.batch_size
        self._flip, self._shift = augmentation(config, bundle.manifest)
        # All images, until it is known what each has to teach.
        self._order = StepOrder(len(task.train), self._batch_size, config.seed)
        self._count_steps()
        # What a checkpoint says of who began the lesson; and whether that was a build that trained by default.
        self._begun_by: dict[str, Any] = {_DEFAULT_TRAIN: TrainingConfig.train}
        self._trained_by_default = False
        # The images of the step that is being taken.
        self._stepping: NDArray[np.int64] | None = None
        # Tensors and facts of a newer csk-sdk in the progress checkpoint that this run goes on from.
        self._foreign: tuple[Tensors, dict[str, Any]] = {}, {}
        self._follow(plan)

    def _step_over(self, images: NDArray[np.bool_]) -> None:
        """Let the steps go over these, `(n,)`."""
        self._order.over(images)
        self._count_steps()

    def _count_steps(self) -> None:
        manifest = self._life.bundle.manifest
        self._stopping = Stopping(self._config, manifest, self._order.per_epoch, self._batch_size)
        self._steps = self._stopping.steps

    def _choose_images(self) -> None:
        """Let the steps go over the images that most of the gradient comes from."""
        share = self._config.gradient_share
        if share == 1.0:
            return
        norms, order = self._training.norms, self._order.plain()
        if len(norms) < len(order):
            more = self._training.norms_of(self._plain_batches(order[len(norms) :]))
            norms = np.concatenate([norms, more])
        images = np.zeros(len(order), np.bool_)
        # Two batches at least, where there are as many: of one alone, none could be held out.
        images[order[carrying(norms, share, 2 * self._batch_size)]] = True
        self._step_over(images)

    def _follow(self, plan: Plan) -> None:
        """Learn as planned."""
        life = self._life
        life.follow(plan)
        self._prefix = None
        if self._config.prefix_cache != OFF:
            self._prefix = PrefixCache(
                life.bundle, life.generation.tensors, self._pixels, self._config, life.state.folder
            )
        self._training = life.open(from_prefix=self._prefix is not None)

    def run(self) -> LearnReport:
        """Learn and commit."""
        with self._prefix or nullcontext():
            try:
                return self._learn()
            except DivergedError as error:
                found = naming(error, self._life, self._suspects(), self._split.images.name)
                raise found from None

    def _suspects(self) -> Iterator[Numbered]:
        """The images of the step that failed, or all where it was no step."""
        order = np.arange(len(self._split)) if self._stepping is None else self._stepping
        size = self._life.plan.micro_batch or self._batch_size
        for start in range(0, len(order), size):
            part = order[start : start + size]
            yield part, self._pixels.batch(part)

    def _learn(self) -> LearnReport:
        begun = time.monotonic()
        self._report(Progress("check", note=self._life.plan.sentence))
        self._life.require_room(len(self._split), bool(self._heads_because))
        self._pixels.verify()
        identity = self._identity()
        first, loss, before = self._restore(identity)
        begun -= before
        if self._prefix is not None:
            self._report(Progress("prefix"))
            self._prefix.fill(self._batch_size)
        if first == 0:
            if not self._heads_because:
                self._report(Progress("select"))
            self._life.warm_up(
                self._plain_batches,
                bool(self._heads_because),
                lambda rows: self._plain_batches(self._order.plain()[rows]),
            )
            if not self._heads_because:
                self._choose_images()
        steps = 0
        if not self._heads_because:
            loss, steps = self._train(first, loss, identity, begun)
        epochs = -(-steps // self._order.per_epoch)
        self._report(Progress("consolidate", steps, steps, epochs, epochs, loss))
        trained = Trained(
            images=len(self._split),
            epochs=epochs,
            loss=loss,
            heads_because=self._heads_because,
            begun=begun,
            stopped=EPOCHS if self._heads_because else self._stopping.reason,
            notes=self._left_out(),
            gain=self._gain,
            asked=len(self._split),
            choice=self._unasked(steps),
            stepped=min(self._order.count, steps * self._batch_size),
        )
        mirrored = self._mirrored_batches if self._prefix else None
        report = self._life.commit(self._plain_batches, trained, mirrored)
        # What names files is told, and not kept in the state.
        warnings = (*self._task.unread, *report.warnings)
        return replace(report, resumed_at_step=first, warnings=warnings, skipped=self._task.skipped)

    def _left_out(self) -> tuple[str, ...]:
        """How many images could not be read: without their names, which no state holds."""
        if not self._task.skipped:
            return ()
        noun = self._life.bundle.manifest.input.noun
        skipped, were = len(self._task.skipped), "was" if len(self._task.skipped) == 1 else "were"
        return (f"{skipped} of {plural(self._given, noun)} could not be read and {were} left out.",)

    def _train(self, first: int, loss: float, identity: dict[str, Any], begun: float) -> tuple[float, int]:
        """All steps from `first`; the mean loss of the last epoch, and how many steps there were that count.

        Depends on seed and step, not on resuming (but for a budget of seconds).
        """
        config = self._config
        saved = time.monotonic()
        warmup = warm_up_steps(self._order.per_epoch)
        done, seen = first, self._order.seen(first)
        for step in range(first, self._steps):
            if step == self._probe and not self._pays():
                self._heads_because = NO_GAIN
                self._training.stay_frozen()
                return 0.0, 0
            epoch, position = divmod(step, self._order.per_epoch)
            loss = 0.0 if position == 0 else loss
            batch = self._training_batch(epoch, position)
            loss += self._training.step(batch, cosine(step, self._steps, warmup)) * len(batch[1])
            done = step + 1
            seen = self._order.seen(done)
            self._report(Progress("train", done, self._steps, epoch + 1, config.epochs, loss / seen))
            if self._stopping.over(done, time.monotonic() - begun, loss / seen):
                break
            if time.monotonic() - saved >= config.checkpoint_seconds:
                meta = {
                    **identity,
                    **self._begun_by,
                    "step": done,
                    "loss": loss,
                    "seconds": time.monotonic() - begun,
                }
                meta |= {"profile": self._life.plan.profile.name, "micro_batch": self._life.plan.micro_batch}
                meta |= {"plateau": self._stopping.memory}
                meta |= {"gain": asdict(self._gain)} if self._gain else {}
                tensors, more = self._foreign
                self._life.state.save_progress({**tensors, **self._progress()}, {**more, **meta})
                saved = time.monotonic()
        self._stepping = None
        return loss / seen, done

    def _progress(self) -> Tensors:
        """The tensors of a progress checkpoint."""
        return {**self._training.progress(), _STEPPED: self._order.chosen.astype(np.uint8)}

    @property
    def _probe(self) -> int:
        """After how many steps it is decided whether to go on; -1 for never.

        Half of the first epoch, so that the other half's images are held out; less where there are fewer steps.
        """
        if self._config.train != AUTO or self._life.bundle.objective.tabular:
            return -1
        return min(self._order.per_epoch, self._steps) // 2

    def _pays(self) -> bool:
        """Whether the first steps are worth going on, by images that they have not seen."""
        self._stepping = None
        if self._gain is None:
            self._gain = self._gained() if self._probe else Gain(0)
        return self._gain.pays(self._config.max_forgetting)

    def _gained(self) -> Gain:
        """Of at most so many images up to the last one that was stepped on, and so many behind it."""
        order = self._order.epoch(0)
        last = self._order.step(0, self._probe - 1)[-1]
        seen = 1 + int(np.flatnonzero(order == last)[0])
        fitted, held_out = order[:seen][-_MOST_HELD_OUT:], order[seen:][:_MOST_HELD_OUT]
        asked = np.concatenate([fitted, held_out])
        batches: Batches = self._plain_batches
        if len(asked) == len(self._split):
            # In the order in which the warm-up has seen them: what it has kept need not be looked at again.
            asked = self._order.plain()
        else:
            batches = partial(self._plain_batches, asked)
        return self._training.gain(batches, np.isin(asked, held_out), self._share(self._probe))

    def _share(self, done: int) -> float:
        """What the first so many steps are of all, by their learning rates."""
        warmup = warm_up_steps(self._order.per_epoch)
        rates = [cosine(step, self._steps, warmup) for step in range(self._steps)]
        return sum(rates[:done]) / sum(rates)

    def _unasked(self, done: int) -> Callable[[bool], str] | None:
        """What to say where it was not asked whether training pays: begun before, or its seconds were over."""
        if self._trained_by_default:
            return lambda dropped: said("begun_with_centers")
        if self._heads_because or self._probe < done or self._config.seconds is None:
            return None
        return partial(undecided_note, done, self._steps, self._config.seconds)

    def _restore(self, identity: dict[str, Any]) -> tuple[int, float, float]:
        """Step to go on from, its running loss, and the seconds spent before; zeros for a fresh start."""
        found = self._life.state.load_progress()
        if found is None:
            return 0, 0.0, 0.0
        tensors, meta = found[0], _with_defaults(found[1])
        before = self._config.train == AUTO and _trained_by_default(meta)
        begun = {**identity["config"], "train": CENTERS} if before else identity["config"]
        if any(meta.get(key) != value for key, value in {**identity, "config": begun}.items()):
            # Another run's; it stays until this one has something better to keep in its place.
            return 0, 0.0, 0.0
        schema, stepped = load_schema("progress"), tensors.get(_STEPPED)
        if violation(meta, schema) is not None:
            return 0, 0.0, 0.0
        if stepped is not None and not (stepped.shape == self._order.chosen.shape and stepped.any()):
            return 0, 0.0, 0.0
        plan = replace(
            self._life.plan,
            profile=PROFILES[meta.get("profile", FAST.name)],
            micro_batch=meta.get("micro_batch"),
        )
        if plan != self._life.plan:
            # Today's process has a little more or less memory: to the bit, the run goes on as it was begun.
            self._follow(plan)
        if before:
            identity["config"] = begun
            self._trained_by_default = True
            self._config = self._life.config = replace(self._config, train=CENTERS)
        self._begun_by = {key: meta[key] for key in (_DEFAULT_TRAIN,) if key in meta}
        self._training.resume(tensors)
        # A build that knew of no such choice stepped over all.
        if stepped is not None:
            self._step_over(stepped.astype(np.bool_))
        self._stopping.resume(meta["plateau"])
        self._gain = Gain(**meta["gain"]) if "gain" in meta else None
        known = self._progress()
        self._foreign = (
            {key: value for key, value in tensors.items() if key not in known},
            {key: value for key, value in meta.items() if key not in schema["properties"]},
        )
        return int(meta["step"]), float(meta["loss"]), float(meta["seconds"])

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a progress checkpoint to be continued."""
        config = self._config.to_json()
        for name in _NO_MATTER:
            config.pop(name)
        return {
            "task": self._task.name,
            "fingerprint": self._task.fingerprint() + ("+replace" if self._replaces else ""),
            "generation": self._life.generation.number,
            "config": config,
            "backend": self._life.backend,
            # Another version or backend may step differently, and half a task each would be neither.
            "version": __version__,
        }

    def _training_batch(self, epoch: int, position: int) -> Batch:
        """Shuffled by (seed, epoch) and augmented by (seed, epoch, position), so that any step can be redone."""
        seed = self._config.seed
        index = self._order.step(epoch, position)
        self._stepping = index
        if self._prefix is not None:
            return self._prefix.training(index, epoch), self._split.labels[index]
        rng = np.random.default_rng((seed, epoch, position))
        pixels = augment(self._pixels.batch(index), rng, self._flip, self._shift)
        return self._life.bundle.preprocessing.normalize(pixels), self._split.labels[index]

    def _plain_batches(self, order: NDArray[np.int64] | None = None) -> Iterator[Batch]:
        """The images of `order`, without augmentation; where it is None, the whole split, shuffled by the seed."""
        order = self._order.plain() if order is None else order
        if self._prefix is not None:
            yield from self._prefix.plain(self._batch_size, order)
            return
        for pixels, labels in self._pixels.batches(self._batch_size, order):
            yield self._life.bundle.preprocessing.normalize(pixels), labels

    def _mirrored_batches(self) -> Iterator[Batch]:
        assert self._prefix is not None
        return self._prefix.mirrored(self._batch_size, self._order.plain())


def _with_defaults(meta: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says; a setting that it lacks was none yet, and was as its default is, or was then."""
    config = meta.get("config")
    if not isinstance(config, dict):
        return meta
    defaults = {name: value for name, value in TrainingConfig().to_json().items() if name not in _NO_MATTER}
    return {**meta, "config": {**defaults, "train": CENTERS, **config}}


def _trained_by_default(meta: dict[str, Any]) -> bool:
    """Whether the build that began this lesson, and its centers, had never heard of another default."""
    config = meta.get("config")
    return isinstance(config, dict) and config.get("train") == CENTERS and _DEFAULT_TRAIN not in meta
