"""The graphs of a domain: what convolutions give is brought to another mean and deviation, channel by channel.

Adaptive batch normalisation (Li et al., "Revisiting batch normalization for practical domain adaptation", 2016,
arXiv 1603.04779), for any convolutional network: means and deviations of the base images stand where those of a batch
norm did, so that none is needed. See docs/decisions/0038-domains.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, nodes_above, static_shape
from csk_artifacts_builder.graphs.models import FEATURES, Working, finish, open_up
from csk_sdk.contract.manifest import (
    CHANNEL_MEAN,
    CHANNEL_VARIANCE,
    DOMAIN_DEVIATION,
    DOMAIN_MEAN,
    DOMAIN_SCALE,
    DOMAIN_SHIFT,
    Head,
)
from csk_sdk.method.domains import LEAST_DEVIATION, MOST_SCALE

# What one convolution's output becomes, of it and of its channels' part of the graph's inputs.
_Change = Callable[[ir.Value, Sequence[ir.Value]], ir.Value]


def domain_channels(prepared: ir.Model, where: str) -> int:
    """How many channels all convolutions in front of the features have together."""
    return sum(_channels(node) for node in _convolutions(open_up(prepared, (), where)))


def domain_model(prepared: ir.Model, head: Head, where: str) -> ir.Model:
    """In: image, `domain_scale` and `domain_shift` `(channels,)`; out: features, each convolution's `y` being
    `y * scale + shift`."""
    work = open_up(prepared, (), where)
    emit = work.emit

    def affine(y: ir.Value, parts: Sequence[ir.Value]) -> ir.Value:
        scale, shift = parts
        return emit.op("Add", emit.op("Mul", y, scale), shift)

    _change(work, (DOMAIN_SCALE, DOMAIN_SHIFT), affine)
    emit.output(work.split.features, FEATURES, ["N", head.features])
    return finish(work.model, "csk_domain")


def domain_statistics(prepared: ir.Model, where: str) -> ir.Model:
    """In: image, `domain_mean` and `domain_deviation` `(channels,)`; out: of all convolutions `channel_mean` and
    `channel_variance` `(channels,)` over the batch.

    Each convolution sees what those in front of it gave when their means and deviations were those that are fed.
    """
    work = open_up(prepared, (), where)
    emit = work.emit
    means, variances = [], []

    def normalised(y: ir.Value, parts: Sequence[ir.Value]) -> ir.Value:
        mean, variance, around = _moments(emit, y)
        means.append(mean)
        variances.append(variance)
        wanted_mean, wanted_deviation = parts
        deviation = emit.op("Add", emit.op("Sqrt", variance), emit.scalar(LEAST_DEVIATION))
        scale = emit.op("Min", emit.op("Div", wanted_deviation, deviation), emit.scalar(MOST_SCALE))
        return emit.op("Add", emit.op("Mul", around, scale), wanted_mean)

    _change(work, (DOMAIN_MEAN, DOMAIN_DEVIATION), normalised)
    _output_all(work, means, variances)
    return finish(work.model, "csk_domain_statistics")


def plain_statistics(prepared: ir.Model, where: str) -> ir.Model:
    """In: image; out: those of the network as it is. No part of a bundle: the base images are measured with it."""
    work = open_up(prepared, (), where)
    means, variances = [], []
    for node in _convolutions(work):
        with work.emit.behind(node):
            mean, variance, _ = _moments(work.emit, node.outputs[0])
        means.append(mean)
        variances.append(variance)
    _output_all(work, means, variances)
    return finish(work.model, "csk_plain_statistics")


def _moments(emit: Emitter, y: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Of a batch `(n, c, ...)`: mean and variance `(1, c, 1, ...)`, and what is around the mean."""
    axes = [0, *range(2, len(static_shape(y)))]
    mean = emit.op("ReduceMean", y, axes=axes, keepdims=1)
    around = emit.op("Sub", y, mean)
    variance = emit.op("ReduceMean", emit.op("Mul", around, around), axes=axes, keepdims=1)
    return mean, variance, around


def _change(work: Working, inputs: Sequence[str], change: _Change) -> None:
    """Put what `change` makes of it in the place of each convolution's output; `inputs` have all channels."""
    emit, convolutions = work.emit, _convolutions(work)
    counts = [_channels(node) for node in convolutions]
    fed = [emit.input(name, ir.DataType.FLOAT, [sum(counts)]) for name in inputs]
    with emit.before(work.model.graph[0]):
        parts = [emit.ops("Split", one, emit.ints(*counts), outputs=len(counts), axis=0) for one in fed]
        shaped = [
            [
                emit.op("Reshape", part, _shape(emit, node))
                for part, node in zip(of_all, convolutions, strict=True)
            ]
            for of_all in parts
        ]
    for index, node in enumerate(convolutions):
        y = node.outputs[0]
        before = set(y.uses())
        with emit.behind(node):
            made = change(y, [of_all[index] for of_all in shaped])
        made.shape, made.dtype = y.shape, ir.DataType.FLOAT
        for user, position in before:
            user.replace_input_with(position, made)


def _output_all(work: Working, means: Sequence[ir.Value], variances: Sequence[ir.Value]) -> None:
    emit = work.emit
    for name, values in ((CHANNEL_MEAN, means), (CHANNEL_VARIANCE, variances)):
        flat = [emit.op("Reshape", value, emit.ints(-1)) for value in values]
        emit.output(emit.op("Concat", *flat, axis=0), name, ["channels"])


def _convolutions(work: Working) -> list[ir.Node]:
    """Those that the features are made of, in the graph's order."""
    reached = nodes_above([work.split.features])
    return [node for node in work.model.graph if node in reached and node.op_type == "Conv"]


def _channels(node: ir.Node) -> int:
    return int(static_shape(node.outputs[0])[1])


def _shape(emit: Emitter, node: ir.Node) -> ir.Value:
    spatial = len(static_shape(node.outputs[0])) - 2
    return emit.ints(1, _channels(node), *[1] * spatial)
