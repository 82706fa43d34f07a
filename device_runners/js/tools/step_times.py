"""Training steps of the Python SDK on one thread, timed as often as asked for. See tools/steps.ts.

python tools/step_times.py BUNDLE

Each line of standard input is a number of steps; each line of output a JSON list of the CPU time of each, in ms.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.learning.training import Batch, TaskTraining

CLASSES = 10


def main(folder: str) -> None:
    """Steps on random images, with about half of the selected directions protected."""
    bundle = Bundle.open(folder)
    rng = np.random.default_rng(0)
    tensors = bundle.checkpoint()
    for site in bundle.manifest.sites:
        moment = np.zeros((site.groups, site.shape[1], site.shape[1]), np.float32)
        for group in moment:
            root = rng.normal(size=group.shape)
            group[:] = root @ root.T
        tensors[f"moment/{site.name}"] = moment
    size = bundle.manifest.batch_size
    labels = np.arange(size) % CLASSES
    batches: list[Batch] = [
        (rng.normal(size=(size, *bundle.manifest.input.shape)).astype(np.float32), (labels + seed) % CLASSES)
        for seed in range(4)
    ]
    config = TrainingConfig(threads=1, sensitivity_batches=2)
    training = TaskTraining(bundle, tensors, [f"class {i}" for i in range(CLASSES)], config)
    training.warm_up(lambda: batches)
    for line in sys.stdin:
        times = []
        for step in range(int(line)):
            begun = time.process_time()
            training.step(batches[step % len(batches)], 0.001)
            times.append(1000 * (time.process_time() - begun))
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
