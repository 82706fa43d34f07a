"""`build-artifacts`: from a trained model to a bundle, on the workstation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csk_sdk.cli.class_file import described
from csk_sdk.cli.inspecting import left_out_rows, memory_rows, outputs, shares_rows
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
from csk_sdk.cli.options import AsJson, BitDepth, InputSize, OutputName, Precision, ProviderName
from csk_sdk.cli.rendering import (
    Screen,
    duration,
    facts,
    size,
)
from csk_sdk.cli.size_options import memory_size, parse_input_size
from csk_sdk.contract.manifest import Manifest
from csk_sdk.errors import RuntimeMissingError
from csk_sdk.formats.wording import rounded
from csk_sdk.network.inspection import Inspection, inspect_bundle
from csk_sdk.objectives import objective_of

if TYPE_CHECKING:
    from csk_artifacts_builder import BuildReport
    from csk_artifacts_builder.int8.calibrate import Agreement


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


def build_artifacts(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A trained ONNX classifier of images or signals.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="The folder to write.")],
    base_data: BaseData = None,
    upgrade_from: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            help="The bundle that devices have now: what they have learned can be carried over to this one. "
            "Needs --base-data.",
        ),
    ] = None,
    bit_depth: BitDepth = None,
    provider: ProviderName = None,
    classes: ClassNames = None,
    mean: Mean = None,
    std: Std = None,
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
    sites: Sites = SiteKind.CENTER,
    trainable: Trainable = "auto",
    intensity_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="A task of new classes; the sites' knowledge intensity is measured on it."
        ),
    ] = None,
    features: FeatureKind = Features.layers,
    channel_ratio: ChannelRatio = 0.25,
    batch_size: BatchSize = 16,
    memory_budget: MemoryBudget = None,
    precision: PrecisionName = Precision.exact,
    loss: LossName = Loss.cross_entropy,
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
        upgrade_from=upgrade_from,
        bit_depth=bit_depth,
        provider=provider,
        precision=precision.value,
        backend=backend.value,
        head_capacity=head_capacity,
        overwrite=overwrite,
        sign=sign,
        counter=counter,
    )
    builder.build.require_possible(out, options)
    begun = time.monotonic()
    with screen.bar("Measuring what the model knows" if base_data else "Building") as update:
        report = builder.build_artifacts(model, out, options, on_progress=update)
    seconds = time.monotonic() - begun
    built = inspect_bundle(report.bundle)
    _show_built(screen, built, report, seconds)
    for warning in report.warnings:
        screen.warn(warning)
    screen.say()
    place = "beside the one that the device has" if upgrade_from else "to the device's workspace"
    screen.say(f"Next: copy the bundle {place}, and there run")
    screen.say(f"  csk-sdk {f'upgrade {out.name}' if upgrade_from else 'train --task next'}", style="bold")
    screen.json(
        {
            "bundle": str(report.bundle),
            "seconds": round(seconds, 3),
            f"base_{report.metric}": report.base_accuracy,
            "agreement": asdict(report.agreement) if report.agreement else None,
            "notes": list(report.notes),
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


def upgrade_words(manifest: Manifest) -> str:
    """From which bundle a device can be upgraded, and what of it is carried over."""
    about = manifest.upgrade
    assert about is not None
    features = manifest.head.features
    told = (
        "all features are carried over as they are"
        if about.kept == features
        else f"{about.kept} of {features} features as they are, {100 * about.explained:.0f} % of the variance by a map"
    )
    return f"from {about.model} ({about.bundle[:8]}…): {told}"


def _show_built(screen: Screen, built: Inspection, report: BuildReport, seconds: float) -> None:
    manifest, accuracy, agreement = built.manifest, report.base_accuracy, report.agreement
    screen.say(f"Built {report.bundle} from {manifest.model} in {duration(seconds)}", style="bold")
    rows = [
        (outputs(manifest), str(len(manifest.classes))),
        *changed_rows(report.notes),
        ("Sites", f"{len(built.sites)}: {', '.join(site.node for site in manifest.sites)}"),
        *left_out_rows(manifest),
        *shares_rows(built),
    ]
    if accuracy is not None:
        metric = objective_of(manifest.loss).metric
        rows.append(
            (
                f"Base {metric}",
                f"{rounded(accuracy, '.1f')} % {'of' if metric == 'accuracy' else 'on'} the base data",
            )
        )
    if manifest.upgrade is not None:
        rows.append(("Upgrade", upgrade_words(manifest)))
    rows += agreement_rows(agreement)
    rows += memory_rows(manifest)
    rows.append(("Size", size(sum(built.files.values()))))
    screen.show(facts(rows))


def changed_rows(notes: Sequence[str]) -> list[tuple[str, str]]:
    """What is built otherwise than it stands in the file."""
    return [("Changed" if number == 0 else "", said) for number, said in enumerate(notes)]


def agreement_rows(agreement: Agreement | None) -> list[tuple[str, str]]:
    """How far int8 is from exact; nothing of an exact bundle."""
    if agreement is None:
        return []
    said = (
        f"logits within {100 * agreement.logits:.1f} % of the exact ones, cosine of each site's gradient "
        f"at least {agreement.worst_gradient:.3f}"
    )
    return [("int8", said)]
