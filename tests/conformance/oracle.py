"""What each kind of case must give, in float64: inputs and settings in, expected outputs out (docs/conformance.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import decision_oracle
import domain_oracle
import fleet_oracle
import guard_oracle
import ledger_oracle
import method
import numpy as np
import upgrade_oracle
from network import SourceNetwork, Step, changed
from numpy.typing import NDArray
from quantized import evaluate

from csk_sdk.contract.manifest import EXACT, EXPORT_TEMPLATE, MANIFEST, TRAINING_MODEL, Manifest, exact_twin
from platforms.graphs import feeds_of, graph_name

Tensors = dict[str, NDArray]
Settings = Mapping[str, Any]
PICTURE_GRAY = np.array([0.299, 0.587, 0.114])


class World:
    """The folder of a bundle and the source model beside it; empty for kinds that need neither."""

    def __init__(self, bundle: Path | None) -> None:
        if bundle is None:
            return
        self.bundle = bundle
        self.manifest = Manifest.from_json((bundle / MANIFEST).read_text(), str(bundle))
        self.source = SourceNetwork(bundle.with_suffix(".onnx"), self.manifest)
        self.checkpoint = _read_checkpoint(bundle / "checkpoint.safetensors")

    def read(self, name: str) -> Tensors:
        """The tensors of a file of the bundle."""
        return _read_checkpoint(self.bundle / name)

    def known(self) -> tuple[NDArray, NDArray, NDArray]:
        """Class statistics of the base: the sum of `x x^T`, that of `x` per class, and counts."""
        return *_sums_of(self.checkpoint), self.checkpoint["statistics.counts"]

    def normalized(self, pictures: NDArray) -> NDArray:
        """`(x / 255 - mean) / std`, channels first."""
        spec = self.manifest.preprocessing
        return np.moveaxis((pictures / 255.0 - np.array(spec.mean)) / np.array(spec.std), -1, 1)


def preprocess(settings: Settings, given: Tensors, world: World) -> Tensors:
    height, width = world.manifest.input.size
    channels = world.manifest.input.channels
    stacked = []
    for index in range(settings["pictures"]):
        picture = given[f"picture/{index}"].astype(np.float64)
        picture = picture[:, :, None] if picture.ndim == 2 else picture
        picture = picture[:, :, :-1] if picture.shape[2] in (2, 4) else picture
        if channels == 1 and picture.shape[2] == 3:
            picture = picture @ PICTURE_GRAY[:, None]
        if picture.shape[:2] != (height, width):
            picture = method.resized(picture, height, width)
        stacked.append(np.broadcast_to(picture, (height, width, channels)))
    return {"image": world.normalized(np.stack(stacked))}


def augment(settings: Settings, given: Tensors, world: World) -> Tensors:
    return {"pictures": method.augmented(given["pictures"], given["down"], given["right"], given["flipped"])}


def head(settings: Settings, given: Tensors, world: World) -> Tensors:
    weight, bias = method.head(given["features"], given["labels"], settings["classes"])
    return {"weight": weight, "bias": bias}


def known_head(settings: Settings, given: Tensors, world: World) -> Tensors:
    known = given["gram"], given["sums"], given["counts"]
    weight, bias = method.known_head(given["features"], given["labels"], settings["classes"], known)
    return {"weight": weight, "bias": bias}


def select(settings: Settings, given: Tensors, world: World) -> Tensors:
    values = method.sensitivity([given[f"gradient/{i}"] for i in range(settings["batches"])])
    chosen = method.selected(values, settings["channel_ratio"], settings["tied"])
    return {"sensitivity": values, "selected": chosen}


def project(settings: Settings, given: Tensors, world: World) -> Tensors:
    directions = method.basis(given["moment"].astype(np.float64), given["selected"], settings["energy"])
    return {
        "rank": np.array([directions.shape[1]]),
        "projector": directions @ directions.T,
        "projected": method.projected(given["step"].astype(np.float64), directions),
    }


def optimizer(settings: Settings, given: Tensors, world: World) -> Tensors:
    stepper = method.Optimizer(settings["optimizer"], settings["momentum"], settings["weight_decay"])
    parameter = given["parameter"].astype(np.float64)
    found: Tensors = {}
    for step in range(settings["steps"]):
        factor = method.schedule(step, settings["steps"], settings["warmup"])
        rate = settings["learning_rate"] * factor
        update = stepper.update("p", given[f"gradient/{step}"], parameter, rate)
        parameter = parameter - update
        found[f"schedule/{step}"] = np.array([factor])
        found[f"update/{step}"] = update
    return {**found, "parameter": parameter}


def drift(settings: Settings, given: Tensors, world: World) -> Tensors:
    before, after = given["before"], given["after"]
    forward, backward = method.drift(before, after), method.drift(after, before)
    return {
        "weight": given["weight"].astype(np.float64) @ backward,
        "sums": given["sums"] @ forward.T,
        "gram": forward @ given["gram"] @ forward.T,
    }


def discriminant(settings: Settings, given: Tensors, world: World) -> Tensors:
    weight, bias = method.discriminant(given["gram"], given["sums"], given["counts"])
    return {"weight": weight / settings["temperature"], "bias": bias / settings["temperature"]}


def calibration(settings: Settings, given: Tensors, world: World) -> Tensors:
    features = given["features"].astype(np.float64)
    return {"temperature": np.array([method.temperature(features, given["labels"], settings["classes"])])}


def unknown(settings: Settings, given: Tensors, world: World) -> Tensors:
    features, labels, classes = given["features"].astype(np.float64), given["labels"], settings["classes"]
    margins, oddness = method.sketch(features, labels, classes)
    tested = given["tested"].astype(np.float64)
    distance, limit = method.distances(
        features, labels, classes, (margins, oddness), tested, settings["reject"]
    )
    return {"margins": margins, "oddness": oddness, "distance": distance, "limit": np.array([limit])}


def step(settings: Settings, given: Tensors, world: World) -> Tensors:
    """Against the source network: by finite differences, whatever the bundle's precision."""
    source, names = world.source, [site.name for site in world.source.sites]
    selected = {name: given[f"selected/{name}"] for name in names}
    deltas = {name: given[f"delta/{name}"] for name in names}
    at = Step(
        source,
        source.centers(),
        (given["weight"], given["bias"]),
        selected,
        deltas,
        float(given.get("label_smoothing", np.zeros(()))),
        given["class_mask"].astype(bool) if "class_mask" in given else None,
    )
    images, labels = given["images"], given["labels"]
    features, logits = at.forward(images)
    weight, bias = at.head_gradient(images, labels)
    with source.at(changed(source.sites, source.centers(), deltas, selected)):
        moments = source.moments(images)
    gradients = at.gradients(images, labels)
    return {
        "loss": np.array([at.loss(images, labels)]),
        "logits": logits,
        "features": features,
        "gradient/weight": weight,
        "gradient/bias": bias,
        **{f"gradient/{name}": gradient for name, gradient in gradients.items()},
        **{f"moment/{name}": moment for name, moment in moments.items()},
    }


def graphs(settings: Settings, given: Tensors, world: World) -> Tensors:
    """What the ops of each graph say, in float64; of an exported model, what the source network says.

    Inputs on a rounding edge of an int8 graph are refused.
    """
    found = _graphs(settings, given, world)
    if settings["precision"] == EXACT:
        return found
    return _settled(found, given, lambda moved: _graphs(settings, moved, world))


def _graphs(settings: Settings, given: Tensors, world: World) -> Tensors:
    manifest, found = world.manifest, {}
    for name in settings["graphs"]:
        if name == EXPORT_TEMPLATE:
            features = world.source.features(given["images"])
            outputs = {"logits": features @ given["weight"].T.astype(np.float64) + given["bias"]}
        else:
            twin = settings["precision"] != manifest.precision
            graph = world.bundle / (exact_twin(name) if twin else name)
            outputs = evaluate(graph, feeds_of(manifest, name, given))
        found |= {f"{graph_name(name)}/{output}": _golden(value) for output, value in outputs.items()}
    return found


def _golden(value: NDArray) -> NDArray:
    """In a type of the goldens: prefix features are float16."""
    return np.atleast_1d(value.astype(np.float64) if value.dtype == np.float16 else value)


def _settled(found: Tensors, given: Tensors, again: Callable[[Tensors], Tensors]) -> Tensors:
    """`found`, unless a hundred-thousandth of the images changes it, or of what stands for them."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        moved = {
            name: value * (1 + 1e-5 * rng.standard_normal(value.shape)) if name == "images" else value
            for name, value in given.items()
        }
        for name, value in again(moved).items():
            if np.abs(value - found[name]).max() > 1e-3 * np.abs(found[name]).max():
                raise ValueError(f"{name} lies on the edge of a rounding; choose other images")
    return found


def graph_step(settings: Settings, given: Tensors, world: World) -> Tensors:
    """Of an int8 bundle: the training graph itself in another runtime. Inputs on a rounding edge are refused."""
    return _settled(_evaluated(given, world), given, lambda moved: _evaluated(moved, world))


def _evaluated(given: Tensors, world: World) -> Tensors:
    head, sites = world.manifest.head, world.manifest.sites
    feeds = {
        **{"image": given["images"], "label": given["labels"]},
        **{head.weight: given["weight"], head.bias: given["bias"]},
    }
    names = {"loss": "loss", "logits": "logits"}
    names |= {"gradient/weight": head.weight_gradient, "gradient/bias": head.bias_gradient}
    for site in sites:
        feeds[site.indices] = given[f"selected/{site.name}"]
        feeds[site.delta] = given[f"delta/{site.name}"]
        names[f"gradient/{site.name}"] = site.gradient
    outputs = evaluate(world.bundle / TRAINING_MODEL, feeds)
    return {name: np.atleast_1d(outputs[there]) for name, there in names.items()}


class Training:
    """Steps of one task in float64, from given head, channels and centers."""

    def __init__(self, settings: Settings, world: World, head: tuple[NDArray, NDArray], selected: Tensors):
        self.settings, self.source = settings, world.source
        self.head = [head[0].astype(np.float64), head[1].astype(np.float64)]
        self.centers, self.selected = world.source.centers(), selected
        self.deltas = {
            site.name: np.zeros((site.rows, len(selected[site.name]))) for site in self.source.sites
        }
        self.bases = {
            site.name: method.basis(
                world.checkpoint[f"moment/{site.name}"].astype(np.float64),
                selected[site.name],
                # Of a whole kernel, the root of as many positions.
                settings["energy"] ** (1 / (np.prod(site.shape[2:]) if site.whole else 1)),
            )
            for site in self.source.sites
        }
        decay = settings["weight_decay"]
        self._optimizer = method.Optimizer(settings["optimizer"], settings["momentum"], decay)

    def step(self, images: NDArray, labels: NDArray, factor: float) -> float:
        at = Step(self.source, self.centers, (self.head[0], self.head[1]), self.selected, self.deltas)
        loss = at.loss(images, labels)
        of_head, gradients = at.head_gradient(images, labels), at.gradients(images, labels)
        rate = self.settings["learning_rate"] * factor
        for name, gradient in gradients.items():
            update = self._optimizer.update(name, gradient, self.deltas[name], rate)
            self.deltas[name] = self.deltas[name] - method.projected(update, self.bases[name])
        rate = self.settings["head_learning_rate"] * factor
        for which, gradient in enumerate(of_head):
            update = self._optimizer.update(f"head {which}", gradient, self.head[which], rate)
            self.head[which] = self.head[which] - update
        return loss


def steps(settings: Settings, given: Tensors, world: World) -> Tensors:
    names = [site.name for site in world.source.sites]
    selected = {name: given[f"selected/{name}"] for name in names}
    training = Training(settings, world, (given["weight"], given["bias"]), selected)
    factors = [
        method.schedule(step, settings["steps"], settings["warmup"]) for step in range(settings["steps"])
    ]
    losses = [
        training.step(given[f"images/{step}"], given[f"labels/{step}"], factor)
        for step, factor in enumerate(factors)
    ]
    return {
        "loss": np.array(losses),
        "weight": training.head[0],
        "bias": training.head[1],
        **{f"delta/{name}": delta for name, delta in training.deltas.items()},
    }


def task(settings: Settings, given: Tensors, world: World) -> Tensors:
    """A whole task: warm up, train, consolidate, predict."""
    source, size = world.source, settings["batch_size"]
    labels, order = given["labels"], given["order"]
    plain = [order[at : at + size] for at in range(0, len(order), size)]
    images = world.normalized(given["pictures"])
    classes = len(settings["classes"])
    start = method.head(np.concatenate([source.features(images[b]) for b in plain]), labels[order], classes)
    selected = _selected(settings, world, start, [(images[b], labels[b]) for b in plain])
    training = Training(settings, world, start, selected)
    losses = _train(settings, given, world, training)
    centers = changed(source.sites, training.centers, training.deltas, selected)
    return {
        "loss": np.array(losses),
        **{f"selected/{name}": chosen for name, chosen in selected.items()},
        **_consolidated(settings, given, world, centers),
    }


def _selected(
    settings: Settings, world: World, start: Any, batches: list[tuple[NDArray, NDArray]]
) -> Tensors:
    sites = world.source.sites
    every = {site.name: np.arange(site.columns) for site in sites}
    zero = {site.name: np.zeros((site.rows, site.columns)) for site in sites}
    at = Step(world.source, world.source.centers(), start, every, zero)
    gradients = [at.gradients(*batch) for batch in batches]
    return {
        name: method.selected(method.sensitivity([one[name] for one in gradients]), settings["channel_ratio"])
        for name in every
    }


def _train(settings: Settings, given: Tensors, world: World, training: Training) -> list[float]:
    size, pictures = settings["batch_size"], len(given["labels"])
    per_epoch = -(-pictures // size)
    total = per_epoch * settings["epochs"]
    losses = []
    for step in range(total):
        epoch, position = divmod(step, per_epoch)
        part = slice(position * size, (position + 1) * size)
        index = given["epoch_order"][epoch][part]
        moves = (given[name][epoch][part] for name in ("down", "right", "flipped"))
        images = world.normalized(method.augmented(given["pictures"][index], *moves))
        factor = method.schedule(step, total, min(per_epoch // 2, 50))
        losses.append(training.step(images, given["labels"][index], factor))
    return losses


def _consolidated(settings: Settings, given: Tensors, world: World, centers: Tensors) -> Tensors:
    """The next generation's tensors, and what it says of the test images."""
    source, images, known = world.source, world.normalized(given["pictures"]), world.checkpoint
    labels, names = given["labels"], settings["classes"]
    before = source.features(images)
    with source.at(centers):
        after, moments = source.features(images), source.moments(images)
        mirrored = source.features(images[..., ::-1])
        tested = source.features(world.normalized(given["test_pictures"]))
    sample, twice = (after, labels)
    if settings["flip"]:
        sample, twice = np.concatenate([after, mirrored]), np.concatenate([labels, labels])
    forward, backward = method.drift(before, after), method.drift(after, before)
    old = known["head/base/weight"].astype(np.float64) @ backward, known["head/base/bias"].astype(np.float64)
    one_hot = np.eye(len(names))[labels]
    known_gram, known_sums = _sums_of(known)
    gram = forward @ known_gram @ forward.T + after.T @ after
    sums = np.vstack([known_sums @ forward.T, one_hot.T @ after])
    counts = np.concatenate([known["statistics.counts"], one_hot.sum(axis=0)])
    weight, bias = method.known_head(sample, twice, len(names), (gram, sums, counts))
    means = sums / counts[:, None]
    temperature = known["statistics.temperature"]
    everything = tuple(part / temperature for part in method.discriminant(gram, sums, counts))
    heads = {"base": old, settings["task"]: (weight, bias)}
    logits = {name: tested @ w.T + b for name, (w, b) in {**heads, "": everything}.items()}
    return {
        **{f"state/center/{name}": center for name, center in centers.items()},
        **{f"state/moment/{name}": known[f"moment/{name}"] + moment for name, moment in moments.items()},
        **{f"state/head/{name}/weight": w for name, (w, _) in heads.items()},
        **{f"state/head/{name}/bias": b for name, (_, b) in heads.items()},
        "state/statistics.scatter": gram - np.einsum("c,ci,cj->ij", counts, means, means),
        "state/statistics.means": means,
        "state/statistics.counts": counts,
        "state/statistics.temperature": temperature,
        "probabilities/task": _softmax(logits[settings["task"]]),
        "probabilities/base": _softmax(logits["base"]),
        "probabilities/all": _softmax(logits[""]),
        "prediction/task": logits[settings["task"]].argmax(axis=1),
        "prediction/all": logits[""].argmax(axis=1),
    }


def _sums_of(known: Tensors) -> tuple[NDArray, NDArray]:
    """The sum of `x x^T`, and that of `x` per class, from either form of class statistics (docs/bundle.md)."""
    if "statistics.sums" in known:
        return known["statistics.gram"], known["statistics.sums"]
    counts, means = known["statistics.counts"], known["statistics.means"].astype(np.float64)
    between = np.einsum("c,ci,cj->ij", counts, means, means)
    return known["statistics.scatter"] + between, counts[:, None] * means


def _softmax(logits: NDArray) -> NDArray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _read_checkpoint(path: Path) -> Tensors:
    """safetensors, read by hand: the oracle trusts no reader of the SDK."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    types = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "U8": "|u1"}
    header = {name: entry for name, entry in json.loads(data[8:start]).items() if name != "__metadata__"}
    return {
        name: np.frombuffer(data[start:][slice(*entry["data_offsets"])], types[entry["dtype"]]).reshape(
            entry["shape"]
        )
        for name, entry in header.items()
    }


KINDS: dict[str, Callable[[Settings, Tensors, World], Tensors]] = {
    "preprocess": preprocess,
    "augment": augment,
    "head": head,
    "known_head": known_head,
    "select": select,
    "project": project,
    "optimizer": optimizer,
    "drift": drift,
    "discriminant": discriminant,
    "calibration": calibration,
    "unknown": unknown,
    **guard_oracle.KINDS,
    **ledger_oracle.KINDS,
    **decision_oracle.KINDS,
    **upgrade_oracle.KINDS,
    **fleet_oracle.KINDS,
    **domain_oracle.KINDS,
    "graphs": graphs,
    "step": step,
    "steps": steps,
    "task": task,
}
