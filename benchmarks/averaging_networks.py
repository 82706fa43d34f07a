"""Federated averaging of whole networks (McMahan et al., arXiv 1602.05629), to hold merged contributions against.

    python benchmarks/averaging_networks.py --data DIR --model cifar100-base50.onnx --out out/averaging-networks.json

Needs torch. Ten devices hold five of 50 new classes each, 100 images a class, as `benchmarks/fleet.py`'s kind apart. In
each round every device takes the network with a softmax over all 100 classes, trains all of it for one epoch of its own
images, and sends it back; the server averages, weighted by images, and is a device itself, with 20 images of each of
the base's classes: without these, the base is gone after a few rounds. Batch norm is folded, as on a device. The rate
is the best of RATES after two rounds by test accuracy, which flatters it. One thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.continual.data import Pictures, Split, facts_of
from benchmarks.continual.network import Network
from benchmarks.continual.pictures import Batches

DEVICES, IMAGES, SERVER_IMAGES = 10, 100, 20
RATES, SEARCHED = (0.0003, 0.001, 0.003), 2
ROUNDS = (1, 2, 5, 10, 20)
State = dict[str, torch.Tensor]


class Classifier(torch.nn.Module):
    """The base network, and a softmax head over all classes that begins as the base's."""

    def __init__(self, model: Path, classes: int) -> None:
        super().__init__()
        self.network = Network(model)
        weight, bias = self.network.head
        self.head = torch.nn.Linear(self.network.width, classes)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.weight[: len(weight)] = weight
            self.head.bias[: len(bias)] = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.network(x))
        return found


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    facts = facts_of(options.model)
    pictures = Pictures(options.data, options.cache)
    base, later = tuple(facts["classes"]), tuple(facts["later_classes_in_order"])
    batches = Batches(facts["normalize"], options.seed)
    holders = _holders(pictures, base, later, options.seed)
    tests = pictures.split("test", (*base, *later))
    classifier = Classifier(options.model, len(base) + len(later))
    start = {name: value.clone() for name, value in classifier.state_dict().items()}
    found: dict[str, Any] = {
        "seed": options.seed,
        "numbers": sum(value.numel() for value in start.values()),
        "searched": {},
    }
    for rate in RATES:
        state = start
        for number in range(SEARCHED):
            state = _round(classifier, state, holders, batches, rate, number)
        found["searched"][str(rate)] = _accuracy(classifier, state, batches, tests)
        print(rate, found["searched"][str(rate)], flush=True)
    rate = max(RATES, key=lambda one: found["searched"][str(one)])
    found |= {"rate": rate, "accuracy": {}, "seconds": []}
    state = start
    for number in range(options.rounds):
        begun = time.process_time()
        state = _round(classifier, state, holders, batches, rate, number)
        found["seconds"].append(round(time.process_time() - begun, 1))
        if number + 1 in ROUNDS or number + 1 == options.rounds:
            found["accuracy"][str(number + 1)] = _accuracy(classifier, state, batches, tests)
            print(number + 1, found["accuracy"][str(number + 1)], flush=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")


def _holders(pictures: Pictures, base: Sequence[str], later: Sequence[str], seed: int) -> list[Split]:
    """What the server and each device hold; labels are into the base's classes and the later ones."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(later))
    parts = [[(label, name) for label, name in enumerate(base)]]
    parts += [
        [(len(base) + int(one), later[one]) for one in order[device::DEVICES]] for device in range(DEVICES)
    ]
    found = []
    for at, part in enumerate(parts):
        images, labels = [], []
        for label, name in part:
            every = pictures.of("train", name)
            some = every[rng.permutation(len(every))[: IMAGES if at else SERVER_IMAGES]]
            images.append(some)
            labels.append(np.full(len(some), label, np.int64))
        found.append(Split(np.concatenate(images), np.concatenate(labels)))
    return found


def _round(
    classifier: Classifier, state: State, holders: Sequence[Split], batches: Batches, rate: float, number: int
) -> State:
    """The average of what each holder makes of `state` in an epoch."""
    total = sum(len(one.labels) for one in holders)
    mean = {name: torch.zeros_like(value) for name, value in state.items()}
    for holder in holders:
        classifier.load_state_dict(state)
        optimizer = torch.optim.SGD(classifier.parameters(), rate)
        for x, y in batches.training(holder, number):
            optimizer.zero_grad()
            F.cross_entropy(classifier(x), y).backward()
            optimizer.step()
        for name, value in classifier.state_dict().items():
            mean[name] += value * (len(holder.labels) / total)
    return mean


@torch.no_grad()
def _accuracy(classifier: Classifier, state: State, batches: Batches, tests: Split) -> float:
    """Over all classes, in percent."""
    classifier.load_state_dict(state)
    right = [(classifier(x).argmax(1) == y).float() for x, y in batches.plain(tests)]
    return round(100 * float(torch.cat(right).mean()), 2)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("out/fleet"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=ROUNDS[-1])
    parser.add_argument("--out", type=Path, default=Path("out/averaging-networks.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
