"""Which features should a SqueezeNet-like network's new head stand on? The measurement behind decision 0011.

    python benchmarks/conv_head.py

Needs torch and scikit-learn beside csk-sdk[device,builder]. For each seed, a small SqueezeNet (1x1 convolution, Relu,
mean as its classifier) is trained on the handwritten digits 0 to 3, and learns 4 to 9 in three tasks, built in three
ways: on its own logits alone, on the means in front of the last convolution with the Relu left out, and on both, as
csk-sdk does. Printed are accuracies in percent, means over the seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner, Task, TrainingConfig

sys.path.insert(0, str(Path(__file__).parent))
from architectures import Fire

BASE, TASKS = (0, 1, 2, 3), ((4, 5), (6, 7), (8, 9))
EPOCHS, TRAINED = 60, 100


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), Fire(32, 8, 24), nn.MaxPool2d(2), Fire(48, 16, 32),
        nn.Conv2d(64, len(BASE), 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def trained(images: np.ndarray, labels: np.ndarray, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = network()
    nn.init.constant_(model[5].bias, 1.0)  # a class whose logits are 0 everywhere would never learn
    x, y = torch.from_numpy(images.astype(np.float32)[:, None] / 255), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def on_logits_alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """An identity behind the logits, which the builder takes for the classifier."""
    graph = model.graph
    graph.node[-1].output[0] = "raw"
    graph.initializer.append(numpy_helper.from_array(np.eye(len(BASE), dtype=np.float32), "identity"))
    graph.node.append(helper.make_node("Gemm", ["raw", "identity"], ["logits"], transB=1))
    return model


def without_relu(model: onnx.ModelProto) -> onnx.ModelProto:
    """The mean right behind the last convolution: then the logits are linear in the means in front of it."""
    nodes = list(model.graph.node)
    relu = max(i for i, node in enumerate(nodes) if node.op_type == "Relu")
    nodes[relu + 1].input[0] = nodes[relu].input[0]
    del model.graph.node[relu]
    return model


VARIANTS = {
    "logits alone": on_logits_alone,
    "means, without Relu": without_relu,
    "both (csk-sdk)": lambda model: model,
}


def measure(seed: int, folder: Path) -> dict[str, list[float]]:
    """Per variant: base accuracy before any task, then base, new tasks (task-incremental), and all ten digits."""
    digits = load_digits()
    images, labels = np.round(digits.images * 255 / 16).astype(np.uint8), digits.target.astype(np.int64)
    train = np.zeros(len(labels), bool)
    for digit in range(10):
        train[np.flatnonzero(labels == digit)[:TRAINED]] = True
    known = np.isin(labels, BASE)
    model = trained(images[train & known], labels[train & known], seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.zeros(1, 1, 8, 8),), folder / "source.onnx", dynamo=False, input_names=["image"],
            output_names=["logits"], opset_version=17,
        )  # fmt: skip
    write_pictures(folder / "base", images[train & known], labels[train & known])
    results = {}
    for number, (name, edit) in enumerate(VARIANTS.items()):
        onnx.save(edit(onnx.load(folder / "source.onnx")), folder / "model.onnx")
        bundle = folder / f"bundle-{number}"
        names = tuple(str(digit) for digit in BASE)
        build_artifacts(
            folder / "model.onnx",
            bundle,
            BuildOptions(classes=names, mean=(0.0,), std=(1.0,), flip=False, base_data=folder / "base"),
        )
        config = TrainingConfig(seed=seed, threads=1, shift=1, few_shot=0, train="centers")
        learner = Learner.open(bundle, folder / f"state-{number}", config)
        held = ~train & known
        before = accuracy(learner, images[held], labels[held], "base")
        for position, pair in enumerate(TASKS):
            of = train & np.isin(labels, pair)
            task = Task.from_arrays(
                f"{position}", images[of], labels[of] - pair[0], [str(digit) for digit in pair]
            )
            learner.learn(task)
        new = [
            accuracy(learner, images[of], labels[of], str(position))
            for position, pair in enumerate(TASKS)
            for of in (~train & np.isin(labels, pair),)
        ]
        after = accuracy(learner, images[held], labels[held], "base")
        everything = accuracy(learner, images[~train], labels[~train], None)
        results[name] = [before, after, float(np.mean(new)), everything]
    return results


def write_pictures(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    from PIL import Image

    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{index}.png")


def accuracy(learner: Learner, images: np.ndarray, labels: np.ndarray, task: str | None) -> float:
    found, _, _ = learner.predict(images, task)
    return 100 * float(np.mean(found == labels.astype(str)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(seed, Path(folder)))
    means = {name: np.mean([run[name] for run in runs], axis=0).round(1).tolist() for name in VARIANTS}
    if arguments.json:
        print(json.dumps({"runs": runs, "means": means}, indent=1))
        return
    print(
        "| features | base before | base after | new, task-incremental | all ten digits |\n|---|---|---|---|---|"
    )
    for name, row in means.items():
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in row)} |")


if __name__ == "__main__":
    main()
