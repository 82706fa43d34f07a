"""ResNet-18 learns a task to the end under a hard limit of 160 MB of resident memory, all imports included.

    python benchmarks/memory_limit.py --out out/memory-limit            (or: make memory-limit)

Writes ResNet-18 for 32x32 images (width 64, 11.2 million parameters, random weights: memory does not know the
difference) and images of random blobs, builds an int8 bundle, and then runs `csk-sdk train --train centers
--memory-budget 160MB` under tests/field/memory_limit.py, which kills it when it has more than the limit resident.
Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from csk_artifacts_builder import BuildOptions, build_artifacts

REPOSITORY = Path(__file__).parents[1]
SIZE, CLASSES = 32, 100
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))


class Writer:
    """Adds layers with random weights to a graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(0)

    def conv(self, x: str, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, gain: float = 2.0) -> str:
        """A convolution with He's initialisation, batch norm folded."""
        name = f"conv{len(self.nodes)}"
        shape = (c_out, c_in, kernel, kernel)
        weight = self._rng.normal(0, (gain / (c_in * kernel**2)) ** 0.5, shape)
        pads = [kernel // 2] * 4
        settings = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads}
        inputs = [x, self.tensor(f"{name}.w", weight), self.tensor(f"{name}.b", np.zeros(c_out))]
        return self.add("Conv", *inputs, **settings)

    def add(self, op: str, *inputs: str, **settings: object) -> str:
        output = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **settings))
        return output

    def tensor(self, name: str, value: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name


def resnet18(path: Path) -> None:
    """He et al., 2015, table 1, with a 3x3 stem for small images."""
    w = Writer()
    x, width = w.add("Relu", w.conv("image", 3, 64)), 64
    for c_out, first in STAGES:
        for stride in (first, 1):
            body = w.add("Relu", w.conv(x, width, c_out, stride=stride))
            body = w.conv(body, c_out, c_out, gain=0.5)
            same = stride == 1 and width == c_out
            shortcut = x if same else w.conv(x, width, c_out, kernel=1, stride=stride, gain=1.0)
            x, width = w.add("Relu", w.add("Add", body, shortcut)), c_out
    flat = w.add("Flatten", w.add("GlobalAveragePool", x))
    weight = w.tensor("head.w", np.random.default_rng(1).normal(0, 0.05, (CLASSES, width)))
    y = w.add("Gemm", flat, weight, w.tensor("head.b", np.zeros(CLASSES)), transB=1)
    graph = helper.make_graph(
        w.nodes, "resnet18",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", CLASSES])],
        w.tensors,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def draw(folder: Path, names: list[str], each: int, seed: int) -> None:
    """Images of a few coloured squares for each class, and noise."""
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        squares = rng.integers(0, 256, (4, 4, 3))
        for index in range(each):
            noisy = np.clip(squares + rng.normal(0, 40, squares.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).resize((SIZE, SIZE)).save(folder / name / f"{index}.png")


def prepare(out: Path, pictures: int) -> Path:
    """A workspace with an int8 bundle and one task of five classes."""
    workspace = out / "workspace"
    model = out / "resnet18.onnx"
    out.mkdir(parents=True, exist_ok=True)
    if not (workspace / "bundle").is_dir():
        resnet18(model)
        draw(out / "base", [str(number) for number in range(CLASSES)], 3, seed=0)
        options = BuildOptions(base_data=out / "base", precision="int8", flip=True, features="last")
        build_artifacts(model, workspace / "bundle", options)
        draw(workspace / "tasks/01/train", ["a", "b", "c", "d", "e"], pictures, seed=1)
    return workspace


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/memory-limit"))
    parser.add_argument("--pictures", type=int, default=40, help="of each of five classes")
    parser.add_argument("--limit", default="160MB")
    parser.add_argument("--budget", default="160MB")
    parser.add_argument("--epochs", default="2")
    parser.add_argument("--train", default="centers", help="as the command's own")
    arguments = parser.parse_args()
    workspace = prepare(arguments.out, arguments.pictures)
    train = [
        *(str(Path(sys.executable).with_name("csk-sdk")), "train", "--workspace", str(workspace)),
        *("--train", arguments.train),
        *("--memory-budget", arguments.budget, "--threads", "1", "--epochs", arguments.epochs, "--no-evaluate"),
    ]  # fmt: skip
    # A process of its own, because a peak begins with that of the process that starts another.
    supervisor = [sys.executable, str(REPOSITORY / "tests/field/memory_limit.py"), "--limit", arguments.limit]
    sys.exit(subprocess.run([*supervisor, "--", *train]).returncode)


if __name__ == "__main__":
    main()
