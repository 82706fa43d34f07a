"""The graphs of a bundle in every form that a device can choose between: from the cut on, in int8, exact beside int8.

All forms share the weights of weights.safetensors, so each costs its structure only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

from csk_artifacts_builder.graphs.prefix import Cut, prefix_model, store_as_half, store_as_uint8, suffix_model
from csk_artifacts_builder.int8.calibrate import Feeds, output_ranges
from csk_artifacts_builder.int8.quantize import Calibration, quantize
from csk_artifacts_builder.measure.verify import standard_ops_only
from csk_sdk.contract.manifest import (
    EVAL_MODEL,
    MEMORY_MODEL,
    MEMORY_SUFFIX,
    PREFIX_MODEL,
    TRAINING_MODEL,
    TRAINING_SUFFIX,
    exact_twin,
)

Models = dict[str, ir.Model]
_SUFFIXES = {TRAINING_SUFFIX: TRAINING_MODEL, MEMORY_SUFFIX: MEMORY_MODEL}


def cut_graphs(prepared: ir.Model, models: Models, cut: Cut) -> Models:
    """The graph up to the cut, and what follows of the others, float32 in between."""
    suffixes = {suffix: suffix_model(models[whole], cut) for suffix, whole in _SUFFIXES.items()}
    return {PREFIX_MODEL: prefix_model(prepared, cut), **suffixes}


def in_exact(models: Models) -> Models:
    """Finished float32 graphs: where they are cut, with float16 in between. In place."""
    if PREFIX_MODEL in models:
        store_as_half(models[PREFIX_MODEL], [models[name] for name in _SUFFIXES])
    _require_standard(models)
    return models


def in_int8(
    models: Models, calibration: Calibration, feeds: Callable[[], Iterable[Feeds]], head_weight: str
) -> Models:
    """The same graphs with their frozen convolutions in int8, and the exact ones as their twins.

    `models` are exact, and as `cut_graphs` left them; `feeds` gives base images. Where some convolutions stay in
    float32, features at the cut are float16 as between exact graphs: rounding them to eight bits would be as coarse.
    """
    exact = {exact_twin(name): model for name, model in in_exact(_copies(models)).items()}
    for name in (TRAINING_MODEL, EVAL_MODEL, MEMORY_MODEL):
        quantize(models[name], calibration, head_weight)
    if PREFIX_MODEL in models and calibration.in_float:
        suffixes = [models[name] for name in _SUFFIXES]
        store_as_half(models[PREFIX_MODEL], suffixes)
        for model in (models[PREFIX_MODEL], *suffixes):
            quantize(model, calibration, head_weight)
    elif PREFIX_MODEL in models:
        spans = output_ranges(models[PREFIX_MODEL], feeds(), calibration.widest)
        suffixes = [models[name] for name in _SUFFIXES]
        store_as_uint8(models[PREFIX_MODEL], suffixes, calibration, spans, head_weight)
    _require_standard(models)
    return {**models, **exact}


def _copies(models: Models) -> Models:
    return {name: model.clone() for name, model in models.items()}


def _require_standard(models: Models) -> None:
    for name, model in models.items():
        standard_ops_only(name, model)
