"""The kind `graphs` of the conformance cases (docs/conformance.md): each graph of a bundle, and all that it gives."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import (
    DOMAIN_DEVIATION,
    DOMAIN_MEAN,
    DOMAIN_MODEL,
    DOMAIN_SCALE,
    DOMAIN_SHIFT,
    DOMAIN_STATISTICS,
    EVAL_MODEL,
    EXPORT_TEMPLATE,
    LABEL,
    MEMORY_MODEL,
    MEMORY_SUFFIX,
    PREFIX_MODEL,
    TRAINING_MODEL,
    TRAINING_SUFFIX,
    Manifest,
)
from csk_sdk.device.choice import in_chosen_precision
from csk_sdk.learning.prefix_cache import feature_dtype
from csk_sdk.network.export import export_model
from csk_sdk.network.predicting import LinearHead
from csk_sdk.runtime.sessions import Graph
from csk_sdk.state import Generation

Tensors = dict[str, NDArray[Any]]
_THREADS = 1

# The suffixes, and the graphs whose place they take where prefix features stand for images.
_WHOLE = {TRAINING_SUFFIX: TRAINING_MODEL, MEMORY_SUFFIX: MEMORY_MODEL}
_SITES, _HEAD, _LABEL = "sites", "head", "label"
# Of all channels, by their own names.
_OF_CHANNELS = {
    DOMAIN_MODEL: (DOMAIN_SCALE, DOMAIN_SHIFT),
    DOMAIN_STATISTICS: (DOMAIN_MEAN, DOMAIN_DEVIATION),
}
# What each graph reads beside its images.
_READS = {
    TRAINING_MODEL: (_SITES, _HEAD, _LABEL),
    EVAL_MODEL: (_SITES, _HEAD),
    MEMORY_MODEL: (_SITES,),
    PREFIX_MODEL: (),
    **_OF_CHANNELS,
}


def graphs(settings: Mapping[str, Any], given: Tensors, bundle: Path) -> Tensors:
    """Every output of the graphs of `settings["graphs"]`, as `GRAPH/OUTPUT`, in the case's precision."""
    opened = Bundle.open(bundle)
    opened = in_chosen_precision(opened, settings["precision"], bundle / "state")
    found: Tensors = {}
    for name in settings["graphs"]:
        exported = name == EXPORT_TEMPLATE
        outputs = _exported(opened, given, settings["input"]) if exported else _of_bundle(opened, name, given)
        found |= {f"{graph_name(name)}/{output}": value for output, value in outputs.items()}
    return found


def graph_name(file: str) -> str:
    """What outputs and tables call a graph: its file without a suffix."""
    return file.removesuffix(".onnx")


def feeds_of(manifest: Manifest, name: str, given: Tensors) -> Tensors:
    """What the graph in file `name` is fed of a case's inputs, by the graph's own names."""
    feeds: Tensors = {"image": given["prefix" if name in _WHOLE else "images"]}
    reads = _READS[_WHOLE.get(name, name)]
    if _SITES in reads:
        for site in manifest.sites:
            feeds[site.delta] = given[f"delta/{site.name}"]
            feeds[site.indices] = given[f"selected/{site.name}"]
    if _HEAD in reads:
        feeds |= {manifest.head.weight: given["weight"], manifest.head.bias: given["bias"]}
    if _LABEL in reads:
        feeds[LABEL] = given["labels"]
    return feeds | {of_all: given[of_all] for of_all in _OF_CHANNELS.get(name, ())}


def _of_bundle(opened: Bundle, name: str, given: Tensors) -> Tensors:
    feeds = feeds_of(opened.manifest, name, given)
    view = opened.view(from_prefix=name in _WHOLE)
    if view.from_prefix:
        feeds["image"] = feeds["image"].astype(feature_dtype(opened))
    graph = view.graph(_WHOLE.get(name, name), opened.checkpoint(), _THREADS)
    return {output: np.atleast_1d(value) for output, value in graph.run(feeds, graph.outputs).items()}


def _exported(opened: Bundle, given: Tensors, image: str) -> Tensors:
    """The template completed as `csk-sdk export` completes it, with the case's head; `image` is its input's name."""
    classes = tuple(str(index) for index in range(len(given["bias"])))
    head = LinearHead(classes, given["weight"], given["bias"], opened.objective)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exported.onnx"
        export_model(opened, Generation(0, None, (), opened.checkpoint()), head, path)
        graph = Graph(path, _THREADS)
    (logits,) = graph.run({image: given["images"]}).values()
    return {"logits": logits}
