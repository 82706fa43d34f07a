"""`inspect`: what a bundle trains and what a step costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from csk_sdk.cli.class_file import numbers
from csk_sdk.cli.options import HERE, AsJson, StateDir, TrustKey, WorkspaceDir
from csk_sdk.cli.predictions import counted
from csk_sdk.cli.rendering import Screen, by, facts, large, percent, size, table
from csk_sdk.contract.manifest import CENTERS, CROSS_ENTROPY, EXACT, Manifest
from csk_sdk.formats.wording import plural
from csk_sdk.network.inspection import Inspection, SiteSummary, StepCost, inspection_of
from csk_sdk.objectives import objective_of
from csk_sdk.workspace.folder import Workspace, workspace_of

# What `inspect` says of other sizes, by resize and whether the model takes signals.
_FITTED = {
    ("bilinear", False): "other sizes are resized (bilinear)",
    ("none", False): "no other size",
    ("crop", True): "other lengths are cropped or padded",
    ("none", True): "no other length",
}


def inspect(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="[BUNDLE]", help="A bundle's folder; the workspace's by default.")
    ] = None,
    workspace: WorkspaceDir = HERE,
    state: StateDir = None,
    trust: TrustKey = None,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle trains and what a step costs.

    Of each site: its kernel's share of all parameters, what share of its kernel a task trains, and for each
    image the FLOPs of its convolution and center branch, or of the whole kernel, of their gradients, and the
    bytes of saved activations. FLOPs are twice the multiply-adds of all convolutions and matrix products:
    forward, input gradients and weight gradients. Elementwise ops, the optimizer and the projection are not
    counted. "Kept" is what the forward pass holds in memory for the backward pass; full fine-tuning keeps each
    layer's input and each activation's output. "Memory" predicts the peak of learning over a process that has
    only imported the SDK. The intensity is that of the site's center, where the build had --intensity-data. A
    bundle that the csk.toml of the workspace, or beside the bundle, does not trust is refused.

    \b
    Example:  csk-sdk inspect bundle
    """
    screen = Screen(as_json)
    if bundle is None:
        bundle = Workspace.open(workspace, None, state, trust=trust).bundle
    found = inspection_of(workspace_of(bundle, workspace, state, trust).open_bundle())
    screen.json(found.to_json())
    manifest = found.manifest
    screen.say(f"{bundle}: {manifest.model}, {counted(len(manifest.classes), manifest)}", style="bold")
    screen.show(facts(_facts(found)))
    if not manifest.base_protected:
        screen.warn("the base classes are UNPROTECTED; build with --base-data to protect them.")
    if found.sites:
        screen.say()
        screen.show_rows(*_sites(found))
    if found.flops and found.kept_bytes and found.inference_flops:
        screen.say()
        screen.show(_costs(found.inference_flops, found.flops, found.kept_bytes))


# What is shown of each site: title, and text of the site in its bundle. A column that is empty for all is left out.
_COLUMNS: tuple[tuple[str, Callable[[SiteSummary, Inspection], str]], ...] = (
    ("Site", lambda site, _: site.name),
    ("kernel", lambda site, _: by(site.kernel)),
    ("stride", lambda site, _: by(site.stride if len(set(site.stride)) > 1 else site.stride[:1])),
    ("output", lambda site, _: by(site.output_size)),
    ("share", lambda site, found: percent(site.parameters, found.parameters) if found.parameters else ""),
    ("a task", lambda site, _: percent(site.trained, site.parameters)),
    ("forward", lambda site, _: large(site.forward_flops)),
    ("backward", lambda site, _: large(site.backward_flops)),
    ("saved", lambda site, _: size(site.kept_bytes)),
    ("intensity", lambda site, _: "" if site.intensity is None else f"{site.intensity:.2e}"),
)


def _sites(found: Inspection) -> tuple[list[str], list[list[str]]]:
    """Titles, and a row for each site."""
    columns = [(title, [text(site, found) for site in found.sites]) for title, text in _COLUMNS]
    shown = [(title, texts) for title, texts in columns if any(texts)]
    rows = [list(row) for row in zip(*(texts for _, texts in shown), strict=True)]
    return [title for title, _ in shown], rows


def _costs(inference: int, flops: StepCost, kept: StepCost) -> Any:
    made = table("For each image", "this bundle", "full fine-tuning", "ratio")
    made.add_row("FLOPs of a training step", large(flops.centers), large(flops.full), f"{flops.ratio:.2f}")
    made.add_row("saved activations", size(kept.centers), size(kept.full), f"{kept.ratio:.2f}")
    made.add_row("FLOPs of a prediction", large(inference), large(inference), "1.00")
    return made


def _facts(found: Inspection) -> list[tuple[str, str]]:
    manifest = found.manifest
    names = ", ".join(manifest.classes[:6]) + (", ..." if len(manifest.classes) > 6 else "")
    files = ", ".join(f"{name} {size(count)}" for name, count in found.files.items())
    return [
        (outputs(manifest), names),
        *([] if manifest.loss == CROSS_ENTROPY else [("Loss", manifest.loss)]),
        ("Base", "protected" if manifest.base_protected else "not protected"),
        ("Input", input_text(manifest)),
        *shares_rows(found),
        *_choice(manifest),
        (
            "Step",
            f"batches of {manifest.batch_size}, {_augmentation(manifest)}, {_arithmetic(manifest)}",
        ),
        *memory_rows(manifest),
        ("Backends", _backends(manifest)),
        ("Files", f"{size(sum(found.files.values()))}: {files}"),
    ]


def left_out_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """The convolutions that cannot be trained, by the reason."""
    by_reason: dict[str, list[str]] = {}
    for one in manifest.left_out:
        by_reason.setdefault(one.reason, []).append(one.node)
    return [
        ("Left out" if position == 0 else "", f"{', '.join(nodes)}: {reason}")
        for position, (reason, nodes) in enumerate(by_reason.items())
    ]


def _arithmetic(manifest: Manifest) -> str:
    if manifest.precision == EXACT:
        return "fp32"
    kept = len(manifest.in_float)
    convolutions = f"{kept} convolutions" if kept > 1 else "1 convolution"
    what = manifest.trained
    return f"int8, {what} and {convolutions} in fp32" if kept else f"int8, {what} in fp32"


def _choice(manifest: Manifest) -> list[tuple[str, str]]:
    """Why these sites, and which other convolutions could have been sites."""
    if not manifest.choice:
        return left_out_rows(manifest)
    left = [one for one in manifest.candidates if not one.chosen]
    others = ", ".join(
        one.name if one.intensity is None else f"{one.name} ({one.intensity:.2e})" for one in left
    )
    return [
        ("Sites", manifest.choice),
        *([("Not trained", others)] if left else []),
        *left_out_rows(manifest),
    ]


def memory_rows(manifest: Manifest) -> list[tuple[str, str]]:
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


def shares_rows(found: Inspection) -> list[tuple[str, str]]:
    """Trainable share of all parameters."""
    what, share = found.manifest.trained, f"{100 * found.manifest.channel_ratio:g} %"
    ratio = f"of {share} of the channels" if what == CENTERS else f"at {share} of the channels' positions"
    total = found.parameters
    if total is None:
        return [
            ("Trainable", f"{found.trainable:,} parameters; a task trains {found.trained:,} ({what} {ratio})")
        ]
    return [
        ("Trainable", f"{what} and head, {percent(found.trainable, total)} of {total:,} parameters"),
        ("A task trains", f"{percent(found.trained, total)}: the {what} {ratio}, and its head"),
    ]


def input_text(manifest: Manifest) -> str:
    """What goes in, and how it is normalised and fitted."""
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


def outputs(manifest: Manifest) -> str:
    """What the head tells apart, as a table's label: "Classes"."""
    return objective_of(manifest.loss).outputs.capitalize()
