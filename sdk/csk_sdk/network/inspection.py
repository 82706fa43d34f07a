"""What a bundle says about itself: its sites, and what a training step costs against full fine-tuning."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import MANIFEST, Manifest, Site
from csk_sdk.method.selection import channel_count


@dataclass(frozen=True)
class SiteSummary:
    """One site. `selected` of its input channels are trained per task, `trained` numbers of its `centers`.

    Per image: FLOPs of the frozen convolution and the center branch, of the gradients of the centers and (behind
    the first site) of the input, and the bytes of center-sampled input that are kept. Grouped convolutions compute
    all centers' gradients and keep all channels. `intensity` is the measured knowledge intensity of its center, None
    where the build had no data for it.
    """

    name: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    output_size: tuple[int, ...]
    parameters: int
    centers: int
    channels: int
    selected: int
    trained: int
    forward_flops: int
    backward_flops: int
    kept_bytes: int
    intensity: float | None = None

    @classmethod
    def of(cls, site: Site, channel_ratio: float, first: bool, intensity: float | None = None) -> SiteSummary:
        """Count a site's numbers; in front of the `first` one nothing learns, so it hands no gradient on."""
        selected = channel_count(site.columns, channel_ratio)
        parameters, pixels = math.prod(site.shape), math.prod(site.output_size)
        frozen, dense = 2 * pixels * parameters, 2 * pixels * site.rows * site.columns
        if site.whole:
            # One convolution with the changed kernel, its gradient at every position, and what it hands on.
            forward, backward = frozen, frozen if first else 2 * frozen
            kept = 4 * math.prod(site.input_size) * site.shape[1] * site.groups
        else:
            computed = selected if site.groups == 1 else site.columns
            branch = 2 * pixels * site.rows * computed
            forward, backward = frozen + branch, branch + (0 if first else frozen + dense)
            kept = 4 * pixels * computed
        return cls(
            name=site.name,
            kernel=site.shape,
            stride=site.stride,
            output_size=site.output_size,
            parameters=parameters,
            centers=site.rows * site.columns,
            channels=site.columns,
            selected=selected,
            trained=site.rows * selected,
            forward_flops=forward,
            backward_flops=backward,
            kept_bytes=kept,
            intensity=intensity,
        )


@dataclass(frozen=True)
class StepCost:
    """One quantity of a training step, per image: the bundle's own and that of full fine-tuning."""

    centers: int
    full: int

    @property
    def ratio(self) -> float:
        """The bundle's step as a fraction of full fine-tuning."""
        return self.centers / self.full


@dataclass(frozen=True)
class Inspection:
    """Everything that `csk-sdk inspect` shows.

    `trainable` counts all centers and the base's head, `trained` those that one task changes. Of the rest,
    what the builder could not count is None.
    """

    manifest: Manifest
    sites: tuple[SiteSummary, ...]
    parameters: int | None
    inference_flops: int | None
    flops: StepCost | None
    kept_bytes: StepCost | None
    files: dict[str, int]

    @property
    def head_parameters(self) -> int:
        """Weights and biases of a head over the base classes."""
        return (self.manifest.head.features + 1) * len(self.manifest.classes)

    @property
    def trainable(self) -> int:
        """Centers of all sites, and the head."""
        return sum(site.centers for site in self.sites) + self.head_parameters

    @property
    def trained(self) -> int:
        """What one task changes: centers of the selected channels, and the head."""
        return sum(site.trained for site in self.sites) + self.head_parameters

    def to_json(self) -> dict[str, Any]:
        """Plain values for `inspect --json`."""
        manifest = self.manifest
        return {
            "model": manifest.model,
            "loss": manifest.loss,
            "classes": list(manifest.classes),
            "base_protected": manifest.base_protected,
            "input": asdict(manifest.input),
            "preprocessing": asdict(manifest.preprocessing),
            "flip": manifest.flip,
            "precision": manifest.precision,
            "in_float": list(manifest.in_float),
            "backends": list(manifest.backends),
            "batch_size": manifest.batch_size,
            "channel_ratio": manifest.channel_ratio,
            "sites": [asdict(site) for site in self.sites],
            "choice": manifest.choice,
            "candidates": [asdict(one) for one in manifest.candidates],
            "left_out": [asdict(one) for one in manifest.left_out],
            "parameters": self.parameters,
            "trainable": self.trainable,
            "trained_per_task": self.trained,
            "inference_flops": self.inference_flops,
            "flops_per_image": asdict(self.flops) if self.flops else None,
            "kept_bytes_per_image": asdict(self.kept_bytes) if self.kept_bytes else None,
            "memory": manifest.memory,
            "memory_budget": manifest.memory_budget,
            "files": self.files,
            "producer": manifest.producer,
            "counter": manifest.counter,
            "schema_version": manifest.schema_version,
        }


def inspect_bundle(folder: Path | str) -> Inspection:
    """Open a bundle, verify it, and summarise it. Raises BundleError."""
    return inspection_of(Bundle.open(folder))


def inspection_of(bundle: Bundle) -> Inspection:
    """The summary of an opened bundle."""
    files = {name: entry.size for name, entry in bundle.manifest.files.items()}
    files[MANIFEST] = bundle.path(MANIFEST).stat().st_size
    return summary_of(bundle.manifest, files)


def summary_of(manifest: Manifest, files: dict[str, int]) -> Inspection:
    """The summary of a manifest; `files` are the bundle's, with their sizes."""
    intensity = {one.name: one.intensity for one in manifest.candidates}
    return Inspection(
        manifest=manifest,
        sites=tuple(
            SiteSummary.of(site, manifest.channel_ratio, position == 0, intensity.get(site.name))
            for position, site in enumerate(manifest.sites)
        ),
        parameters=manifest.costs.get("parameters"),
        inference_flops=manifest.costs.get("forward"),
        flops=_cost(manifest, "step"),
        kept_bytes=_cost(manifest, "kept"),
        files=files,
    )


def _cost(manifest: Manifest, name: str) -> StepCost | None:
    centers, full = (manifest.costs.get(f"{name}_{kind}") for kind in ("centers", "full"))
    return StepCost(centers, full) if centers is not None and full else None
