"""What one can live with on the demo's digits: the base's four, and six that are learned, about 135 images of each.

    python benchmarks/living.py digits --data DIR --model cifar100-base50.onnx --out docs/results/living.json

By line of what is aimed at, what was measured on the 450 test images, in percent. Heads only, but for what is rejected.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.unknown import area
from numpy.typing import NDArray

from csk_sdk import ContradictionError, Learner, Task, TrainingConfig, upgrade
from csk_sdk.demo import digits

DATA = digits.load()
BASE, NEW, ALL = digits.BASE_DIGITS, (4, 5, 6, 7, 8, 9), tuple(range(10))
HEADS = {"few_shot": 10**6}


def run(_: argparse.Namespace) -> dict[str, Any]:
    """The rows, printed as they come."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        digits.write_folders(DATA, place / "base", place / "tasks")
        bundle = digits.build_bundle(place / "bundle", base_data=place / "base")
        for name, part in (
            ("corrections", corrections),
            ("twins", twins),
            ("unknown", unknown),
            ("forget", forget),
            ("upgrade", upgraded),
            ("one-class", one_class),
        ):
            found[name] = part(bundle, Path(tempfile.mkdtemp(dir=place)))
            print(name, found[name], flush=True)
    return found


def corrections(bundle: Path, place: Path) -> dict[str, Any]:
    images, right = _images(NEW, "train")
    some = np.random.default_rng(0).random(len(right)) < 0.1
    kinds = {
        "exchanged": np.array([1, 0, 2, 3, 4, 5])[right],
        "shifted": (right + 1) % len(NEW),
        "one class wrong": np.where((right == 0) & (np.cumsum(right == 0) > 10), 1, right),
        "10 % random": np.where(some, np.random.default_rng(0).integers(0, len(NEW), len(right)), right),
    }
    task = _named("right", images, right, NEW)
    never = _taught(bundle, place / "never", task)
    found = {}
    for number, (kind, wrong) in enumerate(kinds.items()):
        learner = _opened(bundle, place / str(number), label_check=False)
        learner.learn(_named("wrong", images, wrong, NEW))
        try:
            learner.learn(task)
            asked = False
        except ContradictionError:
            asked = True
            learner.learn(task, replace=True)
        if not asked:
            learner.learn(_named("again", images, right, NEW), replace=True)
        found[kind] = {"asked": asked, "corrected": _accuracy(learner), "never wrong": _accuracy(never)}
    return found


def twins(bundle: Path, place: Path) -> list[dict[str, Any]]:
    """Each digit of the base again, from half of its test images beside fours; both halves."""
    rows = []
    fours = DATA.train_images[DATA.train_labels == 4]
    for digit in BASE:
        images = np.random.default_rng(digit).permutation(DATA.test_images[DATA.test_labels == digit])
        half = len(images) // 2
        for number, (mine, tested) in enumerate(
            ((images[:half], images[half:]), (images[half:], images[:half]))
        ):
            row: dict[str, Any] = {"class": digits.NAMES[digit]}
            task = Task.from_arrays(
                "twin",
                _three(np.concatenate([mine, fours[:half]])),
                np.repeat([0, 1], [len(mine), half]),
                ["twin", "four"],
            )
            for kind, settings in {"counted": {"max_forgetting": 100.0}, "default": {}}.items():
                learner = _opened(bundle, place / f"{digit}-{number}-{kind}", **settings)
                before = np.mean(learner.predict(_three(tested)).labels == digits.NAMES[digit])
                twin = learner.learn(task).twins.get("twin")
                now = np.mean(learner.predict(_three(tested)).labels == digits.NAMES[digit])
                row[kind] = {"found": twin is not None, "lost": 100 * float(before - now)}
                if twin is not None:
                    row[kind]["estimated"] = 100 * float(twin["taken"])
            rows.append(row)
    return rows


def unknown(bundle: Path, place: Path) -> dict[str, Any]:
    """As deployed and after each task: area under the ROC curve against digits never taught, and what is rejected."""
    learner = Learner.open(bundle, place / "state", TrainingConfig(threads=1, train="centers"))
    found = {}
    for tasks in range(len(digits.TASKS) + 1):
        if tasks:
            name = list(digits.TASKS)[tasks - 1]
            learner.learn(_named(name, *_images(digits.TASKS[name], "train"), digits.TASKS[name]))
        known = ALL[: 4 + 2 * tasks]
        said = learner.predict(_images(known, "test")[0])
        row = {"rejected": 100 * float(np.mean(~np.asarray(said.known)))}
        if len(known) < len(ALL):
            never = learner.predict(_images(ALL[len(known) :], "test")[0])
            row["ours"] = area(-_float(said.distance), -_float(never.distance))
            row["maximum softmax probability"] = area(
                _float(said.probabilities).max(axis=1), _float(never.probabilities).max(axis=1)
            )
        found[f"{len(known)} classes"] = row
    return found


def forget(bundle: Path, place: Path) -> dict[str, Any]:
    names = list(digits.TASKS)
    tasks = {name: _named(name, *_images(digits.TASKS[name], "train"), digits.TASKS[name]) for name in names}
    learner = _taught(bundle, place / "forgot", *tasks.values())
    learner.forget(task=names[1])
    never = _taught(bundle, place / "never", tasks[names[0]], tasks[names[2]])
    rest = tuple(one for one in ALL if one not in digits.TASKS[names[1]])
    return {"forgot": _accuracy(learner, rest), "never learned": _accuracy(never, rest)}


def upgraded(bundle: Path, place: Path) -> list[dict[str, Any]]:
    """To the same network with other options, which keep the features or fewer."""
    task = _named("new", *_images(NEW, "train"), NEW)
    rows = []
    digits.write_folders(DATA, place / "base", place / "tasks")
    for title, options in {
        "--features last": {"features": "last"},
        "--precision int8": {"precision": "int8"},
        "--trainable all": {"trainable": "all"},
    }.items():
        new = digits.build_bundle(
            place / f"bundle{len(rows)}", base_data=place / "base", upgrade_from=bundle, **options
        )
        device = place / f"device{len(rows)}"
        shutil.copytree(bundle, device / "bundle")
        _taught(bundle, device / "state", task)
        upgrade(device / "bundle", device / "state", new)
        carried = _opened(device / "bundle", device / "state")
        again = _taught(new, device / "again", task)
        rows.append({"upgraded to": title, "again": _accuracy(again), "carried": _accuracy(carried)})
    return rows


def one_class(bundle: Path, place: Path) -> dict[str, Any]:
    single = [_named(digits.NAMES[one], *_images((one,), "train"), (one,)) for one in NEW]
    return {
        "one by one": _accuracy(_taught(bundle, place / "single", *single)),
        "one task": _accuracy(_taught(bundle, place / "six", _named("six", *_images(NEW, "train"), NEW))),
    }


def _opened(bundle: Path, state: Path, **settings: Any) -> Learner:
    return Learner.open(bundle, state, TrainingConfig(threads=1, **{**HEADS, **settings}))


def _taught(bundle: Path, state: Path, *tasks: Task) -> Learner:
    learner = _opened(bundle, state)
    for task in tasks:
        learner.learn(task)
    return learner


def _named(name: str, images: NDArray[np.uint8], labels: NDArray[np.int64], chosen: Sequence[int]) -> Task:
    return Task.from_arrays(name, images, labels, [digits.NAMES[one] for one in chosen])


def _images(chosen: Sequence[int], split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = getattr(DATA, f"{split}_images"), getattr(DATA, f"{split}_labels")
    kept = np.isin(labels, chosen)
    return _three(images[kept]), np.searchsorted(chosen, labels[kept])


def _three(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images[..., None]


def _float(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def _accuracy(learner: Learner, chosen: Sequence[int] = ALL) -> float:
    images, labels = _images(chosen, "test")
    names = np.array([digits.NAMES[one] for one in chosen])
    return 100 * float(np.mean(learner.predict(images).labels == names[labels]))
