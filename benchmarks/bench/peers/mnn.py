"""MNN's training in Python, on the network as MNN's converter brings it over; batch norm takes the batch's statistics.

MNN trains a loaded network only as a whole, and only in training mode: in evaluation mode it finds no gradients.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import MNN.expr as F
import numpy as np
from MNN import nn, optim

from bench import data
from bench.cases import CLASSES, FORWARD, LEARNING_RATE, MOMENTUM, Case
from bench.peers import UnavailableError


def prepare(case: Case, folder: Path) -> None:
    """The network for training, and for inference with batch norm folded."""
    if (folder / "forward.mnn").exists():
        return
    converter = Path(sys.executable).with_name("mnnconvert")
    for name, options in (("training", ["--forTraining"]), ("forward", [])):
        command = [
            converter,
            "-f",
            "ONNX",
            "--modelFile",
            folder / "model.onnx",
            "--MNNModel",
            folder / f"{name}.mnn",
        ]
        subprocess.run([*map(str, command), *options], check=True)


def open_method(case: Case, method: str, folder: Path) -> Callable[[], object]:
    """A step of MNN's SGD with momentum on all weights, or a forward pass."""
    F.set_thread_number(1)
    images, labels = data.batch(case, folder)
    if method == FORWARD:
        deployed = nn.load_module_from_file(str(folder / "forward.mnn"), ["image"], ["logits"])
        return lambda: deployed.forward(variable(images)).read()
    # Without lazy evaluation no expression is kept to differentiate.
    F.lazy_eval(True)
    variables = F.load_as_dict(str(folder / "training.mnn"))
    network = nn.load_module([variables["image"]], [variables["logits"]], True)
    network.train(True)
    optimizer = optim.SGD(network, LEARNING_RATE, MOMENTUM, 0.0, optim.Regularization_Method.L2)

    def step() -> None:
        logits = F.reshape(network.forward(variable(images)), [case.batch, CLASSES])
        given = F.const(labels.astype(np.int32), [case.batch], F.NCHW, F.int)
        loss = nn.loss.cross_entropy(F.softmax(logits, -1), F.one_hot(given, CLASSES, 1.0, 0.0))
        if not optimizer.step(loss):
            raise UnavailableError("MNN found no gradients")
        loss.read()

    return step


def variable(images: np.ndarray) -> object:
    """Images as MNN's input."""
    return F.const(images, list(images.shape), F.NCHW)


def versions() -> dict[str, str]:
    """What was measured."""
    return {"MNN": metadata.version("MNN")}
