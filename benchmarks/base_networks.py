"""What the scripts share that train a network on the base's classes and write it: images, schedule, accuracy, file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.continual.data import Pictures
from torch import nn


def tensors(pictures: Pictures, split: str, facts: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images `(n, 3, 32, 32)` of the base's classes as their network takes them, and their labels."""
    found = pictures.split(split, tuple(facts["classes"]))
    mean, std = (np.array(facts["normalize"][name], np.float32) for name in ("mean", "std"))
    x = (found.images.astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(found.labels)


def sgd(
    network: nn.Module, rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """SGD with momentum, and one cosine behind a tenth of the steps in which the rate grows."""
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    warm = max(1, steps // 10)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )


def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """In percent; the network is in eval mode afterwards."""
    network.eval()
    with torch.no_grad():
        found = torch.cat([network(part).argmax(1) for part in images.split(200)])
    return 100 * float((found == labels).float().mean())


def write(network: nn.Module, image: torch.Tensor, path: Path) -> None:
    """As ONNX of opset 17, with any batch."""
    torch.onnx.export(
        network.eval(),
        (image,),
        path,
        dynamo=False,
        dynamic_axes={"image": {0: "N"}},
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
    )
