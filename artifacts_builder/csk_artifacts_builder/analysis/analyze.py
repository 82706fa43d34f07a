"""`analyze_model`: does the premise of the method hold for this model on this data? (docs/knowledge-intensity.md)"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_artifacts_builder.analysis.intensity import (
    BATCH,
    IMAGES,
    NewTask,
    Progress,
    measure_intensity,
    open_kernel_graph,
)
from csk_artifacts_builder.analysis.position_training import train_positions
from csk_artifacts_builder.describe import describe
from csk_artifacts_builder.graphs.binary import as_two_classes
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.options import BuildOptions
from csk_artifacts_builder.prepare.model import prepare, within_memory
from csk_artifacts_builder.sites import find_sites
from csk_sdk.contract.manifest import Site
from csk_sdk.data.preprocess_signals import preprocessing_of
from csk_sdk.data.source import Subset
from csk_sdk.data.tasks import Split, Task
from csk_sdk.errors import ConfigError


@dataclass(frozen=True)
class AnalysisOptions:
    """What `analyze` can be told: `model` as for a build; at most `images` images, `batch_size` at a time.

    With `train_steps` above 0 every position is also trained alone, for as many steps.
    """

    model: BuildOptions
    images: int = IMAGES
    batch_size: int = BATCH
    train_steps: int = 0
    seed: int = 0
    threads: int = 0


@dataclass(frozen=True)
class SiteAnalysis:
    """One site: intensity of every kernel position, `(*kernel)`, and what training it alone gained, or None.

    `learned` and `held_out` are decreases of the loss, in nats: on the images trained on, and on others.
    """

    site: Site
    intensity: NDArray[np.float64]
    learned: NDArray[np.float64] | None = None
    held_out: NDArray[np.float64] | None = None

    @property
    def center(self) -> tuple[int, ...]:
        """The middle position."""
        return tuple(size // 2 for size in self.intensity.shape)

    @property
    def center_rank(self) -> int:
        """1 where no position is more intense than the center."""
        return center_rank(self.intensity)

    @property
    def center_ratio(self) -> float:
        """Intensity of the center over the mean of all positions; 1 where all are alike."""
        mean = float(self.intensity.mean())
        return float(self.intensity[self.center]) / mean if mean > 0 else 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = {
            "name": self.site.name,
            "kernel": list(self.site.shape),
            "stride": list(self.site.stride),
            "output_size": list(self.site.output_size),
            "intensity": self.intensity.tolist(),
            "center_rank": self.center_rank,
            "center_ratio": self.center_ratio,
        }
        if self.learned is not None and self.held_out is not None:
            found["loss_decrease"] = self.learned.tolist()
            found["held_out_loss_decrease"] = self.held_out.tolist()
        return found


@dataclass(frozen=True)
class Analysis:
    """What `csk-sdk analyze` shows. `loss` is that of the fitted head on the images measured on, in nats."""

    model: str
    data: str
    classes: tuple[str, ...]
    images: int
    loss: float
    sites: tuple[SiteAnalysis, ...]
    train_steps: int = 0
    held_out_images: int = 0

    @property
    def with_neighbours(self) -> list[SiteAnalysis]:
        """The sites whose center has neighbours: kernels larger than 1x1."""
        return [site for site in self.sites if site.intensity.size > 1]

    @property
    def center_first(self) -> int:
        """At how many sites no position is more intense than the center."""
        return sum(site.center_rank == 1 for site in self.with_neighbours)

    @property
    def depth_correlation(self) -> float | None:
        """Rank correlation of a center's intensity with its depth: 1 where every deeper site is stronger."""
        return rank_correlation(np.array([site.intensity[site.center] for site in self.sites]))

    @property
    def ratio_depth_correlation(self) -> float | None:
        """Rank correlation of the center's lead over its neighbours with depth."""
        return rank_correlation(np.array([site.center_ratio for site in self.with_neighbours]))

    @property
    def agreement(self) -> float | None:
        """Rank correlation, over all positions of all sites, of intensity with what training alone gained."""
        if not self.train_steps:
            return None
        gained = [site.learned.ravel() for site in self.sites if site.learned is not None]
        measured = [site.intensity.ravel() for site in self.sites]
        return rank_correlation(np.concatenate(measured), np.concatenate(gained))

    def to_json(self) -> dict[str, Any]:
        """Plain values for `analyze --json`."""
        return {
            "model": self.model,
            "data": self.data,
            "classes": list(self.classes),
            "images": self.images,
            "loss": self.loss,
            "premise": {
                "sites": len(self.with_neighbours),
                "center_first": self.center_first,
                "depth_correlation": self.depth_correlation,
                "center_ratio_depth_correlation": self.ratio_depth_correlation,
            },
            "by_training": {
                "steps": self.train_steps,
                "held_out_images": self.held_out_images,
                "agreement": self.agreement,
            }
            if self.train_steps
            else None,
            "sites": [site.to_json() for site in self.sites],
        }


def analyze_model(
    model: Path | str,
    data: Path | str,
    options: AnalysisOptions,
    on_progress: Progress = lambda done, total: None,
) -> Analysis:
    """Measure the knowledge intensity of every kernel position of `model` on the task at `data`.

    Raises ModelError for a model that cannot be trained (UnsupportedOpError names the op), TaskError for data that
    does not fit, ConfigError for an option out of range.
    """
    for name, value, least in (
        ("--images", options.images, 1),
        ("--batch-size", options.batch_size, 1),
        ("--by-training", options.train_steps, 0),
    ):
        if value < least:
            raise ConfigError(f"{name} is {value}; it must be {least} or more.")
    if options.images < options.batch_size:
        raise ConfigError(
            f"--images is {options.images}, less than one batch of {options.batch_size} images."
        )
    with within_memory(Path(model), options.model.input_size):
        return _analyze(Path(model), data, options, on_progress)


def _analyze(model: Path, data: Path | str, options: AnalysisOptions, on_progress: Progress) -> Analysis:
    source = as_two_classes(
        prepare(model, options.model.output, options.model.input_size), options.model.loss
    )
    where = source.path.name
    head = split_head(source.model, where)
    sites = find_sites(source.model, where, options.model.sites)
    manifest = describe(source, head, sites, options.model)
    task = Task.open(data, options.model.bit_depth)
    task.require_trainable()
    assert task.train is not None
    new = NewTask(
        task.train,
        preprocessing_of(manifest),
        len(task.classes),
        options.images,
        options.batch_size,
        options.seed,
    )
    held_out = _held_out(new, task) if options.train_steps else None
    with open_kernel_graph(source.model, sites, manifest.head, where, options.threads) as graph:
        measured = measure_intensity(graph, new, on_progress)
        trained = (
            train_positions(graph, new, held_out, options.train_steps, on_progress)
            if held_out is not None
            else None
        )
    found = [SiteAnalysis(site, measured.values[site.name]) for site in sites]
    if trained is not None:
        found = [
            replace(one, learned=trained.learned[one.site.name], held_out=trained.held_out[one.site.name])
            for one in found
        ]
    return Analysis(
        model=where,
        data=str(data),
        classes=task.classes,
        images=measured.images,
        loss=measured.loss,
        sites=tuple(found),
        train_steps=options.train_steps,
        held_out_images=trained.held_out_images if trained is not None else 0,
    )


def _held_out(new: NewTask, task: Task) -> NewTask:
    """Images that training does not see: the task's test images, or those that measuring left over."""
    if task.test is not None:
        return replace(new, split=task.test)
    assert task.train is not None
    rest = np.setdiff1d(np.arange(len(task.train)), new.order)
    if len(rest) < new.batch_size:
        raise ConfigError(
            f"--by-training needs images to test on, and {len(new.order)} of {len(task.train)} are trained on: "
            "lower --images, or give the task test images."
        )
    return replace(new, split=Split(Subset(task.train.images, rest), task.train.labels[rest]))


def center_rank(values: NDArray[np.float64]) -> int:
    """Rank of the middle of `values` among all, 1 for the largest."""
    center = values[tuple(size // 2 for size in values.shape)]
    return int(np.sum(values > center)) + 1


def rank_correlation(values: NDArray[np.float64], others: NDArray[np.float64] | None = None) -> float | None:
    """Spearman's rank correlation of two series `(n,)`, ties sharing their mean rank; of `values` with 0, 1, 2, ...

    where `others` is None. None where a series is shorter than 3 or constant.
    """
    first = _ranks(values)
    second = _ranks(others) if others is not None else np.arange(len(values), dtype=np.float64)
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    below = (values[:, None] > values[None, :]).sum(axis=1)
    alike = (values[:, None] == values[None, :]).sum(axis=1)
    ranks: NDArray[np.float64] = below + (alike - 1) / 2.0
    return ranks
