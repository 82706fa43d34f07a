"""What a domain is worth that is learned from images without labels.

    python benchmarks/domains.py --data DIR --model cifar100-base50.onnx --out docs/results/domains.json
    python benchmarks/domains.py --out docs/results/domains.json --write docs/domains.md

The 50 classes that the network knows, behind three corruptions at severities 1 to 5 (`continual/corruptions.py`). A
device learns each as a domain from 100 training images that have no labels, on a state of its own, and predicts test
images; then one device learns all three at severity 3, from different numbers of images, and must tell by itself what
each image is of. Nothing else is learned. Accuracy over all 50 classes in percent.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from benchmarks.page_parts import between, row
from numpy.typing import NDArray

IMAGES = 100
COUNTS = (32, 64, 100, 500)
SEVERITIES = (1, 2, 3, 4, 5)
# Every so-manieth test image, so that a cell is of a thousand.
SHARE = 5
MARKS = "<!-- measured -->", "<!-- end of measured -->"


def main() -> None:
    """Measure, or write the page's tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("docs/results/domains.json"))
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    if options.data is not None:
        options.cache.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(measured(options), indent=1) + "\n")
    if options.write is not None:
        options.write.write_text(page(options.write.read_text(), json.loads(options.out.read_text())))


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All cells, a list of one number for each seed."""
    from benchmarks.continual.corruptions import CORRUPTIONS
    from benchmarks.continual.data import Pictures, cut, facts_of
    from benchmarks.continual.product import bundle

    pictures, facts = Pictures(options.data, options.cache), facts_of(options.model)
    base = cut("domain@100", pictures, facts).base
    built = bundle(options.model, options.data, options.cache, {})
    names, labels = np.array(base.classes), base.test.labels[::SHARE]
    clean = base.test.images[::SHARE]
    alone: dict[str, dict[str, list[list[float]]]] = {}
    together: dict[str, list[dict[str, float]]] = {}

    def accuracy(learner: Any, images: NDArray[np.uint8]) -> float:
        said = np.array(learner.predict(images)[0])
        return round(100 * float((said == names[labels]).mean()), 2)

    def device(state: str) -> Any:
        from csk_sdk import Learner, TrainingConfig

        return Learner.open(built, state, TrainingConfig(threads=1))

    for seed in options.seeds:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(base.train.labels))
        for name, corrupt in CORRUPTIONS.items():
            for severity in SEVERITIES:
                seen, shown = (
                    corrupt(base.train.images[order[:IMAGES]], rng, severity),
                    corrupt(clean, rng, severity),
                )
                with tempfile.TemporaryDirectory() as state:
                    learner = device(state)
                    row = [accuracy(learner, shown)]
                    row.append(_adapted(learner, name, seen))
                    row += [accuracy(learner, shown), accuracy(learner, clean)]
                alone.setdefault(name, {}).setdefault(str(severity), []).append(row)
                print(seed, name, severity, row, flush=True)
        tests = {"clean": clean, **{name: corrupt(clean, rng, 3) for name, corrupt in CORRUPTIONS.items()}}
        for count in (0, *COUNTS):
            with tempfile.TemporaryDirectory() as state:
                learner = device(state)
                used = time.process_time()
                for name, corrupt in CORRUPTIONS.items() if count else ():
                    _adapted(learner, name, corrupt(base.train.images[order[:count]], rng, 3))
                used = time.process_time() - used
                cells = {name: accuracy(learner, images) for name, images in tests.items()}
            together.setdefault(str(count), []).append({**cells, "cpu_seconds": round(used / 3, 2)})
            print(seed, count, together[str(count)][-1], flush=True)
    return {"alone": alone, "together": together, "images": IMAGES, "tested": len(labels)}


def _adapted(learner: Any, name: str, images: NDArray[np.uint8]) -> float:
    """The domain is learned, where it can be told from what is known: 1, else 0."""
    from csk_sdk import TaskError

    try:
        learner.adapt(name, images)
    except TaskError as error:
        print(error, flush=True)
        return 0.0
    return 1.0


def page(text: str, found: dict[str, Any]) -> str:
    """The page with both tables anew."""
    return between(text, MARKS, f"{_alone(found)}\n\n{_together(found)}")


def _alone(found: dict[str, Any]) -> str:
    severities = list(next(iter(found["alone"].values())))
    lines = [row(["severity", *severities]), "|---" * (len(severities) + 1) + "|"]
    for name, rows in found["alone"].items():
        lines.append(row([name, *(_cell(np.array(rows[severity])) for severity in severities)]))
    return "\n".join(lines)


def _cell(rows: NDArray[np.float64]) -> str:
    """What it was, what it is where the domain was learned in all runs, and without corruption."""
    before, learned, after, clean = rows.mean(axis=0)
    if not learned:
        return f"{before:.1f} (alike)"
    said = f"{before:.1f} → **{after:.1f}** ({clean:.1f})"
    return said if learned == 1 else f"{said}, learned in {learned * len(rows):.0f} of {len(rows)}"


def _together(found: dict[str, Any]) -> str:
    names = [name for name in next(iter(found["together"].values()))[0] if name != "cpu_seconds"]
    lines = [
        row(["images a domain", *names, "mean", "CPU seconds a domain"]),
        "|---" * (len(names) + 3) + "|",
    ]
    for count, rows in found["together"].items():
        cells = [float(np.mean([row[name] for row in rows])) for name in names]
        used = f"{np.mean([row['cpu_seconds'] for row in rows]):.1f}" if count != "0" else ""
        shown = [f"{cell:.1f}" for cell in (*cells, float(np.mean(cells)))]
        lines.append(row(["none" if count == "0" else count, *shown, used]))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
