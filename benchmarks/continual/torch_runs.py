"""A method of `methods/` living one stream in torch."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csk_sdk.errors import TaskError
from csk_sdk.method.heads import ClassStatistics, Shrunk, lda_head
from csk_sdk.method.logistic import known_head, logistic_head
from csk_sdk.method.optimizers import cosine
from csk_sdk.objectives.classification import PRIOR_PICTURES
from csk_sdk.runtime.peak_memory import peak_rss_bytes

from .costs import count
from .data import BASE_SHARE, Split, Stream, TaskData
from .methods import METHODS
from .methods.csko import Centers
from .methods.method import Method
from .network import Network
from .pictures import BATCH, Batches
from .results import Rows, forward_transfer, machine, measures

EPOCHS = 4
PACKAGES = ("csk-sdk", "numpy", "torch")


@dataclass
class Life:
    """What is known while a method lives a stream."""

    method: Method
    statistics: ClassStatistics
    own_heads: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)
    ahead: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


def run_stable(
    name: str, stream: Stream, model: Path, normalize: dict[str, Any], cache: Path, protocol: str, seed: int,
    rate: float | None, epochs: int,
) -> dict[str, Any]:  # fmt: skip
    """`run`, again with the next smaller rate of the search whenever training diverges."""
    chosen = METHODS[name].rate if rate is None else rate
    smaller = sorted((one for one in METHODS[name].rates if one < chosen), reverse=True)
    for one in (chosen, *smaller):
        try:
            return run(name, stream, model, normalize, cache, protocol, seed, one, epochs)
        except (TaskError, np.linalg.LinAlgError) as error:
            print(f"{name} diverged with rate {one:g}: {error}", flush=True)
    raise TaskError(f"{name} diverged with every rate down to {min((chosen, *smaller)):g}.")


def run(
    name: str, stream: Stream, model: Path, normalize: dict[str, Any], cache: Path, protocol: str, seed: int,
    rate: float | None = None, epochs: int = EPOCHS,
) -> dict[str, Any]:  # fmt: skip
    """Live the stream and return everything measured."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    network = Network(model, METHODS[name].layers)
    batches = Batches(normalize, seed)
    statistics = _base_statistics(network, stream, batches, cache)
    method = METHODS[name](network, stream, batches, seed, rate)
    method.heads["base"] = network.head
    life = Life(method, statistics, {"base": network.head})
    untouched = _untouched(
        network, stream, batches, cache / f"untouched-{network.width}-{protocol}-{seed}.json"
    )
    begun = time.monotonic()
    method.start()
    started = time.monotonic() - begun
    _evaluate(life, stream, batches, 0)
    for number, task in enumerate(stream.tasks, start=1):
        begun, used = time.monotonic(), time.process_time()
        learn(life, task, batches, epochs)
        life.seconds.append(round(time.monotonic() - begun, 2))
        life.cpu_seconds.append(round(time.process_time() - used, 2))
        _evaluate(life, stream, batches, number)
    images = [len(task.test.labels) for task in (stream.base, *stream.tasks)]
    return {
        "protocol": protocol, "method": name, "title": method.title, "source": method.source, "by": "torch",
        "seed": seed, "epochs": epochs * method.longer, "batch": BATCH, "rate": None if method.frozen else method.peak,
        "scenarios": measures(life.rows, images),
        "fwt": None if stream.domains else forward_transfer(life.ahead, untouched),
        "tasks": [task.name for task in stream.tasks],
        "seconds": life.seconds, "cpu_seconds": life.cpu_seconds, "preparing": round(started, 2),
        "peak_rss_bytes": peak_rss_bytes(), "costs": count(method).to_json(), "machine": machine(PACKAGES),
    }  # fmt: skip


def learn(life: Life, task: TaskData, batches: Batches, epochs: int) -> None:
    """One task, from its head's first fit to its head's last."""
    method, network = life.method, life.method.network
    before, labels = batches.features(network, task.train)
    if method.stream.domains:
        method.heads[task.name] = tuple(tensor.detach().clone() for tensor in list(method.heads.values())[-1])
    else:
        method.heads[task.name] = fitted(before, labels, len(task.classes))
        tested, answers = batches.features(network, task.test)
        life.ahead.append(accuracy(method.logits(tested, task.name), answers))
    method.statistics = life.statistics
    method.begin_task(task)
    if not method.frozen or method.stream.domains:
        train(method, task, batches, epochs * method.longer)
    method.finish(task)
    life.own_heads[task.name] = tuple(tensor.detach().clone() for tensor in method.heads[task.name])
    after, labels = batches.features(network, task.train)
    learned = ClassStatistics.empty(network.width).add(after.numpy(), labels.numpy(), task.classes)
    drift = method.followed(after) if isinstance(method, Centers) else None
    if drift is not None:
        map_ = drift.fit()
        life.statistics = map_.statistics(life.statistics)
        for name, (weight, bias) in method.heads.items():
            if name != task.name:
                method.heads[name] = torch.from_numpy(map_.head(weight.detach().numpy())), bias
    life.statistics = life.statistics.merge(learned)
    if not method.stream.domains:
        mirrored, _ = batches.features(network, task.train, flip=True)
        sample = torch.cat([after, mirrored]), torch.cat([labels, labels])
        shrunk = Shrunk.of(life.statistics, PRIOR_PICTURES)
        method.heads[task.name] = fitted(*sample, len(task.classes), shrunk)
    method.end_task(task)


def train(method: Method, task: TaskData, batches: Batches, epochs: int) -> None:
    """All steps of a task: csk-sdk's batches and schedule, the method's loss and step."""
    method.forget_momentum()
    head = method.head_parameters(task)
    for tensor in head:
        tensor.requires_grad_(True)
    per_epoch = -(-len(task.train.labels) // BATCH)
    steps, warmup, step = per_epoch * epochs, min(per_epoch // 2, 50), 0
    for epoch in range(epochs):
        method.begin_epoch(task, epoch, epochs)
        for x, y in batches.training(task.train, epoch):
            method.loss(x, y, task).backward()
            method.step(cosine(step, steps, warmup), head)
            step += 1
    for tensor in head:
        tensor.requires_grad_(False)


def fitted(
    features: torch.Tensor, labels: torch.Tensor, classes: int, known: Shrunk | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """csk-sdk's exact head of a task; beside what is known, its last."""
    weight, bias = logistic_head(features.numpy(), labels.numpy(), classes)
    if known is not None:
        weight, bias = known_head((weight, bias), features.numpy(), labels.numpy(), known)
    return torch.from_numpy(weight), torch.from_numpy(bias)


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Percent."""
    return round(float((scores.argmax(1) == labels).float().mean()) * 100, 3)


def _evaluate(life: Life, stream: Stream, batches: Batches, learned: int) -> None:
    """A row of every scenario, over the base and the first `learned` tasks."""
    method = life.method
    known = (stream.base, *stream.tasks[:learned])
    weight, bias = (torch.from_numpy(array) for array in lda_head(life.statistics, PRIOR_PICTURES))
    row: dict[str, list[float]] = {}
    for task in known:
        test = task.test
        if task is stream.base and 0 < learned < len(stream.tasks):
            test = Split(test.images[::BASE_SHARE], test.labels[::BASE_SHARE])
        features, labels = batches.features(method.network, test)
        everywhere = torch.from_numpy(stream.labels_in_all(task))[labels]
        scores = {"class, our head": (features @ weight.T + bias, everywhere)}
        own = method.scores(features)
        if stream.domains:
            scores["class, own head"] = (
                own if own is not None else method.logits(features, known[-1].name),
                everywhere,
            )
        else:
            scores["task, our head"] = (method.logits(features, task.name), labels)
            trained = life.own_heads[task.name]
            scores["task, own head"] = (features @ trained[0].T + trained[1], labels)
            if own is None:
                # Heads that never saw each other's classes, side by side.
                side_by_side = [features @ w.T + b for w, b in life.own_heads.values()]
                scores["class, own head"] = (torch.cat(side_by_side, 1), everywhere)
            else:
                scores["class, own head"] = (own, everywhere)
                columns = torch.from_numpy(stream.labels_in_all(task))
                scores["task, own head"] = (own[:, columns], labels)
        for scenario, (given, answers) in scores.items():
            row.setdefault(scenario, []).append(accuracy(given, answers))
    for scenario, values in row.items():
        life.rows.setdefault(scenario, []).append(values)


def _base_statistics(network: Network, stream: Stream, batches: Batches, cache: Path) -> ClassStatistics:
    """The class statistics of the base, as the workstation measures them; kept in `cache`."""
    file = cache / f"base-statistics-{network.width}.npz"
    if not file.exists():
        features, labels = batches.features(network, stream.base.train)
        made = ClassStatistics.empty(network.width).add(features.numpy(), labels.numpy(), stream.base.classes)
        np.savez(file, **made.tensors())
    with np.load(file) as arrays:
        return ClassStatistics.from_tensors(dict(arrays))


def _untouched(network: Network, stream: Stream, batches: Batches, file: Path) -> list[float]:
    """Accuracy of each task's exact head on the deployed network's features; kept in `file`."""
    if stream.domains:
        return []
    if not file.exists():
        found = []
        for task in stream.tasks:
            weight, bias = fitted(*batches.features(network, task.train), len(task.classes))
            features, labels = batches.features(network, task.test)
            found.append(accuracy(features @ weight.T + bias, labels))
        file.write_text(json.dumps(found))
    known: list[float] = json.loads(file.read_text())
    return known
