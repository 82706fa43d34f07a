"""The digits task for the JavaScript runner: a bundle, its images, and what the Python SDK makes of them.

python tools/fixtures.py OUT
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "learner"))
sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "builder"))

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from domains import write_domains
from fleet_fixtures import write_fleet
from guards import write_guards
from not_finite import fragile_bundle
from PIL import Image
from quantised_models import STYLES, quantised

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner, Task, TrainingConfig, upgrade
from csk_sdk.bundle.signing import SIGNATURE, sign
from csk_sdk.contract.manifest import MANIFEST, sealed
from csk_sdk.demo import digits
from csk_sdk.method.projection import is_frozen
from csk_sdk.state.tensorfile import packed

PEM = serialization.Encoding.PEM
SETTINGS = TrainingConfig(epochs=10, patience=0, learning_rate=0.05, threads=1, few_shot=0, train="centers")


def main(out: Path) -> None:
    """Write `bundle/`, `state/` (the first task, learned here), `digits.*`, `resized.*` and `guards.*` into `out`.

    `signed/` has the bundle's manifest with counters and signatures of a key. `fragile/bundle/` has a network that
    computes NaN for white images, `kernels/` a bundle that trains whole kernels and a state, and `quantised/` a bundle
    of a quantised model, a state of it, and what Python exports in int8. `upgraded/`: a bundle and a state that was
    carried over to it, of which some sites are frozen, with what is predicted of the test images. `upgrades/`: what is
    to be carried over to other bundles, and what Python made of it. `fleet/` and `domains/`: fleet_fixtures.py and
    domains.py say what.
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
        write_kernels(out / "kernels", base, tasks / first)
        learner = Learner.open(out / "bundle", Path(folder) / "state", SETTINGS)
        for name in digits.TASKS:
            learner.learn(Task.from_folder(tasks / name))
        write_upgraded(out, base, data)
        write_upgrades(out, base, data, tasks / first)
        write_fleet(out / "fleet", out / "bundle", tasks, data, SETTINGS)
        write_domains(out / "domains", out / "bundle", data, SETTINGS)
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
    write_signed(out / "bundle", out / "signed")
    fragile_bundle(out / "fragile")


def write_signed(bundle: Path, out: Path) -> None:
    """`COUNTER/manifest.json` and `manifest.sig` for 0, which is none, 4, 5 and 6; `trust.pem`, `other.pem`, `rsa.pem`.

    And `state/`, of a device that has opened the bundle of counter 5.
    """
    out.mkdir()
    key = ed25519.Ed25519PrivateKey.generate()
    private = out.parent / "key.pem"
    private.write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    others = {"other": ed25519.Ed25519PrivateKey.generate(), "rsa": rsa.generate_private_key(65537, 2048)}
    for name, one in {"trust": key, **others}.items():
        public = one.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (out / f"{name}.pem").write_bytes(public)
    raw = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    raw.pop("counter", None)
    for counter in (0, 4, 5, 6):
        (out / str(counter)).mkdir()
        text = sealed({**raw, "counter": counter} if counter else raw).encode()
        (out / str(counter) / MANIFEST).write_bytes(text)
        (out / str(counter) / SIGNATURE).write_bytes(sign(text, private))
    private.unlink()
    whole = shutil.copytree(bundle, out / "whole")
    shutil.copytree(out / "5", whole, dirs_exist_ok=True)
    Learner.open(whole, out / "state", trust=out / "trust.pem")
    shutil.rmtree(whole)


def write_kernels(out: Path, base: Path, task: Path) -> None:
    """`bundle/`, of which whole kernels are trained, and `state/` with one task that did."""
    digits.build_bundle(out / "bundle", base_data=base, sites="kernels")
    learner = Learner.open(out / "bundle", out / "state", replace(SETTINGS, epochs=2, train="kernels"))
    learner.learn(Task.from_folder(task))


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


def write_upgrades(out: Path, base: Path, data: digits.Digits, task: Path) -> None:
    """`upgrades/NAME/`: `from/` and its `state/`, the bundle `to/`, and the state that Python `carried/` over to it."""
    narrow = out / "narrow"
    digits.build_bundle(narrow, base_data=base, features="last")
    Learner.open(narrow, out / "narrow-state", SETTINGS).learn(Task.from_folder(task))
    kinds: dict[str, tuple[Path, Path, dict[str, Any]]] = {
        "sites": (out / "bundle", out / "state", {"trainable": "all"}),
        "narrower": (out / "bundle", out / "state", {"features": "last"}),
        "wider": (narrow, out / "narrow-state", {"features": "layers"}),
    }
    for name, (bundle, state, options) in kinds.items():
        place = out / "upgrades" / name
        digits.build_bundle(place / "to", base_data=base, upgrade_from=bundle, **options)
        shutil.copytree(bundle, place / "from")
        shutil.copytree(state, place / "state")
        shutil.copytree(bundle, place / "moving")
        shutil.copytree(state, place / "carried")
        report = upgrade(place / "moving", place / "carried", place / "to")
        learner = Learner.open(place / "moving", place / "carried", SETTINGS)
        told = {
            "labels": learner.predict(data.test_images[..., None]).labels.tolist(),
            "notes": report.notes,
            "merged": report.merged,
        }
        (place / "told.json").write_text(json.dumps(told) + "\n", encoding="utf-8")
    for path in (narrow, out / "narrow-state"):
        shutil.rmtree(path)


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
