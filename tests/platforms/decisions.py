"""The kind of conformance cases that judges a lesson (docs/conformance.md), asked of csk_sdk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.method.decisions import Expected, judge
from csk_sdk.method.heads import ClassStatistics, Shrunk
from csk_sdk.method.left_out import JudgedImages
from csk_sdk.objectives.classification import PRIOR_PICTURES

Tensors = dict[str, NDArray[Any]]
Settings = Mapping[str, Any]


class _Replayed:
    """Stands where a random generator is expected, and says what the case gives."""

    def __init__(self, given: Tensors) -> None:
        self._normals, self._permutation = given["normals"].astype(np.float64), given["permutation"]

    def normal(self, size: tuple[int, int]) -> NDArray[Any]:
        found, self._normals = self._normals[: size[0]], self._normals[size[0] :]
        assert found.shape == size
        return found

    def permutation(self, count: int) -> NDArray[Any]:
        assert len(self._permutation) == count
        return self._permutation

    @property
    def left(self) -> int:
        return len(self._normals)


def _judgement(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    names, classes = settings["all"], settings["classes"]
    statistics = ClassStatistics(tuple(names), given["gram"], given["sums"], given["counts"])
    shrunk = Shrunk.of(statistics, PRIOR_PICTURES)
    images = JudgedImages.of(statistics, given["features"], given["labels"], classes, shrunk)
    assert images is not None
    draws: Any = _Replayed(given)
    found = judge(
        statistics, images, classes, settings["known"], settings["base"], draws, settings.get("right")
    )
    assert not draws.left, "all that was drawn is used"
    expected = [found.expected.get(name, Expected(0.0, 0.0)) for name in classes]
    twins = [found.twins.get(name) for name in classes]
    alike = np.zeros((len(classes), len(classes)), np.int64)
    for pair in found.alike:
        one, other = map(classes.index, pair)
        alike[one, other] = alike[other, one] = 1
    return {
        "told": np.array([int(name in found.expected) for name in classes]),
        "all_classes": np.array([one.all_classes for one in expected]),
        "task": np.array([one.task for one in expected]),
        "share": np.array([one.share for one in expected]),
        "confused": np.array([names.index(one.confused) if one.confused else -1 for one in expected]),
        "twins": np.array([names.index(one.old) if one else -1 for one in twins]),
        "taken": np.array([one.taken if one else 0.0 for one in twins]),
        "back": np.array([one.back if one else 0.0 for one in twins]),
        "alike": alike,
        "lost": np.array([found.lost or 0.0]),
    }


DECISIONS: dict[str, Callable[[Settings, Tensors, Path], Tensors]] = {"judgement": _judgement}
