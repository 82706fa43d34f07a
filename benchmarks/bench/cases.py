"""What is measured: networks, batches, methods, and the targets that the numbers are held against."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

CLASSES = 10
CHANNEL_RATIO = 0.25
LEARNING_RATE, MOMENTUM = 1e-4, 0.9
LARGEST_BATCH = 32


@dataclass(frozen=True)
class Case:
    """One network at one image size and one batch; `rounds` turns of `steps` timed steps each."""

    network: str
    size: int
    batch: int
    rounds: int
    steps: int

    @property
    def model(self) -> str:
        return f"{self.network}-{self.size}"

    @property
    def title(self) -> str:
        return f"{self.network}, {self.size}x{self.size}, batch {self.batch}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Case:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Method:
    """One row: a peer (a module in `peers/`) and what it trains.

    `at_most` bounds the steps of a method that is very slow; it is then measured on the smallest case only.
    """

    peer: str
    name: str
    label: str
    at_most: int | None = None

    @property
    def key(self) -> str:
        return f"{self.peer}/{self.name}"


# A turn's steps follow each other, as in training; the first of each turn is not counted where weights fit a cache.
CASES = (
    Case("ResNet-18", 32, 16, rounds=10, steps=3),
    Case("ResNet-18", 32, 1, rounds=10, steps=5),
    Case("ResNet-18", 224, 16, rounds=10, steps=1),
    Case("ResNet-18", 224, 1, rounds=10, steps=2),
    Case("MobileNetV2", 224, 16, rounds=10, steps=1),
    Case("MobileNetV2", 224, 1, rounds=10, steps=2),
)

FULL, CENTERS, STAGE, HEAD, FORWARD = "full", "centers", "last-stage", "head", "forward"
EXACT, INT8, CACHED, LAYERS = "exact", "int8", "int8-cached", "int8-layers"

METHODS = (
    Method("torch_eager", FULL, "torch eager, all weights"),
    Method("torch_eager", CENTERS, "torch eager, centers"),
    Method("torch_eager", STAGE, "torch eager, last stage"),
    Method("torch_eager", HEAD, "torch eager, head only"),
    Method("torch_eager", FORWARD, "torch eager, forward pass only"),
    Method("ort_training", FULL, "onnxruntime-training, all weights"),
    Method("ort_training", CENTERS, "onnxruntime-training, centers (csk-sdk's ort-training backend)"),
    Method("executorch", FULL, "ExecuTorch training, all weights", at_most=3),
    Method("executorch", CENTERS, "ExecuTorch training, centers", at_most=3),
    Method("mnn", FULL, "MNN training, all weights"),
    Method("mnn", FORWARD, "MNN, forward pass only"),
    Method("ort_forward", FORWARD, "ONNX Runtime, forward pass only"),
    Method("csk", EXACT, "**csk-sdk, exact**"),
    Method("csk", INT8, "**csk-sdk, int8**"),
    Method("csk", LAYERS, "**csk-sdk, int8, features of layers**"),
    Method("csk", CACHED, "**csk-sdk, int8, cached prefix**"),
)
PEERS = ("torch_eager", "csk", "ort_forward", "ort_training", "executorch", "mnn")
REFERENCE = METHODS[0].key


def methods_of(case: Case) -> list[Method]:
    """The methods that are measured on this case."""
    smallest = (case.network, case.size, case.batch) == ("ResNet-18", 32, 1)
    return [method for method in METHODS if smallest or method.at_most is None]


def prepared_by(methods: Sequence[Method]) -> list[str]:
    """The peers of these methods as they must prepare: torch writes the network, then csk-sdk the sites."""
    wanted = {method.peer for method in methods}
    return [peer for peer in PEERS if peer in wanted]


def folder_of(root: Path, case: Case) -> Path:
    """Where what is prepared for a case's model lies."""
    return root / case.model
