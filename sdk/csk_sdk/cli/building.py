"""`build-artifacts`: from a trained model to a bundle, on the workstation."""

from __future__ import annotations

import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csk_sdk.cli.class_file import described
from csk_sdk.cli.inspecting import left_out_rows, memory_rows, outputs, shares_rows
from csk_sdk.cli.options import AsJson, BitDepth, InputSize, OutputName, Precision, ProviderName
from csk_sdk.cli.rendering import (
    Screen,
    duration,
    facts,
    size,
)
from csk_sdk.cli.size_options import memory_size, parse_input_size
from csk_sdk.contract.manifest import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, MSE
from csk_sdk.errors import RuntimeMissingError
from csk_sdk.network.inspection import Inspection, inspect_bundle
from csk_sdk.objectives import objective_of

if TYPE_CHECKING:
    from csk_artifacts_builder import BuildReport


class Backend(StrEnum):
    """For which backends to build; csk_artifacts_builder.build.BACKEND_CHOICES."""

    portable = "portable"
    ort_training = "ort-training"
    both = "both"


class Resize(StrEnum):
    """How an image of another size, or a signal of another length, becomes the model's."""

    bilinear = "bilinear"
    crop = "crop"
    none = "none"


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


class SiteKind(StrEnum):
    """Which convolutions can be trained."""

    CENTER = "center"
    POINTWISE = "1x1"
    ALL = "all"


def build_artifacts(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A trained ONNX classifier of images or signals.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="The folder to write.")],
    base_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images or signals of the base classes, DIR/<class>/* (or DIR/metadata.csv); "
            "they protect what it knows.",
        ),
    ] = None,
    bit_depth: BitDepth = None,
    provider: ProviderName = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help='Class names in label order: one a line, or JSON (a list, or {"classes"}).'
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(metavar="a,b,c", help="Subtracted from pixels scaled to 0..1, or samples to -1..1."),
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="a,b,c", help="They are divided by this.")] = None,
    resize: Annotated[
        Resize | None,
        typer.Option(
            help="How other sizes are fitted: images bilinear or none, signals crop (or pad with zeros) or none."
        ),
    ] = None,
    sample_rate: Annotated[
        int | None,
        typer.Option(metavar="HZ", help="That of the model's signals; other WAV files are refused."),
    ] = None,
    input_size: InputSize = None,
    output: OutputName = None,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Whether mirrored images may be trained on; never signals."),
    ] = None,
    sites: Annotated[
        SiteKind, typer.Option(help="What can be trained: kernels larger than 1x1 (center), 1x1, or all.")
    ] = SiteKind.CENTER,
    trainable: Annotated[
        str,
        typer.Option(metavar="auto|all|from:NODE", help="Which of them learn; auto: the last two stages."),
    ] = "auto",
    intensity_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="A task of new classes; the sites' knowledge intensity is measured on it."
        ),
    ] = None,
    features: Annotated[
        Features,
        typer.Option(
            help="What heads decide by: the last features and the means of the last two stages' layers; wide: their "
            "root mean squares too; or last only."
        ),
    ] = Features.layers,
    channel_ratio: Annotated[
        float, typer.Option(help="Share of each site's channels that a task trains.")
    ] = 0.25,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images or signals per training step on the device.")
    ] = 16,
    memory_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Train only as many sites, from the back, as learn in this memory: 64MiB."
        ),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="Frozen convolutions in fp32 (exact), or in int8: faster; needs --base-data."),
    ] = Precision.exact,
    loss: Annotated[
        Loss,
        typer.Option(
            help="One class per image or signal, any number (multi-label), or numbers (mse: regression)."
        ),
    ] = Loss.cross_entropy,
    backend: Annotated[
        Backend, typer.Option(help="What may compute training steps; ort-training needs its own extra.")
    ] = Backend.portable,
    head_capacity: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Most classes of a task with ort-training; 128, or as many as MODEL has."
        ),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Sign with this ed25519 private key, a PEM file: see --trust."),
    ] = None,
    counter: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="How new a signed bundle is: devices refuse lower ones than they have seen. By default the time.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace BUNDLE where it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a trained ONNX classifier into a bundle.

    \b
    Example:  csk-sdk build-artifacts model.onnx --out bundle --base-data images --classes classes.txt
    """
    builder = require_builder("build-artifacts")
    screen = Screen(as_json)
    names, chosen_mean, chosen_std = described(screen, classes, mean, std)
    options = builder.BuildOptions(
        classes=names,
        mean=chosen_mean,
        std=chosen_std,
        resize=resize.value if resize else None,
        flip=flip,
        sample_rate=sample_rate,
        input_size=parse_input_size(input_size),
        output=output,
        sites=sites.value,
        trainable=trainable,
        intensity_data=intensity_data,
        features=features.value,
        channel_ratio=channel_ratio,
        batch_size=batch_size,
        memory_budget=memory_size(memory_budget) if memory_budget is not None else None,
        loss=loss.value,
        base_data=base_data,
        bit_depth=bit_depth,
        provider=provider,
        precision=precision.value,
        backend=backend.value,
        head_capacity=head_capacity,
        overwrite=overwrite,
        sign=sign,
        counter=counter,
    )
    begun = time.monotonic()
    with screen.bar("Measuring what the model knows" if base_data else "Building") as update:
        report = builder.build_artifacts(model, out, options, on_progress=update)
    seconds = time.monotonic() - begun
    built = inspect_bundle(report.bundle)
    _show_built(screen, built, report, seconds)
    for warning in report.warnings:
        screen.warn(warning)
    screen.say()
    screen.say("Next: copy the bundle to the device's workspace, and there run")
    screen.say("  csk-sdk train --task next", style="bold")
    screen.json(
        {
            "bundle": str(report.bundle),
            "seconds": round(seconds, 3),
            f"base_{report.metric}": report.base_accuracy,
            "agreement": asdict(report.agreement) if report.agreement else None,
            "warnings": list(report.warnings),
            **built.to_json(),
        }
    )


def require_builder(command: str) -> Any:
    """The workstation's package. Raises RuntimeMissingError, naming the extra, where it is not installed."""
    try:
        import csk_artifacts_builder
    except ImportError:
        raise RuntimeMissingError(
            f"{command} needs the workstation extra: pip install 'csk-sdk[builder]'."
        ) from None
    return csk_artifacts_builder


def _show_built(screen: Screen, built: Inspection, report: BuildReport, seconds: float) -> None:
    manifest, accuracy, agreement = built.manifest, report.base_accuracy, report.agreement
    screen.say(f"Built {report.bundle} from {manifest.model} in {duration(seconds)}", style="bold")
    rows = [
        (outputs(manifest), str(len(manifest.classes))),
        ("Sites", f"{len(built.sites)}: {', '.join(site.name for site in built.sites)}"),
        *left_out_rows(manifest),
        *shares_rows(built),
    ]
    if accuracy is not None:
        metric = objective_of(manifest.loss).metric
        rows.append(
            (f"Base {metric}", f"{accuracy:.1f} % {'of' if metric == 'accuracy' else 'on'} the base data")
        )
    if agreement is not None:
        rows.append(
            (
                "int8",
                f"logits within {100 * agreement.logits:.1f} % of the exact ones, cosine of each site's gradient "
                f"at least {agreement.worst_gradient:.3f}",
            )
        )
    rows += memory_rows(manifest)
    rows.append(("Size", size(sum(built.files.values()))))
    screen.show(facts(rows))
