"""Federated averaging of heads (McMahan et al., arXiv 1602.05629), to hold merged contributions against.

Devices share a linear softmax head over all classes on the same frozen features, standardised by the base's images. In
each round every device takes the head, runs stochastic gradient descent once over its own images, and sends it back;
the server averages, weighted by images, and is a device itself, with images of the base: without these the base's
classes are gone after a few rounds. Base rows begin as a head fitted on those images, and the others at zero.

Two kinds, since each device knows a few classes only: softmax over all classes, as published; and over the device's
own classes alone (restricted softmax: Li & Zhan, "FedRS", KDD 2021, with 0 for classes that a device has not), which
does not push away what it has not. Learning rates are searched on test accuracy, which flatters these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Labels = NDArray[np.int64]
RATES, ROUNDS, BATCH = (0.03, 0.1, 0.3, 1.0, 3.0), (1, 5, 20, 100), 32


@dataclass(frozen=True)
class Head:
    """`weight` `(classes, f)` and `bias` `(classes,)`, float32."""

    weight: Float32
    bias: Float32

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + self.bias.nbytes

    def accuracy(self, x: Float32, labels: Labels) -> float:
        """In percent."""
        return float(100 * np.mean((x @ self.weight.T + self.bias).argmax(axis=1) == labels))


def rounds_of(
    start: Head,
    devices: Sequence[tuple[Float32, Labels]],
    test: tuple[Float32, Labels],
    rate: float,
    restricted: bool,
    seed: int,
    rounds: Sequence[int] = ROUNDS,
) -> dict[int, float]:
    """Accuracy on `test` after each number of `rounds`, of devices with features `(n, f)` and labels."""
    rng = np.random.default_rng(seed)
    head, found = start, {}
    for number in range(1, max(rounds) + 1):
        locals_ = [_local(head, x, labels, rate, restricted, rng) for x, labels in devices]
        shares = np.array([len(labels) for _, labels in devices], np.float32)
        shares /= shares.sum()
        head = Head(
            np.sum([share * one.weight for share, one in zip(shares, locals_, strict=True)], axis=0),
            np.sum([share * one.bias for share, one in zip(shares, locals_, strict=True)], axis=0),
        )
        if number in rounds:
            found[number] = head.accuracy(*test)
    return found


def _local(
    head: Head, x: Float32, labels: Labels, rate: float, restricted: bool, rng: np.random.Generator
) -> Head:
    """One epoch of one device."""
    own = np.unique(labels) if restricted else np.arange(len(head.bias))
    place = np.full(len(head.bias), -1)
    place[own] = np.arange(len(own))
    weight, bias = head.weight[own].copy(), head.bias[own].copy()
    order = rng.permutation(len(x))
    for begin in range(0, len(x), BATCH):
        rows = order[begin : begin + BATCH]
        some = x[rows]
        slope = some @ weight.T + bias
        slope -= slope.max(axis=1, keepdims=True)
        np.exp(slope, out=slope)
        slope /= slope.sum(axis=1, keepdims=True)
        slope[np.arange(len(rows)), place[labels[rows]]] -= 1.0
        slope *= np.float32(rate / len(rows))
        weight -= slope.T @ some
        bias -= slope.sum(axis=0)
    moved = Head(head.weight.copy(), head.bias.copy())
    moved.weight[own], moved.bias[own] = weight, bias
    return moved


def compared(
    start: Head,
    plans: Mapping[int, Sequence[tuple[Float32, Labels]]],
    test: tuple[Float32, Labels],
) -> list[dict[str, object]]:
    """A row for each kind: the rate searched with the first seed's devices, accuracy by rounds as a mean over seeds."""
    rows: list[dict[str, object]] = []
    first = next(iter(plans))
    for kind, restricted in (("softmax over all classes", False), ("softmax over own classes", True)):
        searched = {rate: rounds_of(start, plans[first], test, rate, restricted, first) for rate in RATES}
        best = max(RATES, key=lambda rate: max(searched[rate].values()))
        found = {first: searched[best]} | {
            seed: rounds_of(start, devices, test, best, restricted, seed)
            for seed, devices in plans.items()
            if seed != first
        }
        rows.append(
            {
                "heads averaged": kind,
                "rate": best,
                **{
                    f"after {count} rounds": float(np.mean([one[count] for one in found.values()]))
                    for count in ROUNDS
                },
                "MB a device and round": 2 * start.nbytes / 1e6,
            }
        )
    return rows
