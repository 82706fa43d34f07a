"""What int8 needs of a network to leave its gradients what they are: wider ranges, or convolutions in float32.

Two things were seen to spoil gradients (decision 0010). A rare image has activations far beyond the usual range, and
what is cut off turns its gradient around: the widest range holds it. And some networks answer to the noise of eight
bits, whatever the ranges: of those, a part is left in float32. The part is one stretch of the network, in the graph's
order, because each change between int8 and float32 costs time; it is found by halving, on base images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from csk_artifacts_builder.int8.calibrate import Agreement, Feeds, agreement_of, open_model, outputs_of
from csk_artifacts_builder.int8.quantize import Calibration, frozen_convolutions, quantize
from csk_sdk.contract.manifest import Manifest

# Of a site's gradient with the exact one; 0.9 is what is promised, and other images differ.
LEAST_COSINE = 0.92
# Over so many batches a gradient is summed before it is compared.
COMPARED_BATCHES = 4


@dataclass(frozen=True)
class Mixed:
    """What is in int8, and how near it comes to exact: `agreement`, and `unmixed` with usual ranges and all in int8.

    Each is that of the worst batches. `nothing` says that no convolution is in int8.
    """

    calibration: Calibration
    agreement: Agreement
    unmixed: Agreement
    nothing: bool = False


def mix(
    training: ir.Model,
    calibrations: Sequence[Calibration],
    feeds: Callable[[], Iterable[Feeds]],
    manifest: Manifest,
) -> Mixed:
    """The first of the calibrations that is near enough to exact; else with as short a stretch in float32 as is.

    `training` is the exact training model; `feeds` gives batches of base images as often as it is called. Where no
    stretch of forward convolutions is enough, not even all of them, everything stays in float32.
    """
    judge = _Judge(training, feeds, manifest)
    unmixed = judge.worst(calibrations[0])
    if unmixed.worst_gradient >= LEAST_COSINE:
        return Mixed(calibrations[0], unmixed, unmixed)
    worst = {one.widest: judge.worst(one).worst_gradient for one in calibrations[1:]}
    worst[calibrations[0].widest] = unmixed.worst_gradient
    convs = frozen_convolutions(training, manifest.head.weight)
    forward = [str(conv.node.name) for conv in convs if not conv.backward]
    # From the ranges that are better to begin with; the others only where these are of no use.
    ways = (
        one if worst[one.widest] >= LEAST_COSINE else _with_stretch(one, forward, judge)
        for one in sorted(calibrations, key=lambda one: -worst[one.widest])
    )
    found = next((way for way in ways if way is not None), None)
    nothing = found is None
    chosen = found or replace(calibrations[0], in_float=frozenset(str(conv.node.name) for conv in convs))
    return Mixed(chosen, judge.worst(chosen), unmixed, nothing)


def _with_stretch(calibration: Calibration, forward: Sequence[str], judge: _Judge) -> Calibration | None:
    """As few convolutions in a row in float32 as are near enough; None where not even all are."""

    def without(begin: int, end: int) -> Calibration:
        return replace(calibration, in_float=frozenset(forward[begin:end]))

    # Everything from the front up to an end; then as little in front of that end as holds.
    end = first_that(lambda place: judge.is_near(without(0, place)), 1, len(forward))
    count = first_that(lambda few: judge.is_near(without(end - few, end)), 1, end)
    found = without(end - count, end)
    return found if judge.is_near(found) else None


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

    def __init__(self, exact: ir.Model, feeds: Callable[[], Iterable[Feeds]], manifest: Manifest) -> None:
        self._exact, self._feeds, self._manifest = exact, feeds, manifest
        session = open_model(exact)
        self._truths = [outputs_of(session, part, manifest) for part in self._parts()]

    def worst(self, calibration: Calibration) -> Agreement:
        """Of all batches, the agreement of those that agree least."""
        return min(self._agreements(calibration), key=lambda one: one.worst_gradient)

    def is_near(self, calibration: Calibration) -> bool:
        """Whether every site's gradient is near the exact one, on all batches."""
        return all(one.worst_gradient >= LEAST_COSINE for one in self._agreements(calibration))

    def _agreements(self, calibration: Calibration) -> Iterator[Agreement]:
        graph = self._exact.clone()
        quantize(graph, calibration, self._manifest.head.weight)
        session = open_model(graph)
        for truth, part in zip(self._truths, self._parts(), strict=True):
            yield agreement_of(truth, outputs_of(session, part, self._manifest), self._manifest)

    def _parts(self) -> Iterator[list[Feeds]]:
        """Batches that are compared together; the last ones with those that are left over."""
        part: list[Feeds] = []
        for batch in self._feeds():
            if len(part) >= 2 * COMPARED_BATCHES:
                yield part[:COMPARED_BATCHES]
                del part[:COMPARED_BATCHES]
            part.append(batch)
        if len(part) >= 2 * COMPARED_BATCHES:
            yield part[:COMPARED_BATCHES]
            del part[:COMPARED_BATCHES]
        yield part
