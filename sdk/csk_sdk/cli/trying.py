"""`try`: what a build of a model would come to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from csk_sdk.cli.building import agreement_rows, changed_rows, require_builder
from csk_sdk.cli.class_file import described
from csk_sdk.cli.inspecting import input_text, memory_rows, outputs, shares_rows
from csk_sdk.cli.model_options import (
    BaseData,
    BatchSize,
    ChannelRatio,
    ClassNames,
    FeatureKind,
    Features,
    Loss,
    LossName,
    Mean,
    MemoryBudget,
    PrecisionName,
    SiteKind,
    Sites,
    Std,
    Trainable,
)
from csk_sdk.cli.options import AsJson, BitDepth, InputSize, OutputName, Precision
from csk_sdk.cli.rendering import Screen, by, facts, size, table
from csk_sdk.cli.size_options import memory_size, parse_input_size
from csk_sdk.formats.wording import plural

if TYPE_CHECKING:
    from csk_artifacts_builder import Trial
    from csk_artifacts_builder.planning.trial import Convolution

_STYLES = {"trained": "green", "frozen": "", "left out": "dim"}
# In a pipe, too, a table is no wider than a wide terminal: longer names and reasons take several lines.
_WIDEST_NAME, _WIDEST_REASON = 60, 70
# As many classes are named.
_NAMED = 6


def try_(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A trained ONNX classifier of images or signals.")
    ],
    base_data: BaseData = None,
    bit_depth: BitDepth = None,
    classes: ClassNames = None,
    mean: Mean = None,
    std: Std = None,
    input_size: InputSize = None,
    output: OutputName = None,
    sites: Sites = SiteKind.CENTER,
    trainable: Trainable = "auto",
    features: FeatureKind = Features.layers,
    channel_ratio: ChannelRatio = 0.25,
    batch_size: BatchSize = 16,
    memory_budget: MemoryBudget = None,
    precision: PrecisionName = Precision.exact,
    loss: LossName = Loss.cross_entropy,
    as_json: AsJson = False,
) -> None:
    """Say what would be built of a model; nothing is written.

    Every convolution of the file is named: trained, frozen (it could be, and --trainable leaves it out), or left out,
    and why. The model is prepared and compared with the file as in a build, so what a build would refuse is refused
    here, in the same sentence. With --base-data, their folders are checked against the classes, and some of the images
    are compared; nothing is measured on them but the ranges of --precision int8.

    \b
    Example:  csk-sdk try model.onnx
    """
    builder = require_builder("try")
    screen = Screen(as_json)
    names, chosen_mean, chosen_std = described(screen, classes, mean, std)
    options = builder.BuildOptions(
        classes=names,
        mean=chosen_mean,
        std=chosen_std,
        input_size=parse_input_size(input_size),
        output=output,
        sites=sites.value,
        trainable=trainable,
        features=features.value,
        channel_ratio=channel_ratio,
        batch_size=batch_size,
        memory_budget=memory_size(memory_budget) if memory_budget is not None else None,
        loss=loss.value,
        base_data=base_data,
        bit_depth=bit_depth,
        precision=precision.value,
    )
    trial = builder.try_model(model, options)
    _show(screen, trial)
    for warning in trial.warnings:
        screen.warn(warning)
    screen.say()
    screen.say("Nothing was written. With the same options and images of its classes, run")
    screen.say(f"  csk-sdk build-artifacts {model} --out bundle --base-data images", style="bold")
    screen.json(trial.to_json())


def _show(screen: Screen, trial: Trial) -> None:
    trained = sum(one.fate == "trained" for one in trial.convolutions)
    count = plural(len(trial.convolutions), "convolution")
    screen.say(f"{trial.manifest.model}: {trained} of {count} would be trained", style="bold")
    screen.show(facts(_facts(trial)))
    screen.say()
    screen.show(_convolutions(trial.convolutions))


def _facts(trial: Trial) -> list[tuple[str, str]]:
    manifest, file, head = trial.manifest, trial.file, trial.head
    who = f"{file.producer}, " if file.producer else ""
    names = ", ".join(manifest.classes[:_NAMED]) + (", ..." if len(manifest.classes) > _NAMED else "")
    own = f", {head.own:,} of them the model's own" if head.own != head.features else ""
    behind = f"; {head.activation} behind it" if head.activation else ""
    return [
        ("File", f"{who}opset {file.opset}, {plural(file.nodes, 'node')}, {size(trial.size)}"),
        ("Input", input_text(manifest)),
        *([("In front", f"{', '.join(trial.front)}: part of the network")] if trial.front else []),
        (outputs(manifest), f"{len(manifest.classes):,}: {names}"),
        ("Head", f"'{head.node}' sees {plural(head.features, 'feature')}{own}{behind}"),
        *changed_rows(trial.prepared),
        ("Sites", manifest.choice),
        *shares_rows(trial.inspection),
        *agreement_rows(trial.agreement),
        *memory_rows(manifest),
    ]


def _convolutions(found: Iterable[Convolution]) -> Table:
    made = table("Convolution", "kernel", "channels")
    made.columns[0].max_width = _WIDEST_NAME
    made.add_column("", overflow="fold", max_width=_WIDEST_REASON)
    for one in found:
        style = _STYLES[one.fate]
        said = f"{one.fate}: {one.reason}" if one.fate == "left out" else one.fate
        channels = "\N{RIGHTWARDS ARROW}".join(str(count) for count in one.channels)
        cells = (one.node, by(one.kernel[2:]), channels, said)
        made.add_row(*(Text(cell, style=style) for cell in cells))
    return made
