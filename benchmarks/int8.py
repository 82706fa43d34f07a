"""What int8 costs in accuracy: numbers of docs/decisions/0007.

    python benchmarks/int8.py ranges --data DIR --model cifar100-base50.onnx
    python benchmarks/int8.py small-tasks --data DIR --model cifar100-base50.onnx
    python benchmarks/int8.py folding --workspace out/cifar100/workspace

`ranges` compares ways to choose the ranges of activations, by logits and gradients on classes that the network does not
know. `small-tasks` lets an exact and an int8 device learn 20 tasks of two classes. `folding` looks at the generations
that benchmarks/cifar100.py left: how far features move when learned centers are rounded with their kernels. DIR and
the model are those of benchmarks/cifar100.py.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from PIL import Image

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.graphs.choice import choose_sites
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.graphs.models import training_model
from csk_artifacts_builder.int8.calibrate import compare
from csk_artifacts_builder.int8.quantize import Calibration, Range, frozen_convolutions, quantize
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.sites import find_sites
from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, Head, InputSpec, Manifest, PreprocessingSpec
from csk_sdk.network.knowledge import neutral_deltas
from csk_sdk.runtime.sessions import load_onnxruntime
from csk_sdk.state import State

Feeds = dict[str, NDArray]
SMALL_TASKS, CLASSES, TRAIN, TEST = 20, 2, 100, 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, run in (("ranges", ranges), ("small-tasks", small_tasks), ("folding", folding)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        if name == "folding":
            command.add_argument("--workspace", type=Path, required=True)
        else:
            command.add_argument("--data", type=Path, required=True)
            command.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.run(arguments)


# --- ranges


def ranges(arguments: argparse.Namespace) -> None:
    facts = json.loads(arguments.model.with_suffix(".json").read_text())
    manifest, exact, start = open_graph(arguments.model)
    base = batches(manifest, start, pictures(arguments.data, "train", facts["classes"], 20), facts)[:32]
    later = facts["later_classes_in_order"][:10]
    new = batches(manifest, start, pictures(arguments.data, "train", later, 60), facts)[:20]
    rng = np.random.default_rng(1)
    weight = (0.3 * rng.normal(size=(10, manifest.head.features))).astype(np.float32)
    for feeds in new:
        feeds.update({manifest.head.weight: weight, manifest.head.bias: np.zeros(10, np.float32)})
    seen, growth = observe(exact, base, manifest.head.weight)
    ways: dict[str, Callable[[list[NDArray]], Range]] = {
        "extremes of all": lambda parts: extremes(np.concatenate(parts)),
        "median of the batches' extremes": lambda parts: Range(
            *np.median([[part.min(), part.max()] for part in parts], axis=0)
        ),
        "99.9 percentile": lambda parts: percentile(parts, 1e-3),
        "99.99 percentile": lambda parts: percentile(parts, 1e-4),
        "99.999 percentile": lambda parts: percentile(parts, 1e-5),
        "least squared error": least_error,
    }
    print(f"{'':34}logits off   smallest cosine of a gradient (20 batches of 16, new classes)")
    for name, way in ways.items():
        found = {end: {conv: way(parts) for conv, parts in seen[end].items()} for end in ("x", "y")}
        rounded = exact.clone()
        quantize(rounded, Calibration(found["x"], found["y"], growth), manifest.head.weight)
        each = [compare(exact, rounded, [feeds], manifest) for feeds in new]
        cosine = np.mean([agreement.worst_gradient for agreement in each])
        print(f"{name:34}{100 * np.mean([agreement.logits for agreement in each]):8.2f} %   {cosine:.4f}")


def open_graph(model: Path) -> tuple[Manifest, ir.Model, Feeds]:
    """The exact training model, as `build_artifacts` makes it."""
    source = prepare(model)
    split = split_head(source.model, model.name)
    head = Head(split.weight.shape[1], source_weight=split.weight_name, source_bias=split.bias_name)
    order = [str(node.name) for node in source.model.graph]
    sites = choose_sites(find_sites(source.model, model.name), "auto", order, model.name).sites
    none = PreprocessingSpec((0.0,) * 3, (1.0,) * 3)
    manifest = Manifest(
        model.name, (), InputSpec("image", 3, (32, 32)), none, head, tuple(sites), False, 0.25, 16
    )
    return (
        manifest,
        training_model(source.model, sites, head, model.name),
        {head.weight: split.weight, head.bias: split.bias},
    )


def batches(
    manifest: Manifest, head: Feeds, data: tuple[NDArray[np.uint8], NDArray[np.int64]], facts: dict
) -> list[Feeds]:
    mean, std = (np.array(facts["normalize"][name], np.float32) for name in ("mean", "std"))
    x = ((data[0].astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    fixed = dict(head)
    for site in manifest.sites:
        fixed[site.indices] = np.arange(site.columns)
        fixed[site.delta] = np.zeros((site.rows, site.columns), np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    parts = [order[begin : begin + 16] for begin in range(0, len(x), 16)]
    return [{"image": x[part], "label": data[1][part], **fixed} for part in parts]


def observe(
    exact: ir.Model, feeds: Sequence[Feeds], head_weight: str
) -> tuple[dict[str, dict[str, list[NDArray]]], dict[str, float]]:
    """Whole tensors in front of and behind each forward convolution; growth of each backward one."""
    model = exact.clone()
    emit, names = Emitter(model.graph), []
    convs = frozen_convolutions(model, head_weight)
    for conv in convs:
        for end, value in (("x", conv.node.inputs[0]), ("y", conv.node.outputs[0])):
            names.append((end, str(conv.node.name), conv.backward))
            emit.output(emit.op("Identity", value), "/".join(names[-1][:2]), list("nchw"))
    session = load_onnxruntime().InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    seen: dict[str, dict[str, list[NDArray]]] = {"x": {}, "y": {}}
    growth: dict[str, dict[str, list[float]]] = {"x": {}, "y": {}}
    for batch in feeds:
        outputs = session.run(["/".join(name[:2]) for name in names], batch)
        for (end, name, backward), value in zip(names, outputs, strict=True):
            if backward:
                growth[end].setdefault(name, []).append(float(np.abs(value).max()))
            else:
                seen[end].setdefault(name, []).append(value.ravel())
    return seen, {
        name: float(np.max(np.array(after) / np.array(growth["x"][name])))
        for name, after in growth["y"].items()
    }


def extremes(values: NDArray) -> Range:
    return Range(float(values.min()), float(values.max()))


def percentile(parts: list[NDArray], outside: float) -> Range:
    low, high = np.quantile(np.concatenate(parts), [outside, 1 - outside])
    return Range(float(low), float(high))


def least_error(parts: list[NDArray]) -> Range:
    """Of the extremes, the fraction whose rounding has the least squared error."""
    values = np.concatenate(parts)
    whole, some = extremes(values), np.random.default_rng(0).choice(values, 100_000)
    best = (np.inf, whole)
    for fraction in np.linspace(0.3, 1.0, 29):
        low, high = min(0.0, whole.low) * fraction, max(0.0, whole.high) * fraction
        scale = (high - low) / 255
        zero = round(-low / scale)
        error = float(np.mean(((np.clip(np.rint(some / scale) + zero, 0, 255) - zero) * scale - some) ** 2))
        best = min(best, (error, Range(low, high)), key=lambda pair: pair[0])
    return best[1]


def pictures(
    data: Path, split: str, classes: Sequence[str], count: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first `count` of each class, uint8 `(n, 32, 32, 3)`, and labels in the order of `classes`."""
    images, labels = [], []
    with zipfile.ZipFile(data / f"cifar100-{split}.zip") as archive:
        names = sorted(archive.namelist())
        for label, name in enumerate(classes):
            files = [file for file in names if file.startswith(f"{name}/") and not file.endswith("/")]
            for file in files[:count]:
                images.append(np.asarray(Image.open(io.BytesIO(archive.read(file))).convert("RGB")))
                labels.append(label)
    return np.stack(images), np.array(labels)


# --- tasks


def small_tasks(arguments: argparse.Namespace) -> None:
    facts = json.loads(arguments.model.with_suffix(".json").read_text())
    later = facts["later_classes_in_order"]
    groups = [later[start : start + CLASSES] for start in range(0, SMALL_TASKS * CLASSES, CLASSES)]
    tasks = []
    for number, classes in enumerate(groups, 1):
        (images, labels), (held_out, truth) = (
            pictures(arguments.data, split, classes, count)
            for split, count in (("train", TRAIN), ("test", TEST))
        )
        tasks.append(
            Task.from_arrays(
                f"{number:02d}", images, labels, classes, test_images=held_out, test_labels=truth
            )
        )
    base = pictures(arguments.data, "test", facts["classes"], 40)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label in facts["classes"]:
            (folder / "base" / label).mkdir(parents=True)
        images, labels = pictures(arguments.data, "train", facts["classes"], 100)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(folder / "base" / facts["classes"][label] / f"{index}.png")
        for precision in ("exact", "int8"):
            options = BuildOptions(
                classes=facts["classes"], base_data=folder / "base", precision=precision, **facts["normalize"]
            )
            build_artifacts(arguments.model, folder / precision, options)
            live(folder, precision, tasks, base, facts)


def live(
    folder: Path, precision: str, tasks: Sequence[Task], base: tuple[NDArray, NDArray], facts: dict
) -> None:
    learner = Learner.open(
        folder / precision,
        folder / f"state-{precision}",
        TrainingConfig(threads=1, few_shot=0, train="centers"),
    )
    right_after = []
    for task in tasks:
        learner.learn(task)
        right_after.append(accuracy(learner, *held_out(task), task.name))
    known = [*((*held_out(task), task.name) for task in tasks)]
    known.append((base[0], np.array(facts["classes"])[base[1]], "base"))
    finally_ = [accuracy(learner, *entry) for entry in known]
    everything = np.concatenate([images for images, _, _ in known])
    truth = np.concatenate([names for _, names, _ in known])
    decided = learner.predict(everything).labels
    learner.export(folder / "exported.onnx")
    session = load_onnxruntime().InferenceSession(
        folder / "exported.onnx", providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {session.get_inputs()[0].name: learner.bundle.preprocessing(everything)})
    exported = np.array(learner.classes)[logits.argmax(axis=1)]
    print(
        f"{precision:6} {len(tasks)} tasks: ACC {np.mean(finally_):.2f}, new {np.mean(right_after):.2f}, "
        f"base {finally_[-1]:.2f}, tasks at the end {np.mean(finally_[:-1]):.2f}, all classes "
        f"{100 * np.mean(decided == truth):.2f}; exported float32 model: {100 * np.mean(exported == truth):.2f}, "
        f"same decision {100 * np.mean(exported == decided):.2f} %",
        flush=True,
    )


def held_out(task: Task) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    assert task.test is not None
    images = np.stack([task.test.images.read(index) for index in range(len(task.test))])
    return images, np.array(task.classes)[task.test.labels]


def accuracy(learner: Learner, images: NDArray, truth: NDArray, task: str) -> float:
    return 100 * float(np.mean(learner.predict(images, task).labels == truth))


def folding(arguments: argparse.Namespace) -> None:
    bundle = Bundle.open(arguments.workspace / "bundle-int8")
    state = State.open(arguments.workspace / "state-int8", bundle.id, bundle.checkpoint())
    files = sorted((arguments.workspace / "tasks" / "base" / "test").glob("*/*.png"))[::13]
    x = bundle.preprocessing(np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]))
    generations = [state.load(number).tensors for number in range(state.head() + 1)]
    plain = [features(bundle, tensors, x) for tensors in generations]
    size = np.linalg.norm(plain[0])
    print(f"features of {len(x)} base images, in percent of their norm")
    for number in range(1, len(generations)):
        beside = features(bundle, generations[number - 1], x, generations[number])
        from_base = features(bundle, generations[0], x, generations[number])
        change, fold, union = (
            100 * float(np.linalg.norm(a - b) / size)
            for a, b in (
                (beside, plain[number - 1]), (plain[number], beside), (plain[number], from_base)
            )
        )  # fmt: skip
        print(
            f"task {number}: training moved them by {change:.2f}, folding by {fold:.2f}; folded, against all tasks' "
            f"changes in float beside the base's int8 kernels {union:.2f}"
        )


def features(bundle: Bundle, tensors: Feeds, x: NDArray, towards: Feeds | None = None) -> NDArray:
    """Features of a generation, with the change of centers towards another in float beside its int8 kernels."""
    feeds = neutral_deltas(bundle.manifest.sites)
    for site in bundle.manifest.sites if towards is not None else ():
        key = f"center/{site.name}"
        feeds[site.indices], feeds[site.delta] = np.arange(site.columns), towards[key] - tensors[key]
    head = bundle.manifest.head
    feeds[head.weight], feeds[head.bias] = np.zeros((1, head.features), np.float32), np.zeros(1, np.float32)
    graph = bundle.graph(EVAL_MODEL, tensors, 1)
    parts = [x[begin : begin + 50] for begin in range(0, len(x), 50)]
    return np.concatenate([graph.run({"image": part, **feeds}, ["features"])["features"] for part in parts])


if __name__ == "__main__":
    main()
