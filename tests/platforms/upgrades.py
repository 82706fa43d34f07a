"""The kind of conformance cases of upgrades (docs/conformance.md), asked of csk_sdk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.method.contributions import Contribution
from csk_sdk.method.feature_map import FeatureMap

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


UPGRADES: dict[str, Callable[[Settings, Tensors, Path], Tensors]] = {"feature_map": _feature_map}
