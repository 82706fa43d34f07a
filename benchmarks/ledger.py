"""How small may the contribution of a class be?

    python benchmarks/living.py ledger --data DIR --model cifar100-base50.onnx --out docs/results/living.json

CIFAR-100: a base of 50 classes, then 50 new ones, on the features of a bundle as the product builds it, with the
network as it was deployed. Of the spread of each class in its task more or fewer rows are kept. Accuracies in percent
over all test images, of the discriminant; draws are by seed 0. `without base` is a bundle without --base-data, its
new classes alone. Features are computed once, and kept in --cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from benchmarks.layer_features import BASE, CLASSES, Set, drawn, measured, only
from numpy.typing import NDArray

from csk_artifacts_builder.graphs.layer_features import LAYERS
from csk_sdk.method.contributions import ContributionSum, Lesson
from csk_sdk.method.heads import ClassStatistics, lda_head
from csk_sdk.objectives.classification import PRIOR_PICTURES

# Directions kept, and mixtures of what they leave.
SIZES = ((100, 0), (64, 0), (32, 0), (16, 0), (50, 50), (32, 32), (16, 16), (8, 8))


def run(options: argparse.Namespace) -> list[dict[str, object]]:
    """The rows of the table, printed as they come."""
    return ledger(*features_of(options))


def features_of(options: argparse.Namespace) -> tuple[Set, Set]:
    """Features and labels of all training and test images, computed once."""
    kept = options.cache / f"features-{options.model.stem}.npz"
    if not kept.exists():
        train, test, _ = measured(options, LAYERS)
        np.savez(kept, train=train[0], train_labels=train[1], test=test[0], test_labels=test[1])
    with np.load(kept) as saved:
        return (saved["train"], saved["train_labels"]), (saved["test"], saved["test_labels"])


def ledger(train: Set, test: Set) -> list[dict[str, object]]:
    """A row for each size of a contribution, printed as a table."""
    base, names = np.arange(BASE), [str(label) for label in range(CLASSES)]
    new = np.arange(BASE, CLASSES)
    features = train[0].shape[1]
    known = statistics(only(train, base), names[:BASE])
    kinds: dict[str, Callable[[NDArray[np.float32]], ClassStatistics]] = {
        "shared": lambda x: statistics((x, np.zeros(len(x), np.int64)), ["c"]),
        **{name_of(*size): kept(*size) for size in SIZES},
        "diagonal": diagonal,
    }
    bytes_of = {"shared": features, "diagonal": 2 * features}
    bytes_of |= {name_of(*size): (1 + sum(size)) * features for size in SIZES}
    sizes = {kind: f"{4 * count / 1e3:.1f}" for kind, count in bytes_of.items()}
    sizes["shared"] += f", and {8 * features**2 / 1e6:.1f} MB for all"
    rows: list[dict[str, object]] = []
    columns = [f"{what}, {count} a class" for what in ("all", "without base") for count in (500, 100, 30)]
    print(f"| a class's spread as | kB a class of {features} features | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for kind, contribution in kinds.items():
        found = {}
        for count in (500, 100, 30):
            some = drawn(only(train, new), count, everyone=True)
            parts = [(names[label], contribution(some[0][some[1] == label - BASE])) for label in new]
            total, alone = known, ClassStatistics.empty(features)
            for name, part in parts:
                named = replace(part, classes=(name,))
                total, alone = total.merge(named), alone.merge(named)
            found[f"all, {count} a class"] = accuracy(total, test)
            found[f"without base, {count} a class"] = accuracy(
                alone, (test[0][test[1] >= BASE], test[1][test[1] >= BASE])
            )
        rows.append({"kind": kind, "size": sizes[kind], **found})
        print(
            f"| {kind} | {sizes[kind]} | " + " | ".join(f"{found[c]:.2f}" for c in columns) + " |", flush=True
        )
    return rows


def statistics(some: Set, names: list[str]) -> ClassStatistics:
    return ClassStatistics.empty(some[0].shape[1]).add(*some, names)


def name_of(directions: int, mixtures: int) -> str:
    return f"{directions} directions" + (f", {mixtures} mixtures" if mixtures else "")


def kept(directions: int, mixtures: int) -> Callable[[NDArray[np.float32]], ClassStatistics]:
    def contribution(x: NDArray[np.float32]) -> ClassStatistics:
        total = ContributionSum(x.shape[1], directions, mixtures)
        total.add(x)
        return Lesson(("c",), {"c": total.total()}).after(ClassStatistics.empty(x.shape[1]))

    return contribution


def diagonal(x: NDArray[np.float32]) -> ClassStatistics:
    exact = statistics((x, np.zeros(len(x), np.int64)), ["c"])
    between = exact.gram - exact.scatter()
    return replace(exact, matrix=between + np.diag(np.diag(exact.scatter())))


def accuracy(known: ClassStatistics, test: Set) -> float:
    weight, bias = lda_head(replace(known, temperature=None), PRIOR_PICTURES)
    answers = np.array([int(name) for name in known.classes])
    return 100 * float(np.mean(answers[(test[0] @ weight.T + bias).argmax(axis=1)] == test[1]))
