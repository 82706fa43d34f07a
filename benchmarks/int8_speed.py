"""What int8 gains in time: the exact and the int8 training step of any classifier, interleaved.

    python benchmarks/int8_speed.py model.onnx
    python benchmarks/int8_speed.py model.onnx --export ResNet-18     write it first (architectures.py; needs torch)

CPU time of the graph alone, on one thread, with a quarter of the channels and the bundle's own sites. The ranges of
int8 are measured on noise, which changes nothing for the time. `forward` is the eval model: with nothing beside the
kernels, and with a float branch over all channels, which is what keeping learned changes out of the kernels would cost.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.prepare.model import prepare
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, TRAINING_MODEL
from csk_sdk.method.selection import channel_count
from csk_sdk.runtime.sessions import Graph

Feeds = dict[str, NDArray]
SIZE, CLASSES, WARM = 32, 100, 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--export", metavar="NETWORK")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    if arguments.export:
        export(arguments.export, arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        bundles = {p: built(arguments.model, Path(folder), p) for p in ("exact", "int8")}
        for batch in (16, 1):
            report(bundles, batch, arguments.steps)


def report(bundles: dict[str, Bundle], batch: int, steps: int) -> None:
    """Time every graph once in each round, and print medians and ratios."""
    runs: dict[str, tuple[Graph, Feeds]] = {}
    for name, bundle in bundles.items():
        for kind, file, ratio in (
            ("step", TRAINING_MODEL, bundle.manifest.channel_ratio),
            ("forward", EVAL_MODEL, 0.0),
            ("forward, all beside", EVAL_MODEL, 1.0),
        ):
            graph = bundle.graph(file, bundle.checkpoint(), 1)
            runs[f"{kind}, {name}"] = graph, feeds(bundle, batch, ratio, training=kind == "step")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(WARM + steps):
        for name, (graph, given) in runs.items():
            begun = time.process_time()
            graph.run(given)
            seconds[name].append(time.process_time() - begun)
    medians = {name: 1e3 * float(np.median(values[WARM:])) for name, values in seconds.items()}
    print(f"batch {batch}, medians of {steps}")
    for int8, exact in (
        ("step, int8", "step, exact"),
        ("forward, int8", "forward, exact"),
        ("forward, all beside, int8", "forward, exact"),
    ):
        print(
            f"  {int8:28}{medians[int8]:7.1f} ms    {exact:16}{medians[exact]:7.1f} ms    ratio "
            f"{medians[int8] / medians[exact]:.3f}"
        )


def built(model: Path, folder: Path, precision: str) -> Bundle:
    """A bundle whose base data is noise."""
    source = prepare(model)
    shape, classes = source.image.shape, split_head(source.model, model.name).weight.shape[0]
    assert shape is not None
    _, channels, height, width = (dim if isinstance(dim, int) else 0 for dim in shape)
    rng = np.random.default_rng(0)
    for label in range(classes):
        path = folder / "base" / str(label) / "0.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(height, width, channels), dtype=np.uint8)
        Image.fromarray(pixels.squeeze()).save(path)
    mean = (0.5,) * channels
    options = BuildOptions(base_data=folder / "base", precision=precision, mean=mean, std=(0.25,) * channels)
    build_artifacts(model, folder / precision, options)
    return Bundle.open(folder / precision)


def feeds(bundle: Bundle, batch: int, ratio: float, training: bool) -> Feeds:
    """Noise, and this share of every site's channels unchanged (one channel at least)."""
    manifest, start, rng = bundle.manifest, bundle.checkpoint(), np.random.default_rng(1)
    image = manifest.input
    given = {
        "image": rng.normal(size=(batch, *image.shape)).astype(np.float32),
        manifest.head.weight: start["head/base/weight"],
        manifest.head.bias: start["head/base/bias"],
    }
    if training:
        given["label"] = rng.integers(len(manifest.classes), size=batch)
    for site in manifest.sites:
        count = channel_count(site.columns, ratio) if ratio else 1
        given[site.indices] = np.sort(rng.choice(site.columns, count, replace=False))
        given[site.delta] = np.zeros((site.rows, count), np.float32)
    return given


def export(name: str, path: Path) -> None:
    """A network with random weights, as torch writes it."""
    import torch
    from architectures import NETWORKS, settle

    torch.manual_seed(0)
    network = settle(NETWORKS[name](SIZE, CLASSES), SIZE)
    torch.onnx.export(
        network,
        (torch.randn(1, 3, SIZE, SIZE),),
        path,
        dynamo=False,
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )


if __name__ == "__main__":
    main()
