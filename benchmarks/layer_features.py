"""How many features should heads see, and how should the discriminant be regularised?

    python benchmarks/layer_features.py --data DIR --model cifar100-base50.onnx --out docs/results/layer_features.json

The network stays as it was deployed. Features of all images of CIFAR-100 once, with csk-sdk, from a bundle with
wide features; then heads on parts of them: the task's own heads (ten tasks of five classes), and one discriminant over
all classes: how much it shrinks, and how much of the noise of means of few images it makes up for (without the root
mean squares, as is the default).
Draws are by seed 0; accuracies in percent, on the test images.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.continual.data import Pictures, cut, facts_of
from benchmarks.continual.product import bundle

from csk_artifacts_builder.graphs.layer_features import LAYERS, WIDE
from csk_sdk import Learner
from csk_sdk.method.heads import ClassStatistics, lda_head
from csk_sdk.method.logistic import logistic_head
from csk_sdk.objectives.classification import PRIOR_PICTURES

CLASSES, BASE, TASK = 100, 50, 5
PICTURES = 100
Set = tuple[NDArray[np.float32], NDArray[np.int64]]


def main() -> None:
    options = asked(__doc__)
    train, test, last = measured(options, WIDE)
    layers = last + (train[0].shape[1] - last) // 2
    found = {"features": widths(train, test, last, layers)}
    train, test = (train[0][:, :layers], train[1]), (test[0][:, :layers], test[1])
    found |= {
        "discriminant": priors(train, test, last),
        "noise of means": corrections(train, test, last),
    }
    for title, rows in found.items():
        print(f"\n| {title} | " + " | ".join(next(iter(rows.values()))) + " |")
        print("|---|" + "---|" * len(next(iter(rows.values()))))
        for name, row in rows.items():
            print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in row.values()) + " |")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def asked(about: str | None) -> argparse.Namespace:
    """The options of a benchmark on features that were computed once."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("out/layer_features"))
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    return options


def measured(options: argparse.Namespace, features: str = LAYERS) -> tuple[Set, Set, int]:
    """Features and labels of all training and test images, and how many features are the network's last."""
    facts = facts_of(options.model)
    stream = cut("5x10", Pictures(options.data, options.cache), facts, 0)
    built = bundle(options.model, options.data, options.cache, {"features": features})
    found: dict[str, list[Set]] = {"train": [], "test": []}
    with tempfile.TemporaryDirectory() as state:
        learner = Learner.open(built, state)
        head = learner.bundle.checkpoint()["head/base/weight"]
        for task in (stream.base, *stream.tasks):
            labels = stream.labels_in_all(task)
            for split in found:
                part = getattr(task, split)
                found[split].append((learner.features(part.images), labels[part.labels]))
    train, test = (
        (np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))
        for parts in found.values()
    )
    # The base's own head does not read the means that were added.
    return train, test, int(np.flatnonzero(np.any(head, axis=0)).max()) + 1


def widths(train: Set, test: Set, last: int, layers: int) -> dict[str, dict[str, float]]:
    """Last features, and with more and more means of earlier layers, then their root mean squares."""
    means, roots = layers - last, train[0].shape[1] - layers
    rows = {}
    for count in (0, means // 4, means // 2, 3 * means // 4, means):
        columns = np.r_[:last, spread(last, means, count)]
        rows[f"last {last} and {count} means"] = accuracies(train, test, columns)
    for count in (roots // 2, roots):
        columns = np.r_[:layers, spread(layers, roots, count)]
        rows[f"last {last}, {means} means, {count} root mean squares"] = accuracies(train, test, columns)
    return rows


def spread(start: int, length: int, count: int) -> NDArray[np.int64]:
    """So many of `length` columns from `start` on, evenly."""
    return start + np.linspace(0, length - 1, count).round().astype(np.int64)


def accuracies(train: Set, test: Set, columns: NDArray[np.int64]) -> dict[str, float]:
    """Of the heads of new tasks, and of the discriminant, on some of the features."""
    some, tested = (train[0][:, columns], train[1]), (test[0][:, columns], test[1])
    return {
        f"new tasks, {PICTURES} a class": own_heads(some, tested, PICTURES),
        "new tasks, 500 a class": own_heads(some, tested, 500),
        f"all classes, {PICTURES} a class": discriminant(drawn(some, PICTURES), tested, PRIOR_PICTURES),
        "all classes, 500 a class": discriminant(some, tested, PRIOR_PICTURES),
    }


def priors(train: Set, test: Set, last: int) -> dict[str, dict[str, float]]:
    """The discriminant with more and more prior images; also without the base, as in a bundle without base data."""
    rows = {}
    for prior in (0.0, 20.0, 50.0, 100.0, 200.0, 400.0, 1000.0):
        row = {}
        for width in (last, train[0].shape[1]):
            some, tested = (train[0][:, :width], train[1]), (test[0][:, :width], test[1])
            for classes, pictures in ((5, 30), (10, 100), (50, 100)):
                wanted = np.arange(BASE, BASE + classes)
                row[f"{classes} x {pictures}, {width}"] = discriminant(
                    drawn(only(some, wanted), pictures, everyone=True), only(tested, wanted), prior
                )
            row[f"100 x 500, {width}"] = discriminant(some, tested, prior)
        rows[f"{prior:g} images"] = row
    return rows


def corrections(train: Set, test: Set, last: int) -> dict[str, dict[str, float]]:
    """The discriminant over all classes, 500 images of each of the base, given back shares of the noise of means.

    The full share is `tr(S^-1 Sw) / (2 n_c)` in a class's logit; the product gives half of it.
    """
    rows = {}
    for width in (last, train[0].shape[1]):
        some, tested = (train[0][:, :width], train[1]), test[0][:, :width]
        for pictures in (1, 5, 10, 20, 50, 100, 500):
            statistics = statistics_of(drawn(some, pictures))
            weight, bias = lda_head(statistics, PRIOR_PICTURES)
            means = statistics.sums / statistics.counts[:, None]
            half = bias + 0.5 * np.einsum("cf,cf->c", weight, means)
            row = {}
            for share in (0.0, 0.25, 0.5, 0.75, 1.0):
                found = (tested @ weight.T + bias + (2.0 * share - 1.0) * half).argmax(axis=1) == test[1]
                row |= {f"{share:g}": float(found.mean()) * 100}
                row |= {f"{share:g}, new": float(found[test[1] >= BASE].mean()) * 100}
            rows[f"{pictures} a class, {width}"] = row
    return rows


def only(given: Set, classes: NDArray[np.int64]) -> Set:
    wanted = np.isin(given[1], classes)
    return given[0][wanted], given[1][wanted] - classes[0]


def drawn(given: Set, pictures: int, everyone: bool = False) -> Set:
    """So many images of each later class (or of every class), drawn by seed 0, and all of the base."""
    rng = np.random.default_rng(0)
    kept = [
        rows if label < BASE and not everyone else rng.permutation(rows)[:pictures]
        for label in np.unique(given[1])
        for rows in [np.flatnonzero(given[1] == label)]
    ]
    chosen = np.concatenate(kept)
    return given[0][chosen], given[1][chosen]


def own_heads(train: Set, test: Set, pictures: int) -> float:
    """Mean accuracy of each task's own head among its own classes."""
    found = []
    for start in range(BASE, CLASSES, TASK):
        classes = np.arange(start, start + TASK)
        x, y = drawn(only(train, classes), pictures, everyone=True)
        weight, bias = logistic_head(x, y, TASK)
        tested, answers = only(test, classes)
        found.append(float(np.mean((tested @ weight.T + bias).argmax(axis=1) == answers)))
    return float(np.mean(found)) * 100


def discriminant(train: Set, test: Set, prior: float) -> float:
    """Accuracy of one discriminant over all the classes given."""
    weight, bias = lda_head(statistics_of(train), prior)
    return float(np.mean((test[0] @ weight.T + bias).argmax(axis=1) == test[1])) * 100


def statistics_of(train: Set) -> ClassStatistics:
    names = tuple(str(label) for label in np.unique(train[1]))
    return ClassStatistics.empty(train[0].shape[1]).add(*train, names)


if __name__ == "__main__":
    main()
