"""The source network in float64: loss, gradients by finite differences, second moments. Nothing of the bundle's graphs.

Runs the ONNX file that the bundle was built from, batch norm unfolded, in `onnx.reference`, with the kernels changed at
their centers. Of the manifest only names and geometry of the sites are believed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

sys.path.insert(0, str(Path(__file__).parents[1] / "builder"))
from onnx_text import in_float64

from csk_sdk.contract.manifest import Manifest, Site

Arrays = Mapping[str, NDArray]
# Small, so that no ReLU turns within a difference; float64 leaves 1e-9 of the loss.
STEP = 1e-7
# Two widths that agree met no kink.
AGREEMENT = 1e-5
BATCH_NORM_EPSILON = 1e-5


class SourceNetwork:
    """Forward passes of a source model.

    Its features are the input of its last `Gemm`, and the means of what its last convolutions see, of as many as the
    manifest's number of features takes (docs/bundle.md).
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        proto = self._prepared(in_float64(onnx.load(path)))
        nodes = list(proto.graph.node)
        self.sites = manifest.sites
        self._head = manifest.head
        self._inputs = {site.name: _reads(nodes, site.weight) for site in self.sites}
        self._features = _reads(nodes, manifest.head.source_weight)
        names = [self._features, *dict.fromkeys(self._inputs.values())]
        names = [name for name in dict.fromkeys(names) if name != proto.graph.input[0].name]
        double = onnx.TensorProto.DOUBLE
        proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, double, None) for name in names)
        self.image = proto.graph.input[0].name
        self._names = [proto.graph.output[0].name, *names]
        self._evaluator = ReferenceEvaluator(proto)
        self._weights: dict[str, NDArray] = self._evaluator.rt_inits_
        self._source = {name: value.copy() for name, value in self._weights.items()}
        self._means = self._seen_last(self._head.features - self._source[self._head.source_weight].shape[1])
        self._scales = {site.name: _batch_norm_scale(nodes, self._source, site.weight) for site in self.sites}

    def _prepared(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        """What is run: the model as it is."""
        return proto

    def _seen_last(self, width: int) -> list[str]:
        """Tensors that the last sites read, of `width` channels in all, first to last."""
        for start in range(len(self.sites), -1, -1):
            widths = {self._inputs[site.name]: site.shape[1] * site.groups for site in self.sites[start:]}
            if sum(widths.values()) == width:
                return list(widths)
        raise AssertionError(f"no sites see {width} channels")

    @property
    def head(self) -> tuple[NDArray, NDArray]:
        """The source's own classifier: weight `(classes, f)`, zero on means, and bias `(classes,)`."""
        weight = self._source[self._head.source_weight]
        padded = np.zeros((len(weight), self._head.features))
        padded[:, : weight.shape[1]] = weight
        return padded, self._source[self._head.source_bias]

    def centers(self) -> dict[str, NDArray]:
        """Centers, or whole kernels, with batch norm folded in: what a checkpoint's `center/SITE` holds."""
        return {
            site.name: self._source[site.weight][_trained(site)].reshape(site.shape[0], -1)
            * self._scales[site.name][:, None]
            for site in self.sites
        }

    @contextmanager
    def at(self, centers: Arrays) -> Iterator[None]:
        """With folded centers `(c_out, width)` by site name put in."""
        for site in self.sites:
            kernel = self._source[site.weight].copy()
            unfolded = centers[site.name] / self._scales[site.name][:, None]
            kernel[_trained(site)] = unfolded.reshape(kernel[_trained(site)].shape)
            self._weights[site.weight] = kernel
        try:
            yield
        finally:
            self._weights.update({site.weight: self._source[site.weight] for site in self.sites})

    def features(self, images: NDArray) -> NDArray:
        """Features `(n, f)` of images `(n, c, h, w)`."""
        values = self._values(images)
        means = [values[name].mean(axis=(2, 3)) for name in self._means]
        return np.concatenate([values[self._features], *means], axis=1)

    def moments(self, images: NDArray) -> dict[str, NDArray]:
        """`K = sum x_c^T x_c` of every site, or of all that its kernel sees: `(groups, width, width)`."""
        values = self._values(images)
        found = {}
        for site in self.sites:
            seen = _seen(site, values[self._inputs[site.name]])
            blocks = np.split(seen, site.groups, axis=1)
            found[site.name] = np.stack([block.T @ block for block in blocks])
        return found

    def _values(self, images: NDArray) -> dict[str, NDArray]:
        feeds = {self.image: images.astype(np.float64)}
        return {**feeds, **dict(zip(self._names, self._evaluator.run(None, feeds), strict=True))}


class ChangedNetwork(SourceNetwork):
    """The source network with `y * scale + shift` in the place of what each convolution, and its batch norm, gives.

    Channels are those of all convolutions, one after the other in the graph's order.
    """

    def _prepared(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        graph, counts = proto.graph, []
        kernels = {one.name: tuple(one.dims) for one in graph.initializer}
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
        self._convolved: list[str] = []
        for node in [one for one in nodes if one.op_type == "Conv"]:
            y, kernel, name = _behind(nodes, node), kernels[node.input[1]], f"changed.{len(counts)}"
            for reader in nodes:
                reader.input[:] = [name if one == y else one for one in reader.input]
            place = 1 + next(at for at, one in enumerate(nodes) if y in one.output)
            nodes[place:place] = [
                onnx.helper.make_node("Mul", [y, f"{name}.scale"], [f"{name}.scaled"]),
                onnx.helper.make_node("Add", [f"{name}.scaled", f"{name}.shift"], [name]),
            ]
            shape = [1, kernel[0], *[1] * (len(kernel) - 2)]
            for what, value in (("scale", 1.0), ("shift", 0.0)):
                graph.initializer.append(
                    onnx.numpy_helper.from_array(np.full(shape, value), f"{name}.{what}")
                )
            self._convolved.append(y)
            counts.append(kernel[0])
        del graph.node[:]
        graph.node.extend(nodes)
        ends = np.cumsum(counts)
        self.channels = int(ends[-1])
        self.parts = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        return proto

    def change(self, scale: NDArray, shift: NDArray) -> None:
        """From now on, `(channels,)` each."""
        for number, part in enumerate(self.parts):
            for what, values in (("scale", scale), ("shift", shift)):
                name = f"changed.{number}.{what}"
                self._weights[name] = values[part].reshape(self._weights[name].shape)

    def convolved(self, images: NDArray) -> list[NDArray]:
        """What each convolution gives, before it is changed."""
        feeds = {self.image: images.astype(np.float64)}
        return self._evaluator.run(self._convolved, feeds)


def _behind(nodes: list[onnx.NodeProto], conv: onnx.NodeProto) -> str:
    """What a convolution gives, or the batch norm that reads it."""
    norms = [one for one in nodes if one.op_type == "BatchNormalization" and one.input[0] == conv.output[0]]
    return str(norms[0].output[0] if norms else conv.output[0])


def changed(sites: tuple[Site, ...], centers: Arrays, deltas: Arrays, selected: Arrays) -> dict[str, NDArray]:
    """Centers with deltas `(rows, k)` added on their columns, one by one (docs/bundle.md)."""
    result = {name: value.astype(np.float64) for name, value in centers.items()}
    for site in sites:
        for column, channel in zip(deltas[site.name].T, selected[site.name], strict=True):
            group, within = divmod(int(channel), centers[site.name].shape[1])
            result[site.name][group * site.rows : (group + 1) * site.rows, within] += column
    return result


class Step:
    """Loss and gradients of a batch at given parameters; `head` is weight and bias, `centers` the generation's."""

    def __init__(
        self,
        network: SourceNetwork,
        centers: Arrays,
        head: tuple[NDArray, NDArray],
        selected: Arrays,
        deltas: Arrays,
        smoothing: float = 0.0,
        mask: NDArray | None = None,
    ) -> None:
        self.network, self.centers, self.head = network, centers, head
        self.selected, self.deltas = (
            selected,
            {name: value.astype(np.float64) for name, value in deltas.items()},
        )
        self.smoothing = smoothing
        self.mask = np.ones(len(head[1]), bool) if mask is None else mask

    def forward(self, images: NDArray) -> tuple[NDArray, NDArray]:
        """Features and logits."""
        with self.network.at(changed(self.network.sites, self.centers, self.deltas, self.selected)):
            features = self.network.features(images)
        return features, features @ self.head[0].T.astype(np.float64) + self.head[1]

    def loss(self, images: NDArray, labels: NDArray) -> float:
        """Mean cross-entropy (docs/losses.md)."""
        logits = np.where(self.mask, self.forward(images)[1], -np.inf)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return float(-(self._targets(labels) * np.where(self.mask, log_p, 0.0)).sum(axis=1).mean())

    def _targets(self, labels: NDArray) -> NDArray:
        one_hot = np.eye(len(self.mask))[labels]
        return (1 - self.smoothing) * one_hot + self.smoothing * self.mask / self.mask.sum()

    def head_gradient(self, images: NDArray, labels: NDArray) -> tuple[NDArray, NDArray]:
        """Of weight and bias: `(p - t)^T features / n`, written down."""
        features, logits = self.forward(images)
        exponentials = np.where(self.mask, np.exp(logits - logits.max(axis=1, keepdims=True)), 0.0)
        p = exponentials / exponentials.sum(axis=1, keepdims=True)
        difference = (p - self._targets(labels)) / len(labels)
        return difference.T @ features, difference.sum(axis=0)

    def gradients(self, images: NDArray, labels: NDArray) -> dict[str, NDArray]:
        """Of every delta, `(rows, k)`, by central differences of the loss, element by element."""
        found = {}
        for site, delta in self.deltas.items():
            gradient = np.zeros_like(delta)
            for place in np.ndindex(delta.shape):
                narrow, wide = (
                    self._difference(delta, place, width, images, labels) for width in (STEP, 2 * STEP)
                )
                if abs(narrow - wide) > AGREEMENT * max(abs(wide), 1e-3):
                    raise ValueError(
                        f"{site} {place} lies on a kink: {narrow} and {wide}; choose other images"
                    )
                gradient[place] = narrow
            found[site] = gradient
        return found

    def _difference(
        self, delta: NDArray, place: tuple[int, ...], width: float, images: NDArray, labels: NDArray
    ) -> float:
        before = delta[place]
        delta[place] = before + width
        above = self.loss(images, labels)
        delta[place] = before - width
        below = self.loss(images, labels)
        delta[place] = before
        return (above - below) / (2 * width)


def _reads(nodes: list[onnx.NodeProto], weight: str) -> str:
    return str(next(node.input[0] for node in nodes if weight in node.input))


def _trained(site: Site) -> tuple[slice | int, ...]:
    if site.whole:
        return (slice(None),)
    return (slice(None), slice(None), *(size // 2 for size in site.shape[2:]))


def _batch_norm_scale(nodes: list[onnx.NodeProto], weights: Arrays, weight: str) -> NDArray:
    """What a batch norm behind the convolution multiplies its channels by; ones where there is none."""
    out = next(node.output[0] for node in nodes if weight in node.input)
    for node in nodes:
        if node.op_type == "BatchNormalization" and node.input[0] == out:
            return weights[node.input[1]] / np.sqrt(weights[node.input[4]] + BATCH_NORM_EPSILON)
    return np.ones(len(weights[weight]))


def _seen(site: Site, x: NDArray) -> NDArray:
    """What the center tap of the kernel sees, or all taps, channel by channel: `(n * h_out * w_out, columns)`."""
    axes = len(site.stride)
    padded = np.pad(x, [(0, 0), (0, 0), *zip(site.pads[:axes], site.pads[axes:], strict=True)])
    size = site.shape[2:]
    taps = list(np.ndindex(*size)) if site.whole else [tuple(kernel // 2 for kernel in size)]
    seen = []
    for tap in taps:
        taken = tuple(
            slice(dilation * at, dilation * at + stride * (count - 1) + 1, stride)
            for dilation, at, stride, count in zip(
                site.dilation, tap, site.stride, site.output_size, strict=True
            )
        )
        seen.append(np.moveaxis(padded[(slice(None), slice(None), *taken)], 1, -1))
    return np.stack(seen, axis=-1).reshape(-1, x.shape[1] * len(taps))
