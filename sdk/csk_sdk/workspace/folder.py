"""A device's workspace: where the bundle, the state and the inbox are, and the settings in `csk.toml`.

bundle/     training artifacts, read-only
state/      what was learned
tasks/      the inbox
csk.toml    optional: [training] any setting of TrainingConfig; [state] keep = 8; [bundle] trust = "trust.pem";
            [data] bit_depth = 12, where images of 16 bits a value are of a camera of 12;
            [runtime] providers = ["openvino"]
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from csk_sdk.backends import AUTO
from csk_sdk.bundle.accepted import accept, check_age
from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.data.bit_depth import require_bit_depth
from csk_sdk.data.inbox import Inbox
from csk_sdk.data.tasks import Task
from csk_sdk.errors import BundleError, ConfigError, TaskError
from csk_sdk.formats.byte_sizes import bytes_in
from csk_sdk.formats.given import optional_path, path_of
from csk_sdk.formats.opening import RefusedError, read_file
from csk_sdk.formats.places import WORKSPACE, mistaken
from csk_sdk.learner import Learner
from csk_sdk.network.predicting import task_names
from csk_sdk.network.taught import images_of_task
from csk_sdk.state import BASE, State
from csk_sdk.state.handover import finish
from csk_sdk.state.swap import aside
from csk_sdk.workspace.upgrading import KEEP, Upgrade

SETTINGS = "csk.toml"
_LARGEST_SETTINGS = 1 << 20


@dataclass(frozen=True)
class TaskStatus:
    """One task of the inbox or the state.

    `state` is "learned", "next", "waiting", "test only" or "broken" (then `error` says why).
    `notes` are sentences about files in its folder that are not read.
    `generation` and `seconds` are those of its learning. Of a task that left the inbox the images are counted that its
    classes were learned from; None where some of it was forgotten, and nothing says how many are left.
    """

    name: str
    state: str
    classes: tuple[str, ...] = ()
    train_images: int | None = 0
    test_images: int = 0
    generation: int | None = None
    seconds: float | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workspace:
    """Paths and settings; opens nothing by itself. Make it with `Workspace.open`."""

    folder: Path
    bundle: Path
    state: Path
    tasks: Path
    config: TrainingConfig
    keep: int = KEEP
    trust: Path | None = None
    bit_depth: int | None = None
    providers: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        folder: Path | str = ".",
        bundle: Path | None = None,
        state: Path | None = None,
        tasks: Path | None = None,
        trust: Path | None = None,
    ) -> Workspace:
        """The workspace in `folder`; the others override where its parts are, and whose bundles are trusted.

        Raises ConfigError for a missing folder, or a csk.toml that cannot be used.
        """
        folder = path_of(folder, "workspace")
        bundle, state, tasks, trust = (
            optional_path(one, what)
            for one, what in ((bundle, "bundle"), (state, "state"), (tasks, "tasks"), (trust, "trust"))
        )
        if not _is_folder(folder):
            if folder.is_file():
                raise ConfigError(mistaken(folder, WORKSPACE))
            raise ConfigError(f"There is no folder {folder}. Make it, and put a bundle/ into it.")
        if bundle is None and (said := mistaken(folder, WORKSPACE)) is not None:
            raise ConfigError(said)
        tables = _tables(folder / SETTINGS)
        config, keep, key = _settings(tables, folder / SETTINGS)
        return cls(
            folder=folder,
            bundle=bundle or folder / "bundle",
            state=state or folder / "state",
            tasks=tasks or folder / "tasks",
            config=config,
            keep=keep,
            trust=trust or (folder / key if key else None),
            bit_depth=tables.get("data", {}).get("bit_depth"),
            providers=tuple(tables.get("runtime", {}).get("providers", ())),
        )

    def on(self, provider: str | None) -> Workspace:
        """The same workspace, predicting with another provider; as it is where that is None."""
        return self if provider is None else replace(self, providers=(provider,))

    @property
    def inbox(self) -> Inbox:
        """The tasks that wait, or have waited, to be learned."""
        return Inbox(self.tasks, self.bit_depth)

    def open_bundle(self) -> Bundle:
        """Open the bundle, as far as it is trusted, and is no older than one before. Raises BundleError, StateError."""
        self._require_bundle()
        bundle = Bundle.open(self.bundle, self.trust)
        if self.trust is not None:
            check_age(bundle, self.trust, self.state)
        return bundle

    def upgrade_to(self, new: Path | str, relearn: bool = True) -> Upgrade:
        """The upgrade to the bundle in the folder `new`. Raises as `Upgrade.open` does."""
        self._require_bundle()
        return Upgrade.open(
            self.bundle,
            self.state,
            new,
            self.inbox if relearn else None,
            config=self.config,
            trust=self.trust,
            keep=self.keep,
        )

    def _require_bundle(self) -> None:
        """In a wrong working directory the bundle is what is missed first: say which directory it is."""
        finish(self.bundle, self.state)
        default = self.bundle == self.folder / "bundle"
        if (
            default
            and not os.path.lexists(self.bundle)
            and not os.path.lexists(aside(self.bundle.absolute()))
        ):
            raise BundleError(
                f"There is no bundle in {self.folder.absolute()}: run the command in the device's workspace, or name "
                "that with --workspace. A new one gets its bundle/ from a workstation: `csk-sdk build-artifacts MODEL "
                "--out bundle`."
            )

    def learner(self, config: TrainingConfig | None = None, backend: str = AUTO) -> Learner:
        """Open bundle and state, and remember how new a signed bundle is. Raises BundleError, StateError."""
        bundle = self.open_bundle()
        bundle.checkpoint()  # refused now if it is damaged, and read again where generation 0 is needed
        state = State.open(self.state, bundle.id, bundle.stored_checkpoint, keep=self.keep)
        if self.trust is not None:
            accept(bundle, self.trust, self.state)
        return Learner(bundle, state, config or self.config, backend, self.providers, self.trust)

    def waiting(self, learner: Learner) -> Iterator[Task]:
        """Tasks that can be learned and are not yet, in name order, each opened when it is asked for.

        Raises TaskError for one that cannot be opened.
        """
        known = task_names(learner.generation, learner.bundle.manifest.classes)
        for name in self.inbox.names():
            if name not in known:
                task = self.inbox.open(name)
                if task.train is not None:
                    yield task

    def testable(self, learner: Learner) -> tuple[list[Task], tuple[str, ...]]:
        """The learned tasks (and "base") with test images in the inbox, without their training images.

        And a sentence about each that cannot be opened. Raises TaskError where that is each of them.
        """
        known = set(task_names(learner.generation, learner.bundle.manifest.classes))
        tasks, broken = [], []
        for name in self.inbox.names():
            if name not in known:
                continue
            try:
                tasks.append(self.inbox.open(name))
            except TaskError as error:
                broken.append(error)
        if broken and not tasks:
            raise broken[0]
        notes = tuple(f"Not tested: {error}" for error in broken)
        return [replace(task, train=None) for task in tasks if task.test is not None], notes

    def survey(self, learner: Learner) -> list[TaskStatus]:
        """Every task of the inbox, and every learned one, by name; a broken one is listed, not raised."""
        history = learner.state.history()
        learned = {record.task: record.number for record in reversed(history)}
        found = {name: self._status(name) for name in self.inbox.names()}
        for task in learner.tasks:
            if task.name not in found:
                images = images_of_task(learner.state, history, task)
                found[task.name] = TaskStatus(task.name, "learned", task.classes, images)
            found[task.name] = replace(
                found[task.name],
                state="learned",
                classes=task.classes,
                generation=learned.get(task.name),
                seconds=task.seconds,
            )
        statuses = [found[name] for name in sorted(found)]
        # A broken task is not skipped: `train --task next` stops there, and says what is wrong with it.
        first = next((status for status in statuses if status.state in ("waiting", "broken")), None)
        return [
            replace(status, state="next") if status is first and first.state == "waiting" else status
            for status in statuses
        ]

    def _status(self, name: str) -> TaskStatus:
        try:
            task = self.inbox.open(name)
        except TaskError as error:
            return TaskStatus(name, "broken", error=str(error))
        return TaskStatus(
            name=name,
            state="test only" if task.train is None or name == BASE else "waiting",
            classes=task.classes,
            train_images=len(task.train) if task.train is not None else 0,
            test_images=len(task.test) if task.test is not None else 0,
            notes=task.unread,
        )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, and the like
        return False


def workspace_of(
    bundle: Path, folder: Path | str = ".", state: Path | None = None, trust: Path | None = None
) -> Workspace:
    """The workspace whose settings say whom to trust with `bundle`: `folder`, or the folder that the bundle is in.

    The first that names a key counts, for a command that is given a bundle and no workspace. Raises ConfigError.
    """
    beside = bundle.absolute().parent
    for place in (Path(folder), beside) if beside.is_dir() else (Path(folder),):
        space = Workspace.open(place, bundle, state, trust=trust)
        if space.trust is not None:
            return space
    return Workspace.open(folder, bundle, state)


# The tables of csk.toml and their settings; those of [training] are TrainingConfig's.
_TABLES: dict[str, tuple[str, ...]] = {
    "training": (),
    "state": ("keep",),
    "bundle": ("trust",),
    "data": ("bit_depth",),
    "runtime": ("providers",),
}


def _tables(path: Path) -> dict[str, Any]:
    """The tables of csk.toml, none of them unknown, nor any of their settings."""
    tables = _read(path)
    for name, table in tables.items():
        if name not in _TABLES:
            known = ", ".join(f"[{one}]" for one in _TABLES)
            raise ConfigError(f"{path} has '{name}', which is no table of it. Known: {known}.")
        if not isinstance(table, dict):
            raise ConfigError(f"{path} sets '{name}' to {table!r}; write it as a table, [{name}].")
        for setting in table:
            if _TABLES[name] and setting not in _TABLES[name]:
                known = ", ".join(_TABLES[name])
                raise ConfigError(
                    f"{path} sets '{setting}' in [{name}], which is no setting. Known: {known}."
                )
    return tables


def _settings(tables: dict[str, Any], path: Path) -> tuple[TrainingConfig, int, str | None]:
    providers = tables.get("runtime", {}).get("providers", [])
    if not isinstance(providers, list) or not all(isinstance(one, str) for one in providers):
        raise ConfigError(f'{path} sets providers to {providers!r}; it must be a list such as ["openvino"].')
    require_bit_depth(tables.get("data", {}).get("bit_depth"), f"{path} sets bit_depth to")
    keep = tables.get("state", {}).get("keep", KEEP)
    if not isinstance(keep, int) or isinstance(keep, bool) or keep < 1:
        raise ConfigError(f"{path} sets keep to {keep!r}; it must be a whole number, 1 or more.")
    trust = tables.get("bundle", {}).get("trust")
    if trust is not None and (not isinstance(trust, str) or not trust):
        # Never taken for "no key": a device that was to trust one key would then trust everybody.
        raise ConfigError(f"{path} sets trust to {trust!r}; it must be the path of a public key, a PEM file.")
    return TrainingConfig.from_mapping(_training(tables, path), str(path)), keep, trust


def _training(tables: dict[str, Any], path: Path) -> dict[str, Any]:
    """The table [training], with a memory budget in bytes where it is written as a size."""
    training: dict[str, Any] = tables.get("training", {})
    budget = training.get("memory_budget")
    if isinstance(budget, str):
        found = bytes_in(budget)
        if found is None:
            raise ConfigError(
                f"{path} sets memory_budget to {budget!r}, which is no size such as 64MiB, 500MB or 1.5GiB."
            )
        return training | {"memory_budget": found}
    return training


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_file(path, _LARGEST_SETTINGS).decode("utf-8"))
    except FileNotFoundError:
        return {}
    except RefusedError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): it must be a small text file."
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check its permissions.") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML ({error}).") from None
