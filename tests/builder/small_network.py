"""A small classifier, and its loss in float64.

Gradients are compared at smooth points: `Network.kinks` names the values in front of a kink, and the bias
that moves them; `smooth` shifts those biases so that no element comes near the kink on the given images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_text import Erf, in_float64, model

from csk_sdk.contract.manifest import Manifest, Site

MARGIN = 1e-3
EPSILON = 1e-5


@dataclass(frozen=True)
class Network:
    """`nodes` lead from `x` `(N, *image)` to `y` `(N, classes)`; tensors are arrays, or shapes to draw.

    A convolution with weight `a_w` may have a batch norm behind it: `a_gamma`, `a_beta`, `a_mean`, `a_var`.
    `pooled` are the inputs of max pools, with kernel and stride.
    """

    name: str
    nodes: str
    tensors: dict[str, tuple[int, ...] | NDArray]
    image: tuple[int, ...] = (3, 9, 9)
    classes: int = 3
    kinks: Mapping[str, tuple[str, tuple[float, ...]]] = field(default_factory=dict)
    pooled: Sequence[tuple[str, int, int]] = ()
    opset: int = 17
    batch: str = "N"

    def proto(self) -> onnx.ModelProto:
        image = ",".join(map(str, self.image))
        text = (
            f"(float[{self.batch},{image}] x) => (float[{self.batch},{self.classes}] y) {{\n{self.nodes}\n}}"
        )
        return model(text, self.opset, **{name: _drawn(name, spec) for name, spec in self.tensors.items()})

    def batch_norm_scale(self, weight: str) -> NDArray:
        """What batch norm multiplies the output channels of a convolution by."""
        name = weight.removesuffix("_w")
        if f"{name}_gamma" not in self.tensors:
            return np.ones(1)
        gamma, variance = (_drawn(key, self.tensors[key]) for key in (f"{name}_gamma", f"{name}_var"))
        return gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)


def norm(name: str, channels: int, gain: float = 1.0) -> dict[str, NDArray]:
    """Parameters of a batch norm that changes scale and shift, with `gain` times the usual gamma."""
    rng = np.random.default_rng(_seed(name))
    return {
        f"{name}_gamma": (gain * rng.uniform(0.7, 1.4, channels)).astype(np.float32),
        f"{name}_beta": rng.normal(0, 0.2, channels).astype(np.float32),
        f"{name}_mean": rng.normal(0, 0.2, channels).astype(np.float32),
        f"{name}_var": rng.uniform(0.6, 1.6, channels).astype(np.float32),
    }


def normalised(out: str, name: str, x: str) -> str:
    return f"{out} = BatchNormalization ({x}, {name}_gamma, {name}_beta, {name}_mean, {name}_var)"


def _drawn(name: str, spec: tuple[int, ...] | NDArray) -> NDArray:
    """Random numbers by name, so that a network is the same wherever it is built."""
    if not isinstance(spec, tuple):
        return spec
    fan_in = int(np.prod(spec[1:])) if len(spec) > 1 else 25
    drawn = np.random.default_rng(_seed(name)).normal(0, np.sqrt(1.5 / fan_in), size=spec)
    return drawn.astype(np.float32)


def _seed(name: str) -> int:
    return int.from_bytes(name.encode()[:8], "little")


def pictures(network: Network, count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, *network.image)).astype(np.float32)


# --- the loss, in float64


class Witness:
    """The source network itself in float64, its kernels changed at their centers, or where they are whole, anywhere."""

    def __init__(self, network: Network, manifest: Manifest) -> None:
        self.network = network
        self.manifest = manifest
        self._proto = in_float64(network.proto())
        self._evaluator = ReferenceEvaluator(self._proto, new_ops=[Erf])
        self._weights = {site.name: self._evaluator.rt_inits_[site.weight].copy() for site in manifest.sites}

    def change(self, deltas: Mapping[str, NDArray], indices: Mapping[str, NDArray]) -> None:
        """Put changes in; column `j` of a delta is column `indices[j]` of the site (manifest.Site)."""
        self._evaluator.rt_inits_.update(self.changed(deltas, indices))

    def changed(self, deltas: Mapping[str, NDArray], indices: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """The source network's kernels with changes, by name."""
        kernels = {}
        for site in self.manifest.sites:
            scale = self.network.batch_norm_scale(site.weight)
            changed = self._weights[site.name].copy()
            size = site.shape[2:]
            places = list(np.ndindex(*size)) if site.whole else [tuple(length // 2 for length in size)]
            for column, index in zip(deltas[site.name].T, indices[site.name], strict=True):
                channel, place = divmod(int(index), len(places))
                group, within = divmod(channel, site.shape[1])
                rows = slice(group * site.rows, (group + 1) * site.rows)
                factor = scale[rows] if len(scale) > 1 else scale
                changed[(rows, within, *places[place])] += column / factor
            kernels[site.weight] = changed
        return kernels

    def logits(self, images: NDArray) -> NDArray:
        return self._evaluator.run(None, {"x": images.astype(np.float64)})[0]

    def loss(self, images: NDArray, labels: NDArray, weight: NDArray, bias: NDArray) -> float:
        """Mean cross-entropy under another head."""
        manifest = self.manifest.head
        self._evaluator.rt_inits_[manifest.source_weight] = weight
        self._evaluator.rt_inits_[manifest.source_bias] = bias
        logits = self.logits(images)
        logits = logits - logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float(-log_p[np.arange(len(labels)), labels].mean())

    def value(self, name: str, images: NDArray) -> NDArray:
        """What flows through one edge of the source network."""
        return values(self._proto, images, [name], self._evaluator.rt_inits_)[name]

    def input_of(self, site: Site) -> str:
        return next(node.input[0] for node in self._proto.graph.node if site.weight in node.input)


def values(
    proto: onnx.ModelProto,
    images: NDArray,
    names: Sequence[str],
    weights: Mapping[str, NDArray] | None = None,
) -> dict[str, NDArray]:
    if list(names) == ["x"]:
        return {"x": images.astype(np.float64)}
    opened = onnx.ModelProto()
    opened.CopyFrom(proto)
    del opened.graph.output[:]
    opened.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None) for name in names
    )
    evaluator = ReferenceEvaluator(opened, new_ops=[Erf])
    evaluator.rt_inits_.update(weights or {})
    return dict(zip(names, evaluator.run(None, {"x": images.astype(np.float64)}), strict=True))


# --- smooth points


def smooth(network: Network, images: NDArray) -> Network:
    """The network with its biases shifted so that no kink is met on `images`."""
    for value, (bias, points) in network.kinks.items():
        array = np.moveaxis(values(in_float64(network.proto()), images, [value])[value], 1, 0)
        current = _drawn(bias, network.tensors[bias])
        shifts = np.linspace(-0.4, 0.4, 401)
        best = []
        for channel in array.reshape(len(array), -1):
            room = [min(np.abs(channel + shift - point).min() for point in points) for shift in shifts]
            best.append(shifts[int(np.argmax(room))])
        moved = {bias: (current + np.array(best)).astype(np.float32)}
        network = replace(network, tensors={**network.tensors, **moved})
    return network


def room(network: Network, images: NDArray) -> float:
    """How near the nearest kink is: of activations, and of the two largest elements of a pooled window."""
    names = [*network.kinks, *(name for name, _, _ in network.pooled)]
    if not names:
        return np.inf
    found = values(in_float64(network.proto()), images, names)
    rooms = [np.inf]
    for name, (_, points) in network.kinks.items():
        rooms += [float(np.abs(found[name] - point).min()) for point in points]
    for name, kernel, stride in network.pooled:
        axes = tuple(range(2, found[name].ndim))
        window = (kernel,) * len(axes)
        windows = np.lib.stride_tricks.sliding_window_view(found[name], window, axis=axes)
        windows = windows[(slice(None), slice(None), *[slice(None, None, stride)] * len(axes))]
        windows = windows.reshape(-1, kernel ** len(axes))
        largest = np.sort(windows, axis=1)[:, -2:]
        rooms.append(float((largest[:, 1] - largest[:, 0])[largest[:, 1] > 0].min()))
    return min(rooms)
