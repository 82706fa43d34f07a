"""What goes into and comes out of a bundle's graphs, as its manifest says it, held against the graphs themselves.

The table is that of docs/bundle.md, "The graphs". The same is in `device_runners/js/src/bundle/graphInterface.ts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from csk_sdk.bundle.onnx_file import End
from csk_sdk.contract.manifest import (
    CHANNEL_MEAN,
    CHANNEL_VARIANCE,
    CLASS_MASK,
    CROSS_ENTROPY,
    DOMAIN_DEVIATION,
    DOMAIN_MEAN,
    DOMAIN_MODEL,
    DOMAIN_SCALE,
    DOMAIN_SHIFT,
    DOMAIN_STATISTICS,
    EVAL_MODEL,
    LABEL,
    LABEL_SMOOTHING,
    MEMORY_MODEL,
    MEMORY_SUFFIX,
    PREFIX_MODEL,
    TRAINING_MODEL,
    TRAINING_SUFFIX,
    Manifest,
    exact_twin,
)
from csk_sdk.formats.schema import quoted

# TensorProto.DataType of onnx.proto.
FLOAT, UINT8, INT64, BOOL, FLOAT16 = 1, 2, 7, 9, 10
# Free sizes: of the batch, of the classes, of a site's selected channels.
_FREE = None
_PREFIX_TYPES = (FLOAT16, UINT8)


@dataclass(frozen=True)
class Wanted:
    """One input or output: its element types, its shape (None where it is free), and whether it may be missing."""

    types: tuple[int, ...]
    shape: tuple[int | None, ...]
    optional: bool = False


Ends = dict[str, Wanted]


def interface(manifest: Manifest, name: str) -> tuple[Ends, Ends] | None:
    """Inputs and outputs of the graph file `name`; None for a file that is no graph that is run."""
    plain = next((one for one in _GRAPHS if name in (one, exact_twin(one))), None)
    if plain is None:
        return None
    prefix = Wanted(_PREFIX_TYPES, (_FREE, *manifest.prefix))
    image = Wanted((FLOAT,), (_FREE, *manifest.input.shape))
    inputs: Ends = {"image": prefix if plain in (TRAINING_SUFFIX, MEMORY_SUFFIX) else image}
    if plain == PREFIX_MODEL:
        return inputs, {"prefix": prefix}
    features, sites = (_FREE, manifest.head.features), manifest.sites
    channels = Wanted((FLOAT,), (manifest.domain_channels,))
    if plain == DOMAIN_MODEL:
        inputs |= {DOMAIN_SCALE: channels, DOMAIN_SHIFT: channels}
        return inputs, {"features": Wanted((FLOAT,), features)}
    if plain == DOMAIN_STATISTICS:
        inputs |= {DOMAIN_MEAN: channels, DOMAIN_DEVIATION: channels}
        return inputs, {CHANNEL_MEAN: channels, CHANNEL_VARIANCE: channels}
    for site in sites:
        inputs[site.delta] = Wanted((FLOAT,), (site.rows, _FREE))
        inputs[site.indices] = Wanted((INT64,), (_FREE,))
    if plain in (MEMORY_MODEL, MEMORY_SUFFIX):
        moments = {site.moment: Wanted((FLOAT,), (site.groups, site.width, site.width)) for site in sites}
        return inputs, {"features": Wanted((FLOAT,), features), **moments}
    head = manifest.head
    inputs |= {head.weight: Wanted((FLOAT,), features), head.bias: Wanted((FLOAT,), (_FREE,))}
    logits = Wanted((FLOAT,), (_FREE, _FREE))
    if plain == EVAL_MODEL:
        return inputs, {"logits": logits, "features": Wanted((FLOAT,), features)}
    if manifest.loss == CROSS_ENTROPY:
        inputs[LABEL] = Wanted((INT64,), (_FREE,))
        inputs[LABEL_SMOOTHING] = Wanted((FLOAT,), (), optional=True)
        inputs[CLASS_MASK] = Wanted((BOOL,), (_FREE,), optional=True)
    else:
        inputs[LABEL] = Wanted((FLOAT,), (_FREE, _FREE))
    gradients = {site.gradient: Wanted((FLOAT,), (site.rows, _FREE)) for site in sites}
    heads = {head.weight_gradient: Wanted((FLOAT,), features), head.bias_gradient: Wanted((FLOAT,), (_FREE,))}
    return inputs, {"loss": Wanted((FLOAT,), ()), "logits": logits, **heads, **gradients}


_GRAPHS = (
    TRAINING_MODEL,
    EVAL_MODEL,
    MEMORY_MODEL,
    PREFIX_MODEL,
    TRAINING_SUFFIX,
    MEMORY_SUFFIX,
    DOMAIN_MODEL,
    DOMAIN_STATISTICS,
)


def misfit(wanted: Mapping[str, Wanted], found: Mapping[str, End], kind: str) -> str | None:
    """How a graph's ends of one `kind` ("input", "output") differ from those that are wanted; None where they do not.

    A size that is free on one side fits any on the other.
    """
    for name, want in wanted.items():
        end = found.get(name)
        if end is None:
            if not want.optional:
                return f"it has no {kind} {quoted(name)}"
            continue
        fits = end.shape is not None and len(end.shape) == len(want.shape)
        pairs = zip(end.shape or (), want.shape, strict=False)
        if end.type not in want.types or not fits or any(a != b for a, b in pairs if None not in (a, b)):
            return f"its {kind} {quoted(name)} has another type or shape than the manifest says"
    unknown = sorted(found.keys() - wanted.keys())
    return f"it has an {kind} {quoted(unknown[0])}, which nothing in the manifest names" if unknown else None
