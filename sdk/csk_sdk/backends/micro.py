"""A batch as several micro-batches: what has to be in memory at once shrinks, and the step stays what it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends.step import StepResult, TrainingStep
from csk_sdk.contract.manifest import LABEL
from csk_sdk.data.labels import Labels


class MicroBatches:
    """A `TrainingStep` that runs another one on at most `size` images at a time.

    Every loss is a mean over the batch's images, so that of `n` images in parts of `n_i` is the sum of the parts'
    losses times `n_i / n`, and so is its gradient: the same as the whole batch's but for float32 rounding. Parts are
    cut in the batch's order, so a batch always gives the same bits.
    """

    def __init__(self, step: TrainingStep, size: int) -> None:
        self._step, self._size = step, size

    def run(
        self,
        images: NDArray[np.float32],
        targets: Mapping[str, NDArray[Any]],
        head: tuple[NDArray[np.float32], NDArray[np.float32]],
        selected: Mapping[str, NDArray[np.int64]],
        deltas: Mapping[str, NDArray[np.float32]],
    ) -> StepResult:
        """See `TrainingStep`."""
        count = len(images)
        if count <= self._size:
            return self._step.run(images, targets, head, selected, deltas)
        total: StepResult | None = None
        for part, labels in pieces([(images, targets[LABEL])], self._size):
            feeds = {**targets, LABEL: labels}
            # No name for the part's result: it would keep its gradients in memory during the next run.
            total = _added(total, self._step.run(part, feeds, head, selected, deltas), len(part) / count)
        assert total is not None
        return total


def pieces(
    batches: Iterable[tuple[NDArray[np.float32], Labels]], size: int | None
) -> Iterator[tuple[NDArray[np.float32], Labels]]:
    """Batches of images and labels, cut into parts of at most `size`; as they are where it is None."""
    for images, labels in batches:
        step = size or max(1, len(images))
        for start in range(0, len(images), step):
            yield images[start : start + step], labels[start : start + step]


def _added(total: StepResult | None, part: StepResult, share: float) -> StepResult:
    """`total + share * part`, in the arrays of `total`; those of the first part become the total's."""
    weight = np.float32(share)
    for gradient in (*part.centers.values(), part.weight, part.bias):
        np.multiply(gradient, weight, out=gradient)
    if total is None:
        return StepResult(share * part.loss, part.centers, part.weight, part.bias)
    for name, gradient in part.centers.items():
        np.add(total.centers[name], gradient, out=total.centers[name])
    np.add(total.weight, part.weight, out=total.weight)
    np.add(total.bias, part.bias, out=total.bias)
    return StepResult(total.loss + share * part.loss, total.centers, total.weight, total.bias)
