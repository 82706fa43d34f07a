"""Are things that were never taught told from those that were, and is the chosen share of known ones rejected?

    python benchmarks/living.py unknown --data DIR --model cifar100-base50.onnx --out docs/results/living.json

csk-sdk learns CIFAR-100 as an application would, on a bundle with the features of layers: five tasks of five classes,
and on another state 25 tasks of two, `--images` a class. As deployed, and after the last task of each: the test
images of all known classes against those of classes that were never taught, and against blank images, noise and
digits, by our distance and by published scores on the same features and statistics. Areas under the ROC curve in
percent. Then the share of known test images that is rejected where a share is asked for.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from benchmarks.continual.data import Pictures, Stream, TaskData, cut, facts_of
from benchmarks.continual.product import _task, bundle
from benchmarks.novelty import handwritten
from numpy.typing import NDArray

from csk_artifacts_builder.graphs.layer_features import LAYERS
from csk_sdk import Learner, TrainingConfig
from csk_sdk.method.heads import ClassStatistics, lda_head
from csk_sdk.objectives.classification import PRIOR_PICTURES

# Which streams, after how many of their tasks, and up to how many images a class centers are trained: of more it takes
# an hour.
STREAMS = (("10x5", 5, 500), ("25x2", 25, 100))
SHARES = (0.01, 0.05, 0.1, 0.2)
# Of the images that were trained on, for what ViM is scaled by.
TRAINED = 10
Features = NDArray[np.float32]
Scores = dict[str, NDArray[np.float64]]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of both tables, printed as they come."""
    pictures, facts = Pictures(options.data, options.cache), facts_of(options.model)
    built = bundle(options.model, options.data, options.cache, {"features": LAYERS})
    found: dict[str, Any] = {"against": {}, "rejected": {}}
    for kind, tasks, most in STREAMS:
        protocol = f"{kind}@{options.images}"
        stream = cut(protocol, pictures, facts, 0)
        with tempfile.TemporaryDirectory() as state:
            trained = options.images <= most
            config = TrainingConfig(threads=1, train="centers" if trained else "heads")
            learner = Learner.open(built, state, config)
            if not found["against"]:
                _measure(learner, stream, "base", found)
            for number, task in enumerate(stream.tasks[:tasks], 1):
                learner.learn(_task(task))
                print(f"learned {number} of {tasks}", flush=True)
            frozen = "" if trained else ", frozen backbone"
            _measure(learner, stream, f"{tasks} tasks ({protocol}{frozen})", found)
    return found


def _measure(learner: Learner, stream: Stream, when: str, found: dict[str, Any]) -> None:
    known = [stream.base, *stream.tasks[: len(learner.tasks)]]
    never = list(stream.tasks[len(learner.tasks) :])
    seen = learner.features(np.concatenate([task.test.images for task in known]))
    others = {name: learner.features(images) for name, images in far(stream.base)}
    if never:
        others["never taught"] = learner.features(np.concatenate([task.test.images for task in never]))
    trained = learner.features(stream.base.train.images[::TRAINED])
    inside = scores(learner, trained, seen)
    outside = {name: scores(learner, trained, features) for name, features in others.items()}
    found["against"][when] = {
        score: {name: area(values, outside[name][score]) for name in outside}
        for score, values in inside.items()
    }
    distances = -inside["ours"]
    distance = learner.predictor().distance()
    assert distance is not None
    found["rejected"][when] = {
        f"{share:g}": 100 * float(np.mean(distances > distance.limit(share))) for share in SHARES
    }
    for score, row in found["against"][when].items():
        cells = " ".join(f"{name} {value:.1f}" for name, value in row.items())
        print(f"{when:24s} {score:24s} {cells}", flush=True)
    print(when, "rejected", found["rejected"][when], flush=True)


def far(base: TaskData) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Images that show no thing at all, or others than photographs."""
    rng = np.random.default_rng(0)
    shape = base.test.images.shape[1:]
    yield "blank", np.stack([np.full(shape, level, np.uint8) for level in range(256)])
    yield "noise", rng.integers(0, 256, (512, *shape), np.uint8)
    yield "digits", handwritten(shape)


def scores(learner: Learner, trained: Features, x: Features) -> Scores:
    """The larger, the more known: `(n,)` of features `(n, f)`."""
    statistics = ClassStatistics.from_tensors(learner.generation.tensors)
    said = learner.head().predict(x).probabilities
    distance = learner.predictor().distance()
    assert distance is not None
    return {
        "maximum softmax probability": said.max(axis=1).astype(np.float64),
        **_of_logits(statistics, trained, x),
        **_mahalanobis(statistics, x),
        "ours": -distance.of(x).astype(np.float64),
    }


def _of_logits(statistics: ClassStatistics, trained: Features, x: Features) -> Scores:
    """Maximum logit (Hendrycks et al., 2022), energy (Liu et al., 2020) and ViM (Wang et al., 2022) of our head."""
    weight, bias = (part.astype(np.float64) for part in lda_head(statistics, PRIOR_PICTURES))
    origin = -np.linalg.pinv(weight) @ bias
    moment = statistics.gram - np.outer(statistics.sums.sum(axis=0), origin)
    moment += statistics.counts.sum() * np.outer(origin, origin) - np.outer(
        origin, statistics.sums.sum(axis=0)
    )
    _, directions = np.linalg.eigh(moment)
    residual = directions[:, : len(origin) // 2]

    def left(given: Features) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm((given - origin) @ residual, axis=1))

    logits = x @ weight.T + bias
    scale = (trained @ weight.T + bias).max(axis=1).mean() / left(trained).mean()
    energy = logits.max(axis=1) + np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1))
    return {"maximum logit": logits.max(axis=1), "energy": energy, "ViM": energy - scale * left(x)}


def _mahalanobis(statistics: ClassStatistics, x: Features) -> Scores:
    """Lee et al., 2018, and relative to one Gaussian of all images, Ren et al., 2021."""
    count = statistics.counts.sum()
    means = statistics.sums / statistics.counts[:, None]
    mean = statistics.sums.sum(axis=0) / count
    within = _distances(x, means, statistics.scatter() / count).min(axis=1)
    overall = _distances(x, mean[None], statistics.gram / count - np.outer(mean, mean))[:, 0]
    return {"Mahalanobis": -within, "relative Mahalanobis": overall - within}


def _distances(
    x: Features, means: NDArray[np.float64], covariance: NDArray[np.float64]
) -> NDArray[np.float64]:
    size = len(covariance)
    inverse = np.linalg.inv(covariance + 1e-6 * np.trace(covariance) / size * np.eye(size))
    root = np.linalg.cholesky(inverse)
    ours, theirs = x @ root, means @ root
    return np.asarray((ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1) - 2 * ours @ theirs.T)


def area(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """Under the ROC curve, in percent: how often a known image has the larger score (Mann and Whitney, 1947).

    Of two that are the same, each is the larger half of the time: probabilities of a sure network round to 1.
    """
    others = np.sort(unknown)
    below = np.searchsorted(others, known, side="left") + np.searchsorted(others, known, side="right")
    return 50 * float(below.sum()) / (len(known) * len(unknown))
