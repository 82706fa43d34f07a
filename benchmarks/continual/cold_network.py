"""The larger network that knows ten classes: ResNet-18, trained on the base classes of another model; needs torch.

    python -m benchmarks.continual.cold_network --data DIR --model cifar100-base10.onnx --out out/cold

Writes `resnet18-base10.onnx` and `.json`. Half of the images are shown in one of three rotations, and the network
learns to tell class and rotation together, which gives features that other classes can use, too (Lee et al. 2020,
"Self-supervised label augmentation via input transformations"); the file has the logits of images as they are. Crops,
mirrored images, SGD, one cosine. The first half of the epochs sees images at half the resolution, the next three
tenths at three quarters, which takes 58 and 115 seconds of one core an epoch where 32x32 takes 168. Behind each the
training so far is kept in `resnet18-base10.pt`, from which a run that was ended goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.architectures import resnet
from benchmarks.base_networks import accuracy, sgd, tensors, write
from benchmarks.continual.data import Pictures, facts_of

BATCH, MARGIN, ROTATIONS = 64, 4, 4
# Up to which share of the epochs images are shown at which resolution.
SIZES = ((0.5, 16), (0.8, 24), (1.0, 32))
NAME = "resnet18-base10"


def augmented(images: torch.Tensor, labels: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images `(n, 3, 32, 32)` cropped, mirrored and half of them rotated, each in its own way, at a resolution of
    `size`; labels of class and rotation."""
    n, _, height, width = images.shape
    padded = F.pad(images, (MARGIN,) * 4)
    top, left = torch.randint(0, 2 * MARGIN + 1, (2, n, 1))
    rows = (top + torch.arange(height))[:, None, :, None]
    columns = (left + torch.arange(width))[:, None, None, :]
    found = padded[torch.arange(n)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]
    mirrored = torch.rand(n) < 0.5
    found[mirrored] = found[mirrored].flip(3)
    turned = torch.randint(1, ROTATIONS, (n,)) * torch.randint(0, 2, (n,))
    for turns in range(1, ROTATIONS):
        found[turned == turns] = found[turned == turns].rot90(turns, (2, 3))
    if size != height:
        found = F.interpolate(found, size=(size, size), mode="bilinear", antialias=True)
    return found, labels * ROTATIONS + turned


def train(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, rate: float, kept: Path
) -> None:
    """Print the mean loss of each epoch; begin where `kept` ends."""
    optimizer, schedule = sgd(network, rate, epochs * (len(images) // BATCH))
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    first = 0
    if kept.exists():
        stored = torch.load(kept)
        for name, part in parts.items():
            part.load_state_dict(stored[name])
        torch.set_rng_state(stored["random"])
        first = stored["epochs"]
    network.train()
    begun = time.process_time()
    for epoch in range(first, epochs):
        order, losses = torch.randperm(len(images)), []
        size = next(size for share, size in SIZES if epoch < share * epochs)
        for start in range(0, len(images) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            x, y = augmented(images[chosen], labels[chosen], size)
            loss = F.cross_entropy(network(x.contiguous(memory_format=torch.channels_last)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        spent = time.process_time() - begun
        print(
            f"epoch {epoch + 1}/{epochs}: {size}x{size}, loss {np.mean(losses):.3f}, {spent:.0f} s",
            flush=True,
        )
        so_far = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**so_far, "random": torch.get_rng_state(), "epochs": epoch + 1}, kept.with_suffix(".new"))
        kept.with_suffix(".new").replace(kept)


def as_it_is(network: nn.Sequential) -> nn.Sequential:
    """With the logits of images that are not rotated alone."""
    head = network[-1]
    assert isinstance(head, nn.Linear)
    kept = nn.Linear(head.in_features, head.out_features // ROTATIONS)
    kept.load_state_dict({name: value[::ROTATIONS] for name, value in head.state_dict().items()})
    return nn.Sequential(*network[:-1], kept).to(memory_format=torch.contiguous_format)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="whose base classes they are")
    parser.add_argument("--out", type=Path, default=Path("out/cold"))
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    facts = facts_of(options.model)
    pictures = Pictures(options.data, options.out)
    network = resnet(32, ROTATIONS * len(facts["classes"]), depths=[2, 2, 2, 2], bottleneck=False)
    network.to(memory_format=torch.channels_last)
    images, labels = tensors(pictures, "train", facts)
    train(network, images, labels, options.epochs, options.rate, options.out / f"{NAME}.pt")
    plain = as_it_is(network)
    print(f"{accuracy(plain, *tensors(pictures, 'test', facts)):.1f} % of base test images", flush=True)
    path = options.out / f"{NAME}.onnx"
    write(plain, images[:1], path)
    stored = json.loads(options.model.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**stored, "model": path.name}, indent=1) + "\n")


if __name__ == "__main__":
    main()
