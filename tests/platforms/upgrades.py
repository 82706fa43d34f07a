"""The kind of conformance cases of upgrades (docs/conformance.md), asked of csk_sdk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.method.carried_heads import CarriedHeads
from csk_sdk.method.contributions import Contribution
from csk_sdk.method.feature_map import FeatureMap
from csk_sdk.method.heads import ClassStatistics, Scatter

Tensors = dict[str, NDArray[Any]]
Settings = Mapping[str, Any]


def _feature_map(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    found = FeatureMap.from_tensors(given, settings["before"], settings["after"])
    mapped = [
        found.contribution(Contribution(count, given[f"mean/{index}"], given[f"factor/{index}"]), index)
        for index, count in enumerate(given["counts"].tolist())
    ]
    weight, bias = found.head(given["weight"], given["bias"])
    return {
        "means": np.stack([one.mean for one in mapped]),
        "spreads": np.stack([(one.factor.astype(np.float64) ** 2).sum(axis=0) for one in mapped]),
        "weight": weight,
        "bias": bias,
    }


def _carried_head(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    way = FeatureMap.from_tensors(given, settings["before"], settings["after"])
    statistics = ClassStatistics(
        tuple(settings["classes"]), Scatter(given["scatter"]), given["sums"], given["counts"]
    )
    heads = CarriedHeads(way, statistics)
    weight, bias = heads.head(given["weight"], given["bias"], settings["task"])
    told = heads.told(given["weight"], settings["task"])
    return {"weight": weight, "bias": bias, "share": np.array([told])}


UPGRADES: dict[str, Callable[[Settings, Tensors, Path], Tensors]] = {
    "feature_map": _feature_map,
    "carried_head": _carried_head,
}
