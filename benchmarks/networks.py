"""The network families that people deploy: does each build, and are its gradients right?

    python benchmarks/networks.py --write docs/supported-models.md

Needs torch (with onnxscript for its new exporter) beside csk-sdk[device,builder]. Every network gets random weights,
is exported by torch, built with `trainable="auto"`, and its training graph is run by ONNX Runtime with random changes
of a random quarter of the channels. The witness is torch's autograd in float64 on the unfolded network: each site is
recognised by its kernel, up to the factor per output channel that the network's own batch norm says, and the changes
and gradients are converted by that factor.

A second witness is onnxruntime-training's own gradients, which needs an environment of its own (csk-sdk[ort-training]):

    python benchmarks/networks.py --models out/models
    .venv-ort-training/bin/python benchmarks/networks_ort_training.py --models out/models
    python benchmarks/networks.py --keep --write docs/supported-models.md

What is compared are the gradients of every site's center and of the head, for a batch of 1 and one of 8. Cosine,
because in float32 a ReLU or a max pool now and then decides otherwise than in float64.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import torch
from architectures import NETWORKS, SHAPES, SIGNALS, SMOOTH, settle
from real_files import put, section_of
from torch import nn
from torch.nn import functional as F

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk.bundle.folder import Bundle, center_of
from csk_sdk.contract.manifest import TRAINING_MODEL, Site
from csk_sdk.errors import CskError
from csk_sdk.runtime.sessions import Graph

OPSET = 17
BATCHES = (1, 8)
ENOUGH = 0.9999
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
CLASSES = {32: 100, 224: 1000, 8000: 35, 128: 6}
OLD, OLD_DYNAMIC, NEW = "torchscript", "torchscript, dynamic batch", "dynamo"


@dataclass
class Row:
    """One network, one image size, one exporter; `refused` is the builder's own sentence."""

    network: str
    size: int
    exporter: str
    refused: str = ""
    opset: int = 0
    sites: int = 0
    nodes: int = 0
    parameters: int = 0
    cosine: float = 0.0
    error: float = 0.0
    median_error: float = 0.0
    logits_error: float = 0.0
    worst: str = ""
    torch_cosine: float = 0.0
    redrawn: float = 0.0
    build_seconds: float = 0.0
    megabytes: float = 0.0
    step_ms: float = 0.0
    ops: dict[str, int] = field(default_factory=dict)
    # Written by networks_ort_training.py: the smallest cosine against its gradients, or why there are none.
    ort_cosine: float = 0.0
    ort_refused: str = ""

    @property
    def case(self) -> tuple[str, int, str]:
        return self.network, self.size, self.exporter

    @property
    def right(self) -> bool:
        return not self.refused and max(self.cosine, self.redrawn) >= ENOUGH


def cases() -> list[tuple[str, int, str]]:
    """Every network with the exporter that most people use, small and large; the newer exporter on small ones."""
    return [
        *((name, 32, OLD) for name in NETWORKS),
        *((name, 32, NEW) for name in NETWORKS),
        *(
            (name, 32, OLD_DYNAMIC)
            for name in ("ResNet-18", "VGG-11-BN", "ShuffleNetV2 x1.0", "ConvNeXt-tiny")
        ),
        *((name, 224, OLD) for name in NETWORKS),
        *((name, 32, OLD) for name in SMOOTH),
        ("RegNetX-400MF, SiLU for ReLU", 224, OLD),
        *((name, size, exporter) for name, (_, size) in SIGNALS.items() for exporter in (OLD, NEW)),
    ]


def export(network: nn.Module, size: int, exporter: str, path: Path) -> None:
    """As torch's documentation says, image in, logits out, batch of 1 or dynamic."""
    picture = (torch.randn(1, *SHAPES[size]),)
    names = {"input_names": ["image"], "output_names": ["logits"], "opset_version": OPSET}
    logging.disable()  # the new exporter writes opset 18, and tries 17 aloud
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == NEW:
            torch.onnx.export(
                network, picture, path, dynamo=True, external_data=False, verbose=False, **names
            )
        else:
            axes = {"image": {0: "N"}, "logits": {0: "N"}} if exporter == OLD_DYNAMIC else None
            torch.onnx.export(network, picture, path, dynamo=False, dynamic_axes=axes, **names)


def exported(name: str, size: int, exporter: str, source: Path) -> nn.Module:
    """The network with its random weights, written to `source`."""
    torch.manual_seed(0)
    make = SIGNALS[name][0] if name in SIGNALS else (NETWORKS | SMOOTH)[name]
    network = settle(make(size, CLASSES[size]), size)
    source.parent.mkdir(parents=True, exist_ok=True)
    export(network, size, exporter, source)
    return network


def measure(name: str, size: int, exporter: str, folder: Path) -> Row:
    """Export, build, compare, time."""
    rng = np.random.default_rng(0)
    row = Row(name, size, exporter)
    source, built = folder / "model.onnx", folder / "bundle"
    network = exported(name, size, exporter, source)
    row.parameters = sum(p.numel() for p in network.parameters())
    proto = onnx.load(source)
    row.opset = proto.opset_import[0].version
    row.nodes, row.ops = len(proto.graph.node), dict(Counter(node.op_type for node in proto.graph.node))
    started = time.perf_counter()
    try:
        build_artifacts(source, built, BuildOptions(trainable="auto"))
    except CskError as error:
        row.refused = str(error)
        return row
    row.build_seconds = time.perf_counter() - started
    row.megabytes = sum(path.stat().st_size for path in built.iterdir()) / 1e6
    bundle = Bundle.open(built)
    row.sites = len(bundle.manifest.sites)
    graph = Graph(bundle.path(TRAINING_MODEL), threads=1)
    feeds = changes(bundle, rng)
    witness = Witness(network, bundle)
    errors: list[float] = []
    cosines: dict[str, float] = {}
    row.torch_cosine = 1.0
    for batch in BATCHES:
        feeds.update(pictures(rng, batch, size))
        got = graph.run(feeds)
        expected = witness.gradients(feeds)
        row.logits_error = max(row.logits_error, _error(got["logits"], expected.pop("logits")))
        errors += [_error(got[output], gradient) for output, gradient in expected.items()]
        for output, gradient in expected.items():
            cosines[output] = min(cosines.get(output, 1.0), _cosine(got[output], gradient))
        # Torch's own float32 against the same witness: what a float32 gradient can be expected to reach.
        single = witness.gradients(feeds, torch.float32)
        row.torch_cosine = min(
            row.torch_cosine, *(_cosine(single[output], expected[output]) for output in expected)
        )
    row.worst = min(cosines, key=cosines.__getitem__)
    row.cosine, row.error, row.median_error = cosines[row.worst], max(errors), float(np.median(errors))
    row.step_ms = _milliseconds(graph, feeds)
    if row.cosine < ENOUGH:
        row.redrawn = redrawn(graph, witness, feeds, rng, size)
    return row


def pictures(rng: np.random.Generator, batch: int, size: int) -> dict[str, np.ndarray]:
    """Noise and labels."""
    return {
        "image": rng.normal(size=(batch, *SHAPES[size])).astype(np.float32),
        "label": rng.integers(0, CLASSES[size], batch),
    }


def redrawn(
    graph: Graph, witness: Witness, feeds: dict[str, np.ndarray], rng: np.random.Generator, size: int
) -> float:
    """The best draw's smallest cosine among ten single images.

    A wrong gradient is wrong for every image; a float32 activation on the other side of a kink is not.
    """
    best = 0.0
    for _ in range(10):
        feeds = {**feeds, **pictures(rng, 1, size)}
        got, expected = graph.run(feeds), witness.gradients(feeds)
        del expected["logits"]
        best = max(best, min(_cosine(got[output], gradient) for output, gradient in expected.items()))
        if best >= ENOUGH:
            break
    return best


def changes(bundle: Bundle, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The head as built, and per site a random change of a random quarter of the channels."""
    tensors = bundle.checkpoint()
    feeds = {"head.weight": tensors["head/base/weight"], "head.bias": tensors["head/base/bias"]}
    for site in bundle.manifest.sites:
        chosen = np.sort(rng.permutation(site.columns)[: max(1, site.columns // 4)])
        spread = 0.2 * tensors[f"center/{site.name}"].std()
        feeds[site.indices] = chosen
        feeds[site.delta] = rng.normal(scale=spread, size=(site.rows, len(chosen))).astype(np.float32)
    return feeds


class Witness:
    """The network in float64, batch norm and all; gradients by autograd."""

    def __init__(self, network: nn.Module, bundle: Bundle) -> None:
        linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
        self.network = (network if linear else BesideFeatures(network)).double()
        self.linear = linear[-1] if linear else self.network.linear
        self.sites = bundle.manifest.sites
        self.convolutions = _matched(self.network, bundle)
        self.kernels = {
            site.name: self.convolutions[site.name][0].weight.detach().clone() for site in self.sites
        }

    def gradients(
        self, feeds: dict[str, np.ndarray], dtype: torch.dtype = torch.float64
    ) -> dict[str, np.ndarray]:
        """Logits, and the gradients under the names of the training graph's outputs.

        With `W_folded = f * W` per output channel: a change of the folded center is `1 / f` of it in W, and
        `dL/dW_folded = dL/dW / f`.
        """
        self.network.zero_grad()
        self.network.to(dtype)  # the weights are float32 numbers, so nothing is lost on the way
        with torch.no_grad():
            for site in self.sites:
                convolution, factor = self.convolutions[site.name]
                change = _dense(site, feeds) / factor[:, None]
                convolution.weight.copy_(self.kernels[site.name])
                convolution.weight[center_of(site)] += torch.from_numpy(change)
        logits = self.network(torch.from_numpy(feeds["image"]).to(dtype))
        F.cross_entropy(logits, torch.from_numpy(feeds["label"])).backward()
        found = {
            "logits": logits.detach().numpy(),
            "head.weight.gradient": self.linear.weight.grad.numpy(),
            "head.bias.gradient": self.linear.bias.grad.numpy(),
        }
        for site in self.sites:
            convolution, factor = self.convolutions[site.name]
            dense = convolution.weight.grad[center_of(site)].numpy() / factor[:, None]
            found[site.gradient] = _selected(site, dense, feeds[site.indices])
        return found


class BesideFeatures(nn.Module):
    """A network without a linear layer, with the one that the builder gives it.

    docs/decisions/0011: its logits and the means of the last convolution's input are the features, and the layer is
    `[identity, 0]`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        last = [m for m in network.modules() if isinstance(m, nn.Conv2d)][-1]
        last.register_forward_pre_hook(self._note)
        self.linear = nn.Linear(last.out_channels + last.in_channels, last.out_channels)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(*self.linear.weight.shape))
            self.linear.bias.zero_()

    def _note(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.means = inputs[0].mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x)
        return self.linear(torch.cat([logits, self.means], dim=1))


def _dense(site: Site, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The change of all centers, `(c_out, c_in / groups)`, from `(rows, k)`."""
    dense = np.zeros((site.shape[0], site.shape[1]))
    for column, channel in enumerate(feeds[site.indices]):
        group, within = divmod(int(channel), site.shape[1])
        dense[group * site.rows : (group + 1) * site.rows, within] = feeds[site.delta][:, column]
    return dense


def _selected(site: Site, dense: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """`(rows, k)` from `(c_out, c_in / groups)`."""
    columns = []
    for channel in indices:
        group, within = divmod(int(channel), site.shape[1])
        columns.append(dense[group * site.rows : (group + 1) * site.rows, within])
    return np.stack(columns, axis=1)


def _matched(network: nn.Module, bundle: Bundle) -> dict[str, tuple[nn.Module, np.ndarray]]:
    """Per site its convolution in the network, and the factor `(c_out,)` of the batch norm behind it."""
    factors = _batch_norm_factors(network, bundle)
    weights = bundle.weights([site.weight for site in bundle.manifest.sites])
    matched = {}
    for site in bundle.manifest.sites:
        kernel = weights[site.weight].astype(np.float64)
        for convolution, factor in factors.items():
            if convolution.weight.shape != kernel.shape:
                continue
            folded = convolution.weight.detach().numpy() * factor.reshape(-1, *[1] * (kernel.ndim - 1))
            if _error(kernel, folded) < 1e-5:
                matched[site.name] = (convolution, factor)
        if site.name not in matched:
            raise AssertionError(f"no convolution of the network, batch norm folded, is site {site.name}")
    return matched


def _batch_norm_factors(network: nn.Module, bundle: Bundle) -> dict[nn.Module, np.ndarray]:
    """`gamma / sqrt(var + eps)` of the batch norm that reads each convolution's output, or ones."""
    made: dict[int, nn.Module] = {}
    factors = {m: np.ones(m.out_channels) for m in network.modules() if isinstance(m, CONVOLUTIONS)}
    kept = []

    def after(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        kept.append(output)  # so that no id is used twice
        if isinstance(module, CONVOLUTIONS):
            made[id(output)] = module
        elif id(inputs[0]) in made:
            scale = module.weight / torch.sqrt(module.running_var + module.eps)
            factors[made[id(inputs[0])]] = scale.detach().numpy()

    hooks = [
        module.register_forward_hook(after)
        for module in network.modules()
        if isinstance(module, (*CONVOLUTIONS, nn.BatchNorm1d, nn.BatchNorm2d))
    ]
    with torch.no_grad():
        network(torch.zeros(1, *bundle.manifest.input.shape, dtype=torch.float64))
    for hook in hooks:
        hook.remove()
    return factors


def _error(got: np.ndarray, expected: np.ndarray) -> float:
    scale = float(np.linalg.norm(expected))
    return float(np.linalg.norm(got - expected)) / scale if scale else float(np.abs(got).max())


def _cosine(got: np.ndarray, expected: np.ndarray) -> float:
    got = got.astype(np.float64)
    length = float(np.linalg.norm(got) * np.linalg.norm(expected))
    return float((got * expected).sum() / length) if length else float(not got.any() and not expected.any())


def _milliseconds(graph: Graph, feeds: dict[str, np.ndarray]) -> float:
    """The median of five steps, one thread."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        graph.run(feeds)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


def versions() -> str:
    """What the numbers were measured with."""
    packages = ("csk-sdk", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    found = []
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return f"{', '.join(found)}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def ort_column(row: Row) -> str:
    """The cosine against onnxruntime-training, or that it refuses the network (why: below the table)."""
    return "refuses" if row.ort_refused else f"{row.ort_cosine:.7f}" if row.ort_cosine else "not run"


def page(rows: list[Row], measured_with: str) -> str:
    """docs/supported-models.md."""
    built = [row for row in rows if not row.refused]
    lines = [
        "# Supported models",
        "",
        "Written by `python benchmarks/networks.py --write docs/supported-models.md`; do not edit it by hand.",
        "",
        "Each network is exported by torch with random weights, built with `--trainable auto`, and the gradients of",
        "its training graph in ONNX Runtime (float32) are compared with torch's autograd (float64, batch norm not",
        "folded), for a batch of 1 and one of 8, with random changes on a random quarter of each site's channels.",
        "",
        "*Exporter* is `torch.onnx.export` with `dynamo=False` (torchscript) or `dynamo=True`, asked for opset 17; the",
        "new one mostly writes 18 nevertheless. The batch is fixed to 1 unless dynamic. Small images get the stems",
        "that everyone gives them; large ones are the networks as published. M5 and ResNet-1d take",
        "signals: channels x samples.",
        "",
        "*Cosine* is the smallest over all sites and the head. *Torch float32* is what torch's own float32 gradients",
        "reach against the same witness on the same images. Where both are below 1, activations near a kink of ReLU",
        "fell on its other side in float32: the same networks with SiLU for ReLU, the last rows of the table, have no",
        "kinks, and both are 1. A network counts as right when its cosine, or that of one of ten other images, is at",
        f"least {ENOUGH}: a wrong rule would be wrong for all of them. *Step* is one training step of 8 images",
        "on one thread of a busy machine: good for orders of magnitude only.",
        "",
        "*ORT-training* is the smallest cosine of the same gradients against those that onnxruntime-training 1.19.2",
        "derives by itself, both in float32; where activations near a kink differ, on the best of ten other images.",
        "",
        f"{sum(row.right for row in rows)} of {len(rows)} cases build and have right gradients; "
        f"{len(rows) - len(built)} are refused.",
        "",
        "| network | input | exporter | opset | nodes | sites | min cosine | torch float32 | ORT-training | max error "
        "| build s | bundle MB | step ms | result |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        head = f"| {row.network} | {_input(row)} | {row.exporter} | {row.opset} | {row.nodes} |"
        if row.refused:
            lines.append(f"{head} | | | | | | | | refused |")
        else:
            result = "works" if row.right else f"cosine low, see `{row.worst}`"
            if row.redrawn and row.right:
                result = f"works; {row.redrawn:.7f} on another image"
            lines.append(
                f"{head} {row.sites} | {row.cosine:.7f} | {row.torch_cosine:.7f} | {ort_column(row)} "
                f"| {row.error:.1e} | {row.build_seconds:.1f} | {row.megabytes:.0f} | {row.step_ms:.0f} | {result} |"
            )
    refusals: dict[str, list[str]] = {}
    for row in rows:
        if row.refused:
            refusals.setdefault(row.refused, []).append(f"{row.network} {_input(row)} ({row.exporter})")
    if refusals:
        lines += ["", "## What is refused, in the builder's own words", ""]
        lines += [f"- {', '.join(who)}: *{sentence}*" for sentence, who in refusals.items()]
    silent: dict[str, list[str]] = {}
    for row in built:
        if row.ort_refused:
            silent.setdefault(row.ort_refused, []).append(
                f"{row.network} {row.size}x{row.size} ({row.exporter})"
            )
    if silent:
        lines += ["", "## What onnxruntime-training refuses, and the portable backend trains", ""]
        lines += [f"- {', '.join(who)}: *{sentence}*" for sentence, who in silent.items()]
    lines += ["", "## Measured with", "", f"{measured_with}.", ""]
    return "\n".join(lines)


def _input(row: Row) -> str:
    """32x32 for an image, 9x128 (channels, samples) for a signal."""
    shape = SHAPES[row.size]
    return "x".join(str(number) for number in (shape if len(shape) == 2 else shape[1:]))


def summary(row: Row) -> str:
    """One line."""
    numbers = (
        f"{row.sites} sites, cosine {row.cosine:.7f} (torch float32 {row.torch_cosine:.7f}), error {row.error:.1e} "
        f"(median {row.median_error:.1e}, logits {row.logits_error:.1e}), build {row.build_seconds:.1f} s, "
        f"{row.megabytes:.0f} MB, step {row.step_ms:.0f} ms"
    )
    if row.redrawn:
        numbers += f", worst is {row.worst}, other images {row.redrawn:.7f}"
    return f"{row.network} {row.size} {row.exporter}: {row.refused or numbers}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", help="networks whose name contains this")
    parser.add_argument("--size", type=int, choices=sorted(CLASSES), help="only this image size")
    parser.add_argument("--out", type=Path, default=Path("out/networks.json"), help="all numbers, as JSON")
    parser.add_argument(
        "--keep", action="store_true", help="measure again only what --out lacks or was refused"
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="keep every exported model there, for the second witness"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page of supported models")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

    wanted = [
        case for case in cases()
        if (not arguments.only or any(part.lower() in case[0].lower() for part in arguments.only))
        and arguments.size in (None, case[1])
    ]  # fmt: skip
    rows: list[Row] = []
    if arguments.keep and arguments.out.is_file():
        rows = [Row(**row) for row in json.loads(arguments.out.read_text())["rows"]]
    failed = []
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name, size, exporter in wanted:
        if arguments.models:
            exported(name, size, exporter, arguments.models / f"{name} {size} {exporter}.onnx")
        if any((name, size, exporter) == row.case and not row.refused for row in rows):
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                row = measure(name, size, exporter, Path(folder))
        except Exception:
            # One network must not hide the others; the traceback says that it is no refusal but a bug.
            traceback.print_exc()
            failed.append(f"{name} {size} {exporter}")
            continue
        rows = [other for other in rows if other.case != row.case] + [row]
        content = {"versions": versions(), "rows": [asdict(row) for row in rows]}
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
        print(summary(row), flush=True)
    if arguments.write:
        order = {case: position for position, case in enumerate(cases())}
        rows.sort(key=lambda row: order[row.case])
        others = section_of(arguments.write)
        arguments.write.write_text(page(rows, versions()))
        if others:
            put(arguments.write, others)
    if failed:
        sys.exit(f"neither built nor refused: {', '.join(failed)}")


if __name__ == "__main__":
    main()
