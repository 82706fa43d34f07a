"""Options of the commands that read a model: what they say of it, and of the bundle that it becomes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from csk_sdk.cli.options import Precision
from csk_sdk.contract.manifest import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, MSE


class Loss(StrEnum):
    """What a head is trained for; csk_sdk.objectives.OBJECTIVES."""

    cross_entropy = CROSS_ENTROPY
    binary_cross_entropy = BINARY_CROSS_ENTROPY
    mse = MSE


class Features(StrEnum):
    """What heads decide by; csk_artifacts_builder.graphs.layer_features.FEATURES."""

    last = "last"
    layers = "layers"
    wide = "wide"
    all = "all"


class CenterKind(StrEnum):
    """Which convolutions' centers are looked at."""

    CENTER = "center"
    POINTWISE = "1x1"
    ALL = "all"


class SiteKind(StrEnum):
    """Which convolutions can be trained."""

    CENTER = "center"
    POINTWISE = "1x1"
    ALL = "all"
    KERNELS = "kernels"


BaseData = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Images or signals of the base classes, DIR/<class>/* (or DIR/metadata.csv), that MODEL was not trained "
        "on; they protect what it knows.",
    ),
]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help='Class names in label order: one a line, or JSON (a list, or {"classes"}).'
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(metavar="a,b,c", help="Subtracted from pixels scaled to 0..1, or samples to -1..1."),
]
Std = Annotated[str | None, typer.Option(metavar="a,b,c", help="They are divided by this.")]
Sites = Annotated[
    SiteKind,
    typer.Option(
        help="What can be trained: centers of kernels larger than 1x1 (center), 1x1, or all; or whole kernels."
    ),
]
Trainable = Annotated[
    str,
    typer.Option(metavar="auto|all|from:NODE", help="Which of them learn; auto: the last two stages."),
]
FeatureKind = Annotated[
    Features,
    typer.Option(
        help="What heads decide by: the last features and what is pooled of the layers; wide: means and root mean "
        "squares of all of them; all: up to 4,096, the first layers first; or last only."
    ),
]
ChannelRatio = Annotated[float, typer.Option(help="Share of each site's channels that a task trains.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images or signals per training step on the device.")]
MemoryBudget = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Train only as many sites, from the back, as learn in this memory: 64MiB."
    ),
]
PrecisionName = Annotated[
    Precision,
    typer.Option(help="Frozen convolutions in fp32 (exact), or in int8: faster; needs --base-data."),
]
LossName = Annotated[
    Loss,
    typer.Option(
        help="One class per image or signal, any number (multi-label), or numbers (mse: regression)."
    ),
]
