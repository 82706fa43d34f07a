"""The upper bound: training on all classes at once, old images included, of our parts or of everything."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from csk_sdk.method.heads import ClassStatistics, lda_head
from csk_sdk.objectives.classification import PRIOR_PICTURES
from csk_sdk.runtime.peak_memory import peak_rss_bytes

from .costs import count
from .data import Split, Stream, TaskData
from .methods.csko import JointCenters
from .methods.finetune import FineTuning
from .methods.method import Method
from .network import Network
from .pictures import BATCH, Batches
from .results import machine
from .torch_runs import EPOCHS, PACKAGES, accuracy, fitted, train


@dataclass(frozen=True)
class Bound:
    """A row: what is trained, how fast, and whether heads see the features that csk-sdk's builder makes by default."""

    title: str
    method: type[Method]
    layers: bool
    rate: float


JOINT = {
    "joint": Bound("joint training of the same parts", JointCenters, False, 0.01),
    "joint-layers": Bound("joint training of the same parts, features of layers", JointCenters, True, 0.01),
    # Everything diverges at 0.003 and above.
    "joint-everything": Bound("joint training of everything, features of layers", FineTuning, True, 0.001),
}
NAME = "joint"


def run(
    name: str, stream: Stream, model: Path, normalize: dict[str, Any], protocol: str, seed: int,
    epochs: int = EPOCHS,
) -> dict[str, Any]:  # fmt: skip
    """Train once on the images of all tasks and all of the base; measure every scenario once."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    bound = JOINT[name]
    network, batches = Network(model, bound.layers), Batches(normalize, seed)
    all_tasks = (stream.base, *stream.tasks)
    labels = [stream.labels_in_all(task)[task.train.labels] for task in all_tasks]
    everything = Split(np.concatenate([task.train.images for task in all_tasks]), np.concatenate(labels))
    together = TaskData(NAME, stream.classes, everything, stream.base.test)
    begun, used = time.monotonic(), time.process_time()
    method = bound.method(network, stream, batches, seed, bound.rate)
    method.heads[NAME] = _calibrated(network, batches, everything, stream.classes)
    train(method, together, batches, epochs)
    seconds, cpu_seconds = round(time.monotonic() - begun, 2), round(time.process_time() - used, 2)
    scenarios = _scores(method, batches, stream, all_tasks, everything)
    images = [len(task.test.labels) for task in (stream.base, *stream.tasks)]
    return {
        "protocol": protocol, "method": name, "title": bound.title, "source": "", "by": "torch", "seed": seed,
        "epochs": epochs, "batch": BATCH, "rate": method.peak, "scenarios": {
            name: {"acc": round(float(np.mean(row)), 3), "new": round(float(np.mean(row[1:])), 3), "base": row[0],
                   "bwt": None, "forgetting": None, "accuracy_matrix": [row],
                   "accuracy": [round(float(np.average(row, weights=images)), 3)]}
            for name, row in scenarios.items()
        }, "fwt": None, "tasks": [task.name for task in stream.tasks],
        "seconds": [seconds], "cpu_seconds": [cpu_seconds], "preparing": 0.0,
        "peak_rss_bytes": peak_rss_bytes(), "costs": count(method).to_json(), "machine": machine(PACKAGES),
    }  # fmt: skip


def _discriminant(
    network: Network, batches: Batches, split: Split, classes: tuple[str, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    features, labels = batches.features(network, split)
    statistics = ClassStatistics.empty(network.width).add(features.numpy(), labels.numpy(), classes)
    weight, bias = lda_head(statistics, PRIOR_PICTURES)
    return torch.from_numpy(weight), torch.from_numpy(bias)


def _calibrated(
    network: Network, batches: Batches, split: Split, classes: tuple[str, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The discriminant as a softmax to start from: scaled so that its cross-entropy on these images is least.

    With many features it is far too sure of itself, and the first steps would be large ones in no useful direction.
    """
    weight, bias = _discriminant(network, batches, split, classes)
    features, labels = batches.features(network, split)
    logits = features @ weight.T + bias
    losses = {scale: float(cross_entropy(scale * logits, labels)) for scale in np.geomspace(0.01, 1.0, 41)}
    best = float(min(losses, key=losses.__getitem__))
    return weight * best, bias * best


def _scores(
    method: Any, batches: Batches, stream: Stream, tasks: tuple[TaskData, ...], everything: Split
) -> dict[str, list[float]]:
    """Per scenario the accuracy of each task, base first."""
    network = method.network
    lda = _discriminant(network, batches, everything, stream.classes)
    own = method.heads[NAME]
    found: dict[str, list[float]] = {}
    for task in tasks:
        features, labels = batches.features(network, task.test)
        columns = torch.from_numpy(stream.labels_in_all(task))
        head = fitted(*batches.features(network, task.train), len(task.classes))
        for name, scores, answers in (
            ("class, our head", features @ lda[0].T + lda[1], columns[labels]),
            ("class, own head", features @ own[0].T + own[1], columns[labels]),
            ("task, our head", features @ head[0].T + head[1], labels),
            ("task, own head", (features @ own[0].T + own[1])[:, columns], labels),
        ):
            found.setdefault(name, []).append(accuracy(scores, answers))
    return found
