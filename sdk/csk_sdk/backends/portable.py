"""The portable backend: the bundle's training graph of standard ops, on any ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends.step import StepResult
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import TRAINING_MODEL


class PortableStep:
    """Runs `training_model.onnx`, the gradient included, in an inference session."""

    def __init__(self, bundle: Bundle, tensors: Mapping[str, NDArray[Any]], threads: int = 0) -> None:
        self._head, self._sites = bundle.manifest.head, bundle.manifest.sites
        self._graph = bundle.graph(TRAINING_MODEL, tensors, threads)

    def run(
        self,
        images: NDArray[np.float32],
        targets: Mapping[str, NDArray[Any]],
        head: tuple[NDArray[np.float32], NDArray[np.float32]],
        selected: Mapping[str, NDArray[np.int64]],
        deltas: Mapping[str, NDArray[np.float32]],
    ) -> StepResult:
        """See `TrainingStep`."""
        names = self._head
        feeds: dict[str, NDArray[Any]] = {"image": images, **targets}
        feeds[names.weight], feeds[names.bias] = head
        for site in self._sites:
            feeds[site.indices], feeds[site.delta] = selected[site.name], deltas[site.name]
        outputs = self._graph.run(feeds)
        return StepResult(
            loss=float(outputs["loss"]),
            centers={site.name: outputs[site.gradient] for site in self._sites},
            weight=outputs[names.weight_gradient],
            bias=outputs[names.bias_gradient],
        )
