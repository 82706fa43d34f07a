"""What the graphs of a bundle must give, from its source model in torch's float64: outputs by `GRAPH/OUTPUT`.

Of the bundle only names, geometry and the form of its interface are believed (docs/bundle.md).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from reference import as_tensor, evaluate
from torch import Tensor
from torch.nn import functional

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "conformance"), str(TESTS / "builder")]
from network import _batch_norm_scale, _seen  # noqa: E402

from csk_sdk.contract.manifest import Manifest, Site  # noqa: E402

Arrays = dict[str, NDArray]
TOLERANCE = 1e-4
# Below this share of 1 a gradient is compared in absolute terms: float32 leaves as much where terms cancel.
FLOOR = 1e-2
NOISE, STEADY = 1e-5, 1e-3


class Unsteady(ValueError):
    """A hundred-thousandth of the image decides: a kink, a tie, a step."""


def inputs(rng: np.random.Generator, manifest: Manifest, classes: int, batch: int = 3) -> Arrays:
    """A case's inputs (docs/conformance.md, kind `graphs`)."""
    head = manifest.head
    found: Arrays = {
        "images": rng.normal(size=(batch, *manifest.input.shape)).astype(np.float32),
        "labels": np.arange(batch) % classes,
        "weight": rng.normal(scale=head.features**-0.5, size=(classes, head.features)).astype(np.float32),
        "bias": rng.normal(scale=0.1, size=classes).astype(np.float32),
    }
    for site in manifest.sites:
        count = max(1, site.columns // 2)
        found[f"selected/{site.name}"] = np.sort(rng.choice(site.columns, count, replace=False))
        found[f"delta/{site.name}"] = rng.normal(scale=0.1, size=(site.rows, count)).astype(np.float32)
    return found


def golden(model: onnx.ModelProto, manifest: Manifest, given: Mapping[str, NDArray]) -> Arrays:
    """All outputs of training, eval, memory and exported model, float64. Raises Unsteady."""
    found = _computed(model, manifest, given)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        noise = 1 + NOISE * rng.standard_normal(given["images"].shape)
        moved = _computed(model, manifest, {**given, "images": given["images"] * noise})
        for name, value in found.items():
            scale = max(float(np.abs(value).max(initial=0.0)), FLOOR)
            if not np.abs(moved[name] - value).max(initial=0.0) <= STEADY * scale:
                raise Unsteady(name)
    return found


def allowed(value: NDArray) -> float:
    """How far off an output may be, in absolute terms."""
    return TOLERANCE * max(float(np.abs(value).max(initial=0.0)), FLOOR)


def _computed(model: onnx.ModelProto, manifest: Manifest, given: Mapping[str, NDArray]) -> Arrays:
    weight, bias = (as_tensor(given[name]).requires_grad_() for name in ("weight", "bias"))
    deltas = {site.name: as_tensor(given[f"delta/{site.name}"]).requires_grad_() for site in manifest.sites}
    read = _features_of(model, manifest)
    values = evaluate(model, {"x": as_tensor(given["images"]), **_kernels(model, manifest, deltas, given)})
    features = values[read].flatten(1)
    logits = features @ weight.T + bias
    loss = functional.cross_entropy(logits, torch.from_numpy(np.asarray(given["labels"], np.int64)))
    of_weight, of_bias, *of_deltas = torch.autograd.grad(
        loss, [weight, bias, *deltas.values()], allow_unused=True
    )
    found: dict[str, Tensor | NDArray | None] = {
        "training_model/loss": loss.reshape(1),
        "training_model/logits": logits,
        f"training_model/{manifest.head.weight_gradient}": of_weight,
        f"training_model/{manifest.head.bias_gradient}": of_bias,
        "eval_model/features": features,
        "eval_model/logits": logits,
        "memory_model/features": features,
    }
    for site, gradient in zip(manifest.sites, of_deltas, strict=True):
        none = torch.zeros_like(deltas[site.name])
        found[f"training_model/{site.gradient}"] = none if gradient is None else gradient
        found[f"memory_model/{site.moment}"] = _moment(site, values[_input_of(model, site.weight)])
    plain = evaluate(model, {"x": as_tensor(given["images"])})[read].flatten(1)
    found["export_template/logits"] = plain @ weight.T + bias
    return {name: _array(value) for name, value in found.items()}


def _array(value: Tensor | NDArray) -> NDArray:
    return value.detach().numpy() if isinstance(value, Tensor) else value


def _kernels(
    model: onnx.ModelProto, manifest: Manifest, deltas: Mapping[str, Tensor], given: Mapping[str, NDArray]
) -> dict[str, Tensor]:
    """The sites' kernels with their centers changed; a delta is in units of the kernel with batch norm folded in."""
    source = {
        tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer
    }
    found = {}
    for site in manifest.sites:
        scale = torch.from_numpy(_batch_norm_scale(list(model.graph.node), source, site.weight))
        change = torch.zeros(site.shape[:2], dtype=torch.float64)
        for column, channel in enumerate(given[f"selected/{site.name}"]):
            group, within = divmod(int(channel), site.shape[1])
            rows = torch.zeros(site.shape[0], dtype=torch.float64)
            rows = torch.cat(
                [
                    rows[: group * site.rows],
                    deltas[site.name][:, column],
                    rows[(group + 1) * site.rows :],
                ]
            )
            change = change + rows[:, None] * functional.one_hot(torch.tensor(within), site.shape[1])
        middle = torch.zeros(site.shape[2:], dtype=torch.float64)
        middle[tuple(size // 2 for size in site.shape[2:])] = 1.0
        change = (change / scale[:, None]).reshape(*site.shape[:2], *[1] * middle.ndim)
        found[site.weight] = torch.from_numpy(source[site.weight]) + change * middle
    return found


def _moment(site: Site, x: Tensor) -> NDArray:
    seen = _seen(site, x.detach().numpy())
    return np.stack([block.T @ block for block in np.split(seen, site.groups, axis=1)])


def _input_of(model: onnx.ModelProto, weight: str) -> str:
    return str(next(node.input[0] for node in model.graph.node if weight in node.input))


def _features_of(model: onnx.ModelProto, manifest: Manifest) -> str:
    return _input_of(model, manifest.head.source_weight)
