"""Train the demo's base network: a small residual CNN that knows the handwritten digits 0 to 3.

    python examples/digits/train_base.py [--out DIR]

writes `digits-base4.onnx` and `digits-base4.json`. It needs torch, onnx, onnxscript, onnxruntime and
scikit-learn; using its output does not. The digits 4 to 9 and the test images are never trained on.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

CLASSES = ["zero", "one", "two", "three"]
EPOCHS = 60
BATCH_SIZE = 32
WEIGHT_DECAY = 5e-4
SEED = 0


def digits_split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return scikit-learn's digits as (train images, test images, train labels, test labels).

    All ten digits, 1347 + 450 images; the demo makes the same split, so this is its definition:

        digits = sklearn.datasets.load_digits()           # images (1797, 8, 8), whole numbers 0 to 16
        images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]    # (1797, 8, 8, 1)
        labels = digits.target.astype(np.int64)
        train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    """
    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    return tuple(train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels))


def normalized(images: np.ndarray, mean: float, std: float) -> torch.Tensor:
    """Turn uint8 images (n, 8, 8, 1) into the network's input: (n, 1, 8, 8), (x / 255 - mean) / std."""
    return torch.from_numpy(((images / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2).copy())


class ConvNorm(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class ResidualBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.first = ConvNorm(c_in, c_out, 3, stride)
        self.second = ConvNorm(c_out, c_out, 3)
        same_shape = stride == 1 and c_in == c_out
        self.shortcut = nn.Identity() if same_shape else ConvNorm(c_in, c_out, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.second(self.relu(self.first(x))) + self.shortcut(x))


class DigitsNet(nn.Module):
    def __init__(self, n_classes: int):
        super().__init__()
        self.stem = ConvNorm(1, 16, 3)
        self.relu = nn.ReLU()
        self.stage1 = ResidualBlock(16, 16, stride=1)  # 8x8
        self.stage2 = ResidualBlock(16, 32, stride=2)  # 4x4
        self.stage3 = ResidualBlock(32, 64, stride=2)  # 2x2
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(64, n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stage3(self.stage2(self.stage1(self.relu(self.stem(x)))))
        return self.flatten(self.pool(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move every image by -1, 0 or 1 pixel along both axes, filling with background (zero)."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    offsets = rng.integers(0, 3, size=(len(images), 2))
    return np.stack([image[y : y + 8, x : x + 8] for image, (y, x) in zip(padded, offsets, strict=True)])


def train(images: np.ndarray, labels: np.ndarray, mean: float, std: float) -> DigitsNet:
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    net = DigitsNet(len(CLASSES))
    n_batches = len(images) // BATCH_SIZE  # drops the rest: a batch of one or two upsets batch norm
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=EPOCHS * n_batches)
    for _ in range(EPOCHS):
        x, order = normalized(shifted(images, rng), mean, std), rng.permutation(len(images))
        for batch in order[: n_batches * BATCH_SIZE].reshape(n_batches, BATCH_SIZE):
            loss = nn.functional.cross_entropy(net(x[batch]), torch.from_numpy(labels[batch]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def export(net: DigitsNet, path: Path) -> None:
    """Write the network with its batch norms unfolded, as files from the field have them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the dynamo exporter folds batch norm away
        torch.onnx.export(
            net,
            (torch.zeros(1, 1, 8, 8),),
            path,
            dynamo=False,
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,  # together with TrainingMode.EVAL, folding removes batch norm
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        )
    model = onnx.load(path)
    model.doc_string = ""
    for node in model.graph.node:  # stack traces with this machine's paths, if the exporter left any
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def check(net: DigitsNet, path: Path, x: torch.Tensor) -> None:
    """Fail unless the file says what torch says, keeps its batch norms and names no Python source."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, net(x).numpy(), rtol=1e-4, atol=1e-4)
    model = onnx.load(path)
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    expected = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == len(expected), f"{len(norms)} of {len(expected)} batch norms are in {path.name}"
    del model.graph.initializer[:]  # in 300 KB of weights, any three bytes may occur by chance
    assert b".py" not in model.SerializeToString(), f"{path.name} holds a path to Python source"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for both files")
    out = parser.parse_args().out
    torch.use_deterministic_algorithms(True)

    train_images, test_images, train_labels, test_labels = digits_split()
    base, base_test = train_labels < len(CLASSES), test_labels < len(CLASSES)
    mean = round(float((train_images[base] / 255).mean()), 4)
    std = round(float((train_images[base] / 255).std()), 4)
    net = train(train_images[base], train_labels[base], mean, std)

    x = normalized(test_images[base_test], mean, std)
    with torch.no_grad():
        top1 = 100 * float((net(x).argmax(1).numpy() == test_labels[base_test]).mean())
    path = out / "digits-base4.onnx"
    export(net, path)
    check(net, path, x)
    description = {
        "classes": CLASSES,
        "normalize": {"mean": [mean], "std": [std]},
        "test_top1_percent": round(top1, 2),
        "trained": f"scikit-learn digits 0 to 3, {int(base.sum())} train images, {EPOCHS} epochs, "
        f"seed {SEED}, by examples/digits/train_base.py with torch {torch.__version__}",
    }
    path.with_suffix(".json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    n_parameters = sum(parameter.numel() for parameter in net.parameters())
    print(f"{n_parameters} parameters, {path.stat().st_size} bytes, test accuracy {top1:.2f} % of {len(x)}")


if __name__ == "__main__":
    main()
