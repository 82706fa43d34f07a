"""Settings of a training run, their defaults and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from csk_sdk.errors import ConfigError

OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class TrainingConfig:
    """How a task is learned. The defaults were chosen by measurement: docs/decisions/0004-training-defaults.md.

    `batch_size`, `channel_ratio` and `flip` are the bundle's own where None. `energy` is the fraction of the old
    data's second moment that a step must not touch (0 switches the projection off). Learning rates are peak
    values of a cosine schedule. `shift` is in pixels, `threads` 0 means one per core, `checkpoint_seconds`
    is the time between progress checkpoints.
    """

    epochs: int = 4
    batch_size: int | None = None
    channel_ratio: float | None = None
    energy: float = 0.9
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    head_learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    flip: bool | None = None
    shift: int = 2
    seed: int = 0
    threads: int = 0
    sensitivity_batches: int = 32
    checkpoint_seconds: float = 20.0

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _require(self.batch_size is None or self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        ratio = self.channel_ratio
        _require(ratio is None or 0.0 < ratio <= 1.0, "channel_ratio", ratio, "above 0 and at most 1")
        _require(0.0 <= self.energy <= 1.0, "energy", self.energy, "between 0 and 1")
        _require(self.optimizer in OPTIMIZERS, "optimizer", self.optimizer, " or ".join(OPTIMIZERS))
        for name in ("learning_rate", "head_learning_rate", "weight_decay"):
            _require(getattr(self, name) >= 0.0, name, getattr(self, name), "0 or more")
        _require(0.0 <= self.momentum < 1.0, "momentum", self.momentum, "at least 0 and below 1")
        _require(self.shift >= 0, "shift", self.shift, "0 or more")
        _require(self.threads >= 0, "threads", self.threads, "0 or more")
        _require(self.sensitivity_batches >= 1, "sensitivity_batches", self.sensitivity_batches, "1 or more")
        _require(self.checkpoint_seconds >= 0.0, "checkpoint_seconds", self.checkpoint_seconds, "0 or more")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str) -> TrainingConfig:
        """Settings from a file's table. Raises ConfigError for an unknown name or a wrong type."""
        known = {field.name: field for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ConfigError(f"{where} sets '{name}', which is no setting. Known: {', '.join(known)}.")
            expected = type(getattr(cls(), name)) if name not in ("batch_size", "channel_ratio") else float
            allowed = (int, float) if expected is float else (expected,)
            if not isinstance(value, allowed) or (isinstance(value, bool) and expected is not bool):
                raise ConfigError(
                    f"{where} sets {name} to {value!r}; it must be of type {expected.__name__}."
                )
        return cls(**values)

    def with_overrides(self, **values: Any) -> TrainingConfig:
        """A copy with those of `values` that are not None."""
        return replace(self, **{name: value for name, value in values.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """All settings as plain values."""
        return asdict(self)


def _require(holds: bool, name: str, value: Any, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value}; it must be {rule}.")
