"""`Learner`: a bundle and a state, opened together; everything an application needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends import AUTO, choose_backend
from csk_sdk.bundle.accepted import accept, check_age
from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import EXACT
from csk_sdk.contract.sentences import said
from csk_sdk.data.tasks import Task
from csk_sdk.device.choice import in_chosen_precision
from csk_sdk.errors import BundleError, ConfigError, CskError, StateError, StorageError, TaskError
from csk_sdk.formats.given import flag_of, optional_path, path_of, text_of, texts_of
from csk_sdk.learning.adapting import Adapted, adapt, forget_domain
from csk_sdk.learning.forgetting import Forgotten, forget, merge, rename
from csk_sdk.learning.learn_run import LearnRun, OnProgress
from csk_sdk.learning.life import LearnReport
from csk_sdk.learning.stream import TaskStream
from csk_sdk.network.counting import Counter
from csk_sdk.network.evaluation import Evaluation, Scores, require_scenario, score_tasks
from csk_sdk.network.export import export_model
from csk_sdk.network.predicting import LinearHead, Predictor, require_new_task
from csk_sdk.network.profiles import SMALL, in_profile
from csk_sdk.network.status import Status, needs_of
from csk_sdk.network.taught import images_of_class
from csk_sdk.objectives import Prediction
from csk_sdk.runtime.peak_memory import in_memory
from csk_sdk.runtime.providers import find_providers
from csk_sdk.runtime.sessions import Provider
from csk_sdk.state import Generation, LearnedTask, State
from csk_sdk.state.atomic import make_folder
from csk_sdk.state.field import is_counting, read_field, start_counting, stop_counting
from csk_sdk.state.handover import finish
from csk_sdk.state.versions import domain_names

# Images at once through the network where memory is scarce.
_SMALL_CHUNK = 8


class Learner:
    """Learns task after task, predicts, exports. Open it with `Learner.open`.

    Images are uint8 `(n, height, width, channels)`, channels in the order **RGB**: OpenCV gives BGR, which has to be
    turned first (`images[..., ::-1]`).

        learner = Learner.open("bundle", state="state")
        learner.learn(Task.from_folder("tasks/01-birds"))
        labels, probabilities, classes = learner.predict(images)
        learner.export("model.onnx")

    - `bundle`, `state`: what it was opened with
    - `config`: the settings of each `learn` and `stream` that is given none
    - `trust`: the key whose holder's bundles, and merged files of a fleet, are taken; None for anyone's
    - `backend`, `providers`: what computes training steps, and what predictions

    One process writes to a state at a time; any number may read. Threads may share a learner: each call of `predict`,
    `features`, `evaluate` and `export` ends on the generation that it began with, whatever another thread or process
    learns, commits or rolls back meanwhile. A second `learn`, `stream` or `rollback`, on this learner or on another of
    the same state, raises StateLockedError at once. While predictions run beside `learn`, their graph is in memory
    beside its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        state: State,
        config: TrainingConfig,
        backend: str = AUTO,
        providers: Sequence[Provider] | None = None,
        trust: Path | None = None,
    ) -> None:
        self.trust = trust
        self.backend = choose_backend(backend, bundle)
        self.bundle = in_chosen_precision(
            bundle, config.precision, state.folder, config.memory_budget is not None
        ).view(time_limit=config.time_limit)
        self.state = state
        self.config = config
        self.providers = find_providers(providers)
        self._counter = Counter(state.folder)
        # What predictions come from, and what the state said of it then.
        self._held: tuple[tuple[int, ...], Predictor] | None = None
        # Held while a generation is read, so that of several threads one reads it.
        self._reading = Lock()

    @classmethod
    def open(
        cls,
        bundle: Path | str,
        state: Path | str = "state",
        config: TrainingConfig | Mapping[str, Any] | None = None,
        backend: str = AUTO,
        *,
        trust: Path | str | None = None,
        allow_older: bool = False,
        providers: Sequence[Provider] | None = None,
    ) -> Learner:
        """Open a bundle with the state learned on it; the state folder is made at the first commit.

        `backend` is what computes training steps: "portable", "ort-training", or "auto" for the first of them that
        the bundle was built for. States are the same: one learns on where the other stopped.
        `trust` is a PEM file with an ed25519 public key: only bundles that its holder signed are opened then, and none
        that is older than one which this state folder has seen, unless `allow_older`: csk_sdk/bundle/accepted.py.
        `providers` are what predictions and features are computed with, such as ["openvino"], by default the CPU's own
        kernels; learning stays with these, so that it ends with the same numbers (docs/decisions/0027-providers.md).
        Raises BundleError, StateError, and ConfigError for another backend, a provider that is not installed, or where
        `trust` is no such key.
        """
        state = path_of(state, "state", StateError)
        finish(path_of(bundle, "bundle", BundleError), state)
        key = optional_path(trust, "trust")
        opened = Bundle.open(bundle, trust)
        allow_older = flag_of(allow_older, "allow_older")
        if trust is not None and not allow_older:
            check_age(opened, trust, state)
        opened.checkpoint()  # refused now if it is damaged, and read again where generation 0 is needed
        stored = State.open(state, opened.id, opened.stored_checkpoint)
        if trust is not None:
            accept(opened, trust, state, allow_older)
        return cls(opened, stored, settings_of(config) or TrainingConfig(), backend, providers, key)

    @property
    def generation(self) -> Generation:
        """The committed generation that predictions come from.

        Raises StateError where its files cannot be read.
        """
        return self.predictor().generation

    @property
    def tasks(self) -> tuple[LearnedTask, ...]:
        """The learned tasks, oldest first. Raises StateError as `generation` does."""
        return self.generation.tasks

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that a class-incremental prediction decides between, in its order.

        Raises StateError as `generation` does.
        """
        return self.head().classes

    def predictor(self) -> Predictor:
        """The committed generation, opened for predictions; it stays that one when another is committed.

        Thread-safe, and shared: threads that ask for it get the same one. Raises StateError as `generation` does.
        """
        current = self._current()
        if current is None:
            with self._reading:
                current = self._current()
                if current is None:
                    current = self._read()
        return current

    def _current(self) -> Predictor | None:
        # Looked at once: another thread may put another in its place at any moment, or none.
        held = self._held
        return held[1] if held is not None and held[0] == self.state.stamp() else None

    def _read(self) -> Predictor:
        # Asked first: where another generation is committed meanwhile, it is read once more.
        stamp = self.state.stamp()
        predictor = self._opened(self.state.load())
        self._held = stamp, predictor
        return predictor

    def _opened(self, generation: Generation) -> Predictor:
        config = self.config
        bundle = self.bundle.view(providers=self.providers)
        if config.memory_budget is None and config.profile != SMALL.name:
            return Predictor(bundle, generation, config.threads)
        # What the process may have resident counts while it predicts, too.
        bundle = in_profile(bundle, SMALL, self.state.folder)
        return Predictor(bundle, generation, config.threads, config.micro_batch or _SMALL_CHUNK)

    def head(self, task: str | None = None) -> LinearHead:
        """The linear head of one task ("base" for the source model's own), or of all classes when None.

        Its weight is `(classes, f)` and its bias `(classes,)`, float32. Raises TaskError for a task that is not
        learned, StateError for a head that is not finite.
        """
        with in_memory():
            return self.predictor().head(task)

    def learn(
        self,
        task: Task | Path | str,
        config: TrainingConfig | Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
        *,
        replace: bool | None = None,
    ) -> LearnReport:
        """Learn one task and commit a new generation.

        `task` may be the path of a task's folder or npz file, `config` a mapping of settings. Images of classes that
        are known are added to what is known of them; with `replace`, nothing that was learned of them before counts any
        more (what the base knows does). Images that look like those of another known class contradict what is known:
        a ContradictionError, unless `replace` is True or False.

        `on_progress` is called in this thread; what it raises ends the run, and commits nothing. An interrupted run is
        resumed where its last progress checkpoint was, with the same result. Of two threads that call this, the second
        gets StateLockedError.
        Raises TaskError for data that cannot be learned (DivergedError where numbers became NaN or infinite, by an
        image, which is named, or by the training), StateLockedError while another process or thread learns,
        StateError where only a newer csk-sdk may write to the state, StorageError where the disk is full,
        RuntimeMissingError without the backend's package, ConfigError for a setting out of range, or where the memory
        budget is too small.
        """
        self.state.require_writable()
        if not isinstance(task, Task):
            task = Task.open(task)
        with in_memory():
            return self._learn(task, config, on_progress, replace)

    def _learn(
        self,
        task: Task,
        config: TrainingConfig | Mapping[str, Any] | None,
        on_progress: OnProgress | None,
        replace: bool | None,
    ) -> LearnReport:
        if replace is not None:
            flag_of(replace, "replace")
        if on_progress is not None and not callable(on_progress):
            raise ConfigError(f"on_progress is {on_progress!r:.40}, and must be a function of a Progress.")
        config = settings_of(config)
        task.require_trainable()
        bundle = self._as_set(config)
        with self.state.lock():
            # An opened graph, and a generation's tensors, would take the room that learning needs.
            before, self._held = self._held, None
            if before is not None:
                before[1].release()
            del before
            with self.state.opened() as generation:
                return LearnRun(
                    bundle,
                    self.state,
                    generation,
                    task,
                    config or self.config,
                    self.backend,
                    on_progress or (lambda _: None),
                    replace,
                ).run()

    def stream(
        self,
        name: str,
        classes: Sequence[str],
        config: TrainingConfig | Mapping[str, Any] | None = None,
        *,
        replace: bool | None = None,
    ) -> TaskStream:
        """Learn a task from batches that the application feeds: see `TaskStream`. `replace` is that of `learn`.

        Raises TaskError where a task of this name is learned already, or a name cannot be used; ConfigError for a
        setting out of range.
        """
        text_of(name, "name", TaskError)
        classes = texts_of(classes, "classes", TaskError)
        if replace is not None:
            flag_of(replace, "replace")
        self.state.require_writable()
        self.require_new(name, classes)
        settings = settings_of(config)
        bundle = self._as_set(settings)
        return TaskStream(
            bundle, self.state, name, classes, settings or self.config, backend=self.backend, replaces=replace
        )

    def _as_set(self, config: TrainingConfig | None) -> Bundle:
        """The bundle as these settings want it, where they are not the learner's own."""
        if config is None:
            return self.bundle
        budgeted = config.memory_budget is not None
        bundle = in_chosen_precision(self.bundle, config.precision, self.state.folder, budgeted)
        return bundle.view(time_limit=config.time_limit)

    def features(self, images: NDArray[Any] | Sequence[Any]) -> NDArray[np.float32]:
        """Features `(n, f)` float32 of images or signals, as `predict` takes them. Raises TaskError as it does."""
        with in_memory():
            return self.predictor().features(images)

    def predict(
        self, images: NDArray[Any] | Sequence[Any], task: str | None = None, reject: float | None = None
    ) -> Prediction:
        """Class names and probabilities of uint8 RGB images, `(n, h, w, c)` or a list of `(h, w, c)` of any sizes.

        Images of OpenCV are BGR: give `images[..., ::-1]`. A model of signals takes int16 or float `(n, length, c)` or
        a list of `(length, c)`. For a bundle of another loss than cross-entropy, see `Prediction`.

        With `task`, among that task's classes (task-incremental); without, among all learned so far
        (class-incremental). `known` of the prediction is False for what is unlike all that is known, whatever `task`;
        of images of known classes, that is about the share `reject`, 0.05 unless told otherwise; 0 rejects none.
        Threads may call it at once. Raises ConfigError where `reject` is no share from 0 to below 1, or was never
        measured (`Prediction`), TaskError for images or signals of a wrong type, or of which the network computes
        numbers that are not finite, and for a task that is not learned.
        """
        with in_memory():
            predictor = self.predictor()
            found = predictor.predict(images, task, reject)
        # Whatever stands in the way of counting, the answer is there.
        with suppress(CskError, OSError):
            self._counter.add(predictor, found)
        return found

    def count(self, on: bool = True) -> None:
        """Count predictions from now on, or no more; then what was counted is gone, too.

        Counts are kept in the state, for every process that predicts from it: of each day how many answers there were,
        how many unknown, and how far from all that is known (docs/state.md#fieldjson). No image, no feature and no
        name of a class is kept, and a prediction never fails for it. `status` tells them. Raises StorageError where
        the state cannot be written, StateError where only a newer csk-sdk may.
        """
        flag_of(on, "on")
        self.state.require_writable()
        # What waits is of before: it must not come back when counting begins again.
        self._counter.flush()
        if on:
            make_folder(self.state.folder)
            start_counting(self.state.folder)
        elif is_counting(self.state.folder):
            stop_counting(self.state.folder)

    def status(self) -> Status:
        """How the device is doing: how predictions went, where they are counted, and which classes need more images.

        Nothing is measured anew. Raises StateError where the state, or what was counted, cannot be read.
        """
        self._counter.flush()
        generation = self.generation
        noun = self.bundle.manifest.input.noun
        return Status(
            generation=generation.number,
            tasks=tuple(task.name for task in generation.tasks),
            classes=len(self.classes),
            days=read_field(self.state.folder),
            needs=needs_of(
                generation.tasks, noun, lambda name: images_of_class(self.state, generation.tasks, name)
            ),
            noun=noun,
            domains=domain_names(generation.tensors),
        )

    def evaluate(self, tasks: Sequence[Task], scenario: str = "task") -> Evaluation:
        """Accuracies in percent on the test splits of `tasks`; the row is kept, so that later calls show forgetting.

        Test images of classes that their task does not know are left out, and `notes` say so. `scenario` is "task"
        (task-incremental) or "class" (class-incremental). Raises ConfigError for another one, TaskError where there is
        nothing to test.
        """
        require_scenario(text_of(scenario, "scenario", ConfigError))
        return self.score(tasks).evaluation(scenario)

    def score(self, tasks: Sequence[Task]) -> Scores:
        """What `evaluate` measures, for both scenarios at once. Raises TaskError as it does."""
        if isinstance(tasks, Task) or not isinstance(tasks, Iterable):
            raise TaskError(f"tasks is a {type(tasks).__name__}, and must be a list of tasks: [task].")
        given = list(tasks)
        if odd := [one for one in given if not isinstance(one, Task)]:
            raise TaskError(
                f"tasks has a {type(odd[0]).__name__} in it, and must be a list of tasks: open each with Task.open."
            )
        # One predictor for all: another process may commit while this one measures.
        with in_memory():
            return score_tasks(self.predictor(), self.state, given)

    def export(
        self,
        path: Path | str,
        task: str | None = None,
        reject: float | None = None,
        precision: str = EXACT,
    ) -> None:
        """Write an ordinary inference ONNX model over all classes, or over one task's.

        Its input is the source model's input, normalised as for that one. With `reject`, it has two more outputs in
        standard ops: `known` bool `(n,)`, as `predict(..., reject=reject)` has it, and `distance` float32 `(n,)`.
        In `precision` "int8", which only bundles of quantised models have, it is quantised (QDQ) as that model was.
        The file is replaced as a whole, or not at all. Raises TaskError for a task that is not learned, StorageError
        where it cannot be written, ConfigError for `reject` as `predict` does, for a precision that the bundle has no
        form for, where the file would lie in a bundle or a state, and where another file than an ONNX model is there.
        """
        predictor = self.predictor()
        doubt = None if reject is None else predictor.doubt(reject)
        target = path_of(path, "The exported model's path", StorageError)
        with in_memory():
            export_model(self.bundle, predictor.generation, predictor.head(task), target, doubt, precision)

    def adapt(self, name: str, images: NDArray[Any] | Sequence[Any], *, replace: bool = False) -> Adapted:
        """Learn the domain `name`: what another camera, light or weather makes of images. It takes no labels.

        `images` are at least 32, uint8 RGB `(n, h, w, c)` or as `predict` takes them otherwise: of classes that the
        base knows, a fair mix of them, and all of this domain. From then on each image is told to be of one of the
        domains or of none, and seen as the base's images are (adaptive batch normalisation, arXiv 1603.04779): what is
        known is recognised in it. The backbone is not trained any more. No pixel is kept. Commits a generation.
        `replace` takes the place of a domain of this name.

        Raises TaskError for images that are too few, look like what is known already, or come no nearer to it, and for
        a name that is known or cannot be used; BundleError where the bundle was built without base data;
        StateLockedError and StorageError as `learn` does.
        """
        text_of(name, "name", TaskError)
        with in_memory(), self._changing():
            return adapt(
                self.bundle, self.state, name, images, self.config.threads, flag_of(replace, "replace")
            )

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains that are known, in alphabetical order. Raises StateError as `generation` does."""
        return domain_names(self.generation.tensors)

    def forget_domain(self, name: str) -> Generation:
        """Take back the domain `name`: its images are seen as all others are. Raises TaskError for one not known."""
        text_of(name, "name", TaskError)
        with self._changing():
            return forget_domain(self.state, name)

    def forget(self, *classes: str, task: str | None = None) -> Forgotten:
        """Forget classes, or a task: what it contributed, its head, and every older generation that holds it.

        What is known of all others is then, where no center was ever trained, to the bit what a device knows that never
        learned it; `remains` of what is returned says what else is left. Classes of the base are hidden, since the
        bundle holds them. It cannot be undone. Raises TaskError for a class or task that is not known, and where none
        would be known any more, StorageError where something cannot be removed.
        """
        texts_of(classes, "classes", TaskError)
        if task is not None:
            text_of(task, "task", TaskError)
        if bool(classes) == (task is not None):
            raise TaskError(said("forget_what"))
        with self._changing():
            return forget(self.bundle, self.state, classes, task)

    def rename(self, old: str, new: str) -> Generation:
        """Give a learned class another name. Raises TaskError for one that is not learned, or a name that is taken."""
        text_of(old, "old", TaskError), text_of(new, "new", TaskError)
        with self._changing():
            return rename(self.bundle, self.state, old, new)

    def merge(self, into: str, other: str) -> Generation:
        """Make one class of two: what was learned of `other` is known of `into`.

        Raises TaskError for a class that is not known, and for `other` of the base.
        """
        text_of(into, "into", TaskError), text_of(other, "other", TaskError)
        with self._changing():
            return merge(self.bundle, self.state, into, other)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """The lock, and predictions from what is committed afterwards."""
        self.state.require_writable()
        with self.state.lock():
            yield
            self._held = None

    def rollback(self, task: str) -> Generation:
        """Return to the generation in which `task` had just been learned ("base": before the first task).

        Also forward again, as long as that generation is there. Raises StateError for a task that no kept generation
        ended with, or where only a newer csk-sdk may write to the state; StateLockedError while another process or
        thread learns.
        """
        text_of(task, "task", StateError)
        self.state.require_writable()
        with self.state.lock():
            self.state.rollback(self.state.generation_at(task))
            self.state.clear_progress()
            current = self._read()
        return current.generation

    def require_new(self, name: str, classes: Sequence[str] = ()) -> None:
        """Raise TaskError where a task of this name is learned already, or a name cannot be used."""
        text_of(name, "name", TaskError)
        classes = texts_of(classes, "classes", TaskError)
        require_new_task(self.generation, self.bundle.manifest.classes, name, classes)


def settings_of(config: TrainingConfig | Mapping[str, Any] | None) -> TrainingConfig | None:
    """Settings as applications hand them over: those of a TrainingConfig by name, too."""
    if config is None or isinstance(config, TrainingConfig):
        return config
    if isinstance(config, Mapping):
        return TrainingConfig.from_mapping(dict(config), "config")
    raise ConfigError(
        f"config is a {type(config).__name__}, and must be a TrainingConfig or a mapping of its settings."
    )
