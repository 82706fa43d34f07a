"""The digits task for the JavaScript runner: a bundle, its pictures, and what the Python SDK makes of them.

    python tools/fixtures.py OUT
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.demo import digits

SETTINGS = TrainingConfig(epochs=10, learning_rate=0.05, threads=1)


def main(out: Path) -> None:
    """Write `bundle/`, `state/` (the first task, learned here), `digits.safetensors` and `digits.json` into `out`."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    data = digits.load()
    model, facts = digits.model_files()
    with tempfile.TemporaryDirectory() as folder:
        base, tasks = Path(folder) / "base", Path(folder) / "tasks"
        digits.write_folders(data, base, tasks)
        options = BuildOptions(
            classes=facts["classes"],
            mean=facts["normalize"]["mean"],
            std=facts["normalize"]["std"],
            base_data=base,
            flip=False,
        )
        build_artifacts(model, out / "bundle", options)
        first = next(iter(digits.TASKS))
        Learner.open(out / "bundle", out / "state", SETTINGS).learn(Task.from_folder(tasks / first))
        learner = Learner.open(out / "bundle", Path(folder) / "state", SETTINGS)
        for name in digits.TASKS:
            learner.learn(Task.from_folder(tasks / name))
        predicted = learner.predict(data.test_images[..., None]).labels
    right = predicted == np.array(digits.NAMES)[data.test_labels]
    pictures = {
        "train/images": data.train_images,
        "train/labels": data.train_labels,
        "test/images": data.test_images,
        "test/labels": data.test_labels,
    }
    save_file({name: np.ascontiguousarray(array) for name, array in pictures.items()}, out / "digits.safetensors")
    described = {"names": digits.NAMES, "tasks": digits.TASKS, "accuracy": round(100 * float(right.mean()), 2)}
    (out / "digits.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
