"""Which convolutions stay in float32 in the int8 graphs: as few as leave every site's gradient near the exact one.

Some networks answer to the noise of eight bits more than others, whatever the ranges (decision 0010): of those, a part
is left in float32. The part is one stretch of the network, in the graph's order, because each change between int8 and
float32 costs time; it is found by halving, on base images, so a build tries some dozen graphs at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from csk_artifacts_builder.int8.calibrate import Agreement, Feeds, agreement_of, training_outputs
from csk_artifacts_builder.int8.quantize import Calibration, frozen_convolutions, quantize
from csk_sdk.contract.manifest import Manifest

# Of a site's gradient with the exact one, summed over four batches; 0.9 is what is promised, and other images differ.
LEAST_COSINE = 0.92
# The agreement is that of the first batches; where something stays in float32, as many further ones must agree, too.
COMPARED_BATCHES = 4


@dataclass(frozen=True)
class Mixed:
    """What is in int8, and how near that comes to exact: `agreement`, and `unmixed` with every convolution in int8.

    `nothing` says that no convolution is.
    """

    calibration: Calibration
    agreement: Agreement
    unmixed: Agreement
    nothing: bool = False


def mix(training: ir.Model, calibration: Calibration, feeds: Sequence[Feeds], manifest: Manifest) -> Mixed:
    """Leave a stretch of forward convolutions in float32 where int8 is too coarse; none where it is not.

    `training` is the exact training model, and `feeds` are batches of base images. Where no stretch is enough, not even
    all of them, everything stays in float32.
    """
    judge = _Judge(training, feeds, manifest)
    unmixed = judge.agreements(calibration, 1)[0]
    if unmixed.worst_gradient >= LEAST_COSINE:
        return Mixed(calibration, unmixed, unmixed)
    convs = frozen_convolutions(training, manifest.head.weight)
    forward = [str(conv.node.name) for conv in convs if not conv.backward]

    def without(names: Sequence[str]) -> Calibration:
        return replace(calibration, in_float=frozenset(names))

    def holds(begin: int, end: int) -> bool:
        return judge.is_near(without(forward[begin:end]))

    # Everything from the front up to an end; then as little in front of that end as holds.
    end = first_that(lambda place: holds(0, place), 1, len(forward))
    begin = end - first_that(lambda count: holds(end - count, end), 1, end)
    chosen = without(forward[begin:end])
    nothing = not judge.is_near(chosen)
    if nothing:
        chosen = without([str(conv.node.name) for conv in convs])
    return Mixed(chosen, judge.agreements(chosen, 1)[0], unmixed, nothing)


def first_that(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The least number from `low` to `high` that holds, if all above one that holds do; `high` is not tried."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return high


class _Judge:
    """Compares graphs with the exact one, whose outputs are kept."""

    def __init__(self, exact: ir.Model, feeds: Sequence[Feeds], manifest: Manifest) -> None:
        self._exact, self._manifest = exact, manifest
        parts = [
            feeds[begin : begin + COMPARED_BATCHES] for begin in (0, COMPARED_BATCHES) if len(feeds) > begin
        ]
        self._parts = [(part, training_outputs(exact, part, manifest)) for part in parts[:1]]
        self._more = parts[1:]

    def agreements(self, calibration: Calibration, parts: int = 2) -> list[Agreement]:
        """Of the first batches, and of the next."""
        if parts > 1 and self._more:
            self._parts += [
                (part, training_outputs(self._exact, part, self._manifest)) for part in self._more
            ]
            self._more = []
        graph = self._exact.clone()
        quantize(graph, calibration, self._manifest.head.weight)
        return [
            agreement_of(truth, training_outputs(graph, part, self._manifest), self._manifest)
            for part, truth in self._parts[:parts]
        ]

    def is_near(self, calibration: Calibration) -> bool:
        """Whether every site's gradient is near the exact one, on both."""
        return all(one.worst_gradient >= LEAST_COSINE for one in self.agreements(calibration))
