"""The kinds of conformance cases (docs/conformance.md), each computed by csk_sdk as a device computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.contract.manifest import (
    CLASS_MASK,
    EVAL_MODEL,
    LABEL,
    LABEL_SMOOTHING,
    MEMORY_MODEL,
    TRAINING_MODEL,
)
from csk_sdk.data.augment import augment
from csk_sdk.device.choice import in_chosen_precision
from csk_sdk.learning.training import HEAD_BIAS, HEAD_WEIGHT, TaskTraining
from csk_sdk.method.calibration import calibrated
from csk_sdk.method.drift import DriftEstimate
from csk_sdk.method.heads import ClassStatistics, Shrunk, lda_head
from csk_sdk.method.left_out import JudgedImages
from csk_sdk.method.logistic import known_head, logistic_head
from csk_sdk.method.optimizers import cosine, optimizer_of, warm_up_steps
from csk_sdk.method.projection import basis, project, restrict
from csk_sdk.method.selection import Sensitivity, select_channels
from csk_sdk.method.unknown import distance, measured
from csk_sdk.network.knowledge import Batch
from csk_sdk.network.predicting import Predictor
from csk_sdk.objectives.classification import PRIOR_PICTURES
from csk_sdk.runtime.sessions import ON_CPU
from csk_sdk.state import Generation, LearnedTask
from platforms.decisions import DECISIONS
from platforms.domains import DOMAINS
from platforms.fleets import FLEETS
from platforms.graphs import graphs
from platforms.guards import GUARDS
from platforms.ledger import LEDGER
from platforms.upgrades import UPGRADES

Tensors = dict[str, NDArray[Any]]
Settings = Mapping[str, Any]
Kind = Callable[[Settings, Tensors, Path], Tensors]

_THREADS = 1
# Among a case's settings: not the case's own, but the runner's.
PROVIDERS = "providers"


def _preprocess(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    pictures = [given[f"picture/{index}"] for index in range(settings["pictures"])]
    return {"image": Bundle.open(bundle).preprocessing(pictures)}


def _augment(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    return {"pictures": _moved(given["pictures"], given["down"], given["right"], given["flipped"])}


def _head(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    weight, bias = logistic_head(given["features"], given["labels"], settings["classes"])
    return {"weight": weight, "bias": bias}


def _known_head(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    known = ClassStatistics(
        tuple(map(str, range(len(given["counts"])))), given["gram"], given["sums"], given["counts"]
    )
    shrunk = Shrunk.of(known, PRIOR_PICTURES)
    assert shrunk is not None
    own = logistic_head(given["features"], given["labels"], settings["classes"])
    weight, bias = known_head(own, given["features"], given["labels"], shrunk)
    return {"weight": weight, "bias": bias}


def _select(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    sensitivity = Sensitivity(given["gradient/0"].shape[1])
    for batch in range(settings["batches"]):
        sensitivity.add(given[f"gradient/{batch}"])
    chosen = select_channels(sensitivity.values, settings["channel_ratio"])
    return {"sensitivity": sensitivity.values, "selected": chosen}


def _project(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    directions = basis(restrict(given["moment"], given["selected"]), settings["energy"])
    step = given["step"].copy()
    project(step, directions)
    rank = np.array([directions.shape[1]])
    return {"rank": rank, "projector": directions @ directions.T, "projected": step}


def _optimizer(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    rate, momentum, decay = (settings[name] for name in ("learning_rate", "momentum", "weight_decay"))
    optimizer = optimizer_of(settings["optimizer"], rate, momentum, decay)
    parameter = given["parameter"].copy()
    found: Tensors = {}
    for step in range(settings["steps"]):
        factor = cosine(step, settings["steps"], settings["warmup"])
        optimizer.learning_rate = rate * factor
        update = np.empty_like(parameter)
        optimizer.step("parameter", given[f"gradient/{step}"], update, parameter)
        parameter -= update
        found |= {f"schedule/{step}": np.array([factor]), f"update/{step}": update}
    return {**found, "parameter": parameter}


def _drift(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    estimate = DriftEstimate(given["before"].shape[1])
    estimate.add(given["before"], given["after"])
    drift = estimate.fit()
    names = tuple(str(index) for index in range(len(given["sums"])))
    old = ClassStatistics(names, given["gram"], given["sums"], np.ones(len(names)))
    followed = drift.statistics(old)
    return {"weight": drift.head(given["weight"]), "sums": followed.sums, "gram": followed.gram}


def _discriminant(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    names = tuple(str(index) for index in range(len(given["counts"])))
    sums = given["gram"], given["sums"], given["counts"]
    weight, bias = lda_head(ClassStatistics(names, *sums, settings["temperature"]), PRIOR_PICTURES)
    return {"weight": weight, "bias": bias}


def _calibration(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    names = [str(index) for index in range(settings["classes"])]
    features = given["features"]
    empty = ClassStatistics.empty(features.shape[1])
    found = calibrated(empty, features, given["labels"], names, PRIOR_PICTURES).temperature
    return {"temperature": np.array([found], np.float64)}


def _unknown(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    names = [str(index) for index in range(settings["classes"])]
    features, labels = given["features"], given["labels"]
    statistics = ClassStatistics.empty(features.shape[1]).add(features, labels, names)
    images = JudgedImages.of(statistics, features, labels, names, Shrunk.of(statistics, PRIOR_PICTURES))
    assert images is not None
    sketch = measured(None, statistics, images)
    found = distance(statistics, sketch, lda_head(statistics, PRIOR_PICTURES))
    assert sketch is not None
    assert found is not None
    limit = np.array([found.limit(settings["reject"])])
    return {
        "margins": sketch.margins,
        "oddness": sketch.oddness,
        "distance": found.of(given["tested"]),
        "limit": limit,
    }


def _step(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    """All three graphs at one point."""
    opened = _open(bundle)
    manifest, checkpoint = opened.manifest, opened.checkpoint()
    head = manifest.head
    channels = {site.name: len(given[f"selected/{site.name}"]) for site in manifest.sites}
    parameters: Tensors = {head.weight: given["weight"], head.bias: given["bias"]}
    deltas: Tensors = {"image": given["images"]}
    names = {"loss": "loss", "logits": "logits"}
    names |= {"gradient/weight": head.weight_gradient, "gradient/bias": head.bias_gradient}
    for site in manifest.sites:
        deltas[site.delta], deltas[site.indices] = given[f"delta/{site.name}"], given[f"selected/{site.name}"]
        names[f"gradient/{site.name}"] = site.gradient
    training = opened.graph(TRAINING_MODEL, checkpoint, _THREADS)
    outputs = training.run({**deltas, **parameters, **_targets(given)})
    found = {name: np.atleast_1d(outputs[there]) for name, there in names.items()}
    if settings["moments"]:
        other = _on_provider(opened, settings)
        evaluation = other.graph(EVAL_MODEL, checkpoint, _THREADS, channels)
        found["features"] = evaluation.run({**deltas, **parameters}, ["features"])["features"]
        moments = other.graph(MEMORY_MODEL, checkpoint, _THREADS, channels).run(deltas)
        found |= {f"moment/{site.name}": moments[site.moment] for site in manifest.sites}
    return found


def _open(bundle: Path) -> Bundle:
    """As a device without a state opens it: with wide int8 sums where this CPU's may saturate."""
    opened = Bundle.open(bundle)
    return in_chosen_precision(opened, opened.precision, bundle / "state")


def _on_provider(bundle: Bundle, settings: Settings) -> Bundle:
    """Where the runner was told another provider: what predicts and measures, beside training on the CPU."""
    return bundle.view(providers=settings.get(PROVIDERS, ON_CPU))


def _targets(given: Tensors) -> Tensors:
    """Labels, and the optional inputs where the case has them."""
    targets: Tensors = {LABEL: given["labels"]}
    if "label_smoothing" in given:
        targets[LABEL_SMOOTHING] = given["label_smoothing"]
    if "class_mask" in given:
        targets[CLASS_MASK] = given["class_mask"].astype(np.bool_)
    return targets


def _steps(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    """From given head and channels, as a run continues from its progress checkpoint."""
    opened = _open(bundle)
    sites = opened.manifest.sites
    classes = [str(index) for index in range(len(given["bias"]))]
    training = TaskTraining(opened, opened.checkpoint(), classes, _config(settings))
    saved: Tensors = {HEAD_WEIGHT: given["weight"], HEAD_BIAS: given["bias"]}
    saved["targets/seen"] = np.ones(len(classes), np.uint8)
    for site in sites:
        chosen = given[f"selected/{site.name}"]
        saved[f"selected/{site.name}"] = chosen
        saved[f"delta/{site.name}"] = np.zeros((site.rows, len(chosen)), np.float32)
    training.resume(saved)
    losses = [
        training.step(
            (given[f"images/{step}"], given[f"labels/{step}"]),
            cosine(step, settings["steps"], settings["warmup"]),
        )
        for step in range(settings["steps"])
    ]
    deltas = {f"delta/{name}": delta for name, delta in training.deltas.items()}
    return {"loss": np.array(losses), "weight": training.weight, "bias": training.bias, **deltas}


def _task(settings: Settings, given: Tensors, bundle: Path) -> Tensors:
    """A whole task, in the order and with the flips and shifts that the case gives."""
    opened = _open(bundle)
    base, config, classes = opened.checkpoint(), _config(settings), tuple(settings["classes"])
    training = TaskTraining(opened, base, classes, config)
    size = settings["batch_size"]

    def plain() -> Iterator[Batch]:
        for start in range(0, len(given["order"]), size):
            index = given["order"][start : start + size]
            yield opened.preprocessing.normalize(given["pictures"][index]), given["labels"][index]

    training.warm_up(plain)
    losses = _train(opened, training, settings, given)
    selected = {f"selected/{name}": chosen for name, chosen in training.selected.items()}
    tensors = training.consolidate(settings["task"], plain).tensors
    learned = LearnedTask(
        settings["task"],
        classes,
        config.epochs,
        len(given["labels"]),
        seconds=0.0,
        loss=losses[-1],
        peak_rss_bytes=0,
        config=config.to_json(),
    )
    generation = Generation(1, 0, (learned,), tensors)
    state = {f"state/{name}": tensor for name, tensor in tensors.items() if name != "statistics.classes"}
    predictor = Predictor(_on_provider(opened, settings), generation, _THREADS)
    predicted = _predicted(predictor, settings["task"], given["test_pictures"])
    return {"loss": np.array(losses), **selected, **state, **predicted}


def _train(bundle: Bundle, training: TaskTraining, settings: Settings, given: Tensors) -> list[float]:
    size = settings["batch_size"]
    per_epoch = -(-len(given["labels"]) // size)
    total = per_epoch * settings["epochs"]
    losses = []
    for step in range(total):
        epoch, position = divmod(step, per_epoch)
        part = slice(position * size, (position + 1) * size)
        index = given["epoch_order"][epoch][part]
        down, right, flipped = (given[name][epoch][part] for name in ("down", "right", "flipped"))
        pictures = _moved(given["pictures"][index], down, right, flipped)
        batch = bundle.preprocessing.normalize(pictures), given["labels"][index]
        losses.append(training.step(batch, cosine(step, total, warm_up_steps(per_epoch))))
    return losses


def _predicted(predictor: Predictor, task: str, pictures: NDArray[np.uint8]) -> Tensors:
    features = predictor.features(pictures)
    found: Tensors = {}
    for name, head in (("task", task), ("base", "base"), ("all", None)):
        probabilities = predictor.head(head).predict(features).probabilities
        assert probabilities is not None
        found[f"probabilities/{name}"] = probabilities
        if name != "base":
            found[f"prediction/{name}"] = probabilities.argmax(axis=1)
    return found


class _Given:
    """Stands where a random generator is expected, and says what the case gives."""

    def __init__(self, down: NDArray[Any], right: NDArray[Any], flipped: NDArray[Any]) -> None:
        self._shifts = np.stack([down, right])[:, :, None]
        self._uniform = np.where(flipped, 0.0, 1.0)[:, None]

    def integers(self, *range_: int, size: tuple[int, ...]) -> NDArray[Any]:
        assert self._shifts.shape == size
        return self._shifts

    def random(self, size: tuple[int, ...]) -> NDArray[Any]:
        assert self._uniform.shape == size
        return self._uniform


def _moved(
    pictures: NDArray[Any], down: NDArray[Any], right: NDArray[Any], flipped: NDArray[Any]
) -> NDArray[Any]:
    given: Any = _Given(down, right, flipped)
    return augment(pictures, given, flip=True, shift=int(np.abs([down, right]).max(initial=0)))


def _config(settings: Settings) -> TrainingConfig:
    names = ("optimizer", "learning_rate", "head_learning_rate", "momentum", "weight_decay", "energy")
    more = ("epochs", "batch_size", "channel_ratio", "flip", "shift")
    chosen = {name: settings[name] for name in (*names, *more) if name in settings}
    return TrainingConfig(threads=_THREADS, **chosen)


KINDS: dict[str, Kind] = {
    "preprocess": _preprocess,
    "augment": _augment,
    "head": _head,
    "known_head": _known_head,
    "select": _select,
    "project": _project,
    "optimizer": _optimizer,
    "drift": _drift,
    "discriminant": _discriminant,
    "calibration": _calibration,
    "unknown": _unknown,
    **GUARDS,
    **LEDGER,
    **FLEETS,
    **DECISIONS,
    **UPGRADES,
    **DOMAINS,
    "graphs": graphs,
    "step": _step,
    "steps": _steps,
    "task": _task,
}
