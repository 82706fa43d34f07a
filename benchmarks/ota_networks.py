"""The next networks that `living.py ota` upgrades to, trained on the 50 base classes of CIFAR-100: needs torch.

    python benchmarks/ota_networks.py --data DIR --model cifar100-base50.onnx --out out/living

`further.onnx` is the model itself, all of its weights trained further; `other.onnx` a plain convolutional network from
random weights. Crops and mirrored images, SGD, one cosine; a few epochs, which is minutes of one core.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.base_networks import accuracy, sgd, tensors, write
from benchmarks.continual.data import Pictures, facts_of

BATCH = 128
MARGIN = 4


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.b1 = nn.BatchNorm2d(after)
        self.c2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.b2 = nn.BatchNorm2d(after)
        changed = stride != 1 or before != after
        self.sc = (
            nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            if changed
            else nn.Sequential()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b2(self.c2(F.relu(self.b1(self.c1(x)))))
        return F.relu(y + self.sc(x))


class Further(nn.Module):
    """The network of the model's file, under its names."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.c, self.b = nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32)
        self.L = nn.Sequential(Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2), Block(128, 256, 2))
        self.fc = nn.Linear(256, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.L(F.relu(self.b(self.c(x)))).mean((2, 3)))


def other(classes: int) -> nn.Module:
    """Without shortcuts, and with pools for strides."""
    layers: list[nn.Module] = []
    for before, after, pool in (
        (3, 24, True),
        (24, 48, False),
        (48, 64, True),
        (64, 96, False),
        (96, 96, True),
        (96, 192, False),
    ):
        layers += [nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(192, classes))


def train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, rate: float) -> None:
    optimizer, schedule = sgd(network, rate, epochs * (len(images) // BATCH))
    network.train()
    begun = time.process_time()
    for epoch in range(epochs):
        order, total = torch.randperm(len(images)), 0.0
        for start in range(0, len(images) - BATCH + 1, BATCH):
            x = images[order[start : start + BATCH]]
            if torch.rand(()) < 0.5:
                x = x.flip(3)
            padded = F.pad(x, (MARGIN,) * 4)
            top, left = torch.randint(0, 2 * MARGIN + 1, (2,)).tolist()
            x = padded[:, :, top : top + 32, left : left + 32]
            loss = F.cross_entropy(network(x), labels[order[start : start + BATCH]], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch + 1}/{epochs}: loss {total * BATCH / len(images):.3f}, {time.process_time() - begun:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("out/living"))
    parser.add_argument("--only", choices=("further", "other"))
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    facts = facts_of(options.model)
    pictures = Pictures(options.data, options.out)
    classes = facts["classes"]
    images, labels = tensors(pictures, "train", facts)
    tested = tensors(pictures, "test", facts)
    further = Further(len(classes))
    stored = {
        one.name: numpy_helper.to_array(one).copy() for one in onnx.load(options.model).graph.initializer
    }
    stored |= {
        name.replace("sc.1.running_mean", "sc.1.bias"): stored[name.replace("sc.1.running_mean", "b2.bias")]
        for name in list(stored)
        if name.endswith("sc.1.running_mean")
    }
    further.load_state_dict({name: torch.from_numpy(array) for name, array in stored.items()}, strict=False)
    print("as it is:", accuracy(further, *tested), flush=True)
    for name, network, epochs, rate in (
        ("other", other(len(classes)), 6, 0.1),
        ("further", further, 2, 0.02),
    ):
        if options.only not in (None, name):
            continue
        train(network, images, labels, options.epochs or epochs, rate)
        print(f"{name}: {accuracy(network, *tested):.1f} % of base test images", flush=True)
        path = options.out / f"{name}.onnx"
        write(network, images[:1], path)
        shutil.copy(options.model.with_suffix(".json"), path.with_suffix(".json"))


if __name__ == "__main__":
    main()
