"""Features of several layers: what the convolutions of the last two stages see, beside the network's own features.

The last features of a network tell apart the classes that it was trained on, and have thrown away some of what would
tell new ones apart; its earlier layers still have it. With x_1 ... x_m the inputs of the convolutions that
`--trainable auto` would choose, and mean the mean over the picture (or the signal), the features become
`[features, mean(x_1), ..., mean(x_m)]`, and the classifier `[weight, 0]`: the base's logits stay what they were, and
every head that is fitted later may use all of them. Class statistics grow with their number's square, so of a wide
network's means some are taken (docs/decisions/0020-features-of-layers.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from csk_artifacts_builder.center import site_node
from csk_artifacts_builder.choice import choose_sites
from csk_artifacts_builder.emit import Emitter, static_shape
from csk_artifacts_builder.head import split_head
from csk_artifacts_builder.prepare import SourceModel
from csk_sdk.errors import ConfigError
from csk_sdk.manifest import Site

LAST, LAYERS = "last", "layers"
FEATURES = (LAST, LAYERS)

# As many means as fill the features up to this number, and at least a quarter of it.
_FEATURES_IN_ALL = 1024
_MEANS_AT_LEAST = 256


def with_features(source: SourceModel, sites: Sequence[Site], features: str) -> SourceModel:
    """The prepared model with the features that `--features` asks for: "last" (its own) or "layers".

    `sites` are all possible ones. Raises ConfigError for another word.
    """
    if features not in FEATURES:
        raise ConfigError(f"--features is '{features}'; it must be {LAST} or {LAYERS}.")
    if features == LAST:
        return source
    order = [str(node.name) for node in source.model.graph]
    chosen = choose_sites(list(sites), "auto", order, source.path.name).sites
    return replace(source, model=add_layer_features(source.model, chosen, source.path.name))


def add_layer_features(prepared: ir.Model, sites: Sequence[Site], where: str) -> ir.Model:
    """A copy of the prepared model whose features also hold the means of what `sites` see, with the same logits.

    An input that two sites share is taken once; of too many means, channels evenly spread over all of them. Raises
    ModelError as `split_head` does.
    """
    model = prepared.clone()
    split = split_head(model, where)
    emit = Emitter(model.graph)
    seen = dict.fromkeys(x for site in sites if (x := site_node(model, site).inputs[0]) is not None)
    means = [emit.op("Flatten", emit.op("GlobalAveragePool", x), axis=1) for x in seen]
    for x, mean in zip(seen, means, strict=True):
        mean.shape, mean.type = ir.Shape(static_shape(x)[:2]), x.type
    # Where a model flattens by a computed shape, inference does not find this one.
    split.features.shape = ir.Shape([static_shape(model.graph.inputs[0])[0], split.weight.shape[1]])
    added = sum(int(static_shape(x)[1]) for x in seen)
    most = max(_FEATURES_IN_ALL - split.weight.shape[1], _MEANS_AT_LEAST)
    if added > most:
        spread = emit.constant(np.linspace(0, added - 1, most).round(), np.int64)
        means = [emit.op("Gather", _joined(emit, means), spread, axis=1)]
        added = most
    features = _joined(emit, [split.features, *means])
    weight = _replaced(emit, split.weight_name, np.pad(split.weight, ((0, 0), (0, added))))
    bias = _replaced(emit, split.bias_name, split.bias)
    logits = emit.op("Gemm", features, weight, bias, transB=1)
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


def _joined(emit: Emitter, parts: Sequence[ir.Value]) -> ir.Value:
    return parts[0] if len(parts) == 1 else emit.op("Concat", *parts, axis=1)


def _replaced(emit: Emitter, name: str, array: NDArray[np.float32]) -> ir.Value:
    """An initializer in the place of the one called `name`, and under its name where nobody else reads that."""
    before = emit.graph.initializers.get(name)
    if before is not None and len(before.uses()) > 1:
        return emit.initializer(array, f"{name}.{LAYERS}")
    emit.graph.initializers.pop(name, None)
    return emit.initializer(array, name)
