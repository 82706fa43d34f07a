"""When training ends before its epochs do: a plateau, a budget of FLOPs, which stands for energy, or of seconds."""

from __future__ import annotations

import math

from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import Manifest
from csk_sdk.contract.thresholds import number
from csk_sdk.errors import ConfigError

EPOCHS, SECONDS, FLOPS, PLATEAU = "epochs", "seconds", "flops", "plateau"
_LEAST_FALL = number("stopping", "least_fall")


class Stopping:
    """How many steps a run may take, and why it ends.

    FLOPs are counted in advance from the bundle's costs, so such a run is the same on every device, and its learning
    rate falls to zero in its own length. Seconds run out where they do, at the border of a step. A plateau is as many
    epochs in a row as the setting `patience` says whose mean loss is not 1 % below the best before; `memory` is what
    has to be kept to find the same one after an interruption.
    """

    def __init__(self, config: TrainingConfig, manifest: Manifest, per_epoch: int, batch_size: int) -> None:
        """Of a run of `per_epoch` steps of `batch_size` an epoch. Raises ConfigError for FLOPs that do not make one."""
        self.steps = steps = per_epoch * config.epochs
        self._per_epoch, self._patience = per_epoch, config.patience
        self._best, self._stale = math.inf, 0
        self.reason = EPOCHS
        self._seconds = config.seconds
        if config.flops is None:
            return
        each = manifest.costs.get("step_centers", 0) * batch_size
        if not each:
            raise ConfigError(
                "flops is set, and this bundle does not say what a step costs: build it again, or leave flops out."
            )
        possible = int(config.flops // each)
        if possible < 1:
            raise ConfigError(
                f"flops is {config.flops:g}, and one step of {batch_size} costs {each:g}: allow more."
            )
        if possible < steps:
            self.steps, self.reason = possible, FLOPS

    @property
    def memory(self) -> dict[str, float]:
        """The best epoch's mean loss, and how many epochs have passed since, as plain values."""
        return {"best": self._best if self._best < math.inf else -1.0, "stale": self._stale}

    def resume(self, memory: dict[str, float]) -> None:
        """Go on from what `memory` gave."""
        best = memory["best"]
        self._best, self._stale = (best if best >= 0.0 else math.inf), int(memory["stale"])

    def over(self, done: int, seconds: float, loss: float) -> bool:
        """Whether to stop after `done` steps and so many seconds, with this mean loss over the epoch so far."""
        flat = done % self._per_epoch == 0 and self._is_flat(loss)
        if done >= self.steps:
            return True
        if flat:
            self.reason = PLATEAU
            return True
        if self._seconds is not None and seconds >= self._seconds:
            self.reason = SECONDS
            return True
        return False

    def _is_flat(self, loss: float) -> bool:
        """Whether the epoch that ends with this mean loss makes a plateau."""
        if loss < (1.0 - _LEAST_FALL) * self._best:
            self._best, self._stale = loss, 0
        else:
            self._stale += 1
        return 0 < self._patience <= self._stale
