"""`build-artifacts` and `inspect`: what happens on the workstation."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from csk_sdk.cli.options import AsJson
from csk_sdk.cli.rendering import Screen, by, duration, facts, large, percent, plural, size, table
from csk_sdk.errors import ConfigError, RuntimeMissingError
from csk_sdk.inspection import Inspection, StepCost, inspect_bundle
from csk_sdk.manifest import Manifest


class Resize(StrEnum):
    """How a picture of another size becomes the model's."""

    bilinear = "bilinear"
    none = "none"


@dataclass(frozen=True)
class ClassFile:
    """What `--classes FILE` says: class names in label order, and perhaps the normalisation."""

    classes: list[str]
    mean: list[float] | None = None
    std: list[float] | None = None


def _numbers(text: str | None, option: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of numbers such as 0.485,0.456,0.406.", param_hint=option
        ) from None


def build_artifacts(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A trained ONNX image classifier.")],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="The folder to write.")],
    base_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Pictures of the base classes, DIR/<class>/*; they protect what it knows."
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help='Class names in label order: one a line, or JSON (a list, or {"classes"}).'
        ),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="a,b,c", help="Subtracted from pixels scaled to 0..1.")
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="a,b,c", help="They are divided by this.")] = None,
    resize: Annotated[
        Resize, typer.Option(help="How pictures of another size are fitted.")
    ] = Resize.bilinear,
    flip: Annotated[bool, typer.Option(help="Whether mirrored pictures may be trained on.")] = True,
    trainable: Annotated[
        str,
        typer.Option(
            metavar="auto|all|from:NODE", help="Which convolutions learn; auto: the last two stages."
        ),
    ] = "auto",
    channel_ratio: Annotated[
        float, typer.Option(help="Share of each site's channels that a task trains.")
    ] = 0.25,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per training step on the device.")] = 16,
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
    try:
        import csk_artifacts_builder as builder
    except ImportError:
        raise RuntimeMissingError(
            "build-artifacts needs the workstation extra: pip install 'csk-sdk[builder]'."
        ) from None
    screen = Screen(as_json)
    given = read_classes(classes) if classes else None
    chosen_mean, chosen_std = _numbers(mean, "--mean"), _numbers(std, "--std")
    if given and given.mean and given.std and chosen_mean is None and chosen_std is None:
        chosen_mean, chosen_std = given.mean, given.std
        screen.say(
            f"Normalisation from {classes}: mean {_list(given.mean)}, std {_list(given.std)}.", style="dim"
        )
    options = builder.BuildOptions(
        classes=given.classes if given else None,
        mean=chosen_mean,
        std=chosen_std,
        resize=resize.value,
        flip=flip,
        trainable=trainable,
        channel_ratio=channel_ratio,
        batch_size=batch_size,
        base_data=base_data,
        overwrite=overwrite,
        sign=sign,
    )
    begun = time.monotonic()
    with screen.bar("Measuring what the model knows" if base_data else "Building") as update:
        report = builder.build_artifacts(model, out, options, on_progress=update)
    seconds = time.monotonic() - begun
    built = inspect_bundle(report.bundle)
    _show_built(screen, built, report.bundle, report.base_accuracy, seconds)
    for warning in report.warnings:
        screen.warn(warning)
    screen.say()
    screen.say("Next: copy the bundle to the device's workspace, and there run")
    screen.say("  csk-sdk train --task next", style="bold")
    screen.json(
        {
            "bundle": str(report.bundle),
            "seconds": round(seconds, 3),
            "base_accuracy": report.base_accuracy,
            "warnings": list(report.warnings),
            **built.to_json(),
        }
    )


def _show_built(
    screen: Screen, built: Inspection, bundle: Path, accuracy: float | None, seconds: float
) -> None:
    manifest = built.manifest
    screen.say(f"Built {bundle} from {manifest.model} in {duration(seconds)}", style="bold")
    rows = [
        ("Classes", str(len(manifest.classes))),
        ("Sites", f"{len(built.sites)}: {', '.join(site.name for site in built.sites)}"),
        *_shares(built),
    ]
    if accuracy is not None:
        rows.append(("Base accuracy", f"{accuracy:.1f} % of the base data"))
    rows.append(("Size", size(sum(built.files.values()))))
    screen.show(facts(rows))


def read_classes(path: Path) -> ClassFile:
    """Read `--classes`: text with one name a line, a JSON list, or an object with "classes" and "normalize".

    Raises ConfigError for anything else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"--classes {path} cannot be read ({reason}).") from None
    if not text.lstrip().startswith(("[", "{")):
        return ClassFile([line.strip() for line in text.splitlines() if line.strip()])
    try:
        raw: Any = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--classes {path} is not valid JSON ({error}).") from None
    normalize = raw.get("normalize", {}) if isinstance(raw, dict) else {}
    names = raw.get("classes") if isinstance(raw, dict) else raw
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f'--classes {path} has no list of names: write a JSON list, or {{"classes": [...]}}.'
        )
    if not isinstance(normalize, dict):
        raise ConfigError(f'--classes {path}: "normalize" must be {{"mean": [...], "std": [...]}}.')
    return ClassFile(names, _numbers_of(path, normalize, "mean"), _numbers_of(path, normalize, "std"))


def _numbers_of(path: Path, normalize: dict[str, Any], name: str) -> list[float] | None:
    values = normalize.get(name)
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
        raise ConfigError(f'--classes {path}: "{name}" in "normalize" must be a list of numbers.')
    return [float(value) for value in values]


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    as_json: AsJson = False,
) -> None:
    """Show what a bundle trains and what a step costs.

    Of each site: all centers, how many of them a task trains, and their share of the whole kernel.
    FLOPs are twice the multiply-adds of all convolutions and matrix products: forward, input gradients and
    weight gradients. Elementwise ops, the optimizer and the projection are not counted. "Kept" is what the
    forward pass holds in memory for the backward pass; full fine-tuning keeps each layer's input and each
    activation's output.

    \b
    Example:  csk-sdk inspect bundle
    """
    screen = Screen(as_json)
    found = inspect_bundle(bundle)
    screen.json(found.to_json())
    manifest = found.manifest
    screen.say(
        f"{bundle}: {manifest.model}, {plural(len(manifest.classes), 'class', 'classes')}", style="bold"
    )
    screen.show(facts(_facts(found)))
    if not manifest.base_protected:
        screen.warn("the base classes are UNPROTECTED; build with --base-data to protect them.")
    sites = table("Site", "kernel", "stride", "output", "centers", "a task", "share")
    for site in found.sites:
        sites.add_row(
            site.name,
            by(site.kernel),
            by(site.stride if len(set(site.stride)) > 1 else site.stride[:1]),
            by(site.output_size),
            f"{site.centers:,}",
            f"{site.trained:,}",
            percent(site.trained, site.parameters),
        )
    screen.say()
    screen.show(sites)
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
        ("Classes", names),
        ("Base", "protected" if manifest.base_protected else "not protected"),
        ("Input", _input(manifest)),
        *_shares(found),
        (
            "Step",
            f"batches of {manifest.batch_size}, {_augmentation(manifest)}, {manifest.precision} arithmetic",
        ),
        ("Files", f"{size(sum(found.files.values()))}: {files}"),
    ]


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
    image, how = manifest.input, manifest.preprocessing
    resize = "other sizes are resized (bilinear)" if how.resize == "bilinear" else "no other size"
    size_ = by((image.channels, image.height, image.width))
    return f"{size_}, mean {_list(how.mean)}, std {_list(how.std)}; {resize}"


def _augmentation(manifest: Manifest) -> str:
    return "mirrored at random" if manifest.flip else "not mirrored"


def _list(values: tuple[float, ...] | list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
