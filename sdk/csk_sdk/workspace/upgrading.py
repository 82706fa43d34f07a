"""The next bundle on a device that has learned: what it knows is carried over, and can be taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csk_sdk.backends import AUTO
from csk_sdk.bundle.accepted import ACCEPTED, accept, check_age
from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.data.inbox import Inbox
from csk_sdk.data.tasks import Task
from csk_sdk.errors import BundleError, ConfigError, CskError, StateError, TaskError
from csk_sdk.formats.given import optional_path, path_of
from csk_sdk.formats.opening import LARGEST_TEXT, read_file
from csk_sdk.learner import Learner, settings_of
from csk_sdk.learning.carrying import Carried, carry, open_map, stays_as_it_was
from csk_sdk.method.contributions import DIRECTIONS, MIXTURES
from csk_sdk.runtime.peak_memory import in_memory, peak_rss_bytes
from csk_sdk.state import State
from csk_sdk.state.atomic import exists, make_folder, replace_file, require_room, storage_error
from csk_sdk.state.field import is_counting, start_counting
from csk_sdk.state.handover import Places, commit, commit_back, copy_bundle, finish, handing_over
from csk_sdk.state.identity import write_identity
from csk_sdk.state.lock import StateLock
from csk_sdk.state.store import GenerationStore

KEEP = 8
# Matrices of features by features, float64, at once: of old by new, of new by new, and of old by old.
_MIXED, _SQUARES, _OLD_SQUARES = 2, 5, 3
# Of a contribution: rows of float32, its mean among them; and of its file and the record, what is beside them.
_ROWS, _FILE_BYTES = DIRECTIONS + MIXTURES + 1, 4096
OnStep = Callable[[str], object]


@dataclass(frozen=True)
class UpgradePlan:
    """What an upgrade would do. Immutable.

    - `carried`: tasks whose knowledge is carried over; `learned_again`: those whose images are still here
    - `not_again`: sentences about tasks whose images are here and are not learned again
    - `exact`: whether what is carried stays exactly what it was; else `explained` is the share of the new features'
      variance that the map tells of classes that it was not fitted on, `added` counts the features that none of the old
      ones is, and `gone` the old ones that the new bundle has not (0 where none is kept: the network is another one)
    - `disk_bytes`: what is written; the old bundle and state stay as long as there is a way back
    - `memory_bytes`: the peak of the process, about
    """

    carried: tuple[str, ...]
    learned_again: tuple[str, ...]
    not_again: tuple[str, ...]
    exact: bool
    explained: float
    added: int
    gone: int
    disk_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class UpgradeReport:
    """What an upgrade did. Immutable.

    - `generation`: the current one of the new state
    - `carried`, `learned_again`: tasks, as the plan had them
    - `merged`: learned classes that the new base knows by itself: one class each now
    - `notes`: sentences about what is not as it was
    """

    generation: int
    carried: tuple[str, ...]
    learned_again: tuple[str, ...]
    merged: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `upgrade --json`."""
        return asdict(self)


@dataclass(frozen=True)
class Upgrade:
    """The upgrade of a device's bundle and state to another bundle, opened and checked: `plan`, then `run`.

    Make it with `Upgrade.open`.
    """

    old: Bundle
    new: Bundle
    places: Places
    config: TrainingConfig
    keep: int
    trust: Path | None
    again: dict[str, Task]
    not_again: tuple[str, ...]

    @classmethod
    def open(
        cls,
        bundle: Path | str,
        state: Path | str,
        new: Path | str,
        tasks: Inbox | Path | str | None = None,
        *,
        config: TrainingConfig | Mapping[str, Any] | None = None,
        trust: Path | str | None = None,
        keep: int = KEEP,
    ) -> Upgrade:
        """Open the device's bundle and the one in the folder `new`, and see which tasks `tasks` still has images of.

        Raises BundleError, StateError and ConfigError as opening them does, and BundleError where `new` was not built
        to be upgraded to from the device's bundle.
        """
        folders = path_of(bundle, "bundle", BundleError), path_of(state, "state", StateError)
        source, key = path_of(new, "the new bundle", BundleError), optional_path(trust, "trust")
        finish(*folders)
        old = Bundle.open(folders[0], key)
        opened = Bundle.open(source, key)
        if key is not None:
            for signed in (old, opened):
                check_age(signed, key, folders[1])
        if opened.id == old.id:
            raise BundleError(f"{source} is the bundle that is on this device already.")
        open_map(old.id, old.manifest.head.features, opened)
        inbox = (
            tasks
            if isinstance(tasks, Inbox) or tasks is None
            else Inbox(path_of(tasks, "tasks", TaskError), None)
        )
        learned = State.open(folders[1], old.id, old.stored_checkpoint, keep=keep)
        again, not_again = _still_here(learned, inbox)
        return cls(
            old,
            opened,
            Places(*folders),
            settings_of(config) or TrainingConfig(),
            keep,
            key,
            again,
            not_again,
        )

    def plan(self) -> UpgradePlan:
        """What `run` would do, and what it takes. Raises StateError where the state cannot be read."""
        about = self.new.manifest.upgrade
        assert about is not None
        generation = self._state().load()
        tasks = generation.tasks
        carried = [task for task in tasks if task.name not in self.again]
        size, old_size = self.new.manifest.head.features, self.old.manifest.head.features
        classes = sum(len(task.classes) for task in tasks)
        kept = sum(entry.size for entry in self.new.manifest.files.values())
        held = self.new.manifest.files["checkpoint.safetensors"].size
        knowledge = held + classes * (_ROWS * 4 * size * 2 + _FILE_BYTES)
        numbers = _MIXED * size * old_size + _SQUARES * size**2 + _OLD_SQUARES * old_size**2
        matrices = 8 * numbers + 2 * held
        learning = self.new.manifest.memory.get("peak", 0) if self.again else 0
        return UpgradePlan(
            tuple(task.name for task in carried),
            tuple(self.again),
            self.not_again,
            stays_as_it_was(self.old, generation, self.new),
            about.explained,
            size - about.kept,
            (old_size - about.kept) if about.kept else 0,
            kept + knowledge,
            peak_rss_bytes() + max(matrices, learning),
        )

    def run(self, on_step: OnStep = lambda _: None) -> UpgradeReport:
        """Carry over, learn again, and put the new bundle and its state in the place of the old, both or neither.

        The old ones stay beside them for the way back. `on_step` is called with a sentence before each step; what it
        raises ends the upgrade, and changes nothing. Whatever moment the process is killed at, the old ones count, or
        the new ones: the next opening finishes what had begun to count. Raises StateLockedError while something else
        learns, StorageError where the disk has no room, TaskError where a task can not be learned again.
        """
        if not callable(on_step):
            raise ConfigError(f"on_step is {on_step!r:.40}, and must be a function of a sentence.")
        state = self._state()
        state.require_writable()
        require_room(self.places.bundle.parent, self.plan().disk_bytes, "the upgrade")
        if not exists(self.places.state):
            make_folder(self.places.state.absolute().parent)
            with handing_over(self.places):
                copy_bundle(self.new.folder, self.places.next()[0])
                commit(self.places, self.new.id)
            return UpgradeReport(0, (), (), (), ())
        with in_memory(), state.lock(), handing_over(self.places):
            # Once it lies beside, nothing is written to it any more.
            state.finish_forgetting()
            target, into = self.places.next()
            on_step("Copying the bundle")
            copy_bundle(self.new.folder, target)
            new = Bundle.open(target, self.trust)
            on_step("Carrying over what was learned")
            fresh = self._begin(new, into)
            carried = Carried((), (), False)
            if (generation := state.load()).number:
                with fresh.lock():
                    carried = carry(self.old, state, generation, new, fresh, self.again)
            learner = Learner(new, fresh, self.config, AUTO)
            for name, task in self.again.items():
                on_step(f"Learning {name} again")
                _learn_again(learner, task)
            number = fresh.head()
            commit(self.places, new.id)
        return UpgradeReport(
            number,
            carried.tasks,
            tuple(self.again),
            carried.merged,
            carried.notes(self.new),
        )

    def _state(self) -> State:
        return State.open(self.places.state, self.old.id, self.old.stored_checkpoint, keep=self.keep)

    def _begin(self, new: Bundle, into: Path) -> State:
        """An empty state of the new bundle, which remembers what signed bundles the device has seen."""
        write_identity(GenerationStore(into, new.id), new.id)
        _copy_accepted(self.places.state, into)
        if is_counting(self.places.state):
            start_counting(into)  # with what was counted of the old bundle left beside it
        if self.trust is not None:
            accept(new, self.trust, into)
        return State.open(into, new.id, new.stored_checkpoint, keep=self.keep)


def upgrade(
    bundle: Path | str,
    state: Path | str,
    new: Path | str,
    tasks: Inbox | Path | str | None = None,
    *,
    config: TrainingConfig | Mapping[str, Any] | None = None,
    trust: Path | str | None = None,
    on_step: OnStep = lambda _: None,
) -> UpgradeReport:
    """Put the bundle `new` in the place of a device's `bundle`, and carry what its `state` knows over to it.

    `new` must have been built with `--upgrade-from` the device's bundle. Of `tasks`, an inbox, those are learned again
    that were learned and whose images are still there. Bundle and state are replaced together, or not at all, and kept
    as `BUNDLE.before` and `STATE.before` for `upgrade_back`. Learners that are open must be opened again.

    Raises BundleError where `new` was not built so, or cannot be opened, StateLockedError while something learns,
    StorageError where there is no room, TaskError where a task cannot be learned again: nothing is changed then.
    """
    return Upgrade.open(bundle, state, new, tasks, config=config, trust=trust).run(on_step)


def upgrade_back(bundle: Path | str, state: Path | str, *, trust: Path | str | None = None) -> None:
    """Put the bundle and the state from before the last upgrade back in their place, together.

    What was learned since is gone. With `trust`, the older bundle is accepted for good. Raises StateError where there
    is no way back, StateLockedError while something learns, StorageError where the disk refuses.
    """
    folders = path_of(bundle, "bundle", BundleError), path_of(state, "state", StateError)
    finish(*folders)
    places, key = Places(*folders), optional_path(trust, "trust")
    before, known = places.before()
    if not exists(before):
        raise StateError(f"There is no way back: {before} is not there.")
    old = Bundle.open(before, key)
    with StateLock(folders[1]) if exists(folders[1]) else nullcontext(), handing_over(places):
        if exists(known):
            # So that going back lets no even older bundle in.
            _copy_accepted(folders[1], known)
            if key is not None:
                accept(old, key, known, allow_older=True)
        commit_back(places, old.id)


def _still_here(state: State, inbox: Inbox | None) -> tuple[dict[str, Task], tuple[str, ...]]:
    """The learned tasks whose images are still here, in their order, and sentences about those that differ."""
    if inbox is None:
        return {}, ()
    names, found, said = set(inbox.names()), {}, []
    for learned in state.load().tasks:
        if learned.name not in names:
            continue
        try:
            task = inbox.open(learned.name)
        except CskError as error:
            said.append(
                f"{learned.name} is carried over: its images cannot be read ({str(error).rstrip('.')})."
            )
            continue
        if task.train is None:
            continue
        if set(task.classes) != set(learned.classes):
            said.append(
                f"{learned.name} is carried over: its folder has other classes than are known of it now."
            )
            continue
        found[learned.name] = task
    return found, tuple(said)


def _learn_again(learner: Learner, task: Task) -> None:
    try:
        learner.learn(task, replace=False)
    except CskError as error:
        raise type(error)(
            f"{str(error).rstrip('.')}. Nothing was upgraded; with --no-relearn what is known of '{task.name}' is "
            "carried over instead."
        ) from error


def _copy_accepted(source: Path, target: Path) -> None:
    try:
        if exists(source / ACCEPTED):
            replace_file(target / ACCEPTED, read_file(source / ACCEPTED, LARGEST_TEXT))
    except OSError as error:
        raise storage_error(error, f"copy {source / ACCEPTED}") from error
