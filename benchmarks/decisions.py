"""Whether `train = auto` chooses right: lessons that are learned both ways, and what it chose.

    python benchmarks/decisions.py --data DIR --model cifar100-base10.onnx cifar100-base50.onnx
    python benchmarks/decisions.py --write docs/decisions/0035-train.md

Each lesson of benchmarks/decision_lessons.py is learned from a fresh bundle with the default settings, with `auto` and
with the way that `auto` did not choose: a lesson with `auto` is to the bit one with `heads` or with `centers`
(tests/learner/test_train_setting.py). What is there already is left out, so that a run that ended goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from numpy.typing import NDArray

# Of the base about so many images are tested, evenly spread over them.
BASE_TESTS = 500


def main() -> None:
    """Measure, or write the page's tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", type=Path, nargs="+", help="the two bases, by their files' names")
    parser.add_argument("--cache", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--kinds", nargs="+", help="of lessons; without, all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("docs/results/decisions.json"))
    parser.add_argument("--streams", type=Path, default=Path("docs/results/continual.json"))
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    if options.data is not None:
        options.cache.mkdir(parents=True, exist_ok=True)
        measure(options)
    if options.write is not None:
        from benchmarks.decisions_page import page

        found, runs = (json.loads(file.read_text()) for file in (options.out, options.streams))
        options.write.write_text(page(options.write.read_text(), found, runs["runs"]))


@dataclass(frozen=True)
class Way:
    """A lesson learned in one way: the report, CPU seconds, and of each test image whether it is named right."""

    report: Any
    cpu_seconds: float
    alone: NDArray[np.bool_]
    among_all: NDArray[np.bool_]
    base: NDArray[np.bool_]

    def to_json(self) -> dict[str, float]:
        """Accuracies in percent."""
        shares = {"task": self.alone, "all": self.among_all, "base": self.base}
        return {name: round(100 * float(right.mean()), 2) for name, right in shares.items()}


def measure(options: argparse.Namespace) -> None:
    """All lessons that are not there yet, written one by one."""
    from benchmarks.continual.data import Pictures
    from benchmarks.decision_lessons import lessons

    found = json.loads(options.out.read_text()) if options.out.exists() else []
    there = {(one["base"], one["lesson"], one["images"], one["seed"]) for one in found}
    pictures = Pictures(options.data, options.cache)
    models = {model.stem: model for model in options.model}
    for seed in options.seeds:
        for lesson in lessons():
            if (lesson.base, lesson.name, lesson.images, seed) in there or lesson.base not in models:
                continue
            if options.kinds and lesson.kind not in options.kinds:
                continue
            found.append(_measured(lesson, models[lesson.base], pictures, seed, options))
            print(json.dumps(found[-1]), flush=True)
            options.out.write_text("[\n" + ",\n".join(json.dumps(one) for one in found) + "\n]\n")


def _measured(
    lesson: Any, model: Path, pictures: Any, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    from benchmarks.continual.data import Split, facts_of
    from benchmarks.continual.product import bundle
    from benchmarks.decision_lessons import task_of

    facts = facts_of(model)
    known = tuple(facts["classes"])
    task = task_of(lesson, known, tuple(facts["later_classes_in_order"]), pictures, seed)
    tests = pictures.split("test", known)
    share = max(1, len(tests.labels) // BASE_TESTS)
    base = Split(tests.images[::share], tests.labels[::share])
    built = bundle(model, options.data, options.cache, {})

    def way(train: str) -> Way:
        return learned(built, task, base, known, train, seed)

    auto = way("auto")
    chosen, other = ("heads", "centers") if auto.report.heads_only else ("centers", "heads")
    ways = {chosen: auto, other: way(other)}
    gain = auto.report.gain
    return {
        "base": lesson.base, "lesson": lesson.name, "images": lesson.images, "seed": seed, "kind": lesson.kind,
        "classes": len(task.classes), "tested": len(task.test.labels), "base_tested": len(base.labels),
        "chosen": chosen, "because": auto.report.heads_only_because,
        "gain": {name: round(float(value), 5) for name, value in gain.items()},
        "cpu_seconds": {"auto": auto.cpu_seconds, other: ways[other].cpu_seconds},
        "ways": {name: ways[name].to_json() for name in ("heads", "centers")},
        "changed": {
            name: changed(getattr(ways["heads"], right), getattr(ways["centers"], right))
            for name, right in (("task", "alone"), ("all", "among_all"), ("base", "base"))
        },
    }  # fmt: skip


def learned(built: Path, task: Any, base: Any, known: tuple[str, ...], train: str, seed: int) -> Way:
    """The lesson learned in one way, on a state of its own."""
    from csk_sdk import Learner, Task, TrainingConfig

    with tempfile.TemporaryDirectory() as state:
        learner = Learner.open(built, state, TrainingConfig(train=train, seed=seed, threads=1))
        lesson = Task.from_arrays(task.name, task.train.images, task.train.labels, task.classes)
        used = time.process_time()
        report = learner.learn(lesson, replace=False if set(task.classes) <= set(known) else None)
        used = time.process_time() - used
        shown, features = learner.features(task.test.images), learner.features(base.images)
        own, every = learner.head(task.name), learner.head()
        truth, known_truth = np.array(task.classes)[task.test.labels], np.array(known)[base.labels]
        return Way(
            report,
            round(used, 2),
            _named(own, shown) == truth,
            _named(every, shown) == truth,
            _named(every, features) == known_truth,
        )


def _named(head: Any, features: NDArray[np.float32]) -> NDArray[np.str_]:
    return np.array(head.classes)[head.logits(features).argmax(axis=1)]


def changed(heads: NDArray[np.bool_], centers: NDArray[np.bool_]) -> list[int]:
    """How many images only centers name right, and how many only heads."""
    return [int((centers & ~heads).sum()), int((heads & ~centers).sum())]


if __name__ == "__main__":
    main()
