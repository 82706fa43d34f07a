"""What a step of a method costs, counted on the graph: operations and bytes, not measured.

A multiplication and an addition count 2. Numbers are float32. Bytes of a step are what must be there at once beside the
network's weights, images and heads: inputs kept for weight gradients, one byte per kept ReLU, gradients, optimizer
slots, and the method's own state (stored images one byte a value). Workspace of the runtime is not in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from .methods.method import Method
from .pictures import BATCH


@dataclass(frozen=True)
class Costs:
    """Of one step over `BATCH` new images; `prefix_flops` is what is in front of the first trained convolution."""

    flops: float
    forward_flops: float
    prefix_flops: float
    trained: int
    activation_bytes: int
    optimizer_bytes: int
    state_bytes: int

    def to_json(self) -> dict[str, float]:
        """All fields, and the bytes' sum."""
        return {**asdict(self), "step_bytes": self.activation_bytes + self.optimizer_bytes + self.state_bytes}


def count(method: Method, shape: tuple[int, int, int] = (3, 32, 32)) -> Costs:
    """Walk the network once with an image, and count what the method's trained parameters ask for."""
    network = method.network
    trained = set(method.trained)
    forward = prefix = backward = activations = 0.0
    needs: dict[str, bool] = {}
    for node, given, result in network.trace(torch.zeros(1, *shape)):
        below = any(needs.get(name, False) for name in node.inputs)
        needs[node.output] = below
        if node.convolution is None:
            activations += result.numel() if node.op == "Relu" and below else 0.0
            continue
        conv = network.convolutions[node.convolution]
        operations = 2.0 * result.numel() * conv.weight[0].numel()
        forward += operations
        backward += operations if below else 0.0
        if conv.weight in trained:
            backward += operations * method.share(conv.weight)
            activations += 4.0 * given[0].numel() * method.kept(conv)
        needs[node.output] = below or conv.weight in trained or conv.bias in trained
        if not any(needs.values()):
            prefix = forward
    numbers = round(sum(parameter.numel() * method.share(parameter) for parameter in method.trained))
    pictures = BATCH * method.batches_a_step
    frozen = not method.trained
    return Costs(
        flops=pictures * (forward * (1 + method.more_forwards) + (0.0 if frozen else backward))
        + method.extra_flops(),
        forward_flops=BATCH * forward,
        prefix_flops=BATCH * prefix,
        trained=numbers,
        activation_bytes=round(pictures * activations),
        optimizer_bytes=4 * numbers * (1 + method.slots),
        state_bytes=method.state_floats() * (1 if method.stores_pictures else 4),
    )
