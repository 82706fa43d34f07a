"""A network as a list of layers: what the formulas of `bench.costs` are about."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import onnx_ir as ir

from csk_artifacts_builder.emit import attribute
from csk_artifacts_builder.measure.fixed_sizes import sized
from csk_artifacts_builder.prepare.model import prepare
from csk_sdk.contract.manifest import Site
from csk_sdk.method.selection import channel_count

_RECTIFIERS = {"Relu", "Clip"}


@dataclass(frozen=True)
class Layer:
    """A convolution or the classifier, for one image.

    `inputs` and `outputs` are elements; `positions` are the output's. `reads` names the input, so that one that two
    layers share is kept once. `after` holds the numbers of the layers that the input depends on. `stage` counts how
    often the convolutions' outputs have become smaller. `channels` are those that a site trains, 0 where it is none.
    """

    weights: int
    biases: int
    inputs: int
    outputs: int
    positions: int
    reads: str
    after: frozenset[int]
    c_out: int
    group_channels: int
    groups: int
    stage: int
    channels: int

    @property
    def flops(self) -> int:
        """Of its forward pass: 2 for a multiply-add."""
        return 2 * self.weights * self.positions

    @property
    def depth(self) -> int:
        """Products in each output, `(c_in / groups) k^2`."""
        return self.weights // self.c_out

    @property
    def rows(self) -> int:
        """Output channels that an input channel feeds."""
        return self.c_out // self.groups


@dataclass(frozen=True)
class Rectifier:
    """A ReLU or ReLU6: its output's name, the layers that it comes after, and its elements."""

    name: str
    after: frozenset[int]
    elements: int


@dataclass(frozen=True)
class Network:
    """Layers in order, the classifier last, with batch norm folded."""

    layers: tuple[Layer, ...]
    rectifiers: tuple[Rectifier, ...]

    @property
    def sites(self) -> tuple[Layer, ...]:
        """The layers that csk-sdk trains."""
        return tuple(layer for layer in self.layers if layer.channels)

    def behind(self, trained: Collection[int]) -> list[Layer]:
        """The layers that hand a gradient on to these, by number."""
        return [layer for layer in self.layers if layer.after & set(trained)]


def read(model: Path, sites: Sequence[Site], channel_ratio: float) -> Network:
    """The layers of an ONNX classifier."""
    graph = sized(prepare(model).model, {"N": 1}).graph
    trained = {site.node: site for site in sites}
    layers: list[Layer] = []
    rectifiers: list[Rectifier] = []
    after: dict[ir.Value, frozenset[int]] = {}
    stage, smallest = -1, sys.maxsize
    for node in graph:
        before = frozenset[int]().union(*(after.get(x, ()) for x in node.inputs if x is not None))
        if node.op_type in _RECTIFIERS:
            rectifiers.append(Rectifier(str(node.outputs[0].name), before, _size(node.outputs[0])))
        if node.op_type in ("Conv", "Gemm"):
            layer = _layer(node, before, trained.get(str(node.name)), channel_ratio)
            smaller = node.op_type == "Conv" and layer.positions < smallest
            stage, smallest = stage + smaller, layer.positions if smaller else smallest
            layers.append(replace(layer, stage=stage))
            before |= {len(layers) - 1}
        after.update(dict.fromkeys(node.outputs, before))
    return Network(tuple(layers), tuple(rectifiers))


def _layer(node: ir.Node, after: frozenset[int], site: Site | None, channel_ratio: float) -> Layer:
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    shape, out = _shape(weight), _shape(node.outputs[0])
    if node.op_type == "Gemm" and not attribute(node, "transB", 0):
        shape.reverse()
    return Layer(
        weights=prod(shape), biases=shape[0], inputs=_size(x), outputs=prod(out), positions=prod(out[2:]),
        reads=str(x.name), after=after, c_out=shape[0], group_channels=shape[1],
        groups=int(attribute(node, "group", 1)), stage=0,
        channels=channel_count(site.columns, channel_ratio) if site else 0,
    )  # fmt: skip


def _shape(value: ir.Value) -> list[int]:
    assert value.shape is not None
    return [int(dim) for dim in value.shape]  # type: ignore[arg-type]


def _size(value: ir.Value) -> int:
    return prod(_shape(value))
