"""Settings of a training run, their defaults and their checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from csk_sdk.contract.manifest import PRECISIONS, Manifest
from csk_sdk.errors import ConfigError

OPTIMIZERS = ("sgd", "adamw")
PREFIX_CACHES = ("off", "memory", "disk", "auto")
# What happens to a task that would cost older ones too much: learned by its heads alone, or not at all.
HEADS_ONLY, REFUSE = "heads-only", "refuse"
ON_FORGETTING = (HEADS_ONLY, REFUSE)
# csk_sdk.network.profiles.PROFILES.
PROFILE_NAMES = ("fast", "small")
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}


@dataclass(frozen=True)
class TrainingConfig:
    """How a task is learned. The defaults were chosen by measurement: docs/decisions/0004-training-defaults.md.

    `epochs` is the most that training does; it ends earlier where `seconds` are over or `flops` are spent, or where the
    loss has not fallen by 1 % in `patience` epochs, 0 for never (docs/decisions/0022-plateau.md).
    `batch_size`, `channel_ratio` and `flip` are the bundle's own where None. `energy` is the fraction of the old
    data's second moment that a step must not touch (0 switches the projection off). `follow_drift` is whether old
    heads and statistics follow the features; where None, they do unless `energy` is 0, so that energy 0 is plain
    training. Learning rates are peak values of a cosine schedule. `shift` is in pixels, a 16th of the picture's
    shorter side where None; for signals in samples, a 16th of the length. `label_smoothing` is the share of each label
    that is spread over all classes (cross-entropy only). `threads` 0 means one per core; `spinning` ones
    wait for work within a training step without sleeping (docs/decisions/0026-spinning.md). `sensitivity_batches` is
    how many batches channels are selected on. `class_statistics` is whether the state keeps sums over the features of
    the task's classes; without, decisions over all classes fall back on the tasks' own heads (docs/guarantees.md).
    `label_check` is whether a task is refused whose labels say nothing about its pictures
    (docs/decisions/0015-label-check.md). `max_forgetting` is how many points of accuracy an older task may lose, as
    estimated without its pictures; `on_forgetting` is whether a task that costs more gets its heads on the network as
    it was, or is refused (docs/decisions/0016-max-forgetting.md).
    `few_shot` is how many pictures or signals a class, on average, a task needs for its centers to be trained, or as
    many fewer as there are more epochs than 4; with fewer it gets heads on the network as it is, 0 trains always
    (docs/decisions/0019-few-shot.md).
    `skip_broken` is whether pictures that cannot be read are left out, and the others learned.
    `time_limit` is how many seconds one run of a graph may take before it is ended, such as a training step: what a
    stranger's bundle may cost. `checkpoint_seconds` is the time between progress checkpoints. `prefix_cache` is
    where the features of the frozen first layers are kept: "off", "memory", "disk" or "auto", and `prefix_views` in
    how many views of each picture (csk_sdk/learning/prefix_cache.py). `precision` is what the bundle's graphs run in:
    "exact", "int8", or "auto" for what csk-sdk doctor measured to be best on this device, else the bundle's own
    (csk_sdk/device/tuning.py).

    `memory_budget` is what the whole process may have resident at its peak, in bytes, imports included: profile and
    micro-batches are then chosen (csk_sdk/learning/memory_budget.py), unless `profile` ("fast" or "small",
    csk_sdk/network/profiles.py) or `micro_batch` say otherwise. `micro_batch` is how many pictures of a batch are in
    memory at once, all where None.
    """

    epochs: int = 4
    patience: int = 3
    seconds: float | None = None
    flops: float | None = None
    batch_size: int | None = None
    channel_ratio: float | None = None
    energy: float = 0.8
    follow_drift: bool | None = None
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    head_learning_rate: float = 0.005
    momentum: float = 0.9
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    flip: bool | None = None
    shift: int | None = None
    seed: int = 0
    threads: int = 0
    spinning: bool = False
    time_limit: float | None = None
    sensitivity_batches: int = 32
    class_statistics: bool = True
    label_check: bool = True
    max_forgetting: float = 3.0
    on_forgetting: str = HEADS_ONLY
    few_shot: int = 30
    skip_broken: bool = False
    checkpoint_seconds: float = 20.0
    prefix_cache: str = "off"
    prefix_views: int = 2
    precision: str = "auto"
    memory_budget: int | None = None
    micro_batch: int | None = None
    profile: str | None = None

    def __post_init__(self) -> None:
        for name in _FIELDS:
            problem = _type_problem(name, getattr(self, name))
            if problem:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; {problem}.")
        _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _require(self.patience >= 0, "patience", self.patience, "0 or more")
        for name in ("seconds", "flops", "time_limit"):
            budget = getattr(self, name)
            _require(budget is None or 0.0 < budget < math.inf, name, budget, "above 0, and finite")
        _require(self.batch_size is None or self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        ratio = self.channel_ratio
        _require(ratio is None or 0.0 < ratio <= 1.0, "channel_ratio", ratio, "above 0 and at most 1")
        _require(0.0 <= self.energy <= 1.0, "energy", self.energy, "between 0 and 1")
        _require(self.optimizer in OPTIMIZERS, "optimizer", self.optimizer, " or ".join(OPTIMIZERS))
        for name in ("learning_rate", "head_learning_rate", "weight_decay"):
            value = getattr(self, name)
            _require(0.0 <= value < math.inf, name, value, "0 or more, and finite")
        _require(0.0 <= self.momentum < 1.0, "momentum", self.momentum, "at least 0 and below 1")
        _require(
            0.0 <= self.max_forgetting <= 100.0, "max_forgetting", self.max_forgetting, "between 0 and 100"
        )
        _require(
            self.on_forgetting in ON_FORGETTING,
            "on_forgetting",
            self.on_forgetting,
            " or ".join(ON_FORGETTING),
        )
        _require(self.few_shot >= 0, "few_shot", self.few_shot, "0 or more")
        smoothing = self.label_smoothing
        _require(0.0 <= smoothing < 1.0, "label_smoothing", smoothing, "at least 0 and below 1")
        _require(self.shift is None or self.shift >= 0, "shift", self.shift, "0 or more")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(self.threads >= 0, "threads", self.threads, "0 or more")
        _require(self.sensitivity_batches >= 1, "sensitivity_batches", self.sensitivity_batches, "1 or more")
        _require(self.checkpoint_seconds >= 0.0, "checkpoint_seconds", self.checkpoint_seconds, "0 or more")
        for name, choices in (("prefix_cache", PREFIX_CACHES), ("precision", ("auto", *PRECISIONS))):
            _require(getattr(self, name) in choices, name, getattr(self, name), " or ".join(choices))
        _require(1 <= self.prefix_views <= 64, "prefix_views", self.prefix_views, "from 1 to 64")
        budget, micro = self.memory_budget, self.micro_batch
        _require(budget is None or budget >= 1, "memory_budget", budget, "1 byte or more")
        _require(micro is None or micro >= 1, "micro_batch", micro, "1 or more")
        _require(
            self.profile is None or self.profile in PROFILE_NAMES,
            "profile", self.profile, " or ".join(PROFILE_NAMES),
        )  # fmt: skip

    @property
    def follows_drift(self) -> bool:
        """Whether old heads and statistics are carried over to the features as they drift."""
        return self.energy > 0.0 if self.follow_drift is None else self.follow_drift

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str) -> TrainingConfig:
        """Settings from a file's table.

        Raises ConfigError for an unknown name, a wrong type, or a value out of range.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where} is a {type(values).__name__}, and must be a mapping of settings.")
        for name, value in values.items():
            if name not in _FIELDS:
                raise ConfigError(f"{where} sets '{name}', which is no setting. Known: {', '.join(_FIELDS)}.")
            problem = _type_problem(name, value)
            if problem:
                raise ConfigError(f"{where} sets {name} to {value!r}; {problem}.")
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def with_overrides(self, **values: Any) -> TrainingConfig:
        """A copy with those of `values` that are not None."""
        return replace(self, **{name: value for name, value in values.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """All settings as plain values."""
        return asdict(self)


# Each setting's type as it is written above.
_FIELDS = {field.name: str(field.type) for field in fields(TrainingConfig)}


def _type_problem(name: str, value: Any) -> str | None:
    kind, _, optional = _FIELDS[name].partition(" | ")
    if value is None and optional:
        return None
    # To Python a bool is an int; nobody who writes `epochs = true` means 1.
    if isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool)):
        return None
    return f"it must be of type {kind}"


def augmentation(config: TrainingConfig, manifest: Manifest) -> tuple[bool, int]:
    """Whether to flip pictures, and by how many pixels or samples to shift, for this bundle.

    Raises ConfigError where signals are to be flipped.
    """
    flip = manifest.flip if config.flip is None else config.flip
    if flip and manifest.input.is_signal:
        raise ConfigError(
            "flip is on, and this bundle's model takes signals, which are never mirrored: leave it out."
        )
    shift = config.shift if config.shift is not None else min(manifest.input.size) // 16
    return flip, shift


def _require(holds: bool, name: str, value: Any, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value}; it must be {rule}.")
