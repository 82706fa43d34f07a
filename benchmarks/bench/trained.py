"""Networks that were trained for a little while, on scikit-learn's handwritten digits; needs torch.

Time does not depend on weights, but a bundle does: in int8 the builder leaves as many convolutions in float32 as
gradients need (decision 0010), which random weights need more than trained ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scaled_digits import scaled_digits
from torch import nn
from torch.nn import functional as F

from bench.data import MEAN, STD

BATCH, STEPS, RATE, MOMENTUM = 16, 100, 0.05, 0.9
# Larger images teach no more, and take longer.
LARGEST = 32
OF_EACH = 8
# Among so many there are enough of each digit.
FEW = 160


def train(network: nn.Module, size: int) -> nn.Module:
    """SGD with a rate that falls to 0; the network in eval mode, with the statistics of images of `size`."""
    images, labels = _digits(min(size, LARGEST))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.1
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(images), (BATCH,))
        optimizer.zero_grad()
        F.cross_entropy(network(_normalized(images[chosen])), torch.from_numpy(labels[chosen])).backward()
        optimizer.step()
        schedule.step()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all that follows
    images, _ = _digits(size, FEW)
    with torch.no_grad():
        for start in range(0, 4 * BATCH, BATCH):
            network(_normalized(images[start : start + BATCH]))
    return network.eval()


def write_base(folder: Path, size: int) -> None:
    """Some of each digit as `folder/CLASS/NUMBER.png`."""
    images, labels = _digits(size, FEW)
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True, exist_ok=True)
        for number, place in enumerate(np.flatnonzero(labels == digit)[:OF_EACH]):
            Image.fromarray(images[place]).save(folder / str(digit) / f"{number}.png")


def _digits(size: int, count: int | None = None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return scaled_digits(size, Image.Resampling.BICUBIC, count)


def _normalized(images: NDArray[np.uint8]) -> torch.Tensor:
    x = (images.astype(np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
