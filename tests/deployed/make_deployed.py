"""Bundles and states as a csk-sdk of some day made them: whatever was deployed once opens for ever.

    cd device_runners/js && npm ci --ignore-scripts && npm run build:tools && cd ../..
    python tests/deployed/make_deployed.py tests/deployed/DATE --node device_runners/js/out/build/tools/deployed.js \\
        --ort-training PYTHON

Run it once for each change of a schema of bundle or state, with the code that made the change: what it wrote is never
made again, since later code would not write the same. `--kinds exact` is enough where all kinds change alike. PYTHON
has onnxruntime-training and the builder; without, the bundle for that backend is left out: docs/state.md.

    pictures.safetensors, signals.safetensors   NAME/images and NAME/labels of the tasks 01, 02 and 03; "probe"; and
                                                 where there are `domains` "hazy/images", of which the probe has some
    NAME/bundle                                  a tiny bundle; of `kernels`, whole kernels are trained
    NAME/python, NAME/javascript                 a state that has learned 01 and 02 on it; of `ledger`, one that then
                                                 forgot a class of the base, which is hidden, and one of 02; of
                                                 `fleet`, one that then got 03 from another device; of `blocks`,
                                                 each task lies in a block; of `domains`, one that adapted to the
                                                 hazy ones after 01
    NAME/python.json, NAME/javascript.json       what its writer predicted of the probe: classes, and probabilities
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "builder"))

import networks
import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner, Progress, Task, fleet
from csk_sdk.state import blocks
from csk_sdk.state.tensorfile import packed

BASE, TASKS = "abc", {"01": "de", "02": "fg", "03": "hi"}
LETTERS = BASE + "".join(TASKS.values())
# What is true of which letters, where a picture has several labels.
ATTRIBUTES = {"p": "acdfi", "q": "abegh", "r": "bcdgi", "s": "dfh", "t": "cegi", "u": "ghi", "v": "efi"}
TABLES = {"base": "pqr", "01": "st", "02": "uv", "03": "sv"}
# Few and large steps: what counts is that all parts of a state are there.
SETTINGS = {
    "epochs": 3,
    "learning_rate": 0.02,
    "threads": 1,
    "few_shot": 0,
    "train": "centers",
    "max_forgetting": 100.0,
}
PICTURES = {
    "exact": (networks.RESNET, {"features": "layers"}),
    "int8": (networks.RESNET, {"features": "layers", "precision": "int8", "trainable": "from:first"}),
    "wide": (networks.MOBILENET, {"features": "wide"}),
    "multi-label": (networks.RESNET, {"features": "layers", "loss": "binary-cross-entropy"}),
    "ledger": (networks.RESNET, {"features": "layers", "base_data": None}),
    "fleet": (networks.RESNET, {"features": "layers"}),
    "blocks": (networks.RESNET, {"features": "layers"}),
    "domains": (networks.RESNET, {"features": "layers"}),
    "kernels": (networks.RESNET, {"features": "layers", "sites": "kernels"}),
    "ort-training": (networks.RESNET, {"features": "last", "backend": "both", "head_capacity": 4}),
}
TABULAR, INTERRUPTED, ORT_TRAINING, SIGNALS = "multi-label", "exact", "ort-training", "signals"
LEDGER, FORGOTTEN, FLEET = "ledger", ("a", "g"), "fleet"
# Of the last a block has so few classes, so that the state is small.
BLOCKS, BLOCK_CLASSES = "blocks", 2
DOMAINS, DOMAIN = "domains", "hazy"
WHOLE_KERNELS = "kernels"
COUNT, PROBE = 20, 4
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def main(out: Path, kinds: Sequence[str], node: Path, ort_training: Path | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    sets, signals = drawn_pictures(), drawn_signals()
    if DOMAINS in kinds:
        sets[f"{DOMAIN}/images"] = hazy(sets["base/images"])
        sets["probe"][::2] = hazy(sets["probe"][::2])
    (out / "pictures.safetensors").write_bytes(packed(sets))
    (out / "signals.safetensors").write_bytes(packed(signals))
    for kind in kinds:
        if kind == SIGNALS:
            build_signals(out / kind / "bundle", signals)
            learn(out / kind, {one: signal_task(signals, one) for one in TASKS}, signals["probe"])
            continue
        if kind != ORT_TRAINING:
            build_pictures(out / kind / "bundle", *PICTURES[kind])
        elif ort_training is not None:
            subprocess.run([ort_training, __file__, out, "--only-bundle", kind], check=True)
        else:
            continue
        tasks = {one: picture_task(out / kind, sets, one) for one in TASKS}
        learn(out / kind, tasks, sets["probe"], sets[f"{DOMAIN}/images"] if kind == DOMAINS else None)
    told = subprocess.run(["node", node, out], check=True, capture_output=True, text=True)
    print(told.stdout, end="")


def settings_of(kind: str) -> dict[str, Any]:
    """How lessons of this kind are learned."""
    return {**SETTINGS, "train": "kernels"} if kind == WHOLE_KERNELS else SETTINGS


def drawn_pictures() -> dict[str, NDArray[Any]]:
    """By letter a picture, and noise; the probe has some of each that bundle or state knows."""
    rng = np.random.default_rng(1)
    base = rng.integers(50, 206, (len(LETTERS), 9, 9, 3))
    return _sets(
        lambda labels: np.clip(base[labels] + rng.normal(0, 12, base[labels].shape), 0, 255), np.uint8
    )


def hazy(pictures: NDArray[Any]) -> NDArray[Any]:
    """As another camera has them."""
    return np.asarray(pictures // 4 + 120, np.uint8)


def drawn_signals() -> dict[str, NDArray[Any]]:
    """The same for int16 signals of two channels and 41 samples."""
    rng = np.random.default_rng(2)
    base = rng.normal(0, 6000, (len(LETTERS), *networks.AUDIO.image[::-1]))
    return _sets(lambda labels: base[labels] + rng.normal(0, 800, base[labels].shape), np.int16)


def _sets(draw: Callable[[NDArray[Any]], NDArray[Any]], dtype: type) -> dict[str, NDArray[Any]]:
    sets = {}
    for name, letters in {"base": BASE, **TASKS}.items():
        labels = np.tile(np.arange(len(letters)), COUNT)
        sets[f"{name}/images"] = draw(np.array([LETTERS.index(one) for one in letters])[labels]).astype(dtype)
        sets[f"{name}/labels"] = labels
    known = len(LETTERS) - len(TASKS["03"])
    return {**sets, "probe": draw(np.tile(np.arange(known), PROBE)).astype(dtype)}


def table_of(sets: dict[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    """Labels `(n, attributes)` of a set's pictures."""
    letters = np.array(list({"base": BASE, **TASKS}[name]))[sets[f"{name}/labels"]]
    return np.array(
        [[one in ATTRIBUTES[attribute] for attribute in TABLES[name]] for one in letters], np.float32
    )


def build_pictures(out: Path, network: networks.Network, options: dict[str, Any]) -> None:
    sets = drawn_pictures()
    tabular = options.get("loss") is not None
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary) / "base"
        base.mkdir()
        lines = ["file_name," + ",".join(TABLES["base"])]
        table = table_of(sets, "base")
        for index, (picture, label) in enumerate(zip(sets["base/images"], sets["base/labels"], strict=True)):
            folder = base if tabular else base / BASE[label]
            folder.mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / f"{index:02d}.png")
            lines.append(f"{index:02d}.png," + ",".join(f"{value:g}" for value in table[index]))
        if tabular:
            (base / "metadata.csv").write_text("\n".join(lines) + "\n")
        classes = list(TABLES["base"] if tabular else BASE)
        _build(network, out, **{"classes": classes, "mean": MEAN, "std": STD, "base_data": base, **options})


def build_signals(out: Path, sets: dict[str, NDArray[Any]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        for index, (signal, label) in enumerate(zip(sets["base/images"], sets["base/labels"], strict=True)):
            (base / BASE[label]).mkdir(exist_ok=True)
            np.save(base / BASE[label] / f"{index:02d}.npy", signal)
        _build(networks.AUDIO, out, classes=list(BASE), std=[0.25, 0.25], base_data=base, sample_rate=8000)


def _build(network: networks.Network, out: Path, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / f"{network.name}.onnx"
        onnx.save(network.proto(), model)
        build_artifacts(
            model, out, BuildOptions(**{"trainable": "all", "channel_ratio": 0.5, "batch_size": 8, **options})
        )


def picture_task(folder: Path, sets: dict[str, NDArray[Any]], name: str) -> Task:
    if folder.name == TABULAR:
        return Task.from_arrays(name, sets[f"{name}/images"], table_of(sets, name), list(TABLES[name]))
    return Task.from_arrays(name, sets[f"{name}/images"], sets[f"{name}/labels"], list(TASKS[name]))


def signal_task(sets: dict[str, NDArray[Any]], name: str) -> Task:
    return Task.from_signals(name, sets[f"{name}/images"], sets[f"{name}/labels"], list(TASKS[name]))


def learn(
    folder: Path, tasks: dict[str, Task], probe: NDArray[Any], domain: NDArray[Any] | None = None
) -> None:
    """Two tasks by Python, and in one state the beginning of a third; what it then predicts of the probe."""
    if folder.name == BLOCKS:
        blocks.BLOCK_CLASSES = BLOCK_CLASSES
    config = {**settings_of(folder.name), "checkpoint_seconds": 0.0}
    learner = Learner.open(folder / "bundle", folder / "python", config)
    for name in ("01", "02"):
        learner.learn(tasks[name])
        if domain is not None and name == "01":
            learner.adapt(DOMAIN, domain)
    if folder.name == INTERRUPTED:
        learner.score([Task("01", tasks["01"].classes, None, tasks["01"].train)])

        def stop(progress: Progress) -> None:
            if progress.step == 3:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            learner.learn(tasks["03"], on_progress=stop)
    if folder.name == LEDGER:
        learner.forget(*FORGOTTEN)
    if folder.name == FLEET:
        with tempfile.TemporaryDirectory() as temporary:
            friend = Learner.open(folder / "bundle", Path(temporary) / "state", SETTINGS)
            friend.learn(tasks["03"])
            files = [Path(temporary) / f"{number}.cskc" for number in range(3)]
            fleet.export(learner, files[0])
            fleet.export(friend, files[1])
            fleet.merge(files[:2], files[2])
            fleet.apply(learner, files[2])
    predicted = learner.predict(probe)
    told = {"classes": predicted.classes, "probabilities": np.round(predicted.probabilities, 6).tolist()}
    (folder / "python.json").write_text(json.dumps(told) + "\n")
    (folder / "python" / "lock").unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--node", type=Path, help="device_runners/js/tools/deployed.ts, built")
    parser.add_argument(
        "--ort-training", type=Path, help="a Python with onnxruntime-training and the builder"
    )
    parser.add_argument("--kinds", nargs="+", default=[*PICTURES, SIGNALS], metavar="KIND")
    parser.add_argument("--only-bundle", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only_bundle:
        build_pictures(asked.out / asked.only_bundle / "bundle", *PICTURES[asked.only_bundle])
    else:
        main(asked.out, asked.kinds, asked.node, asked.ort_training)
