"""The cases of guards: inputs drawn by seed; another attempt draws others, where something was too close to call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from guard_oracle import threshold
from numpy.typing import NDArray

Tensors = dict[str, NDArray]
# Name, kind, what for, settings and inputs.
Row = tuple[str, str, str, dict[str, Any], Tensors]
# By name, sizes of the classes, features, and how far apart the classes' means are.
LABELS = {
    "learnable": ("three classes that overlap", (14, 9, 20), 6, 0.8),
    "shuffled": ("labels that say nothing are refused", (40,) * 5, 8, 0.0),
    "wide": ("more features than images, and a class of one image, which is left aside", (8, 1, 6), 24, 1.0),
    "few": ("a handful of images refutes nothing", (2, 3), 4, 0.0),
    "alone": ("no class of two images: nothing can be told", (1, 1, 1), 3, 1.0),
    "many": ("more images than are asked", (530, 560), 2, 0.1),
}
# By name: what for, the share, and how many images at least.
SHARES = {
    "most": ("the images that nine tenths of the gradient come from", 0.9, 4),
    "least": ("so small a share that it is the least number, and two of the same gradient", 0.02, 5),
    "all": ("all images, those without a gradient, too", 1.0, 4),
    "none": ("a head that is certain of everything: the least number, the first ones", 0.9, 4),
}
FEATURES = 3


def draws() -> Iterator[Callable[[int], Row]]:
    """What draws each case."""
    for number, name in enumerate(LABELS):
        yield partial(_label_check, name, 800 + number)
    yield _label_verdict
    for number, (name, images, scale) in enumerate(
        (("near", 90, 1.0), ("far", 90, 2.5), ("unknown", 59, 1.0))
    ):
        yield partial(_novelty, name, images, scale, 820 + number)
    for number, name in enumerate(SHARES):
        yield partial(_gradient_share, name, 880 + number)
    yield partial(_forgetting, "forgetting", [["a", "b"], ["c", "d", "b"]], FEATURES, 840)
    yield partial(_forgetting, "forgetting-wide", [["b", "a"]], 8, 841)
    for number, (name, images, classes) in enumerate(
        (("often", 300, ["b", "d", "a"]), ("some", 30, ["a", "b"]), ("none", 30, ["d", "e"]))
    ):
        yield partial(_known_classes, name, images, classes, 850 + number)
    yield _few_shot
    for number, (name, better, lost) in enumerate(
        (("clear", 0.7, 0.0), ("none", 0.0, 0.0), ("dear", 0.7, 1.5))
    ):
        yield partial(_gain, name, better, lost, 860 + number)
    yield partial(_mirroring, 870)
    for name, about, settings, factors in _lives():
        yield partial(_stopping, name, about, settings, factors)


def _float32(values: NDArray) -> NDArray:
    return np.asarray(values, np.float32)


def _label_check(name: str, seed: int, attempt: int) -> Row:
    about, sizes, features, signal = LABELS[name]
    rng = np.random.default_rng((seed, attempt))
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = rng.normal(size=(len(labels), features)) + signal * rng.normal(size=(len(sizes), features))[labels]
    x[:, 0] = 0.5  # a feature that never changes
    return (
        f"label-check-{name}",
        "label_check",
        about,
        {"classes": len(sizes)},
        {
            "features": _float32(x),
            "labels": labels,
        },
    )


def _label_verdict(attempt: int) -> Row:
    rows = [
        (accuracy / 32, chance, images)
        for accuracy in range(0, 33, 2)
        for chance in (0.125, 0.25, 0.5)
        for images in (0.0, 7.5, 20.0, 64.0, 200.0, 1024.0)
    ]
    given = dict(zip(("accuracy", "chance", "images"), _float32(np.array(rows).T), strict=True))
    return "label-verdict", "label_verdict", "which evidence is taken for a refusal", {}, given


def _statistics(rng: np.random.Generator, images: int, classes: int, features: int) -> Tensors:
    labels = np.arange(images) % classes
    x = 2.0 * rng.normal(size=(classes, features))[labels]
    x += rng.normal(size=(images, features)) @ _mixing(features)
    one_hot = np.eye(classes)[labels]
    return {"gram": x.T @ x, "sums": one_hot.T @ x, "counts": one_hot.sum(axis=0)}


def _mixing(features: int) -> NDArray:
    """Square root of the covariance within classes."""
    return np.random.default_rng(features).normal(size=(features, features))


def _novelty(name: str, images: int, scale: float, seed: int, attempt: int) -> Row:
    rng = np.random.default_rng((seed, attempt))
    known = _statistics(rng, images, 3, 6)
    known["sums"], known["counts"] = np.vstack([known["sums"], np.zeros(6)]), np.append(known["counts"], 0.0)
    # Around the first class's mean, as the known images are, times the scale.
    x = known["sums"][0] / known["counts"][0] + scale * rng.normal(size=(20, 6)) @ _mixing(6)
    about = {
        "near": "images like those that are known, and a class of which nothing is left",
        "far": "images unlike all that is known: a warning",
        "unknown": "too few images to judge others",
    }[name]
    return f"novelty-{name}", "novelty", about, {}, {**known, "features": _float32(x)}


def _gradient_share(name: str, seed: int, attempt: int) -> Row:
    about, share, least = SHARES[name]
    rng = np.random.default_rng((seed, attempt))
    images, classes = 40, 3
    labels = np.arange(images) % classes
    weight = rng.normal(size=(classes, FEATURES))
    x = rng.normal(size=(images, FEATURES)) + 2.0 * weight[labels]
    x[7] = x[1]
    if name == "none":
        # So far out that every other probability is none.
        x, weight = 1e3 * np.eye(classes)[labels], np.eye(classes)
    given = {"features": _float32(x), "labels": labels, "weight": _float32(weight)}
    given["bias"] = _float32(np.zeros(classes) if name == "none" else rng.normal(size=classes))
    return f"gradient-share-{name}", "gradient_share", about, {"share": share, "least": least}, given


def _mirroring(seed: int, attempt: int) -> Row:
    about = "how many of 1 to 2,000 images are mirrored, and which"
    inputs = {"images": np.array([1, 7, 99, 100, 101, 130, 187, 199, 200, 201, 2000])}
    return "mirroring", "mirroring", about, {}, inputs


def _forgetting(name: str, tasks: list[list[str]], features: int, seed: int, attempt: int) -> Row:
    """Old tasks, two of which share a class; the head of the first is bent, and all features move.

    Of few features, numbers are drawn for these; else for what the two heads of a task say of its classes.
    """
    rng = np.random.default_rng((seed, attempt))
    classes = ["a", "b", "c", "d"]
    given = _statistics(rng, 200, len(classes), features)
    given["forward"] = np.eye(features) + 0.2 * rng.normal(size=(features, features))
    given["unexplained"] = 0.2 * rng.normal(size=(40, features))
    samples = threshold("forgetting", "samples")
    for task, names in enumerate(tasks):
        rows = [classes.index(name) for name in names]
        weight = given["sums"][rows] / given["counts"][rows][:, None]
        bent = weight + (2.0 if task == 0 else 0.0) * rng.normal(size=weight.shape)
        for when, one in (("before", weight), ("after", bent)):
            given[f"{when}/{task}/weight"] = _float32(one)
            given[f"{when}/{task}/bias"] = _float32(-0.5 * (weight**2).sum(axis=1))
        given[f"permutation/{task}"] = rng.permutation(len(names))
        given[f"normals/{task}"] = _float32(rng.normal(size=(samples, min(features, 2 * len(names)))))
        given[f"movements/{task}"] = rng.integers(40, size=samples).astype(np.uint8)
    about = "what two old tasks lose, with the numbers that are drawn given"
    if features > FEATURES:
        about = (
            "and of an old task whose classes, in both its heads, are few beside features: as many are drawn"
        )
    return name, "forgetting", about, {"classes": classes, "tasks": tasks}, given


def _known_classes(name: str, images: int, classes: list[str], seed: int, attempt: int) -> Row:
    rng = np.random.default_rng((seed, attempt))
    about = {
        "often": "few images of known classes beside many: each counts as often as is allowed",
        "some": "known classes count as much as those that were there",
        "none": "classes that nobody knew count once",
    }[name]
    given = _statistics(rng, images, 3, 4)
    given |= {"features": _float32(rng.normal(size=(12, 4))), "labels": np.arange(12) % len(classes)}
    return (
        f"known-classes-{name}",
        "known_classes",
        about,
        {"old": ["a", "b", "c"], "classes": classes},
        given,
    )


def _gain(name: str, better: float, lost: float, seed: int, attempt: int) -> Row:
    """Three classes and a fourth of which nothing was trained on; training moves images towards their class's mean."""
    rng = np.random.default_rng((seed, attempt))
    labels = {"fitted": np.arange(24) % 3, "held": np.arange(42) % 4}
    means, given = 1.2 * rng.normal(size=(4, 5)), {}
    for part, own in labels.items():
        noise, moved = rng.normal(size=(2, len(own), 5))
        given[f"{part}/labels"] = own
        given[f"{part}/before"] = _float32(means[own] + noise)
        given[f"{part}/after"] = _float32(means[own] + (1.0 - better) * noise + 0.05 * moved)
    about = {
        "clear": "held-out images that are told apart better: training pays",
        "none": "images that only move: it does not",
        "dear": "an older task is about to lose more than it may",
    }[name]
    settings = {"classes": 4, "done": 0.25, "lost": lost, "max_forgetting": 3.0}
    return f"gain-{name}", "gain", about, settings, given


def _few_shot(attempt: int) -> Row:
    rows = [
        (images, classes, epochs, wanted)
        for images in (59, 60, 61, 119, 120, 150)
        for classes in (2, 3, 5)
        for epochs in (1, 4, 8, 10)
        for wanted in (0, 20, 30)
    ]
    columns = np.array(rows, np.int64).T
    names = ("images", "classes", "epochs", "few_shot")
    about = "heads only below so many images a class; of more epochs each image counts for more"
    return "few-shot", "few_shot", about, {}, dict(zip(names, columns, strict=True))


def _lives() -> Iterator[tuple[str, str, dict[str, Any], list[float]]]:
    """Settings, and by epoch the factor to which the mean loss falls."""
    plain = {"epochs": 8, "per_epoch": 3, "batch_size": 4, "patience": 2, "seconds": None, "flops": None}
    fall = [0.9] * 8
    yield "epochs", "to the end", plain, fall
    flat = [0.9, 0.997, 0.996, 0.9, 0.9, 0.9, 0.9, 0.9]
    yield "plateau", "falls of less than 1 % bring nothing", plain, flat
    slowly = [0.9, 0.993, 0.994, 0.993, 0.994, 0.993, 0.994, 0.9]
    yield "slowly", "two of them, which together are more, bring something", plain, slowly
    again = [0.9, 0.995, 0.98, 0.995, 0.995, 0.9, 0.9, 0.9]
    yield "recovers", "an epoch that brings something begins anew, from the best one", plain, again
    rises = [0.9, 1.2, 0.8, 0.9, 0.5, 0.9, 1.1, 1.1]
    yield "rises", "held against the best, not the last", plain, rises
    yield "patient", "patience 0 never ends", {**plain, "patience": 0}, [1.0] * 8
    yield "flops", "as many whole steps as the budget allows", {**plain, "flops": 10.5}, fall
    yield "flops-enough", "a budget that is not spent", {**plain, "flops": 24.0}, fall
    yield "seconds", "over where they run out", {**plain, "seconds": 4.5}, fall
    both = {**plain, "patience": 1, "seconds": 3.0}
    yield "both", "a plateau is told before the seconds of its last step", both, [1.0] * 8


def _stopping(name: str, about: str, settings: dict[str, Any], factors: list[float], attempt: int) -> Row:
    by_epoch = 2.0 * np.cumprod(factors)
    steps = settings["per_epoch"] * settings["epochs"]
    # Within an epoch the mean so far is another; a second for every two steps.
    loss = np.repeat(by_epoch, settings["per_epoch"]) * np.resize([1.4, 1.2, 1.0], steps)
    given = {"loss": loss, "seconds": 0.5 * np.arange(1, steps + 1)}
    return f"stopping-{name}", "stopping", about, settings, given
