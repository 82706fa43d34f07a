"""Tasks of the Python SDK on one thread, timed part by part as often as asked for. See tools/taskTimes.ts.

python tools/task_times.py BUNDLE

Each line of standard input is a number of classes, of images a class, and of epochs, and what is trained; each line of
output a JSON list of the CPU seconds in front of the steps, of an epoch of them, and behind them, of the second of two
tasks.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

import numpy as np

from csk_sdk import Learner, Progress, Task, TrainingConfig

TILES = 4
NOISE = 40


def main(folder: str) -> None:
    """Two tasks in a new state for each line, the second one timed."""
    for line in sys.stdin:
        *numbers, train = line.split()
        classes, pictures, epochs = (int(number) for number in numbers)
        with tempfile.TemporaryDirectory() as state:
            config = TrainingConfig(threads=1, epochs=epochs, patience=0, prefix_cache="off", train=train)
            learner = Learner.open(folder, state, config)
            shape = learner.bundle.manifest.input.shape
            first, second = (mosaics(shape, task, classes, pictures) for task in range(2))
            learner.learn(first)
            print(json.dumps(times(learner, second, epochs)), flush=True)


def times(learner: Learner, task: Task, epochs: int) -> tuple[float, float, float]:
    """CPU seconds in front of the steps, of an epoch of them, and behind them."""
    begun: dict[str, float] = {}

    def note(progress: Progress) -> None:
        begun.setdefault(progress.phase, time.process_time())

    start = time.process_time()
    learner.learn(task, on_progress=note)
    end = time.process_time()
    consolidate = begun["consolidate"]
    train = begun.get("train", consolidate)
    return train - start, (consolidate - train) / epochs, end - consolidate


def mosaics(shape: tuple[int, ...], task: int, classes: int, pictures: int) -> Task:
    """A task whose classes can be told apart, as tools/taskTimes.ts makes them."""
    channels, height, width = shape
    rng = np.random.default_rng(task)
    colours = rng.uniform(55, 200, size=(classes, TILES, TILES, channels))
    rows, columns = np.arange(height) * TILES // height, np.arange(width) * TILES // width
    labels = np.arange(classes * pictures) % classes
    images = colours[:, rows][:, :, columns][labels]
    images += rng.uniform(-NOISE / 2, NOISE / 2, size=images.shape)
    names = [f"task {task}, class {number}" for number in range(classes)]
    return Task.from_arrays(f"task-{task}", images.astype(np.uint8), labels, names)


if __name__ == "__main__":
    main(sys.argv[1])
