"""`build-artifacts` and `inspect`: what happens on the workstation."""

from __future__ import annotations

import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csk_sdk.cli.class_file import described, numbers
from csk_sdk.cli.options import AsJson
from csk_sdk.cli.rendering import (
    Screen,
    by,
    counted,
    duration,
    facts,
    large,
    percent,
    plural,
    size,
    table,
)
from csk_sdk.cli.sizes import parse_size
from csk_sdk.errors import RuntimeMissingError
from csk_sdk.inspection import Inspection, StepCost, inspect_bundle
from csk_sdk.manifest import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, EXACT, INT8, MSE, Manifest
from csk_sdk.objectives import objective_of


class Backend(StrEnum):
    """For which backends to build; csk_artifacts_builder.build.BACKEND_CHOICES."""

    portable = "portable"
    ort_training = "ort-training"
    both = "both"


if TYPE_CHECKING:
    from csk_artifacts_builder import BuildReport


class Resize(StrEnum):
    """How a picture of another size, or a signal of another length, becomes the model's."""

    bilinear = "bilinear"
    crop = "crop"
    none = "none"


class Precision(StrEnum):
    """The arithmetic of frozen convolutions."""

    exact = EXACT
    int8 = INT8


class Loss(StrEnum):
    """What a head is trained for; csk_sdk.objectives.OBJECTIVES."""

    cross_entropy = CROSS_ENTROPY
    binary_cross_entropy = BINARY_CROSS_ENTROPY
    mse = MSE


class SiteKind(StrEnum):
    """Which convolutions can be trained."""

    CENTER = "center"
    POINTWISE = "1x1"
    ALL = "all"


# What `inspect` says of other sizes, by resize and whether the model takes signals.
_FITTED = {
    ("bilinear", False): "other sizes are resized (bilinear)",
    ("none", False): "no other size",
    ("crop", True): "other lengths are cropped or padded",
    ("none", True): "no other length",
}


def build_artifacts(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A trained ONNX classifier of pictures or signals.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="The folder to write.")],
    base_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Pictures or signals of the base classes, DIR/<class>/* (or DIR/metadata.csv); "
            "they protect what it knows.",
        ),
    ] = None,
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
            help="How other sizes are fitted: pictures bilinear or none, signals crop (or pad with zeros) or none."
        ),
    ] = None,
    sample_rate: Annotated[
        int | None,
        typer.Option(metavar="HZ", help="That of the model's signals; other WAV files are refused."),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Whether mirrored pictures may be trained on; never signals."),
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
    channel_ratio: Annotated[
        float, typer.Option(help="Share of each site's channels that a task trains.")
    ] = 0.25,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures or signals per training step on the device.")
    ] = 16,
    memory_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Train only as many sites, from the back, as learn in this memory: 64MiB."
        ),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="Frozen convolutions in float32 (exact), or in int8: faster; needs --base-data."),
    ] = Precision.exact,
    loss: Annotated[
        Loss,
        typer.Option(
            help="One class per picture or signal, any number (multi-label), or numbers (mse: regression)."
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace BUNDLE where it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a trained ONNX classifier into a bundle.

    \b
    Example:  csk-sdk build-artifacts model.onnx --out bundle --base-data pictures --classes classes.txt
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
        sites=sites.value,
        trainable=trainable,
        intensity_data=intensity_data,
        channel_ratio=channel_ratio,
        batch_size=batch_size,
        memory_budget=parse_size(memory_budget, "--memory-budget") if memory_budget is not None else None,
        loss=loss.value,
        base_data=base_data,
        precision=precision.value,
        backend=backend.value,
        head_capacity=head_capacity,
        overwrite=overwrite,
        sign=sign,
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
        (_outputs(manifest), str(len(manifest.classes))),
        ("Sites", f"{len(built.sites)}: {', '.join(site.name for site in built.sites)}"),
        *_shares(built),
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
    rows += _memory(manifest)
    rows.append(("Size", size(sum(built.files.values()))))
    screen.show(facts(rows))


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    as_json: AsJson = False,
) -> None:
    """Show what a bundle trains and what a step costs.

    Of each site: its kernel's share of all parameters, what share of its kernel a task trains, and for each image
    the FLOPs of its convolution and center branch, of their gradients, and the bytes kept for those.
    FLOPs are twice the multiply-adds of all convolutions and matrix products: forward, input gradients and
    weight gradients. Elementwise ops, the optimizer and the projection are not counted. "Kept" is what the
    forward pass holds in memory for the backward pass; full fine-tuning keeps each layer's input and each
    activation's output. "Memory" predicts the peak of learning over a process that has only imported the SDK. The
    intensity is that of the site's center, where the build had --intensity-data.

    \b
    Example:  csk-sdk inspect bundle
    """
    screen = Screen(as_json)
    found = inspect_bundle(bundle)
    screen.json(found.to_json())
    manifest = found.manifest
    screen.say(f"{bundle}: {manifest.model}, {counted(len(manifest.classes), manifest)}", style="bold")
    screen.show(facts(_facts(found)))
    if not manifest.base_protected:
        screen.warn("the base classes are UNPROTECTED; build with --base-data to protect them.")
    measured = any(site.intensity is not None for site in found.sites)
    columns = ["Site", "kernel", "stride", "output", "share", "a task", "forward", "backward", "kept"]
    rows = [
        [
            site.name,
            by(site.kernel),
            by(site.stride if len(set(site.stride)) > 1 else site.stride[:1]),
            by(site.output_size),
            percent(site.parameters, found.parameters) if found.parameters else "",
            percent(site.trained, site.parameters),
            large(site.forward_flops),
            large(site.backward_flops),
            size(site.kept_bytes),
            *([] if site.intensity is None else [f"{site.intensity:.2e}"]),
        ]
        for site in found.sites
    ]
    screen.say()
    screen.show_rows([*columns, *(["intensity"] if measured else [])], rows)
    if found.flops and found.kept_bytes and found.inference_flops:
        screen.say()
        screen.show(_costs(found.inference_flops, found.flops, found.kept_bytes))


def _costs(inference: int, flops: StepCost, kept: StepCost) -> Any:
    made = table("For each image", "this bundle", "full fine-tuning", "ratio")
    made.add_row("FLOPs of a training step", large(flops.centers), large(flops.full), f"{flops.ratio:.2f}")
    made.add_row("kept for the backward pass", size(kept.centers), size(kept.full), f"{kept.ratio:.2f}")
    made.add_row("FLOPs of a prediction", large(inference), large(inference), "1.00")
    return made


def _facts(found: Inspection) -> list[tuple[str, str]]:
    manifest = found.manifest
    names = ", ".join(manifest.classes[:6]) + (", ..." if len(manifest.classes) > 6 else "")
    files = ", ".join(f"{name} {size(count)}" for name, count in found.files.items())
    return [
        (_outputs(manifest), names),
        *([] if manifest.loss == CROSS_ENTROPY else [("Loss", manifest.loss)]),
        ("Base", "protected" if manifest.base_protected else "not protected"),
        ("Input", _input(manifest)),
        *_shares(found),
        *_choice(manifest),
        (
            "Step",
            f"batches of {manifest.batch_size}, {_augmentation(manifest)}, {manifest.precision} arithmetic",
        ),
        *_memory(manifest),
        ("Backends", _backends(manifest)),
        ("Files", f"{size(sum(found.files.values()))}: {files}"),
    ]


def _choice(manifest: Manifest) -> list[tuple[str, str]]:
    """Why these sites, and which other convolutions could have been sites."""
    if not manifest.choice:
        return []
    left = [one for one in manifest.candidates if not one.chosen]
    others = ", ".join(
        one.name if one.intensity is None else f"{one.name} ({one.intensity:.2e})" for one in left
    )
    return [("Sites", manifest.choice), *([("Not trained", others)] if left else [])]


def _memory(manifest: Manifest) -> list[tuple[str, str]]:
    """The predicted peak of learning, its larger parts, and the budget that it was built for."""
    if not manifest.memory:
        return []
    parts = {name: count for name, count in manifest.memory.items() if name != "peak"}
    largest = sorted(parts, key=lambda name: -parts[name])[:4]
    text = f"{size(manifest.memory['peak'])} while learning (predicted): " + ", ".join(
        f"{name} {size(parts[name])}" for name in largest
    )
    if manifest.memory_budget is not None:
        text += f"; built for {size(manifest.memory_budget)}"
    return [("Memory", text)]


def _shares(found: Inspection) -> list[tuple[str, str]]:
    """Trainable share of all parameters."""
    ratio = f"{100 * found.manifest.channel_ratio:g} % of the channels"
    total = found.parameters
    if total is None:
        return [("Trainable", f"{found.trainable:,} parameters; a task trains {found.trained:,} ({ratio})")]
    return [
        ("Trainable", f"centers and head, {percent(found.trainable, total)} of {total:,} parameters"),
        (
            "A task trains",
            f"{percent(found.trained, total)}: the centers of {ratio}, and its head",
        ),
    ]


def _input(manifest: Manifest) -> str:
    given, how = manifest.input, manifest.preprocessing
    size_ = by(given.shape)
    if given.is_signal:
        rate = f" at {how.sample_rate} Hz" if how.sample_rate else ""
        size_ = f"signals of {given.size[0]} samples{rate}, {plural(given.channels, 'channel')}"
    fitted = _FITTED[how.resize, given.is_signal]
    return f"{size_}, mean {numbers(how.mean)}, std {numbers(how.std)}; {fitted}"


def _backends(manifest: Manifest) -> str:
    room = f"; ort-training for tasks of up to {manifest.head_capacity} classes"
    return ", ".join(manifest.backends) + (room if manifest.head_capacity else "")


def _augmentation(manifest: Manifest) -> str:
    if manifest.input.is_signal:
        return "shifted in time"
    return "mirrored at random" if manifest.flip else "not mirrored"


def _outputs(manifest: Manifest) -> str:
    return objective_of(manifest.loss).outputs.capitalize()
