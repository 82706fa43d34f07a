"""What the ledger must give, in float64 and image by image: nothing is made small, and nothing is taken out again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import method
import numpy as np
from guard_oracle import threshold
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Tensors = dict[str, NDArray]
Settings = Mapping[str, Any]
CLEAR = 1e-3


def contribution(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """Plain means and scatters of each class's images."""
    x, labels = given["features"].astype(np.float64), given["labels"]
    parts = [x[labels == label] for label in range(settings["classes"])]
    scatters = [np.cov(part.T, ddof=0) * len(part) for part in parts]
    return {
        "counts": np.array([float(len(part)) for part in parts]),
        "means": np.stack([part.mean(axis=0) for part in parts]),
        "spreads": np.stack([np.diag(scatter) for scatter in scatters]),
        "scatter": np.sum(scatters, axis=0),
    }


def ledger(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """A device that has only seen what is left, image by image, each seen by the network as it is at the end."""
    names, tasks = list(settings["base"]), settings["tasks"]
    maps = [
        given[f"forward/{task}"] if settings["moved"] else np.eye(len(given["gram"]))
        for task in range(len(tasks))
    ]
    counts = dict(zip(names, given["counts"].tolist(), strict=True))
    now = np.linalg.multi_dot([*maps[::-1], np.eye(len(given["gram"]))])
    gram = now @ given["gram"] @ now.T
    sums = dict(zip(names, given["sums"] @ now.T, strict=True))
    for task, classes in enumerate(tasks):
        x, labels = given[f"features/{task}"].astype(np.float64), given[f"labels/{task}"]
        for later in maps[task + 1 :]:
            x = x @ later.T
        own = [classes[label] for label in labels]
        left = [name for name in classes if name not in settings["forgotten"]]
        again = [name for name in left if name in counts]
        before, images = sum(counts[name] for name in again), sum(name in again for name in own)
        times = min(threshold("known_classes", "most"), max(1.0, before / images)) if images else 1.0
        for name in left:
            weight = times if name in again else 1.0
            for one in x[[other == name for other in own]]:
                gram = gram + weight * np.outer(one, one)
                sums[name] = sums.get(name, 0.0) + weight * one
                counts[name] = counts.get(name, 0.0) + weight
    return {"gram": gram, "sums": np.stack(list(sums.values())), "counts": np.array(list(counts.values()))}


def contradiction(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """By the linear discriminant of `method`, and distances by scipy's `cdist`."""
    old, classes = settings["old"], settings["classes"]
    seen = np.flatnonzero(given["counts"] > 0)
    counts, sums = given["counts"][seen], given["sums"][seen]
    weight, bias = method.discriminant(given["gram"], sums, counts)
    means = sums / counts[:, None]
    within = (given["gram"] - (means * counts[:, None]).T @ means) / (counts.sum() - len(counts))
    prior = threshold("discriminant", "prior_images")
    share = prior / (counts.sum() - len(counts) + prior)
    inverse = np.linalg.inv((1.0 - share) * within + share * np.diag(np.diag(within)))
    expected = np.trace(inverse @ within)
    # Of images that the covariance is not made of.
    used = (1.0 - share) * expected / (counts.sum() - len(counts))
    expected /= (1.0 - min(used, threshold("known_classes", "most_used"))) ** 2
    x = given["features"].astype(np.float64)
    scores = x @ weight.T + bias
    best = np.sort(scores, axis=1)
    _clear(best[:, -1] - best[:, -2], "an answer")
    least, limit = threshold("known_classes", "least_images"), threshold("known_classes", "contradiction")

    def exchanged(other: int) -> bool:
        """Whether the task has images of a known class, and most of them are taken for others."""
        theirs = given["labels"] == (classes.index(old[other]) if old[other] in classes else -1)
        return theirs.sum() >= least and np.mean(seen[scores[theirs].argmax(axis=1)] == other) < limit

    found = []
    for label, name in enumerate(classes):
        own = given["labels"] == label
        answers = seen[scores[own].argmax(axis=1)]
        other, share_of = max(
            ((int(one), float(np.mean(answers == one))) for one in seen if old[one] != name),
            key=lambda pair: pair[1],
        )
        is_known = name in old and old.index(name) in seen
        if own.sum() >= least and share_of > limit and (is_known or exchanged(other)):
            place = list(seen).index(other)
            theirs = x[own][answers == other]
            far = np.mean(cdist(theirs, means[place : place + 1], "mahalanobis", VI=inverse) ** 2) / expected
            _clear(np.array([far - threshold("known_classes", "familiar")]), "a distance")
            if far < threshold("known_classes", "familiar"):
                found.append((other, share_of))
                continue
        found.append((-1, 0.0))
    return {
        "others": np.array([one for one, _ in found], np.int64),
        "shares": np.array([one for _, one in found]),
    }


def _clear(values: NDArray, what: str) -> None:
    if np.abs(values).min(initial=np.inf) < CLEAR:
        raise ValueError(f"{what} is too close to call; choose other numbers")


KINDS = {"contribution": contribution, "ledger": ledger, "contradiction": contradiction}
