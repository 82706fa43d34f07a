"""Learning rates, searched on the first task of 10x5, by its accuracy on held-out training images.

That of the base is written down beside it, and not used: it would always choose to learn nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from csk_sdk.method.heads import ClassStatistics

from .data import Pictures, Split, Stream, TaskData, cut, facts_of
from .methods import METHODS
from .network import Network
from .pictures import Batches
from .torch_runs import EPOCHS, Life, accuracy, learn

PROTOCOL = "10x5@100"
# Methods whose search stands for others, too: the same parameters, trained by the same steps.
SEARCHED = {
    "finetune": ("one-softmax", "ewc", "lwf", "replay"),
    "last-stage": (),
    "bias-only": (),
    "sparse-update": (),
    "gpm": (),
    "adam-nscl": (),
}


def search(data: Path, model: Path, cache: Path, methods: list[str], out: Path) -> None:
    """Try every rate of every method, and keep the best; `out` is rewritten after each method."""
    torch.set_num_threads(1)
    cache.mkdir(parents=True, exist_ok=True)
    facts = facts_of(model)
    pictures = Pictures(data, cache)
    stream = cut(PROTOCOL, pictures, facts)
    known = json.loads(out.read_text()) if out.exists() else {}
    for name in SEARCHED if methods == ["all"] else methods:
        tried = {}
        for rate in METHODS[name].rates:
            new, base = _try(name, rate, stream, pictures, model, facts)
            tried[str(rate)] = {"new": new, "base": base}
            print(f"{name} {rate:g}: new {new:.1f}, base {base:.1f}", flush=True)
        # Of equals the smallest, which disturbs the least.
        chosen = min(tried, key=lambda rate: (-tried[rate]["new"], float(rate)))
        for one in (name, *SEARCHED[name]):
            known[one] = {"chosen": float(chosen), "searched_with": name, "tried": tried}
        out.write_text(json.dumps(known, indent=1) + "\n")


def _try(
    name: str, rate: float, stream: Stream, pictures: Pictures, model: Path, facts: dict
) -> tuple[float, float]:
    """Accuracy on held-out images of the first task, and on training images of the base, in percent.

    A run whose numbers stop being finite counts as 0.
    """
    torch.manual_seed(0)
    network = Network(model)
    batches = Batches(facts["normalize"], 0)
    first = stream.tasks[0]
    validation = _held_out(first, pictures)
    task = TaskData(first.name, first.classes, first.train, validation)
    method = METHODS[name](network, stream, batches, 0, rate)
    method.heads["base"] = network.head
    method.start()
    # Nothing follows the first task, so nothing needs to be kept of it.
    method.end_task = lambda task: None  # type: ignore[method-assign]
    try:
        learn(Life(method, ClassStatistics.empty(network.width)), task, batches, EPOCHS)
    except Exception as error:
        print(f"{name} {rate:g}: {error}", flush=True)
        return 0.0, 0.0
    features, labels = batches.features(network, validation)
    new = accuracy(method.logits(features, task.name), labels)
    features, labels = batches.features(network, batches.sample(stream.base.train, 500))
    return new, accuracy(method.logits(features, "base"), labels)


def _held_out(task: TaskData, pictures: Pictures) -> Split:
    """40 training images of each class that the protocol did not draw."""
    images, labels = [], []
    for label, name in enumerate(task.classes):
        drawn = {image.tobytes() for image in task.train.images[task.train.labels == label]}
        free = [image for image in pictures.of("train", name) if image.tobytes() not in drawn][:40]
        images += free
        labels += [label] * len(free)
    return Split(np.stack(images), np.array(labels, np.int64))
