"""Whether training a task pays, measured while it is trained: docs/decisions/0035-train.md."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends.micro import pieces
from csk_sdk.data.labels import Labels
from csk_sdk.learning.consolidation import Batches, Consolidation
from csk_sdk.method.drift import DriftEstimate
from csk_sdk.method.gain import Gain, Judged, gain_of
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.network.finite import require_converged
from csk_sdk.network.knowledge import FeatureExtractor, FeatureSample
from csk_sdk.objectives.classification import PRIOR_PICTURES

_Seen = list[tuple[NDArray[np.float32], Labels]]


def gain_so_far(
    task: Consolidation,
    batches: Batches,
    held_out: NDArray[np.bool_],
    before: FeatureSample | None,
    done: float,
) -> Gain:
    """What the share `done` of training has gained on the images of `batches` that no step has seen, and what it cost.

    `held_out` `(n,)` says which these are; heads are made of the others. `before` are all images' features before a
    center moved, where they were kept. What old tasks have lost is looked at only where there is a clear gain.
    """
    untouched = task.tensors
    centers = {key: untouched[key] for key in untouched if key.startswith("center/")}
    were = before.pairs if before is not None else _seen(task, centers, batches)
    are = _seen(task, centers | task.moved_centers(), batches)
    gain = gain_of(_judged(task, were, held_out), _judged(task, are, held_out), done)
    return replace(gain, lost=_lost(task, were, are)) if gain.clear else gain


def _seen(task: Consolidation, centers: Mapping[str, NDArray[Any]], batches: Batches) -> _Seen:
    """Features and labels of all images, as the network with these centers sees them."""
    seen = []
    with closing(FeatureExtractor(task.bundle, centers, task.config.threads, release=True)) as extractor:
        for images, labels in pieces(batches(), task.plan.micro_batch):
            features = extractor(images)
            require_converged({"features": features})
            seen.append((features, labels))
    return seen


def _judged(task: Consolidation, seen: _Seen, held_out: NDArray[np.bool_]) -> Judged:
    """What a discriminant of the others says of those held out."""
    features = np.concatenate([part for part, _ in seen])
    labels = np.concatenate([part for _, part in seen])
    known = ClassStatistics.empty(features.shape[1])
    known = known.add(features[~held_out], labels[~held_out], task.classes)
    return Judged.by(known, features[held_out], labels[held_out], task.classes, PRIOR_PICTURES)


def _lost(task: Consolidation, were: _Seen, are: _Seen) -> float:
    """Percentage points that the old task loses that loses most, with heads that have followed the drift; 0 or more."""
    estimate = DriftEstimate(task.bundle.manifest.head.features)
    for (old, _), (new, _) in zip(were, are, strict=True):
        estimate.add(old, new)
    drift = estimate.fit()
    heads = {key: task.tensors[key] for key in task.tensors if key.startswith("head/")}
    if task.config.follows_drift:
        heads |= {key: drift.head(heads[key]) for key in heads if key.endswith("/weight")}
    return max(0.0, *task.forgetting(heads, drift).values(), 0.0)
