"""A network for the lessons of benchmarks/lesson_times.py with large images: ResNet-18 at 224x224, of random weights.

    python benchmarks/lesson_network.py --facts cifar100-base50.json --out out/resnet18-224.onnx

Needs torch. `--facts` names the classes that it is said to know, and those that are left; a copy of it is written
beside the network. What it costs does not depend on weights; what it is worth does, and is not what it is for.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import torch
from architectures import NETWORKS, settle

SIDE = 224


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", choices=NETWORKS, default="ResNet-18")
    parser.add_argument("--classes", type=int, default=50)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = settle(NETWORKS[options.network](SIDE, options.classes), SIDE)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        network.eval(), (torch.randn(1, 3, SIDE, SIDE),), options.out, dynamo=False, opset_version=17,
        input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )  # fmt: skip
    shutil.copy(options.facts, options.out.with_suffix(".json"))


if __name__ == "__main__":
    sys.exit(main())
