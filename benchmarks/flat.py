"""What does the fiftieth task cost, against the first? And what share of a step is NumPy's?

    python benchmarks/flat.py BUNDLE --tasks 50 --out docs/results/flat.json

Learns small tasks one after another (random blobs, two classes each) and compares the generation after the first with
that after the last: CPU time of a training step, one thread, interleaved runs, medians; and the bytes of the
generation's files. "NumPy" is what a step does outside the runtime: the optimizer, the projection, and putting
feeds and results together. Bases are those that the learned tasks leave, at the default energy.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.learning.training import TaskTraining
from csk_sdk.runtime.sessions import Graph
from csk_sdk.state import Generation

PICTURES = 8
CLASSES = 2


def blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images `(n, *shape)` around one random image for each class, and their labels."""
    labels = np.arange(CLASSES * PICTURES) % CLASSES
    means = rng.integers(0, 256, (CLASSES, *shape))
    noisy = means[labels] + rng.normal(0, 40, (len(labels), *shape))
    return np.clip(noisy, 0, 255).astype(np.uint8), labels


def learn(learner: Learner, tasks: int) -> None:
    """So many tasks, each of new random classes."""
    shape = learner.bundle.preprocessing.shape
    for number in range(1, tasks + 1):
        images, labels = blobs(np.random.default_rng(number), shape)
        names = [f"{number}-{index}" for index in range(CLASSES)]
        begun = time.monotonic()
        report = learner.learn(Task.from_arrays(f"{number:03d}", images, labels, names))
        print(f"task {number}: loss {report.loss:.3f}, {time.monotonic() - begun:.1f} s", flush=True)


class Stepping:
    """A generation opened for training, warmed up, and stepped on one batch again and again."""

    def __init__(self, learner: Learner, generation: Generation, batch: int) -> None:
        config = TrainingConfig(
            threads=1,
            learning_rate=1e-6,
            head_learning_rate=1e-6,
            sensitivity_batches=1,
            few_shot=0,
            train="centers",
        )
        manifest = learner.bundle.manifest
        rng = np.random.default_rng(0)
        images = rng.standard_normal((batch, *manifest.input.shape), np.float32)
        self._batch = images, np.arange(batch) % CLASSES
        more = rng.standard_normal((CLASSES, *manifest.input.shape), np.float32), np.arange(CLASSES)
        self._training = TaskTraining(learner.bundle, generation.tensors, ("a", "b"), config)
        self._training.warm_up(lambda: [self._batch, more])
        self.total: list[float] = []
        self.runtime: list[float] = []
        self.directions = {name: f"{b.shape[1]}/{b.shape[0]}" for name, b in self._training.bases.items()}

    def step(self) -> None:
        """One step, timed: all of it, and the runtime's part."""
        spent = 0.0
        session_run: Callable[..., Any] = Graph._run

        def timed(graph: Graph, *arguments: Any) -> Any:
            nonlocal spent
            begun = time.process_time()
            found = session_run(graph, *arguments)
            spent += time.process_time() - begun
            return found

        Graph._run = timed  # type: ignore[method-assign]
        try:
            begun = time.process_time()
            self._training.step(self._batch, 1.0)
            self.total.append(time.process_time() - begun)
        finally:
            Graph._run = session_run  # type: ignore[method-assign]
        self.runtime.append(spent)

    def result(self) -> dict[str, Any]:
        """Milliseconds and the share of NumPy."""
        total, runtime = statistics.median(self.total), statistics.median(self.runtime)
        numpy = statistics.median(t - r for t, r in zip(self.total, self.runtime, strict=True))
        return {
            "step_ms": round(1e3 * total, 3),
            "runtime_ms": round(1e3 * runtime, 3),
            "numpy_ms": round(1e3 * numpy, 3),
            "numpy_percent": round(100 * numpy / total, 2),
            "directions": self.directions,
        }


def stored(state: Path, number: int) -> dict[str, int]:
    """Bytes of a generation's files."""
    found = {path.suffix: path.stat().st_size for path in (state / "generations").glob(f"{number:06d}.*")}
    return {"tensors": found[".safetensors"], "record": found[".json"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each")
    parser.add_argument("--state", type=Path, help="go on with this state, or keep it there")
    parser.add_argument("--out", type=Path, default=Path("out/flat.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = arguments.state or Path(folder) / "state"
        config = TrainingConfig(threads=1, epochs=1, sensitivity_batches=1, few_shot=0, train="centers")
        learner = Learner.open(arguments.bundle, state, config)
        learner.state._keep = arguments.tasks + 1
        if not learner.tasks:
            learn(learner, arguments.tasks)
        last = learner.generation.number
        result: dict[str, Any] = {
            "bundle": learner.bundle.manifest.model,
            "precision": learner.bundle.manifest.precision,
            "tasks": last,
            "bytes": {str(number): stored(state, number) for number in (1, last)},
            "steps": {},
        }
        for batch in (16, 1):
            pair = [Stepping(learner, learner.state.load(number), batch) for number in (1, last)]
            for _ in range(arguments.steps):
                for one in pair:
                    one.step()
            result["steps"][f"batch {batch}"] = {
                f"after {number}": one.result() for number, one in zip((1, last), pair, strict=True)
            }
        result["versions"] = {
            name: metadata.version(name) for name in ("csk-sdk", "onnxruntime", "numpy")
        } | {"machine": platform.machine(), "python": platform.python_version()}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
