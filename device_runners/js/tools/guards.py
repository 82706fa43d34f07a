"""What the Python SDK's guards say, for the JavaScript runner's tests: numbers by case, and tasks of digits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk import CskError, Learner, Task, TrainingConfig
from csk_sdk.demo import digits
from csk_sdk.method.drift import DriftEstimate
from csk_sdk.method.forgetting import Spread, estimated_forgetting
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.known_classes import known_among, with_known_classes
from csk_sdk.method.label_check import LabelEvidence, class_evidence
from csk_sdk.method.novelty import novelty
from csk_sdk.state.tensorfile import packed

Tensors = dict[str, NDArray[Any]]
# Without protection and with too large a rate, eight and nine cost the base half of what it knew.
PLAIN = {"energy": 0.0, "channel_ratio": 1.0, "learning_rate": 0.4, "epochs": 10, "patience": 0}


@dataclass(frozen=True)
class GuardedTask:
    """Images of some digits, `count` of each, and settings, beside which the centers are trained.

    The labels may be dealt out in turn, black and white swapped, and `earlier` digits learned before.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    members: tuple[int, ...] = (4, 5)
    count: int = 1000
    shuffled: bool = False
    inverted: bool = False
    earlier: tuple[int, ...] = ()


TASKS = {
    "few": GuardedTask(count=12),
    "few but many rounds": GuardedTask({"epochs": 12, "patience": 0}, count=12),
    "protected": GuardedTask({"epochs": 10, "patience": 0, "learning_rate": 0.05}),
    "costs": GuardedTask(PLAIN, (8, 9)),
    "allowed": GuardedTask({**PLAIN, "max_forgetting": 100.0}, (8, 9)),
    "refused": GuardedTask({**PLAIN, "on_forgetting": "refuse"}, (8, 9)),
    "seconds": GuardedTask({"seconds": 1e-6}),
    "flops": GuardedTask({"flops": 3.5}),
    "no step": GuardedTask({"flops": 0.5}),
    "known": GuardedTask(members=(3, 4)),
    "unfamiliar": GuardedTask(count=40, inverted=True, earlier=(6, 7)),
    "shuffled": GuardedTask(members=(4, 5, 6, 7, 8, 9), count=40, shuffled=True),
}


def write_guards(bundle: Path, data: digits.Digits, out: Path) -> None:
    """Write `guards.safetensors`, `guards.json` and the states `tasks/NAME` into `out`."""
    tensors: Tensors = {}
    said = {
        "labels": _labels(tensors),
        "refuted": _refuted(),
        "novelty": _novelty(tensors),
        "known": _known(tensors),
        "forgetting": _forgetting(tensors),
        "tasks": _tasks(bundle, data, out / "tasks"),
    }
    (out / "guards.safetensors").write_bytes(packed(tensors))
    (out / "guards.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def _labels(tensors: Tensors) -> list[dict[str, Any]]:
    """Tasks with more and fewer images than features, uneven classes, and labels that say something or nothing."""
    rng = np.random.default_rng(3)
    found = []
    for number, (features, sizes, signal) in enumerate(
        [
            (8, (30, 30), 1.5),
            (8, (30, 30), 0.0),
            (40, (12, 5, 20, 1), 1.0),
            (6, (90, 4, 40), 0.3),
            (5, (1, 1), 1.0),
            (24, (60,) * 6, 0.0),
            (4, (700, 700), 0.5),
        ]
    ):
        labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
        means = signal * rng.normal(size=(len(sizes), features))
        x = (means[labels] + rng.normal(size=(len(labels), features))).astype(np.float32)
        x[:, 0] = 0.5  # a feature that never changes
        tensors[f"labels/{number}/features"], tensors[f"labels/{number}/labels"] = x, labels
        evidence = class_evidence(x, labels, len(sizes))
        said = {"accuracy": evidence.accuracy, "chance": evidence.chance, "pictures": evidence.pictures}
        found.append({"classes": len(sizes), **said, "refuted": evidence.refuted})
    return found


def _refuted() -> list[dict[str, Any]]:
    found = []
    for accuracy in (0.0, 0.1, 0.24, 0.5, 0.6, 1.0):
        for chance in (0.1, 0.2, 0.5):
            for pictures in (0.0, 7.5, 30.0, 100.0, 512.0, 1024.0):
                refuted = LabelEvidence(accuracy, chance, pictures).refuted
                found.append(
                    {"accuracy": accuracy, "chance": chance, "pictures": pictures, "refuted": refuted}
                )
    return found


def _novelty(tensors: Tensors) -> list[float | None]:
    rng = np.random.default_rng(4)
    found = []
    for number, (pictures, scale) in enumerate([(200, 1.0), (200, 2.5), (30, 1.0)]):
        known = _statistics(rng, pictures, ("a", "b", "c"), 6)
        x = (scale * rng.normal(size=(40, 6)) + 1.0).astype(np.float32)
        _keep(tensors, f"novelty/{number}", known)
        tensors[f"novelty/{number}/features"] = x
        found.append(novelty(known, x))
    return found


def _known(tensors: Tensors) -> list[dict[str, Any]]:
    """Statistics of old classes, a task of two batches with some of these, and the two merged."""
    rng = np.random.default_rng(5)
    found = []
    for number, (pictures, classes) in enumerate(
        [(50, ("b", "d", "a")), (900, ("a", "b")), (5, ("c", "a")), (60, ("d", "e"))]
    ):
        old = _statistics(rng, pictures, ("a", "b", "c"), 5)
        pictures_of, labels_of = [], []
        _keep(tensors, f"known/{number}/old", old)
        for batch in range(2):
            x = rng.normal(size=(9, 5)).astype(np.float32)
            labels = np.arange(9) % len(classes)
            tensors[f"known/{number}/{batch}/features"] = x
            pictures_of.append(x)
            labels_of.append(labels)
        merged = with_known_classes(old, np.concatenate(pictures_of), np.concatenate(labels_of), classes)
        _keep(tensors, f"known/{number}/merged", merged)
        said = {
            "old": old.classes,
            "classes": classes,
            "names": known_among(classes, old.counted),
            "merged": merged.classes,
        }
        found.append(said)
    return found


class _Recorded:
    """NumPy's generator, and what was drawn from it."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.permutations: list[NDArray[np.int64]] = []
        self.normals: list[NDArray[np.float64]] = []
        self.movements: list[NDArray[np.int64]] = []

    def permutation(self, count: int) -> NDArray[np.int64]:
        self.permutations.append(self._rng.permutation(count))
        return self.permutations[-1]

    def normal(self, size: tuple[int, int]) -> NDArray[np.float64]:
        self.normals.append(self._rng.normal(size=size))
        return self.normals[-1]

    def integers(self, high: int, size: int) -> NDArray[np.int64]:
        self.movements.append(self._rng.integers(high, size=size))
        return self.movements[-1]


def _forgetting(tensors: Tensors) -> dict[str, Any]:
    """Two old tasks, one of which a drift hurts; one that nothing is known of; and the numbers drawn."""
    rng = np.random.default_rng(6)
    features = 4
    statistics = _statistics(rng, 300, ("a", "b", "c", "d"), features)
    classes = {"first": ("a", "b"), "second": ("c", "d", "b"), "unknown": ("a", "z"), "none": ()}
    means = statistics.sums / statistics.counts[:, None]
    row = {name: index for index, name in enumerate(statistics.classes)}
    before, after = {}, {}
    for task, names in classes.items():
        weight = np.array([means[row.get(name, 0)] for name in names], np.float32).reshape(-1, features)
        before[task] = weight, (-0.5 * (weight**2).sum(axis=1)).astype(np.float32)
        turned = weight if task == "second" else 1.5 * rng.normal(size=weight.shape).astype(np.float32)
        after[task] = turned, before[task][1]
        for when, (one, bias) in (("before", before[task]), ("after", after[task])):
            if len(names):
                tensors[f"forgetting/{when}/{task}/weight"], tensors[f"forgetting/{when}/{task}/bias"] = (
                    one,
                    bias,
                )
    drift = DriftEstimate(features)
    for batch in range(3):
        x = rng.normal(size=(250, features)).astype(np.float32) + 1.0
        y = (x @ (np.eye(features) + 0.2 * rng.normal(size=(features, features))) + 0.3).astype(np.float32)
        tensors[f"forgetting/moved/{batch}/before"], tensors[f"forgetting/moved/{batch}/after"] = x, y
        drift.add(x, y)
    map_ = drift.fit()
    draws = _Recorded(0)
    lost = estimated_forgetting(
        statistics,
        classes,
        before,
        after,
        map_,
        draws,  # type: ignore[arg-type]
    )
    _keep(tensors, "forgetting/statistics", statistics)
    tensors["forgetting/forward"] = map_.forward
    tensors["forgetting/unexplained"] = map_.unexplained
    tensors["forgetting/spread"] = Spread(statistics).factor.T
    tensors["forgetting/permutations"] = np.concatenate(draws.permutations)
    tensors["forgetting/normals"] = np.concatenate(draws.normals)
    tensors["forgetting/movements"] = np.concatenate(draws.movements)
    return {"statistics": statistics.classes, "classes": classes, "lost": lost}


def _tasks(bundle: Path, data: digits.Digits, states: Path) -> dict[str, Any]:
    """What each task brings: the report, or the refusal."""
    found = {}
    for name, given in TASKS.items():
        config = TrainingConfig(threads=1, train="centers", **_with_flops(bundle, given.settings))
        if given.earlier:
            _learned(
                bundle, states / name, _task(data, GuardedTask(members=given.earlier), "earlier"), config
            )
        said = _learned(bundle, states / name, _task(data, given), config)
        found[name] = {**asdict(given), "settings": config.to_json(), **said}
    return found


def _with_flops(bundle: Path, settings: dict[str, Any]) -> dict[str, Any]:
    if "flops" not in settings:
        return settings
    opened = Learner.open(bundle).bundle
    # Of a step's, as many.
    each = opened.manifest.costs["step_centers"] * opened.manifest.batch_size
    return {**settings, "flops": settings["flops"] * each}


def _learned(bundle: Path, state: Path, task: Task, config: TrainingConfig) -> dict[str, Any]:
    learner = Learner.open(bundle, state, config)
    try:
        report = learner.learn(task)
    except CskError as error:
        return {"error": str(error)}
    keys = (
        "epochs",
        "loss",
        "forgetting",
        "heads_only",
        "heads_only_because",
        "known",
        "stopped",
        "warnings",
    )
    return {key: getattr(report, key) for key in keys} | {"protected": report.protected}


def _task(data: digits.Digits, given: GuardedTask, name: str = "task") -> Task:
    chosen = [np.flatnonzero(data.train_labels == digit)[: given.count] for digit in given.members]
    labels = np.repeat(np.arange(len(chosen)), [len(one) for one in chosen])
    if given.shuffled:
        labels = np.concatenate([np.arange(len(one)) % len(chosen) for one in chosen])
    images = data.train_images[np.concatenate(chosen)][..., None]
    names = tuple(digits.NAMES[digit] for digit in given.members)
    return Task.from_arrays(name, 255 - images if given.inverted else images, labels, names)


def _statistics(
    rng: np.random.Generator, pictures: int, classes: tuple[str, ...], features: int
) -> ClassStatistics:
    labels = np.arange(pictures) % len(classes)
    means = 2.0 * rng.normal(size=(len(classes), features))
    mixing = rng.normal(size=(features, features))
    x = means[labels] + rng.normal(size=(pictures, features)) @ mixing
    return ClassStatistics.empty(features).add(x.astype(np.float32), labels, classes)


def _keep(tensors: Tensors, name: str, statistics: ClassStatistics) -> None:
    tensors[f"{name}/gram"], tensors[f"{name}/sums"] = statistics.gram, statistics.sums
    tensors[f"{name}/counts"] = statistics.counts
