"""Features of several layers: what the network's convolutions see, beside the network's own features.

The last features of a network tell apart the classes that it was trained on, and have thrown away some of what would
tell new ones apart; its earlier layers still have it. With x_1 ... x_m the inputs of the convolutions of the last two
stages (those that `--trainable auto` would choose), e_1 ... e_k the inputs of those in front of them, and mean and rms
over the image (or the signal), the features become `[features, mean(x_1) ... mean(x_m), rms(e_k) ... rms(e_1)]`, and
the classifier `[weight, 0]`: the base's logits stay what they were, and every head that is fitted later may use all of
them. A root mean square tells more than a mean, for a channel that is strong in one place is not what a weak one
everywhere is; but its gradient reads the whole map, so that means stand where training passes. "wide" adds
`rms(x_1) ... rms(x_m)` and `mean(e_k) ... mean(e_1)`. Class statistics grow with the features' number's square, so
earlier layers come in, the nearest first, as long as there is room for all of their channels; and of too many channels
of the last two stages some are taken (docs/decisions/0020-features-of-layers.md). "all" has more room, and takes root
mean squares and means from the first layer on, which have few channels and tell most for each: so a network whose last
two stages would fill it has them, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, nodes_above, static_shape
from csk_artifacts_builder.graphs.center import site_node
from csk_artifacts_builder.graphs.choice import choose_sites
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.graphs.whole_images import of_whole_images
from csk_artifacts_builder.prepare.model import SourceModel
from csk_sdk.contract.manifest import Site
from csk_sdk.errors import ConfigError

LAST, LAYERS, WIDE, ALL = "last", "layers", "wide", "all"
FEATURES = (LAST, LAYERS, WIDE, ALL)

# As many are added as fill the features up to this number, and at least so many.
_FEATURES_IN_ALL = {LAYERS: 1024, WIDE: 1536, ALL: 4096}
_ADDED_AT_LEAST = 256
_TINY = 1e-12


def with_features(source: SourceModel, sites: Sequence[Site], features: str) -> SourceModel:
    """The prepared model with the features that `--features` asks for: one of FEATURES, "last" for its own.

    `sites` are all possible ones. Raises ConfigError for another word.
    """
    if features not in FEATURES:
        raise ConfigError(f"--features is '{features}'; it must be {LAST}, {LAYERS}, {WIDE} or {ALL}.")
    if features == LAST:
        return source
    order = [str(node.name) for node in source.model.graph]
    late = choose_sites(list(sites), "auto", order, source.path.name).sites
    return replace(source, model=add_layer_features(source.model, sites, late, source.path.name, features))


def add_layer_features(
    prepared: ir.Model, sites: Sequence[Site], late: Sequence[Site], where: str, features: str
) -> ir.Model:
    """A copy of the prepared model whose features also hold what is pooled of `sites`' inputs, with the same logits.

    `late` are those of the last two stages. An input that two sites share is taken once. In front of
    the last two stages the image is no layer; where it is what their first site sees, its means are features too.
    Raises ModelError as `split_head` does.
    """
    model = prepared.clone()
    split = split_head(model, where)
    emit = Emitter(model.graph)
    # Where a model flattens by a computed shape, inference does not find this one.
    split.features.shape = ir.Shape([static_shape(model.graph.inputs[0])[0], split.weight.shape[1]])
    most = max(_FEATURES_IN_ALL[features] - split.weight.shape[1], _ADDED_AT_LEAST)
    whole = of_whole_images(model)
    seen, every = ([x for x in _inputs(model, of) if x.name in whole] for of in (late, sites))
    before = [x for x in reversed(every) if x not in seen and _is_layer(x)]
    chosen = [(_mean, x) for x in seen]
    further = [(_root_mean_square, x) for x in before]
    if features == WIDE:
        chosen += [(_root_mean_square, x) for x in seen]
        further += [(_mean, x) for x in before]
    if features == ALL:
        chosen = []
        further = [(pool, x) for x in (*reversed(before), *seen) for pool in (_root_mean_square, _mean)]
    room = most - _channels([x for _, x in chosen])
    for pool, x in further:
        room -= _channels([x])
        if room < 0:
            break
        chosen.append((pool, x))
    pooled = [pool(emit, x) for pool, x in chosen]
    added = _channels(pooled)
    if added > most:
        spread = emit.constant(np.linspace(0, added - 1, most).round(), np.int64)
        pooled = [emit.op("Gather", _joined(emit, pooled), spread, axis=1)]
        added = most
    joined = _joined(emit, [split.features, *pooled])
    weight = _replaced(emit, split.weight_name, np.pad(split.weight, ((0, 0), (0, added))))
    bias = _replaced(emit, split.bias_name, split.bias)
    logits = emit.op("Gemm", joined, weight, bias, transB=1)
    # Its user knows the classifier by its name, and may say so in --trainable.
    emitted = logits.producer()
    assert emitted is not None
    emitted.name, split.node.name = split.node.name, None
    if split.activation is not None:
        attributes: dict[str, Any] = {} if split.activation == "Sigmoid" else {"axis": -1}
        logits = emit.op(split.activation, logits, **attributes)
    old = model.graph.outputs[0]
    logits.shape, logits.type = old.shape, old.type
    logits.name, old.name = split.output_name, None
    model.graph.outputs[0] = logits
    passes.RemoveUnusedNodesPass()(model)
    passes.ShapeInferencePass()(model)
    return model


def _inputs(model: ir.Model, sites: Sequence[Site]) -> list[ir.Value]:
    """What sites see, in graph order, each once."""
    return list(dict.fromkeys(x for site in sites if (x := site_node(model, site).inputs[0]) is not None))


def _is_layer(x: ir.Value) -> bool:
    """Whether a convolution has made it: the image, scaled or not, is no layer."""
    return any(node.op_type == "Conv" for node in nodes_above([x]))


def _channels(values: Sequence[ir.Value]) -> int:
    return sum(int(static_shape(value)[1]) for value in values)


def _mean(emit: Emitter, x: ir.Value) -> ir.Value:
    """The mean of each channel, `(N, c)`."""
    with emit.behind(x.producer()):
        return _reduced(emit, x, x)


def _root_mean_square(emit: Emitter, x: ir.Value) -> ir.Value:
    """`sqrt(mean(x^2) + tiny)` of each channel, `(N, c)`; a channel of zeros has the gradient 0."""
    with emit.behind(x.producer()):
        # Five times as fast as ReduceL2 in ONNX Runtime 1.32.
        square = emit.op("Mul", x, x)
        square.shape, square.type = x.shape, x.type
        mean = emit.op("Add", _reduced(emit, square, x), emit.scalar(_TINY))
        root = emit.op("Sqrt", mean)
    for value in (mean, root):
        value.shape, value.type = ir.Shape(static_shape(x)[:2]), x.type
    return root


def _reduced(emit: Emitter, x: ir.Value, like: ir.Value) -> ir.Value:
    """The mean over all but batch and channels, `(N, c)`: four times as fast as GlobalAveragePool."""
    size = static_shape(like)
    mean = emit.op("ReduceMean", x, axes=list(range(2, len(size))), keepdims=0)
    mean.shape, mean.type = ir.Shape(size[:2]), like.type
    return mean


def _joined(emit: Emitter, parts: Sequence[ir.Value]) -> ir.Value:
    return parts[0] if len(parts) == 1 else emit.op("Concat", *parts, axis=1)


def _replaced(emit: Emitter, name: str, array: NDArray[np.float32]) -> ir.Value:
    """An initializer in the place of the one called `name`, and under its name where nobody else reads that."""
    before = emit.graph.initializers.get(name)
    if before is not None and len(before.uses()) > 1:
        return emit.initializer(array, f"{name}.{LAYERS}")
    emit.graph.initializers.pop(name, None)
    return emit.initializer(array, name)
