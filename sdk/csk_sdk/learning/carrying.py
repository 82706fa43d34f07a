"""What was learned on one bundle, carried over to another: a first generation on that one, without any image."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import UPGRADE, UpgradeFrom
from csk_sdk.contract.sentences import said
from csk_sdk.errors import BundleError, StateError
from csk_sdk.formats.stored_tensors import StoredTensors
from csk_sdk.formats.wording import plural
from csk_sdk.learning.forgetting import hide
from csk_sdk.method import carried_heads
from csk_sdk.method.carried_heads import CarriedHeads
from csk_sdk.method.contributions import DIRECTIONS, MIXTURES, Contribution, Lesson
from csk_sdk.method.feature_map import FeatureMap
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.projection import frozen_moment
from csk_sdk.method.unknown import Familiarity, replace_sketch
from csk_sdk.network.ledger import (
    MAP,
    MAPPED,
    UnledgeredError,
    digest_of_centers,
    map_of,
    statistics_of,
)
from csk_sdk.state import Generation, LearnedTask, State
from csk_sdk.state.versions import domain_names

Tensors = dict[str, NDArray[Any]]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Carried:
    """What `carry` did.

    `tasks` were carried, the heads of `anew` fitted anew, and of those of `untold` nobody knows what they lost.
    `frozen` are sites that are not to be trained any more, `approximate` says whether anything is not what it was,
    `behind` whether that is what training had moved. `merged` are learned classes that the new base knows by itself,
    `lost` those of the old base that it does not know. `domains` were left behind.
    """

    tasks: tuple[str, ...]
    frozen: tuple[str, ...]
    approximate: bool
    behind: bool = False
    anew: tuple[str, ...] = field(default=())
    untold: tuple[str, ...] = field(default=())
    merged: tuple[str, ...] = field(default=())
    lost: tuple[str, ...] = field(default=())
    domains: tuple[str, ...] = field(default=())

    def notes(self, new: Bundle) -> tuple[str, ...]:
        """Sentences about what is not as it was, on the bundle `new`."""
        left = (said("carried_domains", domains=", ".join(self.domains)),) if self.domains else ()
        return (*self._of_tasks(new), *left)

    def _of_tasks(self, new: Bundle) -> Iterator[str]:
        about, features = new.manifest.upgrade, new.manifest.head.features
        if about is None or not self.tasks:
            return
        yield from self._features(about, features)
        if self.behind and about.kept:
            yield (
                "What training had moved in the old network is left behind: the new bundle has other features, trains "
                "other layers, or kernels as a whole where the old one trained their centers, or the other way round."
            )
        if self.frozen:
            sites = ", ".join(self.frozen[:4]) + (", ..." if len(self.frozen) > 4 else "")
            yield (
                f"{len(self.frozen)} of {len(new.manifest.sites)} trainable layers stay frozen from now on, since "
                f"nobody knows what the carried tasks need of them: {sites}."
            )
        if self.lost:
            yield f"The new base does not know {', '.join(self.lost)}."

    def _features(self, about: UpgradeFrom, features: int) -> Iterator[str]:
        """Of features that are new, and of those that are gone."""
        if about.kept < features:
            yield (
                f"{features - about.kept} of {features} features are new: what is known of them is what a map of the "
                f"old ones says, {100 * about.explained:.0f} % of their variance."
            )
        gone = about.features - about.kept
        if about.kept and gone > 0:
            yield f"{gone} of {about.features} features are gone, and what heads read of them is told by the others."
        if self.anew:
            yield (
                f"The heads of {len(self.anew)} of {plural(len(self.tasks), 'task')} were made anew, of what is known "
                "of their images."
            )
        if self.untold and gone > 0:
            yield (
                f"Of the images of {plural(len(self.untold), 'task')} nothing is known: what heads read of features "
                "that are gone is told as images of the base have it, and may be wrong."
            )


def open_map(old_id: str, old_features: int, new: Bundle) -> FeatureMap:
    """The map that a bundle brings along for what was learned on the bundle `old_id`.

    Raises BundleError where it brings none for that one, or its file is damaged.
    """
    about = new.manifest.upgrade
    if about is None or about.bundle != old_id:
        told = f"built to upgrade bundle {about.bundle[:8]}…" if about else "not built to be upgraded to"
        raise BundleError(
            f"What was learned on bundle {old_id[:8]}… cannot be carried over to {new.folder}, which was {told}. Build "
            "it with `--upgrade-from` the bundle that is on this device."
        )
    stored = StoredTensors(new.path(UPGRADE), BundleError)
    try:
        return FeatureMap.from_tensors(stored, old_features, new.manifest.head.features)
    except BundleError as error:
        raise BundleError(f"{new.path(UPGRADE)}: {error}. Build the bundle again.") from None
    finally:
        stored.close()


def carry(
    old: Bundle, state: State, generation: Generation, new: Bundle, into: State, without: Collection[str] = ()
) -> Carried:
    """Commit to `into`, an empty state of `new` under its lock, what `generation` of `state` knows.

    `without` are tasks that are learned again instead. Raises BundleError where `new` brings no map for `old`,
    StateError where what is known cannot be read, StorageError where it cannot be written.
    """
    return _Carrying(old, state, generation, new, into).run(without)


def stays_as_it_was(old: Bundle, generation: Generation, new: Bundle) -> bool:
    """Whether all that `generation` of `old` knows goes over to `new` unchanged."""
    if domain_names(generation.tensors):
        return False
    before = old.checkpoint()
    same = open_map(old.id, old.manifest.head.features, new).same
    return same and _moved(old, before, generation) <= _twins(before, new, new.checkpoint())


def _moved(old: Bundle, before: Mapping[str, NDArray[Any]], generation: Generation) -> set[str]:
    """Sites whose centers training has moved."""
    keys = {site.name: f"center/{site.name}" for site in old.manifest.sites}
    return {name for name, key in keys.items() if not np.array_equal(generation.tensors[key], before[key])}


def _twins(before: Mapping[str, NDArray[Any]], new: Bundle, after: Mapping[str, NDArray[Any]]) -> set[str]:
    """Sites of the new bundle that are the same kernel of the same network as in the old one."""
    about = new.manifest.upgrade
    if about is None or not about.kept:
        return set()
    keys = {site.name: f"center/{site.name}" for site in new.manifest.sites}
    return {name for name, key in keys.items() if key in before and np.array_equal(before[key], after[key])}


class _Carrying:
    """One generation on its way from one bundle to another."""

    def __init__(self, old: Bundle, state: State, generation: Generation, new: Bundle, into: State) -> None:
        self._old, self._new, self._state, self._into = old, new, state, into
        self._generation = generation
        self._map = open_map(old.id, old.manifest.head.features, new)
        self._before: Mapping[str, NDArray[Any]] = old.checkpoint()
        self._tensors: Tensors = new.checkpoint()
        self._drift = self._known_drift()
        self._twins = _twins(self._before, new, self._tensors)
        moved = _moved(old, self._before, generation)
        # Where features are what they were, and all that was trained is there, nothing changes.
        self._whole = self._map.same and moved <= self._twins
        self._moved = bool(moved)
        self._anew: list[str] = []
        self._untold: list[str] = []

    def run(self, without: Collection[str]) -> Carried:
        base, generation = self._new.manifest.classes, self._generation
        hidden = tuple(name for name in generation.hidden if name in base)
        kept = [task for task in generation.tasks if task.name not in without]
        tasks = tuple(self._task(task, kept) for task in kept)
        frozen = self._sites() if tasks else ()
        if self._whole:
            self._keep_centers()
        self._heads(tasks)
        self._statistics(tasks, hidden)
        self._sketch(tasks)
        hide(self._tensors, base, hidden)
        self._into.commit(0, tasks, self._tensors, hidden=hidden)
        learned = {name for task in tasks for name in task.classes}
        before = set(self._old.manifest.classes)
        return Carried(
            tuple(task.name for task in tasks),
            frozen,
            not self._whole,
            self._moved and not self._whole,
            tuple(self._anew),
            tuple(self._untold),
            tuple(sorted(learned.intersection(base) - before)),
            tuple(sorted(before.difference(base, learned, generation.hidden))),
            domain_names(generation.tensors),
        )

    # What each task contributed

    def _task(self, task: LearnedTask, kept: list[LearnedTask]) -> LearnedTask:
        note = f"Carried over from the bundle of {self._old.manifest.model}."
        task = replace(task, notes=(*(one for one in task.notes if one != note), note))
        if self._whole:
            return replace(
                task, contributions=self._copied(task.contributions), carried=self._copied(task.carried)
            )
        if self._new.objective.tabular:
            one = self._of_table(task)
            files = dict.fromkeys(task.classes, self._mapped(task.name, "", one)) if one is not None else {}
            return replace(task, contributions=files, carried={})
        if not task.config.get("class_statistics", True):
            return replace(task, contributions={}, carried={})
        files = {}
        for name in task.classes:
            file = task.contributions.get(name)
            if file == "":
                files[name] = ""
                continue
            one = self._read(file) if file else None
            if one is None:
                one = self._from_totals(name, task, kept)
            files[name] = self._mapped(task.name, name, one) if one is not None else ""
        return replace(task, contributions=files, carried={})

    def _copied(self, files: Mapping[str, str]) -> dict[str, str]:
        """The same, in the new state; without those that are damaged."""
        found = {}
        for name, file in files.items():
            with suppress(StateError):
                found[name] = self._into.keep_contribution(self._state.contribution(file)) if file else ""
        return found

    def _read(self, file: str) -> Contribution | None:
        try:
            return Contribution.from_tensors(self._state.contribution(file), self._old.manifest.head.features)
        except StateError:
            return None

    def _of_table(self, task: LearnedTask) -> Contribution | None:
        """What was kept of all images of a task whose labels are a table."""
        return next((one for file in set(task.contributions.values()) if (one := self._read(file))), None)

    def _mapped(self, task: str, name: str, one: Contribution) -> str:
        seed = int.from_bytes(hashlib.sha256(f"{task}\0{name}".encode()).digest()[:8], "big")
        return self._into.keep_contribution(self._map.contribution(one, seed).tensors())

    def _from_totals(self, name: str, task: LearnedTask, kept: list[LearnedTask]) -> Contribution | None:
        """Of a class that left no contribution, or a damaged one: its mean and count, and the spread that all share.

        None where another task says what is known of it.
        """
        last = [one for one in kept if name in one.classes][-1]
        files = (one.contributions.get(name) for one in kept)
        told = any(self._read(file) is not None for file in files if file)
        if told or last.name != task.name or self._totals.count([name]) <= 0:
            return None
        row = self._totals.classes.index(name)
        count = float(self._totals.counts[row])
        back, values, vectors = self._shared_spread
        largest = slice(-(DIRECTIONS + MIXTURES), None)
        factor = (
            np.sqrt(np.maximum(values[largest], 0.0) * max(count - 1, 0.0))[:, None] * vectors[:, largest].T
        )
        mean = back @ self._totals.means[row]
        return Contribution(count, mean.astype(np.float32), factor.astype(np.float32))

    @cached_property
    def _totals(self) -> ClassStatistics:
        return ClassStatistics.from_tensors(self._generation.tensors)

    @cached_property
    def _back(self) -> Float64:
        """What leads back to the untouched network's features."""
        drift = np.eye(self._totals.features) if self._drift is None else self._drift
        return np.linalg.inv(drift).astype(np.float64)

    @cached_property
    def _shared_spread(self) -> tuple[Float64, Float64, Float64]:
        """What leads back to the untouched network's features; eigenvalues and eigenvectors of the covariance there."""
        values, vectors = np.linalg.eigh(self._back @ self._totals.covariance() @ self._back.T)
        return self._back, values, vectors

    # What is made of them

    def _statistics(self, tasks: tuple[LearnedTask, ...], hidden: tuple[str, ...]) -> None:
        if self._new.objective.tabular:
            return
        known = Generation(0, None, tasks, self._tensors)
        try:
            found = statistics_of(self._new, known, tasks, hidden, self._into.contribution)
        except UnledgeredError:
            own = ClassStatistics.from_tensors(self._generation.tensors)
            fresh = ClassStatistics.from_tensors(self._tensors)
            gone = {*own.classes, *hidden}
            names = {name for task in tasks for name in task.classes} | set(self._old.manifest.classes)
            found = own.without(set(own.classes) - names).merge(fresh.without(gone))
        found.replace_in(self._tensors)

    def _heads(self, tasks: tuple[LearnedTask, ...]) -> None:
        """Each behind the way back, or fitted anew where that loses what statistics tell."""
        known = self._known_of_heads()
        for task in tasks:
            keys = [f"head/{task.name}/{part}" for part in ("weight", "bias")]
            weight, bias = (self._generation.tensors[key] for key in keys)
            if not self._whole and self._drift is not None:
                weight = (weight.astype(np.float64) @ self._drift).astype(np.float32)
            made = self._map.head(weight, bias)
            # Of a table each output is a decision of its own, on images of the whole task.
            table = self._new.objective.tabular
            classes = (task.name,) if table else task.classes
            if known is not None and known.told(weight, classes, exclusive=not table) < carried_heads.TELLS:
                made = known.head(weight, bias, classes)
                self._anew.append(task.name)
            elif known is None and not self._map.same:
                self._untold.append(task.name)
            self._tensors |= dict(zip(keys, made, strict=True))

    def _known_of_heads(self) -> CarriedHeads | None:
        """None where heads stay as they are, or nothing is known of any image."""
        if self._map.same:
            return None
        statistics = self._of_tables() if self._new.objective.tabular else self._totals
        if not statistics.counts.any():
            return None
        if self._drift is not None and not self._new.objective.tabular:
            back = self._back
            statistics = statistics.mapped(
                lambda one: np.asarray(back @ one @ back.T), statistics.sums @ back.T
            )
        return CarriedHeads(self._map, statistics)

    def _of_tables(self) -> ClassStatistics:
        """Of each task whose labels are a table its images, as those of one class of its name."""
        found = {one.name: one for one in self._generation.tasks}
        told = {name: one for name, task in found.items() if (one := self._of_table(task))}
        return Lesson(tuple(told), told).after(ClassStatistics.empty(self._old.manifest.head.features))

    def _sketch(self, tasks: tuple[LearnedTask, ...]) -> None:
        own = Familiarity.from_tensors(self._generation.tensors)
        learned = {name for task in tasks for name in task.classes}
        left = own.without(set(own.classes) - learned) if own is not None else None
        if left is None or not ClassStatistics.from_tensors(self._tensors).classes:
            return
        base = Familiarity.from_tensors(self._tensors)
        replace_sketch(self._tensors, base.merge(left) if base is not None else left)

    # Sites

    def _known_drift(self) -> Float64 | None:
        """From the untouched network's features to the present ones; None where they are the same, or nobody knows."""
        try:
            return map_of(self._generation.tensors, self._before)
        except UnledgeredError:
            return None

    def _sites(self) -> tuple[str, ...]:
        """Second moments of the sites that old tasks left some for; all others are frozen, and named."""
        frozen = []
        for site in self._new.manifest.sites:
            name = f"moment/{site.name}"
            own = self._tensors[name]
            if site.name not in self._twins or self._before[name].shape != own.shape:
                self._tensors[name] = frozen_moment(*own.shape[:2])
                frozen.append(site.name)
                continue
            now, then = self._generation.tensors[name], self._before[name]
            self._tensors[name] = now if np.array_equal(then, own) else own + (now - then)
        return tuple(frozen)

    def _keep_centers(self) -> None:
        for site in self._new.manifest.sites:
            if site.name in self._twins:
                self._tensors[f"center/{site.name}"] = self._generation.tensors[f"center/{site.name}"]
        keys = ("head/base/weight", "head/base/bias")
        if all(np.array_equal(self._before[key], self._tensors[key]) for key in keys):
            # The base's own head has followed the centers.
            self._tensors |= {key: self._generation.tensors[key] for key in keys}
        if self._drift is not None:
            self._tensors[MAP] = self._generation.tensors[MAP]
            self._tensors[MAPPED] = digest_of_centers(self._tensors)
