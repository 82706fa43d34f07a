"""When training ends before its epochs do: a budget of FLOPs, which stands for energy, or of seconds."""

from __future__ import annotations

from csk_sdk.config import TrainingConfig
from csk_sdk.errors import ConfigError
from csk_sdk.manifest import Manifest

EPOCHS, SECONDS, FLOPS = "epochs", "seconds", "flops"


class Stopping:
    """How many steps a run may take, and why it ends.

    FLOPs are counted in advance from the bundle's costs, so such a run is the same on every device, and its learning
    rate falls to zero in its own length. Seconds run out where they do, at the border of a step.
    """

    def __init__(self, config: TrainingConfig, manifest: Manifest, steps: int, batch_size: int) -> None:
        """Of a run of `steps` steps of `batch_size`. Raises ConfigError for FLOPs that are not enough for one."""
        self.steps = steps
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

    def over(self, done: int, seconds: float) -> bool:
        """Whether to stop after `done` steps and so many seconds."""
        if done >= self.steps:
            return True
        if self._seconds is not None and seconds >= self._seconds:
            self.reason = SECONDS
            return True
        return False
