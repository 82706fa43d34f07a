"""Do the probabilities over all classes say how often they are right, before and after the temperature?

    python benchmarks/probabilities.py --data DIR --model cifar100-base50.onnx --out docs/results/probabilities.json

Features of all images of CIFAR-100 once, with csk-sdk, from a bundle with the features of layers, of the network as
it was deployed. Then the discriminant over the base and later classes, with its temperature measured as the product
does it: on the base data by the builder or, without a base, on the first images learned. On the test images: the
mean probability of what was decided for, the share that was right, and the expected calibration error in 15 bins. All
in percent.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.layer_features import BASE, Set, asked, drawn, measured, only, statistics_of

from csk_sdk.method.calibration import calibrated
from csk_sdk.method.heads import ClassStatistics, lda_head
from csk_sdk.objectives.classification import PRIOR_PICTURES

# The base known or not, later classes, images of each.
CASES = (
    (True, 0, 0), (True, 10, 100), (True, 50, 10), (True, 50, 100), (True, 50, 500),
    (False, 2, 50), (False, 10, 100), (False, 10, 500), (False, 50, 30),
)  # fmt: skip
BINS = 15


def main() -> None:
    options = asked(__doc__)
    train, test, last = measured(options)
    found = [row(train, test, case, width) for width in (last, train[0].shape[1]) for case in CASES]
    print("| " + " | ".join(found[0]) + " |\n|" + "---|" * len(found[0]))
    for one in found:
        print("| " + " | ".join(f"{v:.1f}" if isinstance(v, float) else str(v) for v in one.values()) + " |")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def row(train: Set, test: Set, case: tuple[bool, int, int], width: int) -> dict[str, str | int | float]:
    """What is said and what is right, without and with the temperature."""
    base, later, pictures = case
    first = 0 if base else BASE
    wanted = np.arange(first, BASE + later)
    x, y = only((train[0][:, :width], train[1]), wanted)
    x, y = drawn((x, y + first), pictures, everyone=not base)
    y = y - first
    tested, answers = only((test[0][:, :width], test[1]), wanted)
    statistics = statistics_of((x, y))
    seen = y < BASE if base else np.ones(len(y), bool)
    mended = _calibrated(statistics, x[seen], y[seen])
    before, after = (shown(one, tested, answers) for one in (statistics, mended))
    known = f"base and {later} classes" if later and base else "base" if base else f"{later} classes, no base"
    return {
        "known": known, "images a class": str(pictures or ""), "features": width, "right": after[1],
        "said": before[0], "error": before[2], "temperature": float(mended.temperature or 1.0),
        "said with it": after[0], "error with it": after[2],
    }  # fmt: skip


def _calibrated(statistics: ClassStatistics, x: NDArray[np.float32], y: NDArray[np.int64]) -> ClassStatistics:
    names = tuple(str(label) for label in np.unique(y))
    found = calibrated(ClassStatistics.empty(x.shape[1]), x, y, names, PRIOR_PICTURES)
    return replace(statistics, temperature=found.temperature)


def shown(
    statistics: ClassStatistics, x: NDArray[np.float32], y: NDArray[np.int64]
) -> tuple[float, float, float]:
    """Mean probability of the decision, share of right ones, expected calibration error."""
    weight, bias = lda_head(statistics, PRIOR_PICTURES)
    logits = (x @ weight.T + bias).astype(np.float64)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    said = 1.0 / probabilities.sum(axis=1)
    right = logits.argmax(axis=1) == y
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    error = sum(
        abs(float(np.sum(right[bins == one]) - np.sum(said[bins == one]))) for one in range(BINS)
    ) / len(y)
    return 100 * float(said.mean()), 100 * float(right.mean()), 100 * error


if __name__ == "__main__":
    main()
