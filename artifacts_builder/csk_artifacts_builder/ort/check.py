"""Whether one step of the artifacts of onnxruntime-training is the model's: its logits, and the portable gradients.

Training graphs may behave otherwise than the model did (Dropout, normalization), and some gradients of 1.19.2 are wrong
without an error. What is trained must be what is deployed, and by the gradient of its own loss; the portable rules are
tested against differences in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import static_shape
from csk_artifacts_builder.gradients.registry import NOT_DIFFERENTIABLE
from csk_artifacts_builder.graphs.head import SplitHead, split_head
from csk_artifacts_builder.graphs.models import IMAGE, training_model
from csk_artifacts_builder.ort.dialect import nodes_behind
from csk_artifacts_builder.ort.probe import relative_difference, wrong_by
from csk_sdk.contract.manifest import LABEL, Head, Site
from csk_sdk.method.projection import gather
from csk_sdk.runtime.sessions import import_training, open_session, session_options

Arrays = dict[str, NDArray[np.float32]]
_TOLERANCE = 1e-3
# Of a gradient's norm. Rounding moves it by 1e-6, and by up to a tenth where it moves the place of a maximum or turns a
# Relu, so there are several attempts; wrong ones were off by a third and more, at every attempt.
_GRADIENT_TOLERANCE = 1e-3
_ATTEMPTS = 3


def wrong_logits(prepared: ir.Model, folder: Path, where: str) -> str | None:
    """What is wrong with the logits of the training step in `folder` on two noisy images, or None.

    Raises what the package raises where the artifacts do not run.
    """
    x, split = _pictures(prepared, 0), split_head(prepared, where)
    features = ir.external_data.load_to_model(prepared.clone())
    features.graph.outputs[:] = [split_head(features, where).features]
    session = _session(features)
    expected = session.run(None, {session.get_inputs()[0].name: x})[0] @ split.weight.T + split.bias
    got, _ = _OrtStep(folder).run(x, np.zeros(2, np.int64))
    difference = float(np.abs(got[:, : len(split.bias)] - expected).max())
    if difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        return None
    return f"its training graph gives outputs that differ by {difference:.2g} from the model's"


def wrong_gradients(
    prepared: ir.Model, sites: Sequence[Site], head: Head, folder: Path, where: str
) -> str | None:
    """What is wrong with the gradients of the training step in `folder`, or None where all are the portable ones.

    Raises UnsupportedOpError where there are no portable ones to compare with.
    """
    split = split_head(prepared, where)
    session = _session(ir.external_data.load_to_model(training_model(prepared, sites, head, where)))
    step, off = _OrtStep(folder), {}
    for attempt in range(_ATTEMPTS):
        x = _pictures(prepared, attempt)
        # Of the class that is least expected: a loss near 0 would have next to no gradient.
        logits, _ = step.run(x, np.zeros(len(x), np.int64))
        labels = logits[:, : len(split.bias)].argmin(axis=1)
        ours = _portable(session, sites, head, split, x, labels)
        _, theirs = step.run(x, labels)
        off = _differences(ours, theirs, sites, head, len(split.bias))
        if not off:
            return None
    nearest = next((site for site in reversed(sites) if site.name in off), None)
    if nearest is None:
        return f"its gradient of the head is off by {max(off.values()):.2g} times its norm"
    node = next(node for node in prepared.graph if node.name == nearest.node)
    said = f"its gradient of the site '{nearest.node}' is off by {off[nearest.name]:.2g} times its norm"
    found = _wrong_node(node, split)
    if found is None:
        return said
    return f"{said}, because that of op '{found.op_type}' (node '{found.name}') is wrong"


def _differences(
    ours: Arrays, theirs: Arrays, sites: Sequence[Site], head: Head, classes: int
) -> dict[str, float]:
    """How far the gradients of the package are off, relative to the portable ones, where that is too far."""
    pairs = {
        site.name: (
            ours[site.gradient],
            gather(theirs[site.center], np.arange(site.columns), site.groups),
        )
        for site in sites
    }
    pairs["head"] = (
        np.column_stack([ours[head.weight_gradient], ours[head.bias_gradient]]),
        np.column_stack([theirs[head.weight][:classes], theirs[head.bias][:classes]]),
    )
    # A gradient that should be 0 is rounding's, about 1e-7 of the largest one.
    least = _GRADIENT_TOLERANCE * max(float(np.linalg.norm(right)) for right, _ in pairs.values())
    found = {name: relative_difference(right, got, least) for name, (right, got) in pairs.items()}
    return {name: off for name, off in found.items() if not off <= _GRADIENT_TOLERANCE}


class _OrtStep:
    """The training step of the artifacts, as a device takes it."""

    def __init__(self, folder: Path) -> None:
        api = import_training("api")
        self._state = api.CheckpointState.load_checkpoint(str(folder / "checkpoint"))
        self._module = api.Module(
            str(folder / "training_model.onnx"), self._state, str(folder / "eval_model.onnx"),
            session_options=session_options(),
        )  # fmt: skip
        self._module.train()

    def run(self, x: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[NDArray[np.float32], Arrays]:
        """Logits, and the gradients of the parameters by name."""
        self._module.lazy_reset_grad()
        logits = self._module(x, labels)[1]
        gradients = {
            name: parameter.grad.copy()
            for name, parameter in self._state.parameters
            if parameter.requires_grad
        }
        return logits, gradients


def _portable(
    session: Any,
    sites: Sequence[Site],
    head: Head,
    split: SplitHead,
    x: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> Arrays:
    feeds: dict[str, NDArray[Any]] = {
        IMAGE: x,
        LABEL: labels,
        head.weight: split.weight,
        head.bias: split.bias,
    }
    for site in sites:
        feeds[site.indices] = np.arange(site.columns)
        feeds[site.delta] = np.zeros((site.rows, site.columns), np.float32)
    wanted = [head.weight_gradient, head.bias_gradient, *(site.gradient for site in sites)]
    return dict(zip(wanted, session.run(wanted, feeds), strict=True))


def _wrong_node(site: ir.Node, split: SplitHead) -> ir.Node | None:
    """The first node behind a site, up to the classifier, whose own gradient is not the portable one."""
    seen = set()
    assert site.graph is not None
    for node in nodes_behind(site.graph, site.outputs):
        form = (
            node.op_type,
            str(sorted(node.attributes.items())),
            tuple(str(x and x.shape) for x in node.inputs),
        )
        if node.op_type in NOT_DIFFERENTIABLE or form in seen:
            continue
        seen.add(form)
        if wrong_by(node) > _GRADIENT_TOLERANCE:
            return node
        if split.features in node.outputs:
            break
    return None


def _pictures(prepared: ir.Model, seed: int) -> NDArray[np.float32]:
    shape = [int(dim) for dim in static_shape(prepared.graph.inputs[0])[1:]]
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)


def _session(model: ir.Model) -> Any:
    return open_session(ir.to_proto(model).SerializeToString(), session_options())
