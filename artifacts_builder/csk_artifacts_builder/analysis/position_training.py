"""The witness of knowledge intensity: train each kernel position alone, for the same steps, and see what it gains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csk_artifacts_builder.analysis.intensity import KernelGraph, NewTask, Progress, fit_head
from csk_artifacts_builder.graphs.models import LOSS
from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import Site
from csk_sdk.errors import TaskError
from csk_sdk.method.logistic import HeadArrays
from csk_sdk.method.optimizers import SGD
from csk_sdk.network.knowledge import Batch


@dataclass(frozen=True)
class TrainedPositions:
    """Per site name, how far `steps` steps of one position alone lowered the loss, `(*kernel)` float64.

    `learned` on the images that were trained on, `held_out` on `held_out_images` others; nats per image.
    """

    learned: dict[str, NDArray[np.float64]]
    held_out: dict[str, NDArray[np.float64]]
    steps: int
    held_out_images: int


def train_positions(
    graph: KernelGraph,
    data: NewTask,
    held_out: NewTask,
    steps: int,
    on_progress: Progress = lambda done, total: None,
) -> TrainedPositions:
    """Train every position of every site of the graph by itself, from the same start, on the same batches.

    The optimizer is the device's default (SGD with momentum) at its default learning rate, with a fitted head that
    stays as it is, so that nothing but the position can lower the loss. Raises TaskError where a loss is no longer
    finite.
    """
    head = fit_head(graph, data)
    batches = _cycled(list(data.batches()), steps)
    tests = list(held_out.batches())
    before = _loss(graph, batches, head), _loss(graph, tests, head)
    learned = {site.name: np.zeros(site.shape[2:]) for site in graph.sites}
    unseen = {site.name: np.zeros(site.shape[2:]) for site in graph.sites}
    total, done = sum(values.size for values in learned.values()), 0
    for site in graph.sites:
        start = graph.kernels[site.weight]
        for tap in np.ndindex(*site.shape[2:]):
            graph.kernels[site.weight] = _trained(graph, site, tap, batches, head)
            learned[site.name][tap] = before[0] - _loss(graph, batches, head)
            unseen[site.name][tap] = before[1] - _loss(graph, tests, head)
            graph.kernels[site.weight] = start
            done += 1
            on_progress(done, total)
    return TrainedPositions(learned, unseen, steps, len(tests) * held_out.batch_size)


def _trained(
    graph: KernelGraph, site: Site, tap: tuple[int, ...], batches: list[Batch], head: HeadArrays
) -> NDArray[np.float32]:
    """The site's kernel after one step on each of `batches`, changed at `tap` alone."""
    defaults = TrainingConfig()
    optimizer = SGD(defaults.learning_rate, momentum=defaults.momentum)
    kernel: NDArray[np.float32] = graph.kernels[site.weight].copy()
    graph.kernels[site.weight] = kernel
    at: tuple[slice | int, ...] = (slice(None), slice(None), *tap)
    update = np.empty(site.shape[:2], np.float32)
    for batch in batches:
        gradient = graph.run(batch, head, [site.gradient])[site.gradient]
        position = kernel[at]
        optimizer.step(site.name, np.ascontiguousarray(gradient[at]), update, position)
        position -= update
    return kernel


def _cycled(batches: list[Batch], count: int) -> list[Batch]:
    return [batches[number % len(batches)] for number in range(count)]


def _loss(graph: KernelGraph, batches: list[Batch], head: HeadArrays) -> float:
    loss = float(np.mean([graph.run(batch, head, [LOSS])[LOSS] for batch in batches]))
    if not np.isfinite(loss):
        raise TaskError("The loss is not finite on these images: check them, and --mean and --std.")
    return loss
