"""The cases: settings and inputs, drawn once by seed and then kept in files; their tolerances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from decision_cases import draws as decisions
from domain_cases import draws as domains
from fleet_cases import draws as fleets
from guard_cases import draws as guards
from ledger_cases import draws as ledgers
from numpy.typing import NDArray
from oracle import KINDS, World
from upgrade_cases import draws as upgrades

from csk_sdk.contract.manifest import (
    DOMAIN_DEVIATION,
    DOMAIN_MEAN,
    DOMAIN_SCALE,
    DOMAIN_SHIFT,
    EXACT,
    EXPORT_TEMPLATE,
    INT8,
    MANIFEST,
    MEMORY_SUFFIX,
    PREFIX_MODEL,
    TRAINING_SUFFIX,
    exact_twin,
)

Tensors = dict[str, NDArray]
_CUT = (PREFIX_MODEL, TRAINING_SUFFIX, MEMORY_SUFFIX)
# Outputs that count or name something.
_EXACT = (
    *("rank", "pictures", "selected", "refuted", "told", "unfamiliar", "heads_only"),
    *("planned", "stopped", "reason", "others", "clear", "pays"),
    *("levels", "apart", "out", "alike"),
)
GRAPH = "graph"
SOURCE = "source"
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class Case:
    """`oracle` is "source", or "graph" for a graph taken as it is; `needs` are optional features.

    `precision` is the bundle's own where it is empty.
    """

    name: str
    kind: str
    about: str
    settings: dict[str, Any]
    inputs: Tensors
    bundle: str = ""
    oracle: str = SOURCE
    needs: tuple[str, ...] = field(default=())
    precision: str = ""

    def __post_init__(self) -> None:
        own = INT8 if self.bundle.endswith(INT8) else EXACT
        object.__setattr__(self, "precision", self.precision or own)


Draw = Callable[[int], Case]


def templates(seed: int, classes: int, size: tuple[int, int] = (9, 9)) -> NDArray:
    """An image for each class; samples are these and noise."""
    return np.random.default_rng(seed).integers(50, 206, (classes, *size, 3))


def samples(rng: np.random.Generator, base: NDArray, labels: NDArray, noise: float = 24.0) -> NDArray:
    drawn = base[labels] + rng.normal(0, noise, base[labels].shape)
    return np.clip(drawn, 0, 255).astype(np.uint8)


def drawn(folder: Path) -> Iterator[Draw]:
    """All cases on the bundles in `folder`, each as what draws it: another attempt is another case."""
    for case in (*_preprocessing(), *_parts()):
        yield partial(_same, case)
    for number, name in enumerate(("plain", "groups", "mobile")):
        yield partial(_step, folder, name, 100 + number)
    yield partial(_optional, folder, "label-smoothing", ("label_smoothing",))
    yield partial(_optional, folder, "class-mask", ("class_mask",))
    for number, name in enumerate(("plain-int8", "mobile-int8")):
        yield partial(_step, folder, name, 200 + number, oracle=GRAPH)
        # Of a dozen draws these are in the middle: now and then a network this small loses a direction in int8.
        yield partial(_step, folder, name, 300 + 2 * number)
    yield from _every_graph(folder)
    for guard in (*guards(), *ledgers(), *decisions(), *upgrades(), *fleets(), *domains()):
        yield partial(_guard, guard)
    sgd = {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 0.0, "energy": 0.8}
    adamw = {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.01, "energy": 0.5}
    yield partial(_steps, folder, "plain", sgd, 400)
    yield partial(_steps, folder, "groups", adamw, 410)
    yield partial(_task, folder, "plain", sgd, True, 500)
    yield partial(_task, folder, "mobile", {**adamw, "energy": 0.6}, False, 510)
    yield partial(_domain, 520)
    yield partial(_step, folder, "kernels", 110)
    yield partial(_steps, folder, "kernels", sgd, 420)


def _guard(draw: Callable[[int], Any], attempt: int) -> Case:
    name, kind, about, settings, inputs = draw(attempt)
    return Case(name, kind, about, settings, inputs, "plain" if kind == "stopping" else "")


def _same(case: Case, attempt: int) -> Case:
    return case


def _preprocessing() -> Iterator[Case]:
    rng = np.random.default_rng(1)
    shapes = {
        "same": ("the model's size", [(9, 9, 3)]),
        "resize": (
            "smaller, larger and other proportions: bilinear, antialiased",
            [(5, 7, 3), (30, 22, 3), (9, 20, 3)],
        ),
        "channels": ("gray, gray with alpha, RGB with alpha", [(9, 9), (12, 6, 1), (9, 9, 2), (12, 6, 4)]),
    }
    for name, (about, sizes) in shapes.items():
        inputs = {f"picture/{i}": rng.integers(0, 256, size).astype(np.uint8) for i, size in enumerate(sizes)}
        yield Case(f"preprocess-{name}", "preprocess", about, {"pictures": len(sizes)}, inputs, "plain")
    inputs = {"picture/0": rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)}
    inputs["picture/1"] = rng.integers(0, 256, (16, 12, 3)).astype(np.uint8)
    yield Case("preprocess-gray", "preprocess", "colour for a gray model", {"pictures": 2}, inputs, "gray")


def _parts() -> Iterator[Case]:
    rng = np.random.default_rng(2)
    moves = {name: rng.integers(-3, 4, 6) for name in ("down", "right")}
    moves["flipped"] = np.array([0, 1, 0, 1, 1, 0], np.uint8)
    pictures = rng.integers(0, 256, (6, 5, 7, 3)).astype(np.uint8)
    about = "flips and shifts that are given, reflected at the edges"
    yield Case("augment", "augment", about, {}, {"pictures": pictures, **moves})
    yield from _heads(rng)
    yield from _selections(rng)
    yield from _projections(rng)
    for name, momentum, decay in (("sgd", 0.9, 0.0), ("sgd", 0.8, 0.01), ("adamw", 0.9, 0.05)):
        settings = {"optimizer": name, "momentum": momentum, "weight_decay": decay, "learning_rate": 0.1}
        settings |= {"steps": 8, "warmup": 3}
        inputs = {f"gradient/{i}": _float32(rng.normal(size=(3, 5))) for i in range(8)}
        inputs["parameter"] = _float32(rng.normal(size=(3, 5)))
        about = f"{name}, decay {decay}: updates of eight steps under the cosine schedule"
        yield Case(f"optimizer-{name}-{decay:g}", "optimizer", about, settings, inputs)
    yield _drift(rng)
    yield _discriminant(rng)
    yield _calibration(rng)
    yield _unknown(rng)
    yield _lion()
    yield from _few_images(np.random.default_rng(15))
    yield from _known_heads(np.random.default_rng(16))


def _lion() -> Case:
    rng = np.random.default_rng(3)
    settings = {"optimizer": "lion", "momentum": 0.9, "weight_decay": 0.05, "learning_rate": 0.1}
    settings |= {"steps": 8, "warmup": 3}
    inputs = {f"gradient/{i}": _float32(rng.normal(size=(3, 5))) for i in range(8)}
    for gradient in inputs.values():
        gradient[:, 4] = 0.0
    inputs["parameter"] = _float32(rng.normal(size=(3, 5)))
    about = "lion: the signs of eight steps; where there is no gradient, decay alone"
    return Case("optimizer-lion-0.05", "optimizer", about, settings, inputs)


def _heads(rng: np.random.Generator) -> Iterator[Case]:
    labels = np.arange(40) % 3
    features = rng.normal(size=(40, 8)) + 1.2 * rng.normal(size=(3, 8))[labels] + 2.0
    features[:, 5] = 0.75
    about = "three classes that overlap, and a feature that never changes"
    yield Case("head", "head", about, {"classes": 3}, {"features": _float32(features), "labels": labels})
    features = np.maximum(rng.normal(size=(30, 12)) + 2 * rng.normal(size=(2, 12))[np.arange(30) % 2], 0)
    about = "two classes apart, features after a ReLU"
    inputs = {"features": _float32(features), "labels": np.arange(30) % 2}
    yield Case("head-separable", "head", about, {"classes": 2}, inputs)


def _known_heads(rng: np.random.Generator) -> Iterator[Case]:
    """Features that go together, in different units, of which one never fires; the last two classes are the task's."""
    for name, images, features, known in (("known-head", 50, 9, 3), ("known-head-few", 11, 48, 1)):
        labels = np.arange(images) % (known + 2)
        seen = 1 + rng.normal(size=(images, features)) + rng.normal(size=(known + 2, features))[labels]
        seen = seen @ (np.eye(features) + 0.4 * rng.normal(size=(features, features)))
        seen *= 10.0 ** (np.arange(features) % 4 - 2)
        seen[:, 4] = 0.0
        seen = _float32(seen).astype(np.float64)
        one_hot = np.eye(known + 2)[labels]
        inputs = {"gram": seen.T @ seen, "sums": one_hot.T @ seen, "counts": one_hot.sum(axis=0)}
        own = labels >= known
        inputs |= {"features": _float32(seen[own]), "labels": labels[own] - known}
        about = f"a task's head beside {known + 2} known classes, from {images} images of {features} features"
        yield Case(name, "known_head", about, {"classes": 2}, inputs)


def _selections(rng: np.random.Generator) -> Iterator[Case]:
    for channels, ratio in ((8, 0.5), (10, 0.25), (6, 0.25), (3, 0.01)):
        inputs = {f"gradient/{i}": _float32(rng.normal(size=(4, channels))) for i in range(2)}
        settings = {"batches": 2, "channel_ratio": ratio, "tied": False}
        about = f"{ratio:g} of {channels} channels: halves round to even, and one is the least"
        yield Case(f"select-{channels}-{ratio:g}", "select", about, settings, inputs)
    gradient = np.tile(_float32(rng.normal(size=(3, 1))), (1, 6))
    about = "of equally sensitive channels the lower numbers"
    settings = {"batches": 1, "channel_ratio": 0.5, "tied": True}
    yield Case("select-ties", "select", about, settings, {"gradient/0": gradient})


def _projections(rng: np.random.Generator) -> Iterator[Case]:
    seen = rng.normal(size=(200, 8)) * np.array([5, 3, 2, 1.5, 1, 0.5, 0.3, 0.2])
    moment = _float32((seen.T @ seen)[None])
    for energy in (0.0, 0.7, 0.95, 1.0):
        inputs = {
            "moment": moment,
            "selected": np.array([0, 2, 3, 6, 7]),
            "step": _float32(rng.normal(size=(4, 5))),
        }
        about = f"energy {energy:g} of five of eight channels"
        yield Case(f"project-{energy:g}", "project", about, {"energy": energy}, inputs)
    seen = rng.normal(size=(3, 8))
    inputs = {"moment": _float32((seen.T @ seen)[None]), "selected": np.array([0, 2, 3, 6, 7])}
    inputs["step"] = _float32(rng.normal(size=(4, 5)))
    about = "energy 1 after three samples: three of five directions, and no rounding among them"
    yield Case("project-few", "project", about, {"energy": 1.0}, inputs)
    blocks = [rng.normal(size=(100, 4)) * np.array([4, 1, 0.5, 0.1]) * scale for scale in (1, 0.3)]
    moment = _float32(np.stack([block.T @ block for block in blocks]))
    inputs = {
        "moment": moment,
        "selected": np.array([0, 1, 3, 4, 6]),
        "step": _float32(rng.normal(size=(2, 5))),
    }
    about = "two groups, whose channels are never seen together"
    yield Case("project-groups", "project", about, {"energy": 0.9}, inputs)
    inputs = {"moment": np.zeros((1, 4, 4), np.float32), "selected": np.array([1, 3])}
    inputs["step"] = _float32(rng.normal(size=(3, 2)))
    yield Case("project-nothing", "project", "nothing learned before", {"energy": 0.8}, inputs)


def _drift(rng: np.random.Generator) -> Case:
    before = _float32(rng.normal(size=(50, 6)) + 1)
    after = _float32(before @ (np.eye(6) + 0.1 * rng.normal(size=(6, 6))) + 0.02 * rng.normal(size=(50, 6)))
    seen = rng.normal(size=(30, 6))
    inputs = {"before": before, "after": after, "weight": _float32(rng.normal(size=(3, 6)))}
    inputs |= {"gram": seen.T @ seen, "sums": seen.reshape(3, 10, 6).sum(axis=1)}
    return Case("drift", "drift", "an old head and old statistics follow the features", {}, inputs)


def _discriminant(rng: np.random.Generator) -> Case:
    labels = np.repeat(np.arange(4), (12, 20, 9, 15))
    features = rng.normal(size=(len(labels), 7)) + 2 * rng.normal(size=(4, 7))[labels]
    one_hot = np.eye(4)[labels]
    inputs = {"gram": features.T @ features, "sums": one_hot.T @ features, "counts": one_hot.sum(axis=0)}
    return Case(
        "discriminant", "discriminant", "the head over all classes, from sums", {"temperature": 2.5}, inputs
    )


def _few_images(rng: np.random.Generator) -> Iterator[Case]:
    """Fewer images than a quarter of the features, and features of different units, one of which never fires."""
    labels = np.repeat(np.arange(3), (4, 6, 3))
    units = 10.0 ** (np.arange(48) % 5 - 2)
    features = (rng.normal(size=(len(labels), 48)) + rng.normal(size=(3, 48))[labels]) * units
    features[:, 7] = 0.0
    one_hot = np.eye(3)[labels]
    inputs = {"gram": features.T @ features, "sums": one_hot.T @ features, "counts": one_hot.sum(axis=0)}
    about = "the head over all classes, from sums of few images"
    yield Case("discriminant-few", "discriminant", about, {"temperature": 2.5}, inputs)
    before = _float32(np.maximum(rng.normal(size=(7, 16)) + 0.5, 0))
    after = _float32(before @ (np.eye(16) + 0.1 * rng.normal(size=(16, 16))))
    seen = rng.normal(size=(30, 16))
    inputs = {"before": before, "after": after, "weight": _float32(rng.normal(size=(3, 16)))}
    inputs |= {"gram": seen.T @ seen, "sums": seen.reshape(3, 10, 16).sum(axis=1)}
    about = "an old head and old statistics follow the features that few images show"
    yield Case("drift-few", "drift", about, {}, inputs)


def _calibration(rng: np.random.Generator) -> Case:
    labels = rng.permutation(np.repeat(np.arange(4), (31, 40, 22, 33)))
    # Tails far heavier than a Gaussian's, so that the discriminant is too sure of itself.
    features = rng.standard_t(2, size=(len(labels), 7)) + rng.normal(size=(4, 7))[labels]
    inputs = {"features": _float32(features), "labels": labels}
    about = "how sure the head over all classes may be"
    return Case("calibration", "calibration", about, {"classes": 4}, inputs)


def _unknown(rng: np.random.Generator) -> Case:
    labels = rng.permutation(np.repeat(np.arange(4), (31, 40, 22, 33)))
    means = 2 * rng.normal(size=(6, 7))
    features = rng.standard_t(4, size=(len(labels), 7)) + means[labels]
    # Of known classes, of two others, and far from all.
    tested = np.concatenate(
        [rng.normal(size=(12, 7)) + means[np.arange(12) % 6], 9 * rng.normal(size=(4, 7))]
    )
    inputs = {"features": _float32(features), "labels": labels, "tested": _float32(tested)}
    about = "how far images are from all that is known, and what share of known ones lies further"
    return Case("unknown", "unknown", about, {"classes": 4, "reject": 0.1}, inputs)


def _float32(values: NDArray) -> NDArray:
    return np.asarray(values, np.float32)


def _point(world: World, rng: np.random.Generator) -> Tensors:
    """The base's own head moved a little, half of the channels, and changes of a tenth."""
    weight, bias = world.source.head
    found = {
        "weight": _float32(weight + 0.1 * rng.normal(size=weight.shape)),
        "bias": _float32(bias + 0.1 * rng.normal(size=bias.shape)),
    }
    channels = world.manifest.domain_channels
    if channels:
        for name, low in (
            (DOMAIN_SCALE, 0.5),
            (DOMAIN_SHIFT, -0.5),
            (DOMAIN_MEAN, -0.5),
            (DOMAIN_DEVIATION, 0.5),
        ):
            found[name] = _float32(rng.uniform(low, low + 1.0, channels))
    for site in world.manifest.sites:
        count = max(1, site.columns // 2)
        found[f"selected/{site.name}"] = np.sort(rng.choice(site.columns, count, replace=False))
        found[f"delta/{site.name}"] = _float32(0.1 * rng.normal(size=(site.rows, count)))
    return found


def _images(rng: np.random.Generator, world: World, count: int) -> NDArray:
    """Noise within the range of images; no pixel value, which int8 would round on an edge."""
    return _float32(np.clip(0.8 * rng.normal(size=(count, *world.manifest.input.shape)), -1.9, 1.9))


def _step(folder: Path, bundle: str, seed: int, attempt: int, oracle: str = SOURCE) -> Case:
    world, rng = World(folder / bundle), np.random.default_rng((seed, attempt))
    labels = np.array([0, 2, 1, 1])
    inputs = {**_point(world, rng), "images": _images(rng, world, 4), "labels": labels}
    if oracle == SOURCE and bundle.endswith("int8"):
        # Images and changes like those of a task: what is beyond the calibrated range is clipped.
        inputs["images"] = _float32(world.normalized(samples(rng, templates(0, 3), labels)))
        inputs |= {
            name: value * np.float32(0.2) for name, value in inputs.items() if name.startswith("delta/")
        }
    if oracle == GRAPH:
        name, about = f"step-{bundle}", "loss and gradients of the int8 graph itself, as its ops say"
    elif bundle.endswith("int8"):
        name, about = f"step-{bundle}-true", "how near int8 comes to the network in float64"
    else:
        name, about = f"step-{bundle}", "one step of every graph: loss, logits, features, gradients, moments"
    return Case(name, "step", about, {"moments": oracle == SOURCE}, inputs, bundle, oracle)


def _every_graph(folder: Path) -> Iterator[Draw]:
    """All graphs of all bundles: a case for each precision, and one for the graphs around a prefix."""
    for number, path in enumerate(sorted(folder.glob(f"*/{MANIFEST}"))):
        manifest = World(path.parent).manifest
        twins = [name.removeprefix(exact_twin("")) for name in manifest.files if name.startswith("exact_")]
        for precision in dict.fromkeys((manifest.precision, *([EXACT] if twins else []))):
            own = [name for name in manifest.files if name.endswith(".onnx")]
            own = [name for name in own if not name.startswith("exact_")]
            # The template has no twin: it is exact.
            names = own if precision == manifest.precision else [*twins, EXPORT_TEMPLATE]
            if precision == INT8:
                names.remove(EXPORT_TEMPLATE)
            cut = [name for name in names if name in _CUT]
            for graphs in (sorted(set(names) - set(cut)), cut):
                if graphs:
                    yield partial(_graphs, folder, path.parent.name, precision, graphs, 700 + number)


def _graphs(folder: Path, bundle: str, precision: str, graphs: list[str], seed: int, attempt: int) -> Case:
    world, rng = World(folder / bundle), np.random.default_rng((seed, attempt))
    inputs = {**_point(world, rng), "images": _images(rng, world, 4), "labels": np.array([0, 2, 1, 1])}
    name, needs, about = f"graphs-{bundle}", (), "every output of every graph, as its ops say"
    if precision != world.manifest.precision:
        name, about = f"{name}-{precision}", f"{about}: the twins in float32"
    settings: dict[str, Any] = {"precision": precision, "graphs": graphs}
    if EXPORT_TEMPLATE in graphs:
        settings["input"] = world.source.image
    if set(graphs) & set(_CUT):
        name, needs, about = f"{name}-prefix", ("prefix",), f"{about}: cut behind the frozen layers"
        stored = np.float16 if precision == EXACT else np.uint8
        # In the type of a case's inputs; a runner stores it as the suffixes read it.
        made = KINDS["graphs"]({**settings, "graphs": [PREFIX_MODEL]}, inputs, world)["prefix_model/prefix"]
        inputs["prefix"] = _float32(made.astype(stored))
    return Case(name, "graphs", about, settings, inputs, bundle, GRAPH, needs, precision)


def _optional(folder: Path, name: str, needs: tuple[str, ...], attempt: int) -> Case:
    world, rng = World(folder / "plain"), np.random.default_rng((600, attempt))
    inputs = {**_point(world, rng), "images": _images(rng, world, 4), "labels": np.array([0, 2, 0, 2])}
    inputs |= {"label_smoothing": np.array(0.1, np.float32)} if "label_smoothing" in needs else {}
    inputs |= {"class_mask": np.array([1, 0, 1], np.uint8)} if "class_mask" in needs else {}
    about = f"a step with the optional input {needs[0]}"
    return Case(f"step-{name}", "step", about, {"moments": False}, inputs, "plain", SOURCE, needs)


def _steps(folder: Path, bundle: str, settings: dict[str, Any], seed: int, attempt: int) -> Case:
    world, rng = World(folder / bundle), np.random.default_rng((seed, attempt))
    count = 5
    inputs = {name: value for name, value in _point(world, rng).items() if not name.startswith("delta/")}
    base = templates(seed, 3)
    for step in range(count):
        labels = rng.permutation(6) % 3
        inputs[f"images/{step}"] = _float32(world.normalized(samples(rng, base, labels)))
        inputs[f"labels/{step}"] = labels
    all_settings = {**settings, "momentum": 0.9, "head_learning_rate": 0.01, "steps": count, "warmup": 2}
    about = f"five steps with {settings['optimizer']}, projected, from given head and channels"
    return Case(f"steps-{bundle}-{settings['optimizer']}", "steps", about, all_settings, inputs, bundle)


def _task(folder: Path, bundle: str, settings: dict[str, Any], flip: bool, seed: int, attempt: int) -> Case:
    rng = np.random.default_rng((seed, attempt))
    base, labels, epochs, shift = templates(seed, 3), np.arange(16) % 3, 2, 1
    pictures = samples(rng, base, labels)
    inputs = {"pictures": pictures, "labels": labels, "order": rng.permutation(len(labels))}
    inputs["test_pictures"] = samples(rng, base, np.arange(9) % 3, 12.0)
    inputs["epoch_order"] = np.stack([rng.permutation(len(labels)) for _ in range(epochs)])
    for name in ("down", "right"):
        inputs[name] = rng.integers(-shift, shift + 1, (epochs, len(labels)))
    inputs["flipped"] = (flip & (rng.random((epochs, len(labels))) < 0.5)).astype(np.uint8)
    all_settings = {**settings, "momentum": 0.9, "head_learning_rate": 0.01, "channel_ratio": 0.5}
    all_settings |= {"task": "new", "classes": ["x", "y", "z"], "epochs": epochs, "batch_size": 6}
    all_settings |= {"flip": flip, "shift": shift}
    about = f"a whole task with {settings['optimizer']}: channels, losses, the next generation, predictions"
    return Case(f"task-{bundle}-{settings['optimizer']}", "task", about, all_settings, inputs, bundle)


def _domain(seed: int, attempt: int) -> Case:
    """The base's images through haze, and some of both."""
    rng = np.random.default_rng((seed, attempt))
    base, labels = templates(0, 3), rng.permutation(np.arange(42) % 3)

    def hazy(pictures: NDArray) -> NDArray:
        return (pictures // 4 + 120).astype(np.uint8)

    tested = samples(rng, base, np.arange(8) % 3)
    tested[::2] = hazy(tested[::2])
    inputs = {"pictures": hazy(samples(rng, base, labels)), "tested": tested}
    about = (
        "a domain learned from images without labels, and what is then seen in some of it and some of none"
    )
    return Case("domain", "domain", about, {}, inputs, "weather")


def measure_of(case: Case, name: str) -> tuple[str, float]:
    """How an output is compared, and how far off it may be (docs/conformance.md)."""
    if name in _EXACT or name.split("/")[0] in ("selected", "prediction"):
        return "equal", 0.0
    if case.kind == "forgetting":
        # A share of made-up images: of so many, each is right or wrong.
        return "absolute", 1e-9
    if case.kind == "preprocess":
        # One level of 255, where a resize rounds twice; just the float32 formula where it does not.
        resizes = case.name not in ("preprocess-same",)
        return "absolute", 1.01 / 255 / min(STD) if resizes else 1e-6
    if name == "prefix_model/prefix":
        # Stored in float16, or as uint8.
        return ("relative", 1e-3) if case.precision == EXACT else ("equal", 0.0)
    if case.precision == INT8 and case.oracle == SOURCE:
        return ("relative", 0.05) if name == "loss" else ("cosine", 0.05)
    if case.name in ("contribution-many", "together-many") and name == "scatter":
        # Of hundreds of images 64 rows a class: so near are the products of different features, by whatever signs.
        return "cosine", 0.02
    if case.kind == "known_head":
        return "relative", 1e-2
    if case.kind == "head":
        return "relative", 6e-2
    if case.kind == "task":
        return _of_task(name)
    return "relative", 1e-4


def _of_task(name: str) -> tuple[str, float]:
    """The task's head starts where its fit stops (1e-4 of the first gradient), and all that follows hangs on it."""
    if name.startswith(("state/center", "state/moment", "state/statistics")):
        return "relative", 1e-3
    if name.startswith("probabilities"):
        return "absolute", 1e-2
    return "relative", 2e-2
