"""Which convolutions int8 is worth it for: a training step with each kind left in float32, beside the int8 step.

    python benchmarks/int8_convolutions.py model.onnx

CPU time of the graph alone on one thread, all variants in turn. A ratio below 1 says that the step is faster with this
kind of convolution in float32. Ranges are made up, which changes nothing for the time. Sums are wide (they do not
saturate) with --wide; run it on a CPU with VNNI and on one without.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.emit import attribute
from csk_artifacts_builder.int8 import quantize
from csk_artifacts_builder.int8.quantize import FrozenConv, frozen_convolutions
from csk_sdk import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, TRAINING_MODEL
from csk_sdk.device.probe import probe
from csk_sdk.device.tuning import _feeds
from csk_sdk.runtime.sessions import Graph

ALL, NONE = "all int8", "exact"
_FEW = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--kinds", default="", metavar="TEXT", help="only kinds with this in their name")
    parser.add_argument("--wide", action="store_true", help="sums that do not saturate")
    parser.add_argument("--forward", action="store_true", help="the eval model instead of a step")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, Path(folder) / "bundle")


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    build_artifacts(arguments.model, folder, BuildOptions())
    bundle = Bundle.open(folder)
    name = EVAL_MODEL if arguments.forward else TRAINING_MODEL
    head = bundle.manifest.head.weight
    kinds = {kind_of(conv) for conv in frozen_convolutions(ir.load(folder / name), head)}
    variants: dict[str, Callable[[FrozenConv], bool]] = {ALL: lambda _: True, NONE: lambda _: False}
    variants |= {
        kind: (lambda conv, kind=kind: kind_of(conv) != kind)
        for kind in sorted(kinds)
        if arguments.kinds in kind
    }
    tensors = bundle.checkpoint()
    images = np.resize(probe(bundle.manifest), (arguments.batch, *bundle.manifest.input.shape))
    feeds = _feeds(bundle, tensors, images, bundle.manifest.channel_ratio)
    if arguments.forward:
        del feeds["label"]
    graphs = {}
    for title, chosen in variants.items():
        path = in_int8(folder, name, head, chosen)
        kernels = bundle.folded_kernels(tensors, bundle.manifest.kernels[name])
        graphs[title] = Graph(path, 1, kernels, wide_sums=arguments.wide)
        graphs[title].run(feeds)
    seconds: dict[str, list[float]] = {title: [] for title in graphs}
    for _ in range(arguments.rounds):
        for title, graph in graphs.items():
            begun = time.process_time()
            graph.run(feeds)
            seconds[title].append(time.process_time() - begun)
    print(
        f"{arguments.model.name}, {name}, batch {arguments.batch}, {'wide' if arguments.wide else 'plain'} sums"
    )
    for title, values in seconds.items():
        ratio = np.median(np.array(values) / np.array(seconds[ALL]))
        what = title if title in (ALL, NONE) else f"{title} in float32"
        print(f"  {what:44}{1e3 * float(np.median(values)):9.2f} ms   {ratio:.3f}")


def kind_of(conv: FrozenConv) -> str:
    """What decides how fast int8 is: direction, grouping, size of the kernel, channels that are added up."""
    kernel = conv.node.inputs[1]
    assert kernel is not None
    shape = [int(size) for size in kernel.shape or ()]
    if not shape:
        return "backward" if conv.backward else "?"
    if conv.backward:
        return (
            f"backward, {shape[1] // 64 * 64}+ channels"
            if shape[1] >= 64
            else "backward, fewer than 64 channels"
        )
    if attribute(conv.node, "group", 1) > 1:
        return "depthwise or grouped"
    size = "x".join(map(str, shape[2:]))
    if shape[1] <= _FEW:
        return f"stem ({shape[1]} channels, {size})"
    return f"{size}, {'64 or more' if shape[1] >= 64 else 'fewer than 64'} channels"


def in_int8(folder: Path, name: str, head: str, chosen: Callable[[FrozenConv], bool]) -> Path:
    """A copy of a graph with the chosen convolutions in int8, beside the weights that it reads."""
    model = ir.load(folder / name)
    calibration = quantize.unmeasured(model, head)
    kept = quantize.frozen_convolutions
    quantize.frozen_convolutions = lambda graph, weight: [one for one in kept(graph, weight) if chosen(one)]
    try:
        quantize.quantize(model, calibration, head)
    finally:
        quantize.frozen_convolutions = kept
    path = folder / f"variant-{len(list(folder.glob('variant-*')))}.onnx"
    ir.save(model, path)
    return path


if __name__ == "__main__":
    main()
