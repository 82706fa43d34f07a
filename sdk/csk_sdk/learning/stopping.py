"""When training ends before its epochs do: a plateau, a budget of FLOPs, which stands for energy, or of seconds."""

from __future__ import annotations

import math

from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import Manifest
from csk_sdk.contract.sentences import said
from csk_sdk.contract.thresholds import number
from csk_sdk.errors import ConfigError

EPOCHS, SECONDS, FLOPS, PLATEAU = "epochs", "seconds", "flops", "plateau"
_LEAST_FALL = number("stopping", "least_fall")


class Stopping:
    """How many steps a run may take, and why it ends.

    FLOPs are counted in advance from the bundle's costs, so such a run is the same on every device, and its learning
    rate falls to zero in its own length. Seconds run out where they do, at the border of a step. `memory` is what has
    to be kept to find the same plateau after an interruption.
    """

    def __init__(self, config: TrainingConfig, manifest: Manifest, per_epoch: int, batch_size: int) -> None:
        """Of a run of `per_epoch` steps of `batch_size` an epoch. Raises ConfigError for FLOPs that do not make one."""
        self.steps = steps = per_epoch * config.epochs
        self._per_epoch = per_epoch
        self._plateau = Plateau(config.patience)
        self.reason = EPOCHS
        self._seconds = config.seconds
        if config.flops is None:
            return
        each = step_flops(config, manifest, batch_size)
        possible = int(config.flops // each)
        if possible < steps:
            self.steps, self.reason = possible, FLOPS

    @property
    def memory(self) -> dict[str, float]:
        """What has to be kept of past epochs, as plain values."""
        return self._plateau.memory

    def resume(self, memory: dict[str, float]) -> None:
        """Go on from what `memory` gave."""
        self._plateau.resume(memory)

    def over(self, done: int, seconds: float, loss: float) -> bool:
        """Whether to stop after `done` steps and so many seconds, with this mean loss over the epoch so far."""
        flat = done % self._per_epoch == 0 and self._plateau.reached(loss)
        if done >= self.steps:
            return True
        if flat:
            self.reason = PLATEAU
            return True
        if self._seconds is not None and seconds >= self._seconds:
            self.reason = SECONDS
            return True
        return False


class StreamStopping:
    """The same for a stream: nobody knows how long it is, and its batches are as large as they come.

    FLOPs are spent by the image. Seconds are those that learning takes; waiting for the next batch is none of them.
    An epoch is what the application says it is.
    """

    def __init__(self, config: TrainingConfig, manifest: Manifest, batch_size: int) -> None:
        """Raises ConfigError for FLOPs that do not make one step of `batch_size`."""
        self._seconds, self._epochs = config.seconds, config.epochs
        self._plateau = Plateau(config.patience)
        self._config, self._manifest = config, manifest
        # Images stepped on so far, each as often as it was fed.
        self.pictures, self._done, self._summed = 0, 0, 0.0
        self.epochs = 0
        self.over = False
        self.reason = EPOCHS
        if config.flops is not None:
            step_flops(config, manifest, batch_size)

    def affords(self, pictures: int) -> bool:
        """Whether a step of so many images may be taken. Raises ConfigError where not even a first one may."""
        flops = self._config.flops
        if not self.over and flops is not None:
            if not self.pictures:
                step_flops(self._config, self._manifest, pictures)
            if (self.pictures + pictures) * self._manifest.costs["step_centers"] > flops:
                self._end(FLOPS)
        return not self.over

    def took(self, pictures: int, loss: float, seconds: float) -> None:
        """A step of so many images, with this loss; learning has taken so many seconds by now."""
        self.pictures += pictures
        self._done += pictures
        self._summed += loss * pictures
        if self._seconds is not None and seconds >= self._seconds:
            self._end(SECONDS)

    def end_epoch(self) -> None:
        """All data were fed once more."""
        if self.over or not self._done:
            return
        loss, self._done, self._summed = self._summed / self._done, 0, 0.0
        self.epochs += 1
        if self._plateau.reached(loss):
            self._end(PLATEAU)
        elif self.epochs >= self._epochs:
            self._end(EPOCHS)

    def _end(self, reason: str) -> None:
        self.over, self.reason = True, reason


class Plateau:
    """As many epochs in a row as `patience` says, 0 for never, whose mean loss is not 1 % below the best before."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best, self._stale = math.inf, 0

    @property
    def memory(self) -> dict[str, float]:
        """The best epoch's mean loss, and how many epochs have passed since, as plain values."""
        return {"best": self._best if self._best < math.inf else -1.0, "stale": self._stale}

    def resume(self, memory: dict[str, float]) -> None:
        """Go on from what `memory` gave."""
        best = memory["best"]
        self._best, self._stale = (best if best >= 0.0 else math.inf), int(memory["stale"])

    def reached(self, loss: float) -> bool:
        """Whether the epoch that ends with this mean loss makes one."""
        if loss < (1.0 - _LEAST_FALL) * self._best:
            self._best, self._stale = loss, 0
        else:
            self._stale += 1
        return 0 < self._patience <= self._stale


def step_flops(config: TrainingConfig, manifest: Manifest, batch_size: int) -> float:
    """What a step costs. Raises ConfigError where the bundle does not say, or `config.flops` do not make one."""
    each = manifest.costs.get("step_centers", 0) * batch_size
    if not each:
        raise ConfigError(said("flops_unknown"))
    assert config.flops is not None
    if config.flops < each:
        values = {"flops": f"{config.flops:g}", "batch_size": str(batch_size), "each": f"{each:g}"}
        raise ConfigError(said("flops_too_few", **values))
    return each
