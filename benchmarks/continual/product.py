"""csk-sdk itself living a stream: bundles built once, then the SDK as an application uses it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import csk_artifacts_builder
import csk_sdk
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner, Task
from csk_sdk.config import HEADS, TrainingConfig
from csk_sdk.contract.manifest import CENTERS, INT8, KERNELS, Manifest
from csk_sdk.method.logistic import logistic_head
from csk_sdk.runtime.peak_memory import peak_rss_bytes

from .data import BASE, BASE_SHARE, COLD, Stream, TaskData, facts_of
from .results import NETWORKS, Rows, forward_transfer, machine, measures

_FEW_TESTS = 1000
PACKAGES = ("csk-sdk", "numpy", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Row:
    """A row of the tables: what differs from the defaults when the bundle is built, and when it learns.

    The centers are trained, where `settings` do not say otherwise.
    `adapts` is whether the images of a task, without their labels, are a domain before they are learned.
    """

    title: str
    build: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    adapts: bool = False


PRODUCT = {
    "ours": Row("csk-sdk, centers"),
    "ours-int8": Row("csk-sdk, int8", {"precision": INT8}),
    "ours-prefix": Row("csk-sdk, prefix features on disk", settings={"prefix_cache": "disk"}),
    "ours-int8-prefix": Row(
        "csk-sdk, int8, prefix features on disk", {"precision": INT8}, {"prefix_cache": "disk"}
    ),
    "ours-all-images": Row("csk-sdk, steps over all images", settings={"gradient_share": 1.0}),
    "ours-all-channels": Row("csk-sdk, all channels", settings={"channel_ratio": 1.0}),
    "ours-no-projection": Row("csk-sdk, no projection", settings={"energy": 0.0, "max_forgetting": 100.0}),
    "ours-plain": Row(
        "csk-sdk, all channels, no projection",
        settings={"energy": 0.0, "channel_ratio": 1.0, "max_forgetting": 100.0},
    ),
    "ours-heads": Row("csk-sdk, frozen backbone", settings={"train": "heads"}),
    "ours-centers": Row("csk-sdk, train = centers", settings={"train": "centers"}),
    "ours-kernels": Row("csk-sdk, train = kernels", {"sites": KERNELS}, {"train": KERNELS}),
    "ours-auto": Row("csk-sdk, train = auto", settings={"train": "auto"}),
    "ours-kernels-auto": Row("csk-sdk, kernels, train = auto", {"sites": KERNELS}, {"train": "auto"}),
    "ours-adapted": Row("csk-sdk, each corruption a domain", adapts=True),
    "ours-wide": Row("csk-sdk, wide features", {"features": "wide"}),
    "ours-wide-heads": Row(
        "csk-sdk, wide features, frozen backbone", {"features": "wide"}, {"train": "heads"}
    ),
    "ours-all": Row("csk-sdk, all layers' features", {"features": "all"}),
    "ours-all-heads": Row(
        "csk-sdk, all layers' features, frozen backbone", {"features": "all"}, {"train": "heads"}
    ),
    "ours-last": Row("csk-sdk, last features", {"features": "last"}),
    "ours-last-heads": Row(
        "csk-sdk, last features, frozen backbone", {"features": "last"}, {"train": "heads"}
    ),
}


def run(
    name: str, stream: Stream, model: Path, data: Path, cache: Path, protocol: str, seed: int,
    epochs: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Live the stream and return everything measured."""
    row = PRODUCT[name]
    is_cold = protocol.partition("@")[0] in COLD
    begun = time.monotonic()
    settings = {"train": CENTERS, **row.settings}
    config = TrainingConfig(seed=seed, threads=1, **settings).with_overrides(epochs=epochs)
    learner_state = Path(tempfile.mkdtemp(dir=cache, prefix=f"state-{name}-"))
    try:
        learner = Learner.open(bundle(model, data, cache, row.build), learner_state, config)
        tasks = {task.name: _task(task) for task in (stream.base, *stream.tasks)}
        # Of a base with few classes, all is tested every time: its share of a stage counts.
        share = BASE_SHARE if len(stream.base.test.labels) > _FEW_TESTS else 1
        between = {**tasks, BASE: _task(stream.base, share)}
        rows: Rows = {}
        _score(learner, tasks, rows)
        seconds, cpu_seconds, ahead, epochs_trained, gains = [], [], [], [], []
        protected: Mapping[str, str] = {}
        transfers = not stream.domains and not is_cold
        untouched = [_probe(learner, task) for task in stream.tasks] if transfers else []
        for task in stream.tasks:
            if transfers:
                ahead.append(_probe(learner, task))
            used = time.process_time()
            if row.adapts:
                learner.adapt(task.name, task.train.images)
            # Behind noise, most images of some classes look like others: here it is known that they are none.
            report = learner.learn(tasks[task.name], replace=False if stream.domains else None)
            cpu_seconds.append(round(time.process_time() - used, 2))
            seconds.append(round(report.seconds, 2))
            epochs_trained.append(report.epochs)
            gains.append(report.gain)
            protected = report.protected
            _score(learner, tasks if task is stream.tasks[-1] else between, rows)
            print(f"{row.title}: {task.name}, {report.seconds:.0f} s", flush=True)
        again = None
        if is_cold and any(epochs_trained):
            again = _measured_again(learner, tasks, model, cache, row)
        images = [len(task.test.labels) for task in (stream.base, *stream.tasks)]
        return {
            "protocol": protocol, "network": NETWORKS.get(model.stem, ""), "method": name, "title": row.title,
            "source": "", "by": "csk-sdk", "seed": seed,
            "epochs": config.epochs, "batch": learner.bundle.manifest.batch_size, "rate": config.learning_rate,
            "settings": config.to_json(), "scenarios": measures(rows, images),
            "fwt": forward_transfer(ahead, untouched) if transfers else None,
            "measured_again": again, "epochs_trained": epochs_trained, "gains": gains,
            "whole_seconds": round(time.monotonic() - begun),
            "tasks": [task.name for task in stream.tasks],
            "seconds": seconds, "cpu_seconds": cpu_seconds, "preparing": 0.0,
            "peak_rss_bytes": peak_rss_bytes(), "costs": _costs(learner.bundle.manifest, protected),
            "machine": machine(PACKAGES),
        }  # fmt: skip
    finally:
        shutil.rmtree(learner_state, ignore_errors=True)


def _costs(manifest: Manifest, protected: Mapping[str, str]) -> dict[str, float] | None:
    """As `costs.Costs`, of a bundle that trains whole kernels, counted on its graph; others' are the twin's in torch.

    `protected` says by site how many of the selected directions are, as "r/k".
    """
    if not manifest.whole_kernels or not protected:
        return None
    batch, counted = manifest.batch_size, manifest.costs
    kept = {site: [int(number) for number in protected[site.name].split("/")] for site in manifest.sites}
    trained = sum(site.rows * k for site, (_, k) in kept.items())
    projection = sum(4.0 * site.rows * k * min(r, k - r) for site, (r, k) in kept.items())
    parts = {
        "activation_bytes": batch * counted["kept_centers"],
        "optimizer_bytes": 2 * 4 * trained,
        "state_bytes": 4 * sum(site.groups * site.width**2 for site in manifest.sites),
    }
    return {
        "flops": batch * counted["step_centers"] + projection,
        "forward_flops": batch * counted["forward"],
        "trained": trained,
        **parts,
        "step_bytes": sum(parts.values()),
    }


def bundle(model: Path, data: Path, cache: Path, build: Mapping[str, Any]) -> Path:
    """A bundle with these options and the base's images as its base data, built once into `cache` by this code."""
    kind = "-".join(str(value) for value in build.values()) or "default"
    out = cache / f"bundle-{model.stem}-{kind}-{_sources()[:12]}"
    if not out.exists():
        _unpack(data / "cifar100-train.zip", facts_of(model)["classes"], _base_data(model, cache))
        build_artifacts(model, out, _options(model, cache, build))
    return out


def _base_data(model: Path, cache: Path) -> Path:
    return cache / f"base-data-{model.stem}"


def _options(model: Path, cache: Path, build: Mapping[str, Any]) -> BuildOptions:
    facts = facts_of(model)
    normalize = facts["normalize"]
    return BuildOptions(
        classes=facts["classes"], mean=normalize["mean"], std=normalize["std"],
        base_data=_base_data(model, cache), **build,
    )  # fmt: skip


def _measured_again(
    learner: Learner, tasks: Mapping[str, Task], model: Path, cache: Path, row: Row
) -> dict[str, float]:
    """What the network that a stream left would come to if all it knows were measured anew: the bound of carrying over.

    It is exported, a bundle is built of it, and that learns the heads of the same tasks. In percent, of all classes
    and the mean of the tasks'.
    """
    with tempfile.TemporaryDirectory(dir=cache, prefix="again-") as folder:
        exported, built = Path(folder) / model.name, Path(folder) / "bundle"
        learner.export(exported, BASE)
        build = {name: value for name, value in row.build.items() if name != "sites"}
        build_artifacts(exported, built, _options(model, cache, build))
        config = replace(learner.config, train=HEADS)
        other = Learner.open(built, Path(folder) / "state", config)
        for name, task in tasks.items():
            if name != BASE:
                other.learn(task)
        rows: Rows = {}
        _score(other, dict(tasks), rows)
    counts = [len(task.test) for task in tasks.values() if task.test is not None]
    everything, apart = (rows[label][-1] for label in ("class, our head", "task, our head"))
    return {
        "all_classes": round(float(np.average(everything, weights=counts)), 3),
        "acc": round(float(np.mean(apart)), 3),
    }


def _sources() -> str:
    """SHA-256 of the code of builder and SDK, so that no bundle of an earlier version is measured."""
    digest = hashlib.sha256()
    for package in (csk_artifacts_builder, csk_sdk):
        for file in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _unpack(archive: Path, classes: list[str], folder: Path) -> None:
    if folder.exists():
        return
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix="base-data-"))
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.namelist():
            label, _, file = member.partition("/")
            if file and label in classes:
                (partial / label).mkdir(exist_ok=True)
                (partial / label / file).write_bytes(zipped.read(member))
    partial.rename(folder)


def _task(task: TaskData, share: int = 1) -> Task:
    """A task of the SDK, with every so-manieth test image."""
    images, labels = task.test.images[::share], task.test.labels[::share]
    # The base is never learned, but the SDK wants training images of every task made from arrays.
    train = (images, labels) if task.name == BASE else (task.train.images, task.train.labels)
    return Task.from_arrays(task.name, *train, task.classes, images, labels)


def _score(learner: Learner, tasks: dict[str, Task], rows: Rows) -> None:
    """One more row of both scenarios."""
    scores = learner.score(list(tasks.values()))
    row = scores.rows[-1]
    for scenario, label in (("task", "task, our head"), ("class", "class, our head")):
        rows.setdefault(label, []).append([round(row[name][scenario], 3) for name in scores.names])


def _probe(learner: Learner, task: TaskData) -> float:
    """Accuracy of an exact head fitted to the task on the features as they are now."""
    weight, bias = logistic_head(learner.features(task.train.images), task.train.labels, len(task.classes))
    scores = learner.features(task.test.images) @ weight.T + bias
    return round(float(np.mean(scores.argmax(1) == task.test.labels)) * 100, 3)
