"""A memory budget on the device: which profile and which micro-batches keep the whole process within it.

What counts is the process's peak resident memory, imports included: that is what a container's limit counts. What the
process has already is measured; what learning adds is predicted from the manifest, whose parts are explained in
csk_artifacts_builder/measure/memory.py. Predicted here, each for itself, are the fullest moments of a run:

    training        opening the training graph, or a step
    consolidating   the memory graph, the task's moments in float64, and the next generation beside this one
    fitting         the task's head, on features kept for it
    committing      the next generation once more as the bytes of its file

Where domains are known, no step is taken, and the graph that sees through them is open beside the memory graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import INT8, PORTABLE, WEIGHTS, Manifest
from csk_sdk.errors import ConfigError
from csk_sdk.network.profiles import FAST, PROFILES, SMALL, Profile
from csk_sdk.runtime.peak_memory import resident_bytes
from csk_sdk.runtime.sessions import load_onnxruntime

# Kernels that an exact graph in the profile small makes anew in every step: transposed, flipped, unrolled.
_KERNELS_IN_FLIGHT = 3
# Square float64 matrices of features by features: of class statistics and their sum, half of one for the ledger's map,
# and while the drift is estimated.
_STATISTICS_MATRICES = 3.5
_DRIFT_MATRICES = 7
# Weights in float32 of a domain's graph while it is open, in those of their file: what it runs on, and what opening it
# leaves in the arena (decision 0014).
_DOMAIN_WEIGHTS = 1.5
_MIB = 1 << 20
# What a process has before it learns differs from one to the next by less: a megabyte was seen.
_DIFFERS = 4 * _MIB


@dataclass(frozen=True)
class Plan:
    """How a task is going to be learned.

    `micro_batch` is None where batches are run whole. `pixel_bytes` is for images kept between epochs. `predicted`
    is the process's peak in bytes, None without a budget.
    """

    profile: Profile
    micro_batch: int | None
    pixel_bytes: int
    budget: int | None = None
    predicted: int | None = None

    @property
    def sentence(self) -> str:
        """What a person is told of it; empty without a budget."""
        if self.budget is None:
            return ""
        batches = "whole batches" if self.micro_batch is None else f"micro-batches of {self.micro_batch}"
        return f"Memory budget {_mebibytes(self.budget)}: {batches}, profile {self.profile.name}."


# Batches whole, and nothing traded for memory.
WHOLE = Plan(FAST, None, FAST.pixel_bytes)


def plan_for(
    manifest: Manifest,
    config: TrainingConfig,
    backend: str,
    pictures: int,
    held: int = 0,
    present: int | None = None,
    domains: bool = False,
) -> Plan:
    """The fastest plan within `config.memory_budget`; without one, what the settings say.

    `pictures` is how many the task has, or its sample; `held` how many more must be in memory, `present` the process's
    resident bytes now, by default measured; `domains` whether some are known.
    Raises ConfigError where the budget cannot be kept, or nothing is known about the bundle's memory.
    """
    batch = config.batch_size or manifest.batch_size
    if config.memory_budget is None:
        profile = PROFILES[config.profile or FAST.name]
        return Plan(profile, _smaller(config.micro_batch, batch), profile.pixel_bytes)
    _require_known(manifest, backend)
    if present is None:
        load_onnxruntime()
        present = resident_bytes()
    present += held * _picture_bytes(manifest)
    budget = config.memory_budget
    needed = 0
    for profile, micro in _choices(config, batch):
        needed = present + predicted_bytes(manifest, config, profile, micro, pictures, domains)
        pixels = min(budget - needed, profile.pixel_bytes, pictures * _picture_bytes(manifest))
        if pixels >= 0:
            return Plan(profile, _smaller(micro, batch), pixels, budget, needed + pixels)
    raise ConfigError(
        f"The memory budget is {_mebibytes(budget)}, and learning needs about {-(-needed // _MIB)} MiB here even in "
        f"the smallest way: {present // _MIB} MiB that this process has already, and the rest for "
        f"{manifest.model}. Pass {-(-(needed + _DIFFERS) // _MIB)}MiB or more, or build the bundle "
        f"{_smaller_bundle(manifest)}."
    )


def require_budget(bundle: Bundle, config: TrainingConfig) -> None:
    """Raise ConfigError where a budget is set for graphs whose memory is not known: an int8 bundle run exact."""
    own = bundle.manifest.precision
    if config.memory_budget is not None and bundle.precision != own:
        raise ConfigError(
            f"The memory of {bundle.folder} is known for precision {own} only: leave out the memory budget, or "
            f"--precision {bundle.precision}."
        )


def predicted_bytes(
    manifest: Manifest,
    config: TrainingConfig,
    profile: Profile,
    micro: int,
    pictures: int,
    domains: bool = False,
) -> int:
    """How far learning a task of so many images goes above what a process with an opened bundle has already.

    `domains`: whether some are known.
    """
    parts, batch = manifest.memory, config.batch_size or manifest.batch_size
    small, int8 = profile.maps_kernels, manifest.precision == INT8
    features = 4 * manifest.head.features
    centers = 4 * sum(site.rows * site.columns for site in manifest.sites)
    moments = 4 * sum(site.groups * site.width**2 for site in manifest.sites)
    matrix = 8 * manifest.head.features**2
    kernel = 4 * max(int(np.prod(site.shape)) for site in manifest.sites)
    images = 2 * 4 * int(np.prod(manifest.input.shape)) * batch
    activations = manifest.step_memory["one"] + manifest.step_memory["each"] * (micro - 1)
    always = parts["runtime"] + images
    forward = manifest.files[WEIGHTS].size // (4 if int8 else 1)
    weights = forward if small and not int8 else parts["weights"]
    # Kernels of int8 graphs are mapped in both profiles, and folded one by one.
    handed_over = 0 if small else parts["kernels"] + parts["opening"]
    opening = 2 * kernel if int8 else handed_over
    in_flight = _KERNELS_IN_FLIGHT * kernel if small and not int8 else 0
    ratio = config.channel_ratio or manifest.channel_ratio
    # Gradients of all channels, of one run and of those before it; as much for a progress checkpoint's bytes and what
    # the arena loses between runs; of the chosen channels what predict_memory lists.
    learning = 3.5 * centers + parts["learning"] * ratio
    training = 0 if domains else weights + max(opening, learning + activations + in_flight)
    through = _DOMAIN_WEIGHTS * manifest.files[WEIGHTS].size + activations if domains else 0
    learned = min(profile.sample_bytes, pictures * features)
    # The next generation's centers and moments, and the statistics of both.
    following = centers + moments + _STATISTICS_MATRICES * matrix + 2 * learned
    consolidating = forward + through + following + max(opening, activations + 3 * moments)
    fitting = following + 3 * learned + max(parts["head"], _DRIFT_MATRICES * matrix)
    committing = following + 2 * (centers + moments) + 3 * matrix
    return int(always + max(training, consolidating, fitting, committing))


def _choices(config: TrainingConfig, batch: int) -> Iterator[tuple[Profile, int]]:
    """From the fastest to the smallest; what the settings fix is fixed."""
    micro = _smaller(config.micro_batch, batch)
    for profile in (FAST, SMALL) if config.profile is None else (PROFILES[config.profile],):
        size = micro or batch
        yield profile, size
        while micro is None and size > 1:
            size //= 2
            yield profile, size


def _smaller(micro: int | None, batch: int) -> int | None:
    return None if micro is None or micro >= batch else micro


def _picture_bytes(manifest: Manifest) -> int:
    return int(np.prod(manifest.input.shape)) * (4 if manifest.input.is_signal else 1)


def _require_known(manifest: Manifest, backend: str) -> None:
    if backend != PORTABLE:
        raise ConfigError(
            f"A memory budget is planned for the {PORTABLE} backend, and this one is {backend}: learn with --backend "
            f"{PORTABLE}, or without a budget and with --micro-batch."
        )
    if not manifest.memory or not manifest.step_memory:
        raise ConfigError(
            "The bundle does not say how much memory a step takes, so no budget can be planned: build it again with "
            "this csk-sdk, or learn with --micro-batch and --profile small."
        )


def _smaller_bundle(manifest: Manifest) -> str:
    if manifest.whole_kernels:
        return "with --sites center, or fewer features (--features) or sites (--trainable)"
    if manifest.precision == INT8:
        return "with fewer features (--features) or sites (--trainable), or from a smaller network"
    return "with --precision int8, or fewer features (--features) or sites (--trainable)"


def _mebibytes(count: int) -> str:
    return f"{count / _MIB:.4g} MiB"
