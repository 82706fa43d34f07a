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

    Immutable; checked by `build_artifacts`, which raises ConfigError for what does not fit the model.

    - `classes`: the model's class names in label order (numbered when None); for the loss "mse", the targets' names
    - `mean`, `std`: one number per channel, in the order RGB, in units of the scaled pixel `x / 255`, or of samples
      from -1 to 1; (0, 1) when None
    - `input_size`: of what the model leaves open: `(height, width)` of an image, `(length,)` of a signal
    - `output`: the one of the model's outputs that holds the scores of the classes, where the graph does not tell
    - `resize`: "bilinear" (images), "crop" (signals) or "none"; the first that fits when None
    - `flip`: whether training mirrors images; on for images when None
    - `sample_rate`: of the model's signals, in Hz
    - `sites`: which convolutions can be trained: "center", "1x1" or "all"; or "kernels": whole kernels,
      for devices that can afford it
    - `trainable`: which of these are: "auto", "all" or "from:NODE"
    - `intensity_data`: a task of new classes to measure their knowledge intensity on
    - `memory_budget`: in bytes, bounds the predicted peak memory of learning: sites are left out until it holds
    - `features`: "layers", the network's own, the means of what its last two stages see, and root mean squares of what
      is in front of them; "wide", both of all of these: more accurate on new classes, and class statistics up to
      three times as large; "all", both of all layers from the first one on, up to 4,096: more accurate again, and
      class statistics up to sixteen times as large; or "last", its own only: less accurate, and a fraction of the size
    - `channel_ratio`: the share of each site's input channels that a task trains, above 0 and at most 1
    - `batch_size`: images or signals per training step
    - `loss`: "cross-entropy", "binary-cross-entropy" (any number of labels an image) or "mse" (numbers)
    - `base_data`: a folder of images or signals of the base classes, `DIR/<class>/*`, or with a `metadata.csv`; such
      that the model was not trained on, or probabilities are too sure
    - `upgrade_from`: the bundle that devices have now: how its features become this one's is measured on the base data,
      and what they have learned can be carried over
    - `bit_depth`: how many bits count of 16-bit values in the images of base data and intensity data, all 16 when None
    - `provider`: what measures the base data, such as "cuda", where the installed ONNX Runtime has it; the CPU when
      None
    - `precision`: "exact" (fp32) or "int8": frozen convolutions in int8, calibrated on the base data
    - `backend`: "portable", "ort-training" or "both"; `head_capacity`: the most classes that a task may have with
      ort-training (128, or as many as the base has, when None)
    - `overwrite`: whether a bundle that is at the place already is replaced
    - `sign`: a PEM file with an ed25519 private key, for devices that trust only its holder; they refuse a bundle whose
      `counter`, by default the time in seconds, is lower than one that they have seen
    """

    classes: Sequence[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    resize: str | None = None
    flip: bool | None = None
    sample_rate: int | None = None
    input_size: Sequence[int] | None = None
    output: str | None = None
    sites: str = CENTER
    trainable: str = "auto"
    intensity_data: Path | None = None
    memory_budget: int | None = None
    features: str = LAYERS
    channel_ratio: float = 0.25
    batch_size: int = 16
    loss: str = CROSS_ENTROPY
    base_data: Path | None = None
    upgrade_from: Path | None = None
    bit_depth: int | None = None
    provider: str | None = None
    precision: str = EXACT
    backend: str = PORTABLE
    head_capacity: int | None = None
    overwrite: bool = False
    sign: Path | None = None
    counter: int | None = None
