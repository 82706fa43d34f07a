"""The kinds of conformance cases that are guards (docs/conformance.md), each asked of csk_sdk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import CROSS_ENTROPY
from csk_sdk.learning.acceptance import unfamiliar
from csk_sdk.learning.few_shot import is_few_shot
from csk_sdk.learning.stopping import EPOCHS, FLOPS, PLATEAU, SECONDS, Stopping
from csk_sdk.method.drift import Drift
from csk_sdk.method.forgetting import estimated_forgetting
from csk_sdk.method.gain import Judged, gain_of
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.importance import carrying, gradient_norms
from csk_sdk.method.known_classes import with_known_classes
from csk_sdk.method.label_check import LabelEvidence, class_evidence
from csk_sdk.method.mirroring import mirrored_beside, spread_over
from csk_sdk.method.novelty import novelty
from csk_sdk.objectives import objective_of
from csk_sdk.objectives.classification import PRIOR_PICTURES

Tensors = dict[str, NDArray[Any]]
Settings = Mapping[str, Any]
_REASONS = (EPOCHS, SECONDS, FLOPS, PLATEAU)


def _label_check(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    found = class_evidence(given["features"], given["labels"], settings["classes"])
    said = {"accuracy": found.accuracy, "chance": found.chance, "images": found.pictures}
    return {name: np.array([float(one)]) for name, one in said.items()} | {
        "refuted": np.array([int(found.refuted)])
    }


def _label_verdict(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    rows = zip(*(given[name].tolist() for name in ("accuracy", "chance", "images")), strict=True)
    return {"refuted": np.array([int(LabelEvidence(*row).refuted) for row in rows])}


def _statistics(given: Tensors, names: tuple[str, ...]) -> ClassStatistics:
    return ClassStatistics(names, given["gram"], given["sums"], given["counts"])


def _gradient_share(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    logits = given["features"] @ given["weight"].T + given["bias"]
    residuals = objective_of(CROSS_ENTROPY).residuals(logits, given["labels"], TrainingConfig())
    norms = gradient_norms(residuals)
    return {"norms": norms, "chosen": carrying(norms, settings["share"], settings["least"])}


def _novelty(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    names = tuple(map(str, range(len(given["counts"]))))
    score = novelty(_statistics(given, names), given["features"])
    warned = unfamiliar(score, "image")
    return {
        "told": np.array([int(score is not None)]),
        "score": np.array([score or 0.0]),
        "unfamiliar": np.array([len(warned)]),
    }


def _mirroring(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    images = given["images"].tolist()
    counts = [mirrored_beside(one) for one in images]
    chosen = [spread_over(one, count) for one, count in zip(images, counts, strict=True)]
    return {"counts": np.array(counts), "chosen": np.concatenate(chosen)}


class _Replayed:
    """Stands where a random generator is expected, and says what the case gives, task by task."""

    def __init__(self, given: Tensors, tasks: int) -> None:
        self._permutations = [given[f"permutation/{task}"] for task in range(tasks)]
        self._normals = np.concatenate([given[f"normals/{task}"] for task in range(tasks)]).astype(np.float64)
        self._movements = np.concatenate([given[f"movements/{task}"] for task in range(tasks)])

    def permutation(self, count: int) -> NDArray[Any]:
        return self._permutations.pop(0)

    def normal(self, size: tuple[int, int]) -> NDArray[Any]:
        found, self._normals = self._normals[: size[0]], self._normals[size[0] :]
        assert found.shape == size
        return found

    def integers(self, high: int, size: int) -> NDArray[Any]:
        found, self._movements = self._movements[:size], self._movements[size:]
        assert len(found) == size
        return found.astype(np.int64)

    @property
    def left(self) -> int:
        return len(self._permutations) + len(self._normals) + len(self._movements)


def _forgetting(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    tasks = {str(index): tuple(names) for index, names in enumerate(settings["tasks"])}
    before, after = (
        {task: (given[f"{when}/{task}/weight"], given[f"{when}/{task}/bias"]) for task in tasks}
        for when in ("before", "after")
    )
    drift = Drift(given["forward"], given["forward"], given["unexplained"])
    draws: Any = _Replayed(given, len(tasks))
    statistics = _statistics(given, tuple(settings["classes"]))
    lost = estimated_forgetting(statistics, tasks, before, after, drift, draws)
    assert not draws.left, "all that was drawn is used"
    return {"lost": np.array([lost[task] for task in tasks])}


def _known_classes(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    old, names = _statistics(given, tuple(settings["old"])), tuple(settings["classes"])
    merged = with_known_classes(old, given["features"], given["labels"], names)
    return {"gram": merged.gram, "sums": merged.sums, "counts": merged.counts}


def _few_shot(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    objective = objective_of(CROSS_ENTROPY)
    rows = zip(*(given[name].tolist() for name in ("images", "classes", "epochs", "few_shot")), strict=True)
    found = [
        is_few_shot(images, ["x"] * classes, objective, TrainingConfig(few_shot=wanted), epochs)
        for images, classes, epochs, wanted in rows
    ]
    return {"heads_only": np.array(found, np.int64)}


def _gain(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    classes = [str(index) for index in range(settings["classes"])]
    judged = []
    for when in ("before", "after"):
        fitted = given[f"fitted/{when}"]
        known = ClassStatistics.empty(fitted.shape[1]).add(fitted, given["fitted/labels"], classes)
        held = given[f"held/{when}"], given["held/labels"]
        judged.append(Judged.by(known, *held, classes, PRIOR_PICTURES))
    before, after = judged
    found = replace(gain_of(before, after, settings["done"]), lost=settings["lost"])
    said = {
        "images": found.images,
        "heads": found.heads,
        "centers": found.centers,
        "likelihood": found.likelihood,
        "sure": found.sure,
        "clear": int(found.clear),
        "pays": int(found.pays(settings["max_forgetting"])),
    }
    return {name: np.array([value]) for name, value in said.items()}


def _stopping(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    manifest = replace(Bundle.open(bundle).manifest, costs={"step_centers": 100})
    size, flops = settings["batch_size"], settings["flops"]
    config = TrainingConfig(
        epochs=settings["epochs"],
        patience=settings["patience"],
        seconds=settings["seconds"],
        flops=None if flops is None else flops * size * manifest.costs["step_centers"],
    )
    stopping = Stopping(config, manifest, settings["per_epoch"], size)
    planned, done = stopping.steps, 0
    for loss, seconds in zip(given["loss"].tolist(), given["seconds"].tolist(), strict=True):
        done += 1
        if stopping.over(done, seconds, loss):
            break
    found = {"planned": planned, "stopped": done, "reason": _REASONS.index(stopping.reason)}
    return {name: np.array([value]) for name, value in found.items()}


GUARDS: dict[str, Callable[[Settings, Tensors, Path], Tensors]] = {
    "label_check": _label_check,
    "label_verdict": _label_verdict,
    "novelty": _novelty,
    "gradient_share": _gradient_share,
    "forgetting": _forgetting,
    "known_classes": _known_classes,
    "few_shot": _few_shot,
    "gain": _gain,
    "mirroring": _mirroring,
    "stopping": _stopping,
}
