"""How long the fastest training step of the Python SDK takes on one thread, in ms, as JSON. See tools/stepTimes.ts.

python tools/step_times.py BUNDLE STEPS
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from csk_sdk.bundle import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.training import Batch, TaskTraining

CLASSES = 10


def main(folder: str, steps: int) -> None:
    """Time steps on random pictures, with about half of the selected directions protected."""
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
    times = []
    for step in range(steps):
        begun = time.perf_counter()
        training.step(batches[step % len(batches)], 0.001)
        times.append(time.perf_counter() - begun)
    print(json.dumps({"step": 1000 * min(times), "steps": steps}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
