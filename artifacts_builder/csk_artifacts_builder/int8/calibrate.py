"""What int8 must know of a network, measured on base data: ranges of activations, growth of gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.int8.quantize import Calibration, Range, frozen_convolutions
from csk_sdk.contract.manifest import EXACT, INT8, Manifest, ProbeSpec
from csk_sdk.data.labels import Labels
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.preprocess_signals import preprocessing_of
from csk_sdk.data.tasks import Split
from csk_sdk.errors import ConfigError
from csk_sdk.runtime.sessions import load_onnxruntime, open_session

Feeds = dict[str, NDArray[Any]]
# Batch by batch, by name.
Outputs = dict[str, list[NDArray[np.float32]]]

# Ranges are medians of the batches' extremes, so both numbers are part of what "range" means: decision 0010.
_IMAGES, _BATCH = 256, 16


@dataclass(frozen=True)
class Agreement:
    """How close int8 comes to exact on base data.

    `logits` is `||int8 - exact|| / ||exact||` over all logits, `gradients` the cosine of each site's gradient.
    """

    logits: float
    gradients: Mapping[str, float]

    @property
    def worst_gradient(self) -> float:
        """The smallest cosine of any site."""
        return min(self.gradients.values())


def base_feeds(manifest: Manifest, split: Split, checkpoint: Mapping[str, NDArray[Any]]) -> Iterator[Feeds]:
    """Batches for the training model: base images drawn at random, the base's head, all channels, no change."""
    fixed: Feeds = {
        manifest.head.weight: checkpoint["head/base/weight"],
        manifest.head.bias: checkpoint["head/base/bias"],
    }
    for site in manifest.sites:
        fixed[site.indices] = np.arange(site.columns)
        fixed[site.delta] = np.zeros((site.rows, site.columns), np.float32)
    for images, labels in base_batches(manifest, split):
        yield {"image": images, "label": labels, **fixed}


def base_batches(manifest: Manifest, split: Split) -> Iterator[tuple[NDArray[np.float32], Labels]]:
    """Base images drawn at random as the graphs take them, and their labels."""
    preprocessing = preprocessing_of(manifest)
    order = np.random.default_rng(0).permutation(len(split))[:_IMAGES]
    for images, labels in PixelCache(split, preprocessing, 0).batches(_BATCH, order):
        yield preprocessing.normalize(images), labels


def calibrations(
    training: ir.Model, feeds: Iterable[Feeds], head_weight: str
) -> tuple[Calibration, Calibration]:
    """What frozen convolutions of the exact training model read and write: usual ranges, and the widest that were seen.

    Usual ranges are finer, and cut off what a rare image has beyond them (decision 0010). Raises ConfigError where no
    convolution is frozen.
    """
    model = training.clone()
    emit = Emitter(model.graph)
    convs = frozen_convolutions(model, head_weight)
    if not convs:
        raise ConfigError(
            f"--precision {INT8} rounds convolutions that stay frozen, and of this network's none does, since whole "
            f"kernels are trained: build with --precision {EXACT}, --sites center, or fewer sites (--trainable)."
        )
    model.graph.outputs.clear()
    names = []
    for conv in convs:
        for end, value in (("x", conv.node.inputs[0]), ("y", conv.node.outputs[0])):
            for extreme in ("ReduceMin", "ReduceMax"):
                names.append(f"csk.{extreme}.{end}.{conv.node.name}")
                emit.output(emit.op(extreme, value, keepdims=0), names[-1], [])
    passes.RemoveUnusedNodesPass()(model)
    session = open_model(model)
    runs = np.array([session.run(names, batch) for batch in feeds], np.float64)
    seen = runs.reshape(len(runs), len(convs), 2, 2)  # batch, convolution, x or y, min or max
    growth: dict[str, float] = {}
    found: tuple[tuple[dict[str, Range], dict[str, Range]], ...] = (({}, {}), ({}, {}))
    for position, conv in enumerate(convs):
        name, x, y = str(conv.node.name), seen[:, position, 0], seen[:, position, 1]
        if conv.backward:
            growth[name] = _growth(np.abs(x).max(axis=1), np.abs(y).max(axis=1))
        else:
            for (inputs, outputs), range_of in zip(found, (_range, _widest), strict=True):
                inputs[name], outputs[name] = range_of(x), range_of(y)
    usual, widest = found
    return Calibration(*usual, growth), Calibration(*widest, growth, widest=True)


def level_of(feeds: Sequence[Feeds]) -> ProbeSpec:
    """What probes are to be like: mean and deviation of each channel of these base images."""
    channels = np.concatenate([np.moveaxis(batch["image"], 1, 0) for batch in feeds], axis=1)
    values = channels.reshape(len(channels), -1).astype(np.float64)
    return ProbeSpec(*(tuple(map(float, found)) for found in (values.mean(axis=1), values.std(axis=1))))


def output_ranges(model: ir.Model, feeds: Iterable[Feeds], widest: bool = False) -> dict[str, Range]:
    """The usual range of each output of a graph by name, or the widest; its only input is `image`."""
    session = open_model(model)
    names = [value.name for value in session.get_outputs()]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for batch in feeds:
        for name, y in zip(names, session.run(names, {"image": batch["image"]}), strict=True):
            found[name].append((y.min(), y.max()))
    choose = _widest if widest else _range
    return {name: choose(np.array(extremes, np.float64)) for name, extremes in found.items()}


def compare(exact: ir.Model, rounded: ir.Model, feeds: Sequence[Feeds], manifest: Manifest) -> Agreement:
    """Run both training models over `feeds`."""
    truth, other = (outputs_of(open_model(model), feeds, manifest) for model in (exact, rounded))
    return agreement_of(truth, other, manifest)


def agreement_of(truth: Outputs, other: Outputs, manifest: Manifest) -> Agreement:
    """How near the outputs of a training model are to those of the exact one, for the same batches."""
    a, b = (np.concatenate(outputs["logits"]) for outputs in (truth, other))
    return Agreement(
        logits=float(np.linalg.norm(b - a) / np.linalg.norm(a)),
        gradients={
            site.name: _cosine(np.sum(truth[site.gradient], axis=0), np.sum(other[site.gradient], axis=0))
            for site in manifest.sites
        },
    )


def outputs_of(session: Any, feeds: Sequence[Feeds], manifest: Manifest) -> Outputs:
    """Logits and the sites' gradients of an open training model, batch by batch, by name."""
    names = ["logits", *(site.gradient for site in manifest.sites)]
    batches = [session.run(names, batch) for batch in feeds]
    return {name: [batch[position] for batch in batches] for position, name in enumerate(names)}


def open_model(model: ir.Model) -> Any:
    """A session of a graph that is in memory."""
    options = load_onnxruntime().SessionOptions()
    options.log_severity_level = 3
    data = ir.to_proto(model).SerializeToString()
    return open_session(data, options)


def _range(extremes: NDArray[np.float64]) -> Range:
    """Extremes `(batches, 2)` -> their medians."""
    low, high = np.median(extremes, axis=0)
    return Range(float(low), float(high))


def _widest(extremes: NDArray[np.float64]) -> Range:
    """Extremes `(batches, 2)` -> those of all."""
    return Range(float(extremes[:, 0].min()), float(extremes[:, 1].max()))


def _growth(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """The largest ratio of any batch; 1 where no gradient was seen."""
    told = before > 0
    return float(np.max(after[told] / before[told], initial=0.0)) or 1.0


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else 1.0
