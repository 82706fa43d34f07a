"""What computes a training step: two backends behind one protocol, and the choice between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from csk_sdk.backends.micro import MicroBatches
from csk_sdk.backends.ort_training import OrtTrainingStep
from csk_sdk.backends.portable import PortableStep
from csk_sdk.backends.step import StepResult, TrainingStep
from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import BACKENDS, ORT_TRAINING
from csk_sdk.errors import BundleError, ConfigError, TaskError
from csk_sdk.formats.given import text_of
from csk_sdk.runtime.sessions import require_training_package

__all__ = ["AUTO", "StepResult", "TrainingStep", "choose_backend", "open_step", "require_ready"]

AUTO = "auto"


def choose_backend(wanted: str, bundle: Bundle) -> str:
    """The backend to learn with: the wanted one, or for "auto" the first that the bundle was built for.

    Raises ConfigError for an unknown name, BundleError where the bundle was built without it.
    """
    built = bundle.manifest.backends
    text_of(wanted, "backend", ConfigError)
    if wanted == AUTO:
        return built[0]
    if wanted not in BACKENDS:
        raise ConfigError(f"backend is '{wanted}'; it must be {AUTO}, {' or '.join(BACKENDS)}.")
    if wanted not in built and bundle.manifest.whole_kernels:
        raise BundleError(
            f"{bundle.folder} trains whole kernels, which the {built[0]} backend does alone. Learn with --backend "
            f"{built[0]}, or build the bundle again with --sites center and --backend {wanted} or both."
        )
    if wanted not in built:
        raise BundleError(
            f"{bundle.folder} was built for the {built[0]} backend only. Learn with --backend {built[0]}, or build "
            f"the bundle again with --backend {wanted} or both."
        )
    return wanted


def require_ready(
    backend: str, bundle: Bundle, task: str, classes: Sequence[str], config: TrainingConfig
) -> None:
    """Raise where this backend cannot learn a task of these classes here.

    RuntimeMissingError without its package, TaskError for more classes than its head has room for, ConfigError for
    label smoothing, which the official artifacts do not have.
    """
    if backend != ORT_TRAINING:
        return
    require_training_package()
    if config.label_smoothing:
        raise ConfigError(
            f"label_smoothing is {config.label_smoothing}, and the ort-training backend has none: set it to 0, or "
            "learn with --backend portable."
        )
    capacity = bundle.manifest.head_capacity
    if len(classes) > capacity:
        raise TaskError(
            f"Task '{task}' has {len(classes)} classes, and the ort-training artifacts of {bundle.folder} have room "
            f"for {capacity}. Learn it with --backend portable, or build the bundle again with --head-capacity "
            f"{len(classes)}."
        )


def open_step(
    backend: str,
    bundle: Bundle,
    tensors: Mapping[str, NDArray[Any]],
    threads: int = 0,
    micro_batch: int | None = None,
) -> TrainingStep:
    """The training step of a generation's network, on one of the bundle's backends.

    With `micro_batch`, larger batches are run as several of that size: see `MicroBatches`.
    """
    made = OrtTrainingStep if backend == ORT_TRAINING else PortableStep
    step: TrainingStep = made(bundle, tensors, threads)
    return step if micro_batch is None else MicroBatches(step, micro_batch)
