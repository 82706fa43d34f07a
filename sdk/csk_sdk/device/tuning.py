"""Which precision is right on this very device: measured by `csk-sdk doctor`, remembered beside the state.

int8 is faster than float32 on most CPUs, not on all; and on x86 CPUs without VNNI, sums of int8 products may saturate.
So both are timed here, and int8 is compared with exact on a probe: images of smooth noise, made from a fixed seed.
The builder compared them on the same probe and wrote into the manifest (`agreement`) how far apart they should be.
Older bundles have that of another probe, much of which lay outside the range of the data (they have no `probe`): there,
int8 with wide sums on this very device says how far.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import EXACT, INT8, LABEL, PREFIX_MODEL, TRAINING_MODEL, Manifest
from csk_sdk.device.probe import probe
from csk_sdk.method.selection import channel_count
from csk_sdk.network.knowledge import Tensors
from csk_sdk.runtime.sessions import int8_sums_saturate

Outputs = dict[str, NDArray[Any]]

# How far off a number is that is not finite.
_BEYOND = 1e9
# CPUs that add up right agree in many digits; sums that saturated put logits 1.25 times as far off (decision 0010).
_MORE, _ANYWAY = 1.05, 0.002
# int8 must be worth its rounding.
_FASTER = 0.95
_MOST_RUNS, _FEWEST_RUNS, _SECONDS = 9, 3, 1.5


@dataclass(frozen=True)
class Measured:
    """One way to run the bundle here: milliseconds of a training step, and how far it is from exact on the probe.

    `cached` is a step that starts from kept prefix features, None where the bundle has none. `logits` is
    `||int8 - exact|| / ||exact||`, `gradients` one minus the smallest cosine of a site's gradient; 0 for exact.
    """

    precision: str
    wide_sums: bool
    step: float
    cached: float | None
    logits: float = 0.0
    gradients: float = 0.0


@dataclass(frozen=True)
class Choice:
    """What is best on this device, of what was measured, and why in a sentence."""

    best: Measured
    measured: tuple[Measured, ...]
    why: str


def choose(bundle: Bundle, tensors: Tensors, config: TrainingConfig) -> Choice:
    """Time exact and int8 training steps on this device, and check int8's arithmetic. Takes a few seconds.

    `tensors` are those of a generation. int8 is run with wide sums where narrow ones saturate, and once more with them
    where it is too far from exact.
    """
    images = probe(bundle.manifest)
    exact = bundle.view(EXACT)
    truth = _outputs(exact, tensors, images, config.threads)
    measured = [_measure(exact, tensors, config, {})]

    @cache
    def off(wide: bool) -> dict[str, float]:
        view = bundle.view(INT8, wide_sums=wide)
        return _apart(bundle.manifest, truth, _outputs(view, tensors, images, config.threads))

    limits = _limits(bundle.manifest.agreement if bundle.manifest.probe else off(wide=True))
    for wide in (True,) if int8_sums_saturate() else (False, True):
        measured.append(_measure(bundle.view(INT8, wide_sums=wide), tensors, config, off(wide)))
        if _agrees(measured[-1], limits):
            break
    return _choice(measured, limits)


def _choice(measured: list[Measured], limits: Mapping[str, float]) -> Choice:
    exact, int8 = measured[0], measured[-1]
    off = f"{100 * int8.logits:.1f} % off in its logits, {100 * int8.gradients:.1f} % in its gradients"
    if not _agrees(int8, limits):
        should = f"{100 * limits['logits']:.1f} and {100 * limits['gradients']:.1f} %"
        return Choice(
            exact,
            tuple(measured),
            f"int8 is {off}, and should be at most {should}: this CPU adds it up wrong",
        )
    wide = "; with wide sums, since this CPU's fast ones saturate" if int8.wide_sums else ""
    if int8.step > _FASTER * exact.step:
        return Choice(exact, tuple(measured), f"int8 is not faster on this CPU with this model{wide}")
    why = f"int8 takes {int8.step / exact.step:.2f} of the time of exact, and is {off}"
    return Choice(int8, tuple(measured), why + wide)


def agreement(bundle: Bundle, tensors: Tensors) -> dict[str, float]:
    """How far int8 is from exact on the probe, added up right: what the builder writes into the manifest."""
    images = probe(bundle.manifest)
    truth, other = (
        _outputs(view, tensors, images) for view in (bundle.view(EXACT), bundle.view(INT8, wide_sums=True))
    )
    return _apart(bundle.manifest, truth, other)


def _limits(expected: Mapping[str, float]) -> dict[str, float]:
    return {name: _MORE * expected.get(name, 0.0) + _ANYWAY for name in ("logits", "gradients")}


def _agrees(one: Measured, limits: Mapping[str, float]) -> bool:
    near = one.logits <= limits["logits"] and one.gradients <= limits["gradients"]
    return near and max(one.logits, one.gradients) < _BEYOND


def _outputs(view: Bundle, tensors: Tensors, images: NDArray[Any], threads: int = 0) -> Outputs:
    graph = view.graph(TRAINING_MODEL, tensors, threads)
    return graph.run(_feeds(view, tensors, images), release=True)


def _feeds(
    bundle: Bundle, tensors: Tensors, images: NDArray[Any], ratio: float = 1.0
) -> dict[str, NDArray[Any]]:
    """A training step of the base's head: a share of the channels, changed by nothing."""
    manifest = bundle.manifest
    feeds = {
        "image": images,
        LABEL: bundle.objective.blank_labels(len(images), manifest.classes),
        manifest.head.weight: tensors["head/base/weight"],
        manifest.head.bias: tensors["head/base/bias"],
    }
    for site in manifest.sites:
        feeds[site.indices] = np.arange(channel_count(site.columns, ratio))
        feeds[site.delta] = np.zeros((site.rows, len(feeds[site.indices])), np.float32)
    return feeds


def _apart(manifest: Manifest, truth: Outputs, other: Outputs) -> dict[str, float]:
    """As `Measured` has it; a number that is not finite is as far off as can be."""
    a, b = truth["logits"].astype(np.float64), other["logits"].astype(np.float64)
    cosines = [_cosine(truth[site.gradient], other[site.gradient]) for site in manifest.sites]
    apart = {
        "logits": float(np.linalg.norm(b - a) / max(float(np.linalg.norm(a)), 1e-30)),
        "gradients": 1.0 - min(cosines),
    }
    return {name: value if np.isfinite(value) else _BEYOND for name, value in apart.items()}


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    # Where one gradient is nothing, so must the other be.
    return float(x @ y) / norms if norms else float(np.array_equal(x, y))


def _measure(view: Bundle, tensors: Tensors, config: TrainingConfig, apart: Mapping[str, float]) -> Measured:
    manifest = view.manifest
    size = config.batch_size or manifest.batch_size
    ratio = config.channel_ratio or manifest.channel_ratio
    images = np.resize(probe(manifest), (size, *manifest.input.shape))
    step = _milliseconds(view, tensors, _feeds(view, tensors, images, ratio), config.threads)
    cached = None
    if manifest.prefix:
        features = view.graph(PREFIX_MODEL, tensors, config.threads).run({"image": images}, release=True)[
            "prefix"
        ]
        suffix = view.view(from_prefix=True)
        cached = _milliseconds(suffix, tensors, _feeds(view, tensors, features, ratio), config.threads)
    return Measured(view.precision, view.adds_wide, step, cached, **apart)


def _milliseconds(view: Bundle, tensors: Tensors, feeds: Mapping[str, NDArray[Any]], threads: int) -> float:
    """The shortest of some runs: what else the device does only makes them longer. The first allocates."""
    graph = view.graph(TRAINING_MODEL, tensors, threads)
    graph.run(feeds)
    took: list[float] = []
    while len(took) < _FEWEST_RUNS or (len(took) < _MOST_RUNS and sum(took) < _SECONDS):
        begun = time.perf_counter()
        graph.run(feeds)
        took.append(time.perf_counter() - begun)
    return 1e3 * min(took)
