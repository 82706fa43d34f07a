"""What a device knows, corrected, doubled, forgotten, and taught class by class: the product on CIFAR-100.

    python benchmarks/living.py corrections --data DIR --model cifar100-base50.onnx --out docs/results/living.json

Frozen backbone, features of layers, `--images` a class, seed 0; accuracies over all classes in percent.

- corrections: five classes are learned with wrong labels, then with the right ones and `replace`, beside a device that
  only saw the right ones.
- twins: a class of the base is taught again under another name, from half of its test images, and a class that is
  new; twenty times, with each half. What the old class was estimated to lose, and lost on the other half, where the
  twin is counted (`max_forgetting = 100`) and by default. And how many classes that were never taught are called twins.
- learned-twins: the same of classes that the device learned before, from half of their `--images`, and from the other
  half again; lost on test images. other-kinds: halves that are of different kinds of the class.
- forget: ten tasks of five classes, two of them forgotten, beside a device that never learned these; and the same with
  centers that are trained, of 100 images a class, since more take an hour.
- one-class: ten classes one by one, beside one task of ten.
- expected: what ten tasks of five classes expected of their classes, and what came true.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from benchmarks.continual.data import Pictures, Stream, TaskData, cut, facts_of
from benchmarks.continual.product import _task, bundle
from numpy.typing import NDArray

from csk_artifacts_builder.graphs.layer_features import LAYERS
from csk_sdk import ContradictionError, Learner, Task, TrainingConfig

_FROZEN = {"few_shot": 10**6, "threads": 1}
_TRAINED = {"few_shot": 30, "train": "centers"}
_PAIRS = 20
# Images a class of whole streams on which centers are trained: more take an hour.
_MOST_TRAINED = 100


class World:
    """The bundle, the stream of ten tasks of five classes, and devices that begin anew."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.pictures, facts = Pictures(options.data, options.cache), facts_of(options.model)
        self._bundle = bundle(options.model, options.data, options.cache, {"features": LAYERS})
        self.stream: Stream = cut(f"10x5@{options.images}", self.pictures, facts, 0)

    @contextmanager
    def device(self, **settings: Any) -> Iterator[Learner]:
        with tempfile.TemporaryDirectory() as state:
            yield Learner.open(self._bundle, state, TrainingConfig(**{**_FROZEN, **settings}))

    @property
    def base(self) -> TaskData:
        return self.stream.base

    @property
    def tasks(self) -> Sequence[TaskData]:
        return self.stream.tasks


def accuracy(learner: Learner, parts: Sequence[TaskData]) -> float:
    """Over all test images of these, in percent."""
    right = [
        learner.predict(one.test.images).labels == np.array(one.classes)[one.test.labels] for one in parts
    ]
    return 100 * float(np.mean(np.concatenate(right)))


def taught(task: TaskData, labels: NDArray[np.int64], name: str) -> Task:
    return Task.from_arrays(name, task.train.images, labels, list(task.classes))


def corrections(options: argparse.Namespace) -> dict[str, Any]:
    """By kind of error, accuracy of these classes and of all: after the wrong lesson, corrected, and without error."""
    world = World(options)
    task = world.tasks[0]
    right = task.train.labels
    rng = np.random.default_rng(0)
    some = rng.random(len(right)) < 0.1
    kinds = {
        "exchanged": np.array([1, 0, 2, 3, 4])[right],
        "shifted": (right + 1) % 5,
        "one class wrong": np.where(right == 0, 1, right),
        "10 % random": np.where(some, rng.integers(0, 5, len(right)), right),
    }
    found: dict[str, Any] = {}
    with world.device() as never:
        never.learn(taught(task, right, "01"))
        without = accuracy(never, [task]), accuracy(never, [world.base, task])
    for kind, wrong in kinds.items():
        with world.device(label_check=False) as learner:
            learner.learn(_of_present(task, wrong, "01"))
            before = accuracy(learner, [task])
            try:
                learner.learn(taught(task, right, "02"))
                asked = False
            except ContradictionError:
                asked = True
                learner.learn(taught(task, right, "02"), replace=True)
            plain = accuracy(learner, [task]), accuracy(learner, [world.base, task])
            if not asked:
                learner.learn(taught(task, right, "03"), replace=True)
            after = accuracy(learner, [task]), accuracy(learner, [world.base, task])
        found[kind] = {
            "wrong": before,
            "asked": asked,
            "without --replace": None if asked else plain[0],
            "corrected": after[0],
            "never wrong": without[0],
            "all, corrected": after[1],
            "all, never wrong": without[1],
        }
        print(kind, _rounded(found[kind]), flush=True)
    return found


def twins(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of each pair, and their means."""
    world = World(options)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    new = [(task, label) for task in world.tasks for label in range(5)]
    for pair in range(_PAIRS):
        old = world.base.classes[2 * pair]
        images = world.pictures.of("test", old)
        order = rng.permutation(len(images))
        beside, label = new[2 * pair]
        fresh = beside.train.images[beside.train.labels == label][:50]
        halves = images[order[:50]], images[order[50:]]
        row: dict[str, Any] = {"class": old}
        for kind, settings in {"counted": {"max_forgetting": 100.0}, "default": {}}.items():
            found = []
            for half, other in (halves, halves[::-1]):
                task = Task.from_arrays(
                    "twin",
                    np.concatenate([half, fresh]),
                    np.repeat([0, 1], 50),
                    ["twin", beside.classes[label]],
                )
                with world.device(**settings) as learner:
                    found.append(_twin(learner, task, old, other))
            row[kind] = _both(found)
        rows.append(row)
        print(row, flush=True)
    means = _means([row["counted"] for row in rows])
    by_default = [row["default"] for row in rows if row["default"]["found"]]
    means["lost by default, where found"] = float(np.mean([one["lost"] for one in by_default]))
    means["lost by default, most"] = float(np.max([one["lost"] for one in by_default]))
    print(_rounded(means), flush=True)
    return {"pairs": rows, "means": means}


def learned_twins(options: argparse.Namespace) -> dict[str, Any]:
    """As `twins` has them, of classes that were learned here."""
    return _learned_twins(options, np.random.default_rng(0).permutation)


def other_kinds(options: argparse.Namespace) -> dict[str, Any]:
    """Classes that were learned here, and are taught again from images of another kind under another name."""
    # Files lie in the order of what was searched for, such as "apple" and "cox orange pippin".
    return _learned_twins(options, np.sort)


def _learned_twins(
    options: argparse.Namespace, in_order: Callable[[NDArray[np.int64]], NDArray[np.int64]]
) -> dict[str, Any]:
    world = World(options)
    rows = []
    for pair in range(_PAIRS):
        task, label = world.tasks[pair // 2], pair % 2
        old = task.classes[label]
        one_half = np.zeros(len(task.train.labels), bool)
        for each in range(len(task.classes)):
            mine = in_order(np.flatnonzero(task.train.labels == each))
            one_half[mine[: len(mine) // 2]] = True
        again = ~one_half & (task.train.labels == label)
        tested = task.test.images[task.test.labels == label]
        beside = world.tasks[(pair // 2 + 1) % len(world.tasks)]
        fresh = beside.train.images[beside.train.labels == label][: again.sum()]
        twin = Task.from_arrays(
            "twin",
            np.concatenate([task.train.images[again], fresh]),
            np.repeat([0, 1], [again.sum(), len(fresh)]),
            ["twin", beside.classes[label]],
        )
        with world.device(max_forgetting=100.0) as learner:
            learner.learn(
                Task.from_arrays(
                    "01", task.train.images[one_half], task.train.labels[one_half], list(task.classes)
                )
            )
            rows.append({"class": old, "counted": _twin(learner, twin, old, tested)})
        print(rows[-1], flush=True)
    means = _means([row["counted"] for row in rows])
    print(_rounded(means), flush=True)
    return {"pairs": rows, "means": means}


def _twin(learner: Learner, task: Task, old: str, tested: NDArray[np.uint8]) -> dict[str, Any]:
    """What teaching `task`, whose class "twin" is `old` again, was estimated to take from it, and took."""
    before = np.mean(learner.predict(tested).labels == old)
    report = learner.learn(task)
    lost = 100 * float(before - np.mean(learner.predict(tested).labels == old))
    said = [one for one in report.warnings if "cannot be told from" in one]
    mine = [one for one in said if one.startswith("'twin'")]
    hard = [one for one in report.warnings if one.startswith("'twin' is hard to tell from")]
    row: dict[str, Any] = {
        "found": bool(mine),
        "hard": bool(hard),
        "lost": lost,
        "false": len(said) - len(mine),
    }
    if mine or hard:
        row["estimated"] = float((mine or hard)[0].split(" %")[0].split()[-1])
    return row


def _both(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of a pair's halves: means, and `false` in all."""
    row = {
        "found": all(one["found"] for one in found),
        "hard": all(one["hard"] for one in found),
        "lost": float(np.mean([one["lost"] for one in found])),
        "false": sum(one["false"] for one in found),
    }
    estimated = [one["estimated"] for one in found if "estimated" in one]
    return row | ({"estimated": float(np.mean(estimated))} if estimated else {})


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    told = [row for row in rows if row["found"] or row["hard"]]
    apart = [row["estimated"] - row["lost"] for row in told]
    return {
        "found": f"{sum(row['found'] for row in rows)} of {len(rows)}",
        "hard to tell": sum(row["hard"] for row in rows),
        "new ones called twins": sum(row["false"] for row in rows),
        "lost, counted": float(np.mean([row["lost"] for row in told])),
        "estimated": float(np.mean([row["estimated"] for row in told])),
        "apart, on average": float(np.mean(np.abs(apart))),
        "within 5": f"{int(np.sum(np.abs(apart) <= 5))} of {len(told)}",
    }


def forget(options: argparse.Namespace) -> dict[str, Any]:
    """Accuracy over the rest, beside that of a device that never learned them: heads only, and with trained centers."""
    world = World(options)
    gone = ("03", "07")
    rest = [world.base, *(task for task in world.tasks if task.name not in gone)]
    found: dict[str, Any] = {}
    kinds: dict[str, dict[str, Any]] = {"frozen backbone": {}}
    if options.images <= _MOST_TRAINED:
        kinds["trained centers"] = _TRAINED
    for kind, settings in kinds.items():
        with world.device(**settings) as learner, world.device(**settings) as never:
            for task in world.tasks:
                learner.learn(_task(task))
                if task.name not in gone:
                    never.learn(_task(task))
            before = accuracy(learner, rest)
            for name in gone:
                learner.forget(task=name)
            ledger = sum(path.stat().st_size for path in (learner.state.folder / "ledger").glob("*"))
            found[kind] = {
                "before": before,
                "forgot": accuracy(learner, rest),
                "never learned": accuracy(never, rest),
                "kB a class": ledger / 1e3 / (len(learner.classes) - len(world.base.classes)),
            }
        print(kind, _rounded(found[kind]), flush=True)
    return found


def one_class(options: argparse.Namespace) -> dict[str, Any]:
    """Accuracy over all, of ten classes taught one by one and as one task."""
    world = World(options)
    two = world.tasks[:2]
    found = {}
    with world.device() as learner:
        for task in two:
            for label, name in enumerate(task.classes):
                images = task.train.images[task.train.labels == label]
                learner.learn(Task.from_arrays(name, images, np.zeros(len(images), np.int64), [name]))
        found["one by one"] = accuracy(learner, [world.base, *two])
    with world.device() as learner:
        images = np.concatenate([task.train.images for task in two])
        labels = np.concatenate([two[0].train.labels, two[1].train.labels + 5])
        learner.learn(Task.from_arrays("ten", images, labels, [*two[0].classes, *two[1].classes]))
        found["one task"] = accuracy(learner, [world.base, *two])
    print(_rounded(found), flush=True)
    return found


def expected(options: argparse.Namespace) -> list[dict[str, Any]]:
    """By task: what was expected, and what test images said at the same moment."""
    world = World(options)
    rows = []
    with world.device(**_TRAINED) as learner:
        for number, task in enumerate(world.tasks):
            old = [world.base, *world.tasks[:number]]
            before = accuracy(learner, old)
            knew = {name: learner.predict(images).labels for name, images in _tested(old)}
            report = learner.learn(_task(task))
            said = report.expected["classes"]
            truth = [
                np.mean(learner.predict(task.test.images[task.test.labels == label]).labels == name)
                for label, name in enumerate(task.classes)
            ]
            estimates = [said[name]["all_classes"] for name in task.classes]
            row = {
                "task": task.name,
                "classes expected": 100 * float(np.mean(estimates)),
                "classes measured": accuracy(learner, [task]),
                "apart, a class": 100 * float(np.mean(np.abs(np.array(estimates) - truth))),
                "old lose, expected": report.expected["old"]["lost"],
                "old lose, measured": before - accuracy(learner, old),
                "called twins": sum("cannot be told from" in one for one in report.warnings),
                "hard to tell": [
                    _taken(learner, one, knew, dict(_tested(old)))
                    for one in report.warnings
                    if " is hard to tell from " in one
                ],
            }
            rows.append(row)
            print(_rounded(row), flush=True)
    return rows


def _tested(parts: Sequence[TaskData]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """By class its test images."""
    for part in parts:
        for label, name in enumerate(part.classes):
            yield name, part.test.images[part.test.labels == label]


def _taken(
    learner: Learner,
    said: str,
    knew: Mapping[str, NDArray[np.str_]],
    tested: Mapping[str, NDArray[np.uint8]],
) -> dict[str, Any]:
    """What a sentence says that a new class takes from an old one, and what it took of test images, in percent."""
    _, new, _, old, *_ = said.split("'")
    now = learner.predict(tested[old]).labels
    return {
        "new": new,
        "old": old,
        "estimated": float(said.split(" %")[0].split()[-1]),
        "taken": 100 * float(np.mean((knew[old] == old) & (now == new))),
    }


def _of_present(task: TaskData, labels: NDArray[np.int64], name: str) -> Task:
    """With the classes that have images left."""
    present = np.unique(labels)
    names = [task.classes[label] for label in present]
    return Task.from_arrays(name, task.train.images, np.searchsorted(present, labels), names)


def _rounded(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 1) if isinstance(value, float) else value for key, value in found.items()}


PARTS = {
    "corrections": corrections,
    "twins": twins,
    "learned-twins": learned_twins,
    "other-kinds": other_kinds,
    "forget": forget,
    "one-class": one_class,
    "expected": expected,
}
