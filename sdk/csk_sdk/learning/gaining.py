"""Whether training a task pays, measured while it is trained: docs/decisions/0035-train.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends.micro import pieces
from csk_sdk.learning.consolidation import Batches, Consolidation
from csk_sdk.method.drift import DriftEstimate
from csk_sdk.method.gain import Gain, Judged, gain_of
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.network.finite import require_converged
from csk_sdk.network.knowledge import FeatureExtractor
from csk_sdk.objectives.classification import PRIOR_PICTURES


def gain_so_far(task: Consolidation, fitted: Batches, held_out: Batches, done: float) -> Gain:
    """What the share `done` of training has gained on `held_out` batches, which no step has seen, and what it has cost.

    Heads are made of the `fitted` ones. What old tasks have lost is looked at only where there is a clear gain.
    """
    untouched = task.tensors
    centers = {key: untouched[key] for key in untouched if key.startswith("center/")}
    before, were = _told(task, centers, fitted, held_out)
    after, are = _told(task, centers | task.moved_centers(), fitted, held_out)
    gain = gain_of(before, after, done)
    return replace(gain, lost=_lost(task, were, are)) if gain.clear else gain


def _told(
    task: Consolidation, tensors: Mapping[str, NDArray[Any]], fitted: Batches, held_out: Batches
) -> tuple[Judged, list[NDArray[np.float32]]]:
    """What a discriminant of `fitted` says of `held_out` with these centers, and the features of both."""
    extractor = FeatureExtractor(task.bundle, tensors, task.config.threads, release=True)
    statistics = ClassStatistics.empty(task.bundle.manifest.head.features)
    seen: list[NDArray[np.float32]] = []
    answers = []
    for batches, asked in ((fitted, False), (held_out, True)):
        for images, labels in pieces(batches(), task.plan.micro_batch):
            seen.append(extractor(images))
            require_converged({"features": seen[-1]})
            if asked:
                answers.append(labels)
            else:
                statistics = statistics.add(seen[-1], labels, task.classes)
    del extractor
    features, labels = np.concatenate(seen[-len(answers) :]), np.concatenate(answers)
    return Judged.by(statistics, features, labels, task.classes, PRIOR_PICTURES), seen


def _lost(task: Consolidation, were: list[NDArray[np.float32]], are: list[NDArray[np.float32]]) -> float:
    """Percentage points that the old task loses that loses most, with heads that have followed the drift; 0 or more."""
    estimate = DriftEstimate(task.bundle.manifest.head.features)
    for old, new in zip(were, are, strict=True):
        estimate.add(old, new)
    drift = estimate.fit()
    heads = {key: task.tensors[key] for key in task.tensors if key.startswith("head/")}
    if task.config.follows_drift:
        heads |= {key: drift.head(heads[key]) for key in heads if key.endswith("/weight")}
    return max(0.0, *task.forgetting(heads, drift).values(), 0.0)
