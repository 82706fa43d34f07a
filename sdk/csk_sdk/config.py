"""Settings of a training run, their defaults and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from csk_sdk.contract.manifest import Manifest
from csk_sdk.contract.settings import SETTINGS
from csk_sdk.contract.training_fields import TrainingFields
from csk_sdk.errors import ConfigError

PREFIX_CACHES = SETTINGS["prefix_cache"].choices
# What a task trains; AUTO is decided on its own images.
AUTO, HEADS = SETTINGS["train"].choices[:2]
# What happens to a task that would cost older ones too much: learned by its heads alone, or not at all.
HEADS_ONLY, REFUSE = SETTINGS["on_forgetting"].choices


@dataclass(frozen=True)
class TrainingConfig(TrainingFields):
    """How a task is learned: immutable, safe to share between threads, checked when it is made.

    Each setting with its default and its bounds is a field of `TrainingFields`, and a row of docs/settings.md; both are
    made of csk_sdk/contract/settings.json. The defaults were chosen by measurement
    (docs/decisions/0004-training-defaults.md). None stands for what only the bundle or the device can say, and NumPy's
    scalars are the plain numbers that they hold.
    Raises ConfigError for a value of a wrong type, or out of its bounds.
    """

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            value = getattr(self, name)
            if isinstance(value, np.generic):
                object.__setattr__(self, name, value := value.item())
            problem = setting.problem(value)
            if problem:
                raise ConfigError(problem)

    @property
    def follows_drift(self) -> bool:
        """Whether drift compensation carries old heads and statistics along with the features."""
        return self.energy > 0.0 if self.follow_drift is None else self.follow_drift

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str) -> TrainingConfig:
        """Settings from a file's table.

        Raises ConfigError for an unknown name, a wrong type, or a value out of range.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where} is a {type(values).__name__}, and must be a mapping of settings.")
        for name in values:
            if name not in SETTINGS:
                raise ConfigError(
                    f"{where} sets '{name}', which is no setting. Known: {', '.join(SETTINGS)}."
                )
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def with_overrides(self, **values: Any) -> TrainingConfig:
        """A copy with those of `values` that are not None. Raises ConfigError for a value out of range."""
        return replace(self, **{name: value for name, value in values.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """All settings as plain values."""
        return asdict(self)


def augmentation(config: TrainingConfig, manifest: Manifest) -> tuple[bool, int]:
    """Whether to flip images, and by how many pixels or samples to shift, for this bundle.

    Raises ConfigError where signals are to be flipped.
    """
    flip = manifest.flip if config.flip is None else config.flip
    if flip and manifest.input.is_signal:
        raise ConfigError(
            "flip is on, and this bundle's model takes signals, which are never mirrored: leave it out."
        )
    shift = config.shift if config.shift is not None else min(manifest.input.size) // 16
    return flip, shift
