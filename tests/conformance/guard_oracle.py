"""What the guards must say, in float64, by other algorithms than csk_sdk's; thresholds are the contract's, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from method import discriminant
from numpy.typing import NDArray
from scipy.linalg import cholesky
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import cdist
from scipy.special import log_softmax
from scipy.stats import binom, ttest_rel

Tensors = dict[str, NDArray]
Settings = Mapping[str, Any]

CONTRACT = Path(__file__).parents[2] / "sdk" / "csk_sdk" / "contract"
DEFAULT_EPOCHS = json.loads((CONTRACT / "settings.json").read_text())["properties"]["epochs"]["default"]
REASONS = ("epochs", "seconds", "flops", "plateau")
# What the vectors must keep clear of, so that rounding cannot decide otherwise.
CLEAR = 1e-6


def threshold(group: str, name: str) -> Any:
    """As `thresholds.json` has it."""
    return json.loads((CONTRACT / "thresholds.json").read_text())[group][name]["value"]


def _clear(values: NDArray, what: str) -> None:
    if np.abs(values).min(initial=np.inf) < CLEAR:
        raise ValueError(f"{what} is too close to call; choose other numbers")


def _margins(scores: NDArray) -> NDArray:
    """By row, how far the best is from the second best."""
    best = np.sort(scores, axis=1)
    return best[:, -1] - best[:, -2]


def label_check(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """Ridge regression fitted again without each fold, image by image of it asked; a binomial tail by scipy."""
    labels, folds = given["labels"], threshold("label_check", "folds")
    kept = _in_pairs(labels, _in_pairs(labels, range(len(labels)))[: threshold("label_check", "most_images")])
    present = sorted({int(labels[row]) for row in kept})
    if len(present) < 2:
        return _evidence(1.0, 1.0, 0.0)
    x = given["features"][kept].astype(np.float64)
    own = np.array([present.index(int(labels[row])) for row in kept])
    deviation = x.std(axis=0)
    varies = deviation > 1e-6 * deviation.max()
    x = np.hstack([(x - x.mean(axis=0))[:, varies] / deviation[varies], np.ones((len(x), 1))])
    weight = 1.0 / np.bincount(own)[own]
    weight /= weight.mean()
    pull = threshold("label_check", "ridge") * np.sum(weight[:, None] * x**2) / len(x)
    fold = np.array([int(np.sum(own[:row] == label)) % folds for row, label in enumerate(own)])
    right = np.zeros(len(own), bool)
    for one in range(fold.max() + 1):
        fitted, asked = fold != one, fold == one
        design = np.sqrt(weight[fitted])[:, None] * x[fitted]
        targets = np.sqrt(weight[fitted])[:, None] * np.eye(len(present))[own[fitted]]
        padded = np.vstack([design, np.sqrt(pull) * np.eye(x.shape[1])])
        zeros = np.zeros((x.shape[1], len(present)))
        head = np.linalg.lstsq(padded, np.vstack([targets, zeros]), rcond=None)[0]
        scores = x[asked] @ head
        _clear(_margins(scores), "a label")
        right[asked] = scores.argmax(axis=1) == own[asked]
    recalls = [right[own == label].mean() for label in range(len(present))]
    images = len(present) ** 2 / sum(1.0 / np.sum(own == label) for label in range(len(present)))
    return _evidence(float(np.mean(recalls)), 1.0 / len(present), images)


def label_verdict(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """The verdict alone, over a grid."""
    rows = zip(*(given[name].tolist() for name in ("accuracy", "chance", "images")), strict=True)
    return {"refuted": np.concatenate([_evidence(*row)["refuted"] for row in rows])}


def _in_pairs(labels: NDArray, rows: Any) -> list[int]:
    """Those of the rows whose class at least two of them have."""
    return [row for row in rows if sum(labels[other] == labels[row] for other in rows) >= 2]


def _evidence(accuracy: float, chance: float, images: float) -> Tensors:
    trials = round(images)
    useful = chance + threshold("label_check", "useful") * (1.0 - chance)
    tail = 1.0 if trials == 0 else float(binom.cdf(np.floor(accuracy * trials + 0.5), trials, useful))
    _clear(np.array([tail - threshold("label_check", "level")]), "the verdict")
    found = {"accuracy": accuracy, "chance": chance, "images": images}
    refuted = np.array([tail < threshold("label_check", "level")], np.int64)
    return {**{name: np.array([value]) for name, value in found.items()}, "refuted": refuted}


def _known(given: Tensors) -> tuple[NDArray, NDArray]:
    """Means of the classes that have images, and the covariance within classes, by subtracting all means at once."""
    seen = given["counts"] > 0
    counts, sums = given["counts"][seen], given["sums"][seen]
    means = sums / counts[:, None]
    within = given["gram"] - (means * counts[:, None]).T @ means
    return means, within / max(counts.sum() - seen.sum(), 1.0)


def novelty(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """The mean squared Mahalanobis distance to the nearest class, by scipy's `cdist`, over the number of features."""
    features = given["features"].astype(np.float64)
    size = features.shape[1]
    if given["counts"].sum() < threshold("novelty", "images_per_feature") * size:
        return {"told": np.array([0]), "score": np.zeros(1), "unfamiliar": np.array([0])}
    means, within = _known(given)
    share, own = threshold("novelty", "shrinkage"), np.diag(np.diag(within))
    little = threshold("novelty", "least_variance") * np.trace(within) / size
    shrunk = (1.0 - share) * within + share * own + little * np.eye(size)
    distances = cdist(features, means, "mahalanobis", VI=np.linalg.inv(shrunk))
    score = float(np.mean(distances.min(axis=1) ** 2)) / size
    _clear(np.array([score - threshold("novelty", "unfamiliar")]), "the warning")
    return {
        "told": np.array([1]),
        "score": np.array([score]),
        "unfamiliar": np.array([int(score >= threshold("novelty", "unfamiliar"))]),
    }


def gradient_share(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """Each image's derivatives by complex steps (csk-sdk: probabilities less labels); images taken one by one."""
    logits = given["features"].astype(np.float64) @ given["weight"].T.astype(np.float64) + given["bias"]
    tiny = 1e-30

    def loss(z: NDArray, label: int) -> Any:
        shifted = z - z.real.max()
        return np.log(np.exp(shifted).sum()) - shifted[label]

    norms = []
    for z, label in zip(logits, given["labels"].tolist(), strict=True):
        steps = 1j * tiny * np.eye(len(z))
        norms.append(float(np.sqrt(sum((loss(z + step, label).imag / tiny) ** 2 for step in steps))))
    left = list(range(len(norms)))
    wanted, taken = settings["share"] * sum(norms), [0.0]
    chosen: list[int] = []
    while left and (taken[-1] < wanted or len(chosen) < settings["least"] or settings["share"] >= 1):
        best = max(left, key=lambda image: (norms[image], -image))
        left.remove(best)
        chosen.append(best)
        taken.append(taken[-1] + norms[best])
    if settings["share"] < 1 and wanted:
        _clear(np.array(taken[1:]) - wanted, "where the share is reached")
    return {"norms": np.array(norms), "chosen": np.array(sorted(chosen))}


def forgetting(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """Each made-up feature asked one by one, from the numbers that the case gives."""
    size, width = len(given["gram"]), threshold("forgetting", "width")
    means, within = _known(given)
    variances = np.diag(within)
    rounding = max(
        threshold("covariance", "roundings") * np.finfo(np.float64).eps * np.trace(given["gram"])
        / max(given["counts"].sum() - len(means), 1.0),
        np.finfo(np.float64).tiny,
    )  # fmt: skip
    regular = within + np.diag(threshold("forgetting", "more_variance") * variances + rounding)
    lost = []
    for task, names in enumerate(settings["tasks"]):
        fewer, margins = 0, []
        both = np.concatenate(
            [given[f"before/{task}/weight"], given[f"after/{task}/weight"] @ given["forward"]]
        ).astype(np.float64)
        if 2 * len(both) <= size:
            # Of few scores, what is drawn are these themselves.
            added = cholesky(both @ regular @ both.T, lower=True).T
        else:
            added = cholesky(regular, lower=False) @ both.T
        for sample, normal in enumerate(given[f"normals/{task}"]):
            own = int(given[f"permutation/{task}"][sample % len(names)])
            around = means[settings["classes"].index(names[own])]
            drawn = np.split(width * normal.astype(np.float64) @ added, 2)
            moved = given["forward"] @ around + given["unexplained"][given[f"movements/{task}"][sample]]
            answers = []
            for when, features, more in (("before", around, drawn[0]), ("after", moved, drawn[1])):
                weight, bias = given[f"{when}/{task}/weight"], given[f"{when}/{task}/bias"]
                logits = weight.astype(np.float64) @ features + bias + more
                margins.append(_margins(logits[None])[0])
                answers.append(int(logits.argmax() == own))
            fewer += answers[0] - answers[1]
        _clear(np.array(margins), "an answer")
        lost.append(100.0 * fewer / len(given[f"normals/{task}"]))
    return {"lost": np.array(lost)}


def known_classes(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """Every image counted as often as it shall, one outer product at a time."""
    old, names = list(settings["old"]), settings["classes"]
    again = [name for name in names if name in old and given["counts"][old.index(name)] > 0]
    images = sum(names[label] in again for label in given["labels"])
    before = sum(given["counts"][old.index(name)] for name in again)
    times = min(threshold("known_classes", "most"), max(1.0, before / images)) if images else 1.0
    merged = old + [name for name in names if name not in old]
    gram, sums = given["gram"].copy(), np.zeros((len(merged), len(given["gram"])))
    counts = np.zeros(len(merged))
    sums[: len(old)], counts[: len(old)] = given["sums"], given["counts"]
    for x, label in zip(given["features"].astype(np.float64), given["labels"], strict=True):
        weight = times if names[label] in again else 1.0
        row = merged.index(names[label])
        gram += weight * np.outer(x, x)
        sums[row] += weight * x
        counts[row] += weight
    return {"gram": gram, "sums": sums, "counts": counts}


def few_shot(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """In whole numbers and fractions."""
    rows = zip(*(given[name] for name in ("images", "classes", "epochs", "few_shot")), strict=True)
    found = [
        int(images) * max(Fraction(1), Fraction(int(epochs), DEFAULT_EPOCHS)) / int(classes) < int(wanted)
        for images, classes, epochs, wanted in rows
    ]
    return {"heads_only": np.array(found, np.int64)}


def gain(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """Discriminants by their formula, a temperature by SciPy's minimiser, its t statistic by SciPy's test."""
    judged = []
    present = np.unique(given["fitted/labels"])
    kept = np.isin(given["held/labels"], present)
    own = np.searchsorted(present, given["held/labels"][kept])
    rows = np.arange(len(own))
    for when in ("before", "after"):
        x, one_hot = given[f"fitted/{when}"].astype(np.float64), np.eye(len(present))[given["fitted/labels"]]
        weight, bias = discriminant(x.T @ x, one_hot.T @ x, one_hot.sum(axis=0))
        logits = given[f"held/{when}"][kept].astype(np.float64) @ weight.T + bias
        _clear(_margins(logits), "an answer")

        def likelihoods(exponent: float, logits: NDArray = logits) -> NDArray:
            return log_softmax(logits / np.exp(exponent), axis=1)[rows, own]

        found = minimize_scalar(
            lambda exponent, of=likelihoods: -of(exponent).mean(),
            bounds=tuple(np.log([threshold("calibration", name) for name in ("lowest", "highest")])),
            method="bounded",
            options={"xatol": 1e-9},
        )
        judged.append((likelihoods(found.x), logits.argmax(axis=1) == own))
    (before, was), (after, now) = judged
    likelihood, sure = float((after - before).mean()), float(ttest_rel(after, before).statistic)
    clear = sure >= threshold("gain", "sure") and likelihood / settings["done"] >= threshold("gain", "worth")
    pays = clear and settings["lost"] / settings["done"] <= settings["max_forgetting"]
    found = {
        "images": len(own),
        "heads": was.mean(),
        "centers": now.mean(),
        "likelihood": likelihood,
        "sure": sure,
        "clear": int(clear),
        "pays": int(pays),
    }
    return {name: np.array([value]) for name, value in found.items()}


def stopping(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """The earliest of the ends that there could be, each found on its own; of two at one step, as `REASONS` follow.

    `flops` are given in steps.
    """
    per_epoch, losses = settings["per_epoch"], given["loss"]
    whole = settings["epochs"] * per_epoch
    allowed = whole if settings["flops"] is None else int(np.floor(settings["flops"]))
    planned = min(whole, allowed)
    ends = {(planned, "flops" if allowed < whole else "epochs")}
    if settings["seconds"] is not None:
        over = np.flatnonzero(given["seconds"] >= settings["seconds"])
        ends |= {(int(step) + 1, "seconds") for step in over[:1]}
    flat, best = 0, np.inf
    for epoch, loss in enumerate(losses[per_epoch - 1 :: per_epoch]):
        share = (best - loss) / best if np.isfinite(best) else 1.0
        _clear(np.array([share - threshold("stopping", "least_fall")]), "a plateau")
        flat = 0 if share > threshold("stopping", "least_fall") else flat + 1
        best = loss if flat == 0 else best
        if settings["patience"] and flat == settings["patience"]:
            ends.add(((epoch + 1) * per_epoch, "plateau"))
            break
    # An end that was planned is told before a plateau, and that before the seconds.
    order = {"epochs": 0, "flops": 0, "plateau": 1, "seconds": 2}
    step, reason = min(ends, key=lambda end: (end[0], order[end[1]]))
    found = {"planned": planned, "stopped": step, "reason": REASONS.index(reason)}
    return {name: np.array([value], np.int64) for name, value in found.items()}


def mirroring(settings: Settings, given: Tensors, world: Any) -> Tensors:
    """Image by image."""
    enough = int(threshold("mirroring", "enough"))
    counts, chosen = [], []
    for images in given["images"].tolist():
        # As many as bring them to enough, and no image twice.
        count = len(range(images, enough)[:images])
        counts.append(count)
        # The first of each of as many stretches, which are as long as can be alike.
        chosen += [next(i for i in range(images) if (i + 1) * count > k * images) for k in range(count)]
    return {"counts": np.array(counts), "chosen": np.array(chosen)}


KINDS = {
    "label_check": label_check,
    "label_verdict": label_verdict,
    "novelty": novelty,
    "gradient_share": gradient_share,
    "forgetting": forgetting,
    "known_classes": known_classes,
    "few_shot": few_shot,
    "gain": gain,
    "mirroring": mirroring,
    "stopping": stopping,
}
