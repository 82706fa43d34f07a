"""The graphs and the learning of record.py on this environment's ONNX Runtime, the oldest that is declared.

    .venv-oldest/bin/python tests/oldest/replay.py out/oldest

Needs what a device needs, and nothing more. Exits 1 where an output, a check or an accuracy is another.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from csk_device_runners import check_bundle
from csk_sdk import Bundle, Inbox, Learner, TrainingConfig
from csk_sdk.contract.manifest import EVAL_MODEL, MEMORY_MODEL, TRAINING_MODEL
from csk_sdk.runtime.sessions import Graph, load_onnxruntime

GRAPHS = (TRAINING_MODEL, EVAL_MODEL, MEMORY_MODEL)
TASKS = {"01": (4, 5), "02": (6, 7), "03": (8, 9)}
# Faults of the oldest runtime in ops that a model itself has; each must still be there.
FAULTS = {"ReduceSum-no axes is no sum": "ReduceSum with noop_with_empty_axes does not run in 1.17"}
RELATIVE, POINTS, LOSS = 1e-4, 0.5, 1e-3
# Of the largest number, where a runtime may round the other way: some steps of 127.
ROUNDED = 0.05
INT8 = " in int8"


def random_feeds(bundle: Bundle) -> dict[str, Any]:
    """Noise for every input of the three graphs: images, labels, head, and half of each site's channels."""
    rng = np.random.default_rng(0)
    image, head, classes = bundle.manifest.input, bundle.manifest.head, 4
    feeds: dict[str, Any] = {
        "image": rng.normal(size=(5, *image.shape)).astype(np.float32),
        "label": rng.integers(0, classes, 5),
        head.weight: rng.normal(size=(classes, head.features)).astype(np.float32),
        head.bias: rng.normal(size=classes).astype(np.float32),
    }
    for site in bundle.manifest.sites:
        chosen = rng.permutation(site.columns)[: max(1, site.columns // 2)]
        feeds[site.indices] = np.sort(chosen)
        feeds[site.delta] = rng.normal(scale=0.1, size=(site.rows, len(chosen))).astype(np.float32)
    return feeds


def lived(folder: Path, state: Path) -> dict[str, Any]:
    """Learn the three tasks of `folder`; last losses, and accuracies in both scenarios in percent."""
    config = TrainingConfig(threads=1, shift=1, learning_rate=0.05, few_shot=0, train="centers")
    learner = Learner.open(folder / "bundle", state, config)
    tasks = [Inbox(folder / "tasks").open(name) for name in TASKS]
    losses = [learner.learn(task).loss for task in tasks]
    accuracies = [learner.evaluate(tasks, scenario).accuracy for scenario in ("task", "class")]
    return {"losses": losses, "accuracies": accuracies}


def main(recorded: Path) -> None:
    failed: list[str] = []
    rules = sorted((recorded / "rules").glob("*.onnx"))
    bundles = [*sorted(recorded.glob("networks/*/bundle")), recorded / "digits" / "bundle"]
    for rule in rules:
        found = differences(rule.stem, rule, rule.with_suffix(".npz"))
        if rule.stem in FAULTS:
            found = [] if found else [f"{rule.stem}: works now; take it off the list of faults"]
        failed += found
    for bundle in bundles[:-1]:
        for name in GRAPHS:
            arrays = bundle.parent / name.replace(".onnx", ".npz")
            failed += differences(f"{bundle.parent.name} {name}", bundle / name, arrays)
    for bundle in bundles:
        failed += [
            f"{bundle.parent.name}: {result.name}: {result.detail}"
            for result in check_bundle(bundle)
            if not result.passed
        ]
    digits = recorded / "digits"
    now, then = lived(digits, digits / "state-oldest"), json.loads((digits / "expected.json").read_text())
    for name, allowed in (("losses", LOSS), ("accuracies", POINTS)):
        if np.abs(np.subtract(now[name], then[name])).max() > allowed:
            failed.append(f"digits: {name} {now[name]}, and {then[name]} where they were recorded")
    for line in failed:
        print(f"FAIL  {line}")
    runtime = load_onnxruntime().__version__
    print(
        f"onnxruntime {runtime}, numpy {np.__version__}: {len(rules)} rules, {len(bundles)} bundles, "
        f"digits at {now['accuracies'][1]:.1f} % over all learned; {len(FAULTS)} known fault, {len(failed)} failures"
    )
    sys.exit(1 if failed or len(rules) < 100 or len(bundles) < 30 else 0)


def differences(what: str, graph: Path, arrays: Path) -> list[str]:
    """One line for each output that is another than was recorded; NaN is."""
    saved = np.load(arrays)
    feeds = {name[3:]: saved[name] for name in saved.files if name.startswith("in/")}
    try:
        got = Graph(graph, 1).run(feeds)
    except Exception as error:
        return [f"{what}: {str(error).splitlines()[0]}"]
    failed = []
    for name, value in got.items():
        expected = saved[f"out/{name}"]
        off = float(np.abs(value.astype(np.float64) - expected).max()) if value.size else 0.0
        allowed = ROUNDED if INT8 in what else RELATIVE
        if value.shape != expected.shape or not off <= allowed * max(
            1.0, float(np.abs(expected).max(initial=0))
        ):
            failed.append(f"{what}: {name} differs by {off:.2g}")
    return failed


if __name__ == "__main__":
    main(Path(sys.argv[1]))
