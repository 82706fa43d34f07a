"""The kinds of conformance cases that are a fleet's (docs/conformance.md), each asked of csk_sdk."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.fleet.packing import pack, unpack
from csk_sdk.method.consensus import Part, Space, alike, apart, out_of_measure
from csk_sdk.method.contributions import Contribution, ContributionSum
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.objectives.classification import PRIOR_PICTURES

Tensors = dict[str, NDArray[Any]]
Settings = Mapping[str, Any]


def _packing(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    features, bits = len(given["mean"]), settings["bits"]
    blob = pack(Contribution(float(given["count"][0]), given["mean"], given["factor"]), bits)
    count, rows, _, _ = struct.unpack_from("<dIII", blob)
    numbers = np.frombuffer(blob, "<f4", 2 * features + rows, 20)
    packed = np.frombuffer(blob, np.uint8, offset=20 + numbers.nbytes)
    packed = packed.reshape(rows, (features * bits + 7) // 8)
    if bits == 4:
        packed = np.stack([packed & 15, packed >> 4], axis=2).reshape(rows, 2 * packed.shape[1])
    return {
        "levels": packed[:, :features].astype(np.int64).reshape(rows, features) - 2 ** (bits - 1),
        "of_row": numbers[2 * features :],
        "of_feature": numbers[features : 2 * features],
        "mean": numbers[:features],
        "count": np.array([count]),
        "read": unpack(blob, features).factor,
    }


def _together(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    total = ContributionSum(len(given["mean/0"]))
    for number, count in enumerate(given["counts"]):
        total.add_contribution(Contribution(float(count), given[f"mean/{number}"], given[f"factor/{number}"]))
    found = total.total()
    factor = found.factor.astype(np.float64)
    return {
        "count": np.array([found.count]),
        "mean": found.mean,
        "spreads": (factor**2).sum(axis=0),
        "scatter": factor.T @ factor,
    }


def _consensus(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    names = tuple(settings["classes"])
    known = ClassStatistics(names, given["gram"], given["sums"], given["counts"])
    parts = [
        Part(str(device), names[label], float(images), mean, variance)
        for device, label, images, mean, variance in zip(
            *(given[name] for name in ("device", "class", "images", "means", "variances")), strict=True
        )
    ]
    space = Space.of(known, PRIOR_PICTURES)
    assert space is not None
    pairs = alike(known, PRIOR_PICTURES)
    devices = [str(device) for device in range(settings["devices"])]
    far, out = apart(parts, space), out_of_measure(parts)
    return {
        "apart": np.array([one in far for one in devices], np.int64),
        "out": np.array([one in out for one in devices], np.int64),
        "alike": np.array([[(one, other) in pairs for other in names] for one in names], np.int64),
    }


FLEETS: dict[str, Callable[[Settings, Tensors, Path], Tensors]] = {
    "packing": _packing,
    "together": _together,
    "consensus": _consensus,
}
