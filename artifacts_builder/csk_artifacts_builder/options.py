"""What `build-artifacts` can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csk_artifacts_builder.graphs.layer_features import LAYERS
from csk_artifacts_builder.sites import CENTER
from csk_sdk.contract.manifest import BACKENDS, CROSS_ENTROPY, EXACT, PORTABLE

# What `--backend` may say, and what is then built.
BACKEND_CHOICES = {**{name: (name,) for name in BACKENDS}, "both": BACKENDS}


@dataclass(frozen=True)
class BuildOptions:
    """What `build-artifacts` can be told.

    `classes` are the model's class names in label order (numbered when None). `mean` and `std` have one number per
    channel, in units of the scaled pixel `x / 255`, or of samples from -1 to 1; (0, 1) when None. `resize` is
    "bilinear" (pictures), "crop" (signals) or "none", the first that fits when None. `flip` is on for pictures when
    None. `sample_rate` is that of the model's signals in Hz. `trainable` is "auto", "all" or "from:NODE", of the
    convolutions that `sites` names ("center", "1x1" or "all"). `intensity_data` is a task of new classes to measure
    their knowledge intensity on. `memory_budget` bounds the predicted peak memory of learning, in bytes (memory.py):
    sites are left out until it holds.
    `features` are "layers", the network's own and the means of what its last two stages see; "wide", with their root
    mean squares: more accurate on new classes, and class statistics up to three times as large; or "last", its own
    only: less accurate, and a fraction of the size.
    `loss` is one of csk_artifacts_builder.graphs.losses; for "mse", `classes` are the targets' names.
    `precision` is "exact" (float32) or "int8": frozen convolutions in int8, calibrated on the base data.
    `backend` is "portable", "ort-training" or "both"; `head_capacity` the most classes that a task may have with
    ort-training (128, or as many as the base has, when None).
    `bit_depth` is how many bits count of 16-bit values in the pictures of base data and intensity data, all 16 when
    None (csk_sdk/data/bit_depth.py).
    `provider` is what measures the base data, such as "cuda", where the installed ONNX Runtime has it; the CPU when
    None.
    `sign` is a PEM file with an ed25519 private key, for devices that trust only its holder; they refuse a bundle whose
    `counter`, by default the time in seconds, is lower than one that they have seen.
    """

    classes: Sequence[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    resize: str | None = None
    flip: bool | None = None
    sample_rate: int | None = None
    sites: str = CENTER
    trainable: str = "auto"
    intensity_data: Path | None = None
    memory_budget: int | None = None
    features: str = LAYERS
    channel_ratio: float = 0.25
    batch_size: int = 16
    loss: str = CROSS_ENTROPY
    base_data: Path | None = None
    bit_depth: int | None = None
    provider: str | None = None
    precision: str = EXACT
    backend: str = PORTABLE
    head_capacity: int | None = None
    overwrite: bool = False
    sign: Path | None = None
    counter: int | None = None
