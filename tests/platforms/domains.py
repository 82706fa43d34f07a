"""The kinds of conformance cases of domains (docs/conformance.md), asked of csk_sdk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.learner import Learner
from csk_sdk.method import domains
from csk_sdk.method.domains import ChannelSum, Telling, affine
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.network.domains import DIRECTION, OFFSET, PREFIX, SCALE, SHIFT, Domains
from csk_sdk.network.knowledge import FeatureExtractor
from csk_sdk.objectives.classification import PRIOR_PICTURES

Tensors = dict[str, NDArray[Any]]
Settings = Mapping[str, Any]
_NAME, _THREADS = "other", 1


def _telling(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    names = tuple(map(str, range(len(given["counts"]))))
    known = ClassStatistics(names, given["gram"], given["sums"], given["counts"])
    found = domains.telling(known, given["features"], PRIOR_PICTURES)
    if found is None:
        nothing = np.zeros(len(given["gram"]), np.float32)
        return {"told": np.array([0]), **_line(Telling(nothing, 0.0, 0.0))}
    scores = given["tested"] @ found.direction - np.float32(found.offset)
    return {"told": np.array([1]), **_line(found), "scores": scores}


def _line(found: Telling) -> Tensors:
    offset, deviations = np.array([found.offset]), np.array([found.apart])
    return {"direction": found.direction, "offset": offset, "deviations": deviations}


def _channel_affine(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    total = ChannelSum()
    for mean, variance, images in zip(given["means"], given["variances"], given["images"], strict=True):
        total.add(mean, variance, int(images))
    scale, shift = affine(total, given["mean"], given["deviation"])
    return {"scale": scale, "shift": shift}


def _domain(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    """A domain learned by a device that knows nothing else, and what it then sees."""
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner.open(bundle, Path(folder) / "state", {"threads": _THREADS})
        before, tested = learner.generation.tensors, learner.bundle.preprocessing(given["tested"])
        plain = FeatureExtractor(learner.bundle, before, _THREADS)(tested)
        report = learner.adapt(_NAME, given["pictures"])
        tensors = learner.generation.tensors
        found = {part: tensors[f"{PREFIX}{_NAME}/{part}"] for part in (SCALE, SHIFT, DIRECTION, OFFSET)}
        told = Domains(learner.bundle, tensors, _THREADS).told(plain)
        return {
            **found,
            "deviations": np.array([report.apart]),
            "told": (told == 0).astype(np.int64),
            "features": learner.features(given["tested"]),
        }


DOMAINS: dict[str, Callable[[Settings, Tensors, Path], Tensors]] = {
    "telling": _telling,
    "channel_affine": _channel_affine,
    "domain": _domain,
}
