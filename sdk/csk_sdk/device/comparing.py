"""Other ways to compute the same on this very device, timed in turn and compared on the probe: for `csk-sdk doctor`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EXACT
from csk_sdk.device.probe import probe
from csk_sdk.errors import ConfigError, CskError
from csk_sdk.network.knowledge import FeatureExtractor
from csk_sdk.runtime.providers import CPU, available, provider_names, short
from csk_sdk.runtime.sessions import ON_CPU

# What float32 kernels that add up in another order are apart at most, as in the conformance vectors.
_SAME = 1e-4
# int8 that rounds elsewhere differs by what int8 differs from exact, and never by more than this.
_SAME_INT8 = 0.05
_ROUNDS = 5


@dataclass(frozen=True)
class ProviderResult:
    """One provider's features of the probe: milliseconds for one image, and the largest difference from the CPU's.

    `apart` is in units of the CPU's largest feature. `error` says why there is neither.
    """

    name: str
    milliseconds: float
    apart: float
    same: bool
    error: str = ""


def compare_providers(
    bundle: Bundle, tensors: Mapping[str, NDArray[Any]], threads: int
) -> list[ProviderResult]:
    """Every provider of the installed ONNX Runtime, the CPU's own kernels first; those alone where there are no others.

    One image at a time, and in turn, since what else the device does takes from all of them.
    """
    others = [name for name in available() if name != CPU]
    images = probe(bundle.manifest)
    extractors: dict[str, FeatureExtractor] = {}
    failed = []
    for name in [CPU, *others]:
        try:
            view = bundle.view(providers=ON_CPU if name == CPU else (name,))
            extractors[name] = FeatureExtractor(view, tensors, threads)
            extractors[name](images)
        except CskError as error:
            extractors.pop(name, None)
            failed.append(ProviderResult(short(name), 0.0, 0.0, False, str(error)))
    truth = extractors[CPU](images)
    largest = max(float(np.abs(truth).max()), 1e-30)
    took = in_turn({name: partial(run, images[:1]) for name, run in extractors.items()}, _ROUNDS)
    limit = _limit(bundle)
    found = []
    for name, extractor in extractors.items():
        apart = float(np.abs(extractor(images) - truth).max()) / largest
        found.append(ProviderResult(short(name), 1e3 * took[name], apart, apart <= limit))
    return [*found, *failed]


def require_same(bundle: Bundle, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise ConfigError where this view of the bundle has providers that compute other features of the probe."""
    if bundle.providers == ON_CPU:
        return
    images = probe(bundle.manifest)
    truth, other = (
        FeatureExtractor(view, tensors)(images) for view in (bundle.view(providers=ON_CPU), bundle)
    )
    apart = float(np.abs(other - truth).max()) / max(float(np.abs(truth).max()), 1e-30)
    if not apart <= _limit(bundle):
        raise ConfigError(
            f"{', '.join(provider_names(bundle.providers))} computes other features than the CPU does, off by "
            f"{apart:.1g} of the largest: leave it out."
        )


def _limit(bundle: Bundle) -> float:
    if bundle.precision == EXACT:
        return _SAME
    return min(_SAME_INT8, max(_SAME, bundle.manifest.agreement.get("logits", 0.0)))


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The shortest seconds of each call, of `rounds` in which each has its turn; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begun)
    return {name: min(values[1:]) for name, values in seconds.items()}
