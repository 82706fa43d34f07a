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

import numpy as np
from guards import write_guards
from not_finite import fragile_bundle
from PIL import Image

from csk_sdk import Learner, Task, TrainingConfig, upgrade
from csk_sdk.demo import digits
from csk_sdk.method.projection import is_frozen
from csk_sdk.state.tensorfile import packed

SETTINGS = TrainingConfig(epochs=10, patience=0, learning_rate=0.05, threads=1, few_shot=0)


def main(out: Path) -> None:
    """Write `bundle/`, `state/` (the first task, learned here), `digits.*`, `resized.*` and `guards.*` into `out`.

    And `fragile/bundle/`, whose network computes NaN for white images; and `upgraded/`, a bundle and a state that was
    carried over to it, of which some sites are frozen, with what is predicted of the test images.
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
        learner = Learner.open(out / "bundle", Path(folder) / "state", SETTINGS)
        for name in digits.TASKS:
            learner.learn(Task.from_folder(tasks / name))
        write_upgraded(out, base, data)
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


def write_upgraded(out: Path, base: Path, data: digits.Digits) -> None:
    """The state of one task, carried over to a bundle that trains more sites than it knows moments of."""
    place, new = out / "upgraded", out / "new"
    digits.build_bundle(new, base_data=base, trainable="all", upgrade_from=out / "bundle")
    for name in ("bundle", "state"):
        shutil.copytree(out / name, place / name)
    upgrade(place / "bundle", place / "state", new)
    shutil.rmtree(new)
    learner = Learner.open(place / "bundle", place / "state", SETTINGS)
    told = {"labels": learner.predict(data.test_images[..., None]).labels.tolist()}
    moments = learner.generation.tensors.items()
    told["frozen"] = [
        name.removeprefix("moment/") for name, one in moments if name[:7] == "moment/" and is_frozen(one)
    ]
    (place / "told.json").write_text(json.dumps(told) + "\n", encoding="utf-8")


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
