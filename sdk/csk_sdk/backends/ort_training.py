"""The ort-training backend: the official artifacts in `BUNDLE/ort/`, through `onnxruntime.training.api`.

Trainable parameters of the artifacts are every site's whole center, `(c_out, c_in / groups, 1, ...)` as the kernel of a
1x1 convolution, and a head with a fixed number of rows. Both are written in place before a step, and gradients are
read where ONNX Runtime keeps them: `.data` and `.grad` alias NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.backends.step import StepResult
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import (
    CLASS_MASK,
    LABEL,
    ORT_CHECKPOINT,
    ORT_EVAL_MODEL,
    ORT_TRAINING_MODEL,
    UNUSED_CLASS,
)
from csk_sdk.errors import BundleError
from csk_sdk.method.projection import add_to_centers, gather
from csk_sdk.runtime.reasons import reason_of
from csk_sdk.runtime.sessions import import_training, session_options


class OrtTrainingStep:
    """Runs `ort/training_model.onnx`, whose gradients ONNX Runtime itself derived."""

    def __init__(self, bundle: Bundle, tensors: Mapping[str, NDArray[Any]], threads: int = 0) -> None:
        api = import_training("api")
        self._head, self._sites = bundle.manifest.head, bundle.manifest.sites
        self._centers = {site.name: tensors[f"center/{site.name}"] for site in self._sites}
        try:
            self._state = api.CheckpointState.load_checkpoint(str(bundle.path(ORT_CHECKPOINT)))
            self._module = api.Module(
                str(bundle.path(ORT_TRAINING_MODEL)),
                self._state,
                str(bundle.path(ORT_EVAL_MODEL)),
                session_options=session_options(threads, spinning=bundle.spinning),
            )
        except Exception as error:
            # The training package raises its own classes, which cannot be named without importing it.
            raise BundleError(
                f"onnxruntime-training cannot open {bundle.path(ORT_TRAINING_MODEL).parent} ({reason_of(error)})."
            ) from None
        self._module.train()

    def run(
        self,
        images: NDArray[np.float32],
        targets: Mapping[str, NDArray[Any]],
        head: tuple[NDArray[np.float32], NDArray[np.float32]],
        selected: Mapping[str, NDArray[np.int64]],
        deltas: Mapping[str, NDArray[np.float32]],
    ) -> StepResult:
        """See `TrainingStep`."""
        self._write_head(*head, targets.get(CLASS_MASK))
        for site in self._sites:
            center = self._data(site.center)
            center[...] = self._centers[site.name].reshape(center.shape)
            add_to_centers(center, deltas[site.name], selected[site.name], site.groups)
        self._module.lazy_reset_grad()
        loss, *_ = self._module(images, targets[LABEL])
        classes = len(head[1])
        return StepResult(
            loss=float(loss),
            centers={
                site.name: gather(self._gradient(site.center), selected[site.name], site.groups)
                for site in self._sites
            },
            weight=self._gradient(self._head.weight)[:classes].copy(),
            bias=self._gradient(self._head.bias)[:classes].copy(),
        )

    def _write_head(
        self, weight: NDArray[np.float32], bias: NDArray[np.float32], mask: NDArray[np.bool_] | None
    ) -> None:
        """The task's classes first; softmax gives rows behind them, and masked ones, exactly 0, and so no gradient."""
        rows, biases = self._data(self._head.weight), self._data(self._head.bias)
        rows[: len(weight)], rows[len(weight) :] = weight, 0.0
        biases[: len(bias)], biases[len(bias) :] = bias, UNUSED_CLASS
        if mask is not None:
            rows[: len(bias)][~mask], biases[: len(bias)][~mask] = 0.0, UNUSED_CLASS

    def _data(self, name: str) -> NDArray[np.float32]:
        data: NDArray[np.float32] = self._state.parameters[name].data
        return data

    def _gradient(self, name: str) -> NDArray[np.float32]:
        gradient: NDArray[np.float32] = self._state.parameters[name].grad
        return gradient
