"""One task's way from a generation to the next, whoever feeds its batches: a `LearnRun`, or a `TaskStream`.

What is checked before, what training begins with, and what is committed is here; which batches there are, and when
they end, is theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from csk_sdk.backends import require_ready
from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import CENTERS, KERNELS
from csk_sdk.contract.sentences import said
from csk_sdk.errors import ConfigError, TaskError
from csk_sdk.learning.acceptance import alone, require_agreement, require_learnable, warnings_about, worst_of
from csk_sdk.learning.consolidation import Batches
from csk_sdk.learning.few_shot import MAX_FORGETTING, gain_note, heads_notes, why_fixed
from csk_sdk.learning.memory_budget import Plan, require_budget
from csk_sdk.learning.revision import replacing
from csk_sdk.learning.stopping import EPOCHS
from csk_sdk.learning.training import SomeBatches, TaskTraining
from csk_sdk.method.contributions import Lesson
from csk_sdk.method.decisions import Judgement, Recognised, Twin
from csk_sdk.method.gain import Gain
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.network.predicting import require_new_task, task_classes
from csk_sdk.network.profiles import in_profile
from csk_sdk.runtime.peak_memory import peak_rss_bytes
from csk_sdk.state import Generation, LearnedTask, State
from csk_sdk.state.atomic import require_room
from csk_sdk.state.room import commit_bytes


@dataclass(frozen=True)
class LearnReport:
    """What learning one task took. Immutable.

    - `task`, `classes`, `images`: its name, its classes, and how many images or signals it was learned from
    - `epochs`, `loss`: how many were trained, and the mean loss of the last one, over the images that it stepped on
    - `stepped`: over how many of the images steps went, those that most of the gradient comes from (`gradient_share`);
      0 without a step
    - `seconds`: of wall-clock time, in this run
    - `peak_rss_bytes`: the whole process's resident memory at its peak, as `memory_budget` is
    - `generation`: the number of the generation that was committed
    - `leak`: the largest `||dC B|| / ||dC||` of any site, at most 1e-5
    - `resumed_at_step`: where an interrupted run went on; 0 for one that was not
    - `protected`: for each site how many of the selected channels' directions the projection kept for older knowledge,
      as "r/k": at k/k the site could learn nothing
    - `forgetting`: percentage points of accuracy that the trained centers were estimated to cost the old task that
      loses most
    - `heads_only`: whether the backbone stayed frozen, and `heads_only_because` of which setting: "max-forgetting"
      where the trained centers were dropped for that, "few-shot" where the images were too few to train on, "train"
      where it was asked for, "no-gain" where training would not have paid, "one-class" where a decision has nothing to
      train on, "frozen" where an upgrade left no layer that may be trained, "domains" where domains are known, which
      are of the network as it is, else "". But for the first, `epochs` is
      then 0, and `loss` that of the head
    - `gain`: where it was left to be decided (`train = auto`), what held-out images said; else empty. How many
      `images`, shares of 0 to 1 that heads name right on the network as it was (`heads`) and on the one in training
      (`centers`), and the rest of `csk_sdk.method.gain.Gain`
    - `choice`: the same as a sentence: what was chosen, and why, or that time was over before; also in the record's
      notes
    - `known`: the classes that were known before, and updated
    - `replaced`: those of which nothing that was learned before counts any more
    - `stopped`: what ended training: "epochs", "plateau", "seconds" or "flops"
    - `warnings`: sentences about what looks wrong, though not wrong enough to refuse the task
    - `memory_budget` in bytes, `profile` and `micro_batch` (None: batches whole): how memory was kept
    - `expected`: how often decisions will be right, shares of 0 to 1. `classes`: of each class of the task, each of its
      images left out of what judges it, among `all_classes` and among the task's own (`task`); the class that most
      others are taken for (`confused`) and how many (`share`). `old`: percentage points that all older classes
      together lose to the new ones (`lost`), estimated without their images; missing where there are no new ones.
      Empty where no class statistics are kept
    - `twins`: by class of the task, the `old` class that it cannot be told from, what share of the old one's images
      would be called the new one (`taken`), and of the new one's that look more like the old one (`back`)
    - `skipped`: the images that were left out, each with what is wrong with it (`skip_broken`)
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
    replaced: tuple[str, ...] = ()
    expected: dict[str, Any] = field(default_factory=dict)
    twins: dict[str, dict[str, Any]] = field(default_factory=dict)
    gain: dict[str, Any] = field(default_factory=dict)
    choice: str = ""
    stepped: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values for `train --json`."""
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """What the steps were: over `images` images in `epochs` of them, with the last one's mean loss.

    `heads_because` says why there were none, or none that count; else it is "". `scale` is how many images each one
    that is consolidated on stands for, `begun` when it all began (`time.monotonic()`), `notes` what a user should know
    besides, `gain` what held-out images said of training, of `asked` in all, and `choice` what to say where they
    were not asked, by whether the centers were dropped in the end. `stepped` is how many of the images steps went
    over.
    """

    images: int
    epochs: int
    loss: float
    heads_because: str
    begun: float
    stopped: str = EPOCHS
    scale: float = 1.0
    notes: tuple[str, ...] = ()
    gain: Gain | None = None
    asked: int = 0
    choice: Callable[[bool], str] | None = None
    stepped: int = 0


class TaskLife:
    """One task on the generation that it is learned from, under the state's lock.

    `config` says what "auto" came to: the record of the task does, and another choice is another run. `replaces` says
    whether the task replaces what was learned of its classes or adds to it; None that it must not contradict it. After
    `follow`, `bundle` is opened as the plan has it; after `open`, there is a `training`.
    """

    def __init__(
        self,
        bundle: Bundle,
        state: State,
        generation: Generation,
        name: str,
        classes: Sequence[str],
        config: TrainingConfig,
        backend: str,
        replaces: bool | None = None,
    ) -> None:
        state.require_writable()
        require_new_task(generation, bundle.manifest.classes, name, classes)
        require_possible(bundle, name, classes, config, backend)
        require_others(bundle, generation, name, classes, config)
        self._replaces = replaces
        self._refitted: dict[str, tuple[str, ...]] = {}
        if replaces:
            generation, self._refitted = replacing(bundle, state, generation, classes)
        self.state, self.generation = state, generation
        # Since an upgrade (learning/carrying.py), or where domains are known, there may be nothing that may be trained.
        tabular = bundle.objective.tabular
        self.fixed = "" if tabular else why_fixed(bundle.manifest.sites, generation.tensors)
        self.name, self.classes = name, tuple(classes)
        self.config = replace(config, precision=bundle.precision)
        self.backend = backend
        self.bundle = self._source = bundle
        self.training: TaskTraining
        self.plan: Plan

    def follow(self, plan: Plan) -> None:
        """Learn as planned."""
        self.plan = plan
        self.bundle = in_profile(
            self._source, plan.profile, self.state.folder, limited=plan.budget is not None
        )

    def open(self, from_prefix: bool = False) -> TaskTraining:
        """Training on the bundle, or on what its frozen first layers made of the images."""
        self.training = TaskTraining(
            self.bundle.view(from_prefix=True) if from_prefix else self.bundle,
            self.generation.tensors,
            self.classes,
            self.config,
            self.backend,
            task_classes(self.generation, self.bundle.manifest.classes),
            self.plan,
            self._refitted,
            Recognised(task.expected for task in self.generation.tasks),
        )
        return self.training

    def require_room(self, images: int | None = None, heads_only: bool = False) -> None:
        """Raise StorageError where the disk has no room for the commit: now, and not when all steps are done."""
        size = commit_bytes(
            self.generation,
            self.classes,
            self._source.manifest.head.features,
            images,
            trained=not heads_only,
        )
        require_room(self.state.folder, size, f"learning {self.name}")

    def warm_up(self, batches: Batches, heads_only: bool, some: SomeBatches | None = None) -> None:
        """Warm up, as `TaskTraining.warm_up` does, and be sure that there is something to learn."""
        if heads_only:
            self.training.heads_only(batches)
        else:
            self.training.warm_up(batches, some)
        noun = self.bundle.manifest.input.noun
        require_learnable(self.training.evidence, self.config, self.name, noun)
        if self._replaces is None:
            base = {name: name in self.bundle.manifest.classes for name in self.classes}
            require_agreement(self.training.contradicted, base, self.name, noun)

    def commit(self, batches: Batches, trained: Trained, mirrored: Batches | None = None) -> LearnReport:
        """Consolidate on `batches`, as `TaskTraining.consolidate` does, and commit the next generation."""
        training = self.training
        result = training.consolidate(self.name, batches, trained.scale, mirrored)
        noun = self.bundle.manifest.input.noun
        about = warnings_about(
            training.novelty,
            result.forgetting,
            result.heads_only,
            result.judgement,
            result.apart,
            () if self.bundle.objective.tabular else alone(self.classes, result.judgement, trained.images),
            self.config,
            noun,
        )
        expected = {} if result.judgement is None else result.judgement.to_json()
        what = self.bundle.manifest.trained
        heads = heads_notes(trained.heads_because, trained.images, self.classes, noun, what)
        chosen: tuple[str, ...] = ()
        if trained.gain is not None:
            allowed = self.config.max_forgetting
            chosen = (gain_note(trained.gain, trained.asked, noun, allowed, what, result.heads_only),)
        elif trained.choice is not None:
            chosen = (trained.choice(result.heads_only),)
        learned = LearnedTask(
            name=self.name,
            classes=self.classes,
            epochs=trained.epochs,
            images=trained.images,
            seconds=round(time.monotonic() - trained.begun, 3),
            loss=trained.loss if result.loss is None else result.loss,
            peak_rss_bytes=peak_rss_bytes(),
            config=self.config.to_json(),
            protected=training.protected,
            notes=(*trained.notes, *about, *heads, *chosen),
            contributions=self._kept(result.lesson, result.apart),
            carried=self._kept(result.carried, result.apart),
            temperature=result.lesson.temperature if result.lesson else None,
            expected=expected,
        )
        because = trained.heads_because or (MAX_FORGETTING if result.heads_only else "")
        parent = self.generation
        committed = self.state.commit(parent.number, (*parent.tasks, learned), result.tensors)
        self.state.clear_progress()
        return LearnReport(
            task=learned.name,
            classes=learned.classes,
            images=learned.images,
            epochs=learned.epochs,
            loss=learned.loss,
            seconds=learned.seconds,
            peak_rss_bytes=learned.peak_rss_bytes,
            generation=committed.number,
            leak=max(result.leaks.values(), default=0.0),
            resumed_at_step=0,
            protected=learned.protected,
            forgetting=round(worst_of(result.forgetting)[1], 2),
            heads_only=bool(because),
            heads_only_because=because,
            known=training.known,
            replaced=tuple(
                name for name in self.classes if any(name in classes for classes in self._refitted.values())
            ),
            stopped=trained.stopped,
            warnings=(*trained.notes, *about, *heads),
            choice="".join(chosen),
            expected=expected,
            twins={name: asdict(twin) for name, twin in _twins(result.judgement)},
            gain={} if trained.gain is None else asdict(trained.gain),
            memory_budget=self.plan.budget,
            profile=self.plan.profile.name,
            micro_batch=self.plan.micro_batch,
            stepped=0 if trained.heads_because else trained.stepped,
        )

    def _kept(self, lesson: Lesson | None, apart: Sequence[str]) -> dict[str, str]:
        """By class, what its contribution is called in the state; "" for those that are `apart`."""
        if lesson is None:
            return {}
        return dict.fromkeys(apart, "") | {
            name: self.state.keep_contribution(one.tensors()) for name, one in lesson.contributions.items()
        }


def _twins(judgement: Judgement | None) -> Iterable[tuple[str, Twin]]:
    return () if judgement is None else judgement.twins.items()


def require_others(
    bundle: Bundle, generation: Generation, name: str, classes: Sequence[str], config: TrainingConfig
) -> None:
    """Raise TaskError for one class alone where nothing else is known that it could be told from."""
    if len(classes) != 1 or bundle.objective.tabular:
        return
    known = ClassStatistics.from_tensors(generation.tensors)
    if known.count(known.classes) > known.count(classes) and config.class_statistics:
        return
    remedy = (
        said("one_class_beside")
        if config.class_statistics
        else said("one_class_counted", setting="class_statistics = true")
    )
    raise TaskError(said("one_class", task=name, name=classes[0], remedy=remedy))


def require_possible(
    bundle: Bundle, name: str, classes: Sequence[str], config: TrainingConfig, backend: str
) -> None:
    """Raise where this bundle cannot learn such a task here, whatever its images are.

    RuntimeMissingError without the backend's package, TaskError for more classes than it has room for, ConfigError for
    settings that it or the bundle's loss cannot keep.
    """
    require_trainable(bundle, config)
    require_ready(backend, bundle, name, classes, config)
    require_budget(bundle, config)


def require_trainable(bundle: Bundle, config: TrainingConfig) -> None:
    """Raise ConfigError where `train` asks for what the bundle was not built to train."""
    what = bundle.manifest.trained
    if config.train in (CENTERS, KERNELS) and config.train != what:
        sites = "kernels" if config.train == KERNELS else "center"
        raise ConfigError(
            said("trains_other", asked=config.train, bundle=str(bundle.folder), trained=what, sites=sites)
        )
