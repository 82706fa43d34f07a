"""The digits task for the JavaScript runner: a bundle, its images, and what the Python SDK makes of them.

python tools/fixtures.py OUT
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "learner"))
sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "builder"))

import numpy as np
from guards import write_guards
from not_finite import fragile_bundle
from PIL import Image
from quantised_models import STYLES, quantised

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.demo import digits
from csk_sdk.state.tensorfile import packed

SETTINGS = TrainingConfig(epochs=10, patience=0, learning_rate=0.05, threads=1, few_shot=0)


def main(out: Path) -> None:
    """Write `bundle/`, `state/` (the first task, learned here), `digits.*`, `resized.*` and `guards.*` into `out`.

    And `fragile/bundle/`, whose network computes NaN for white images, and `quantised/`: a bundle of a quantised
    model, a state of it, and what Python exports in int8.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    data = digits.load()
    with tempfile.TemporaryDirectory() as folder:
        base, tasks = Path(folder) / "base", Path(folder) / "tasks"
        digits.write_folders(data, base, tasks)
        digits.build_bundle(out / "bundle", base_data=base)
        first = next(iter(digits.TASKS))
        Learner.open(out / "bundle", out / "state", SETTINGS).learn(Task.from_folder(tasks / first))
        write_quantised(out / "quantised", data, base, tasks / first)
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
    (out / "digits.safetensors").write_bytes(packed(pictures))
    described = {
        "names": digits.NAMES,
        "tasks": digits.TASKS,
        "accuracy": round(100 * float(right.mean()), 2),
    }
    (out / "digits.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    write_resized(out / "resized.safetensors")
    write_guards(out / "bundle", data, out)
    fragile_bundle(out / "fragile")


def write_quantised(out: Path, data: digits.Digits, base: Path, task: Path) -> None:
    """`bundle/`, `state/` with one task, and `int8.onnx`, exported from it."""
    out.mkdir()
    model, facts = digits.model_files()
    mean, std = (facts["normalize"][name][0] for name in ("mean", "std"))
    pictures = ((data.train_images[:80, None] / 255 - mean) / std).astype(np.float32)
    deployed = quantised(model, out / "model.onnx", pictures, **STYLES["QDQ-QUInt8-channel"])
    known = {"classes": facts["classes"], "mean": [mean], "std": [std], "flip": False, "base_data": base}
    build_artifacts(deployed, out / "bundle", BuildOptions(**known))
    learner = Learner.open(out / "bundle", out / "state", SETTINGS)
    learner.learn(Task.from_folder(task))
    learner.export(out / "int8.onnx", precision="int8")


def write_resized(path: Path) -> None:
    """Images of many sizes, and what Pillow makes of them: `N/from` and `N/to` uint8, for 24 x 20 pixels."""
    rng = np.random.default_rng(0)
    tensors = {}
    sizes = [(24, 20), (24, 50), (50, 20), (61, 47), (7, 5), (1, 1), (200, 3), (23, 21)]
    for number, (height, width) in enumerate(sizes):
        for channels in (1, 3):
            picture = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
            image = Image.fromarray(picture[:, :, 0] if channels == 1 else picture)
            resized = np.asarray(image.resize((20, 24), Image.Resampling.BILINEAR))
            name = f"{number}-{channels}"
            tensors[f"{name}/from"] = picture
            tensors[f"{name}/to"] = resized.reshape(24, 20, channels)
    color = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    tensors["color"], tensors["gray"] = color, np.asarray(Image.fromarray(color).convert("L"))
    path.write_bytes(packed(tensors))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
