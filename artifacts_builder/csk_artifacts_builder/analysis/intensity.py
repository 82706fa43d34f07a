"""Knowledge intensity: how much new data would teach each position of each kernel (docs/knowledge-intensity.md).

The intensity of a kernel position is the mean over batches of `||dL/dW[:, :, i, j]||^2`, where L is the new task's
loss with a head fitted to its data as a device fits it. It is the first-order decrease of a batch's loss, per unit
of the learning rate, when this position alone takes a gradient step; and the same measure by which a device selects
channels (csk_sdk/method/selection.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import constant_array
from csk_artifacts_builder.graphs.models import FEATURES, IMAGE, LOSS, kernel_model
from csk_sdk.contract.manifest import LABEL, Head, Site
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.preprocess import Preprocessing
from csk_sdk.data.tasks import Split
from csk_sdk.errors import TaskError
from csk_sdk.formats.wording import plural
from csk_sdk.method.logistic import HeadArrays, logistic_head
from csk_sdk.network.finite import first_not_finite
from csk_sdk.network.knowledge import Batch
from csk_sdk.runtime.sessions import Graph

Progress = Callable[[int, int], None]
IMAGES, BATCH = 512, 16


class IntensityEstimate:
    """Running intensity of one kernel's positions, from gradients `(c_out, c_in / groups, *kernel)` of batches."""

    def __init__(self) -> None:
        self._squares: NDArray[np.float64] | None = None
        self._batches = 0

    def add(self, gradient: NDArray[Any]) -> None:
        """Add one batch's gradient."""
        # In float64: squares of small float32 gradients would underflow.
        squares: NDArray[np.float64] = np.sum(gradient.astype(np.float64) ** 2, axis=(0, 1))
        self._squares = squares if self._squares is None else self._squares + squares
        self._batches += 1

    @property
    def values(self) -> NDArray[np.float64]:
        """Intensity of every position, `(*kernel)`, after at least one batch."""
        assert self._squares is not None
        return self._squares / self._batches


@dataclass(frozen=True)
class MeasuredIntensity:
    """Per site name the intensity of every kernel position, `(*kernel)` float64, and what it was measured on."""

    values: dict[str, NDArray[np.float64]]
    images: int
    batches: int
    loss: float


@dataclass(frozen=True)
class NewTask:
    """Data to measure on: at most `images` images of `split`, in one fixed random order, `batch_size` at a time."""

    split: Split
    preprocessing: Preprocessing
    classes: int
    images: int = IMAGES
    batch_size: int = BATCH
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split.labels.ndim != 1:
            raise TaskError(
                "Knowledge intensity is measured with one class per image, and this data has a table of labels: "
                "give a task of classes."
            )
        if len(self.order) < self.batch_size:
            raise TaskError(
                f"Knowledge intensity is measured on a whole batch of {self.batch_size}, and there is no more than "
                f"{plural(len(self.order), 'image')}: give more images."
            )

    @property
    def order(self) -> NDArray[np.int64]:
        """Indices of the images taken, shuffled, so that every batch is a mixture of classes."""
        order: NDArray[np.int64] = np.random.default_rng(self.seed).permutation(len(self.split))
        return order[: self.images]

    def batches(self) -> Iterator[Batch]:
        """Whole batches: images `(n, c, h, w)` float32 and labels; what is left over at the end is left out."""
        pixels = PixelCache(self.split, self.preprocessing, 0)
        order = self.order
        for images, labels in pixels.batches(self.batch_size, order[: len(self) * self.batch_size]):
            yield self.preprocessing.normalize(images), labels

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.order) // self.batch_size


class KernelGraph:
    """The kernel model, opened: features, losses and kernel gradients under any kernels."""

    def __init__(self, graph: Graph, sites: Sequence[Site], head: Head, kernels: Mapping[str, Any]) -> None:
        self.sites = tuple(sites)
        self.kernels = dict(kernels)
        self._graph = graph
        self._head = head

    def features(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features `(n, f)`."""
        empty = np.zeros((1, self._head.features), np.float32), np.zeros(1, np.float32)
        labels = np.zeros(len(images), np.int64)
        return self._graph.run(self._feeds((images, labels), empty), [FEATURES])[FEATURES]

    def run(self, batch: Batch, head: HeadArrays, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """`loss`, `logits` and gradients of one batch; with `outputs`, only what they need is computed."""
        return self._graph.run(self._feeds(batch, head), outputs)

    def _feeds(self, batch: Batch, head: HeadArrays) -> dict[str, Any]:
        weight, bias = head
        images, labels = batch
        return {
            IMAGE: images,
            LABEL: labels,
            self._head.weight: weight,
            self._head.bias: bias,
            **self.kernels,
        }


@contextmanager
def open_kernel_graph(
    prepared: ir.Model, sites: Sequence[Site], head: Head, where: str, threads: int = 0
) -> Iterator[KernelGraph]:
    """Make and open the kernel model of a prepared model.

    Raises UnsupportedOpError for an op behind the first of `sites` that has no gradient rule.
    """
    kernels = {site.weight: constant_array(prepared.graph.initializers[site.weight]) for site in sites}
    model = kernel_model(prepared, sites, head, where)
    with TemporaryDirectory(prefix="csk-sdk-") as folder:
        path = Path(folder) / "kernel_model.onnx"
        ir.save(model, path)
        yield KernelGraph(Graph(path, threads, partial=True), sites, head, kernels)


def fit_head(graph: KernelGraph, data: NewTask) -> HeadArrays:
    """The data's own head on the features as they are, as a device fits it before the first step."""
    features, labels = [], []
    for images, targets in data.batches():
        features.append(graph.features(images))
        if first_not_finite(features[-1]) is not None:
            raise TaskError(
                "The network's features are not finite on these images: check them, and --mean and --std."
            )
        labels.append(targets)
    return logistic_head(np.concatenate(features), np.concatenate(labels), data.classes)


def measure_intensity(
    graph: KernelGraph, data: NewTask, on_progress: Progress = lambda done, total: None
) -> MeasuredIntensity:
    """Measure every position of every site of the graph.

    Raises TaskError where a gradient is not finite.
    """
    head = fit_head(graph, data)
    estimates = {site.name: IntensityEstimate() for site in graph.sites}
    losses = []
    for done, batch in enumerate(data.batches(), 1):
        outputs = graph.run(batch, head)
        losses.append(float(outputs[LOSS]))
        for site in graph.sites:
            estimates[site.name].add(outputs[site.gradient])
        on_progress(done, len(data))
    values = {name: estimate.values for name, estimate in estimates.items()}
    broken = next((name for name, value in values.items() if not np.isfinite(value).all()), None)
    if broken is not None:
        raise TaskError(
            f"The gradient of '{broken}' is not finite on these images: check them, and --mean and --std."
        )
    return MeasuredIntensity(values, len(data) * data.batch_size, len(data), float(np.mean(losses)))
