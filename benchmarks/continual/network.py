"""A prepared ONNX classifier as a torch module: convolutions with batch norm folded in, and a head apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from torch.nn import functional as F

from csk_artifacts_builder.graphs.choice import choose_sites
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.sites import find_sites


@dataclass(frozen=True)
class Node:
    """One op; `convolution` is its name where it is one."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]
    convolution: str | None = None


class Network(nn.Module):
    """The graph up to the features, node by node; knows Conv, Relu, Add, MaxPool and the mean over the map.

    `convolutions` are named by their weight's initializer, as the sites of a bundle are; each has a bias. `head` is the
    source model's own, `(classes, f)` and `(classes,)`. With `layers`, features are as csk-sdk's builder makes them by
    default: with the means of what the last two stages see. Raises ValueError for a graph with another op.
    """

    def __init__(self, path: Path, layers: bool = False) -> None:
        super().__init__()
        source = prepare(path)
        seen: list[str] = []
        if layers:
            sites = find_sites(source.model, path.name)
            order = [str(node.name) for node in source.model.graph]
            chosen = {site.weight for site in choose_sites(sites, "auto", order, path.name).sites}
            seen = [
                str(node.inputs[0].name)
                for node in source.model.graph
                if node.op_type == "Conv" and str(node.inputs[1].name) in chosen
            ]
        self._seen = list(dict.fromkeys(seen))
        split = split_head(source.model, path.name)
        self.head = torch.from_numpy(split.weight.copy()), torch.from_numpy(split.bias.copy())
        self._image = str(source.image.name)
        self._features = str(split.features.name)
        self.convolutions: dict[str, nn.Conv2d] = {}
        self._nodes: list[Node] = []
        for node in source.model.graph:
            self._nodes.append(self._read(node))
            if self._nodes[-1].output == self._features:
                break
        # Names of modules must not have dots; `convolutions` keeps the graph's.
        self._owned = nn.ModuleList(self.convolutions.values())
        self.half = True
        self.to(memory_format=torch.channels_last)
        if layers:
            with torch.no_grad():
                added = self(torch.zeros(1, *(int(size) for size in source.image.shape[1:]))).shape[1]
            weight, bias = self.head
            self.head = F.pad(weight, (0, added - weight.shape[1])), bias

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return int(self.head[0].shape[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features `(n, f)` float32 of images `(n, c, h, w)`; with `half`, convolutions multiply in bfloat16."""
        values = {self._image: x.contiguous(memory_format=torch.channels_last)}
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            for node in self._nodes:
                values[node.output] = self._evaluate(node, [values[name] for name in node.inputs])
        means = [values[name].float().mean(dim=(2, 3)) for name in self._seen]
        return torch.cat([values[self._features].float(), *means], dim=1)

    @torch.no_grad()
    def trace(self, x: torch.Tensor) -> Iterator[tuple[Node, list[torch.Tensor], torch.Tensor]]:
        """Every node with its inputs and its output on `x`, in order."""
        values = {self._image: x}
        for node in self._nodes:
            given = [values[name] for name in node.inputs]
            values[node.output] = self._evaluate(node, given)
            yield node, given, values[node.output]

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Everything in float32: second moments whose small eigenvalues matter."""
        before, self.half = self.half, False
        try:
            yield
        finally:
            self.half = before

    def _evaluate(self, node: Node, given: list[torch.Tensor]) -> torch.Tensor:
        if node.convolution is not None:
            result: torch.Tensor = self.convolutions[node.convolution](given[0])
            return result
        if node.op == "Relu":
            return F.relu(given[0])
        if node.op == "Add":
            return given[0] + given[1]
        if node.op == "Flatten":
            return given[0].flatten(1)
        if node.op == "MaxPool":
            size, steps, pads = (node.attributes[name] for name in ("kernel_shape", "strides", "pads"))
            return F.max_pool2d(given[0], tuple(size), tuple(steps), tuple(pads[:2]))
        return given[0].mean(dim=(2, 3), keepdim=bool(node.attributes.get("keepdims", 1)))

    def _read(self, node: ir.Node) -> Node:
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        data = [value for value in node.inputs if value is not None and value.const_value is None]
        names = tuple(str(value.name) for value in data)
        output = str(node.outputs[0].name)
        if node.op_type == "Conv":
            name = str(node.inputs[1].name).removesuffix(".weight")
            self.convolutions[name] = _convolution(node, attributes)
            return Node("Conv", names, output, attributes, name)
        if node.op_type not in ("Relu", "Add", "Flatten", "MaxPool", "ReduceMean", "GlobalAveragePool"):
            raise ValueError(
                f"the benchmark's network has op '{node.op_type}', which network.py does not know yet."
            )
        return Node(node.op_type, names, output, attributes)


def _convolution(node: ir.Node, attributes: dict[str, Any]) -> nn.Conv2d:
    weight = np.array(node.inputs[1].const_value.numpy())
    bias = (
        np.array(node.inputs[2].const_value.numpy())
        if len(node.inputs) > 2
        else np.zeros(len(weight), np.float32)
    )
    pads = attributes.get("pads", [0, 0, 0, 0])
    if list(pads[:2]) != list(pads[2:]):
        raise ValueError("the benchmark's network pads unevenly, which network.py does not know yet.")
    groups = int(attributes.get("group", 1))
    made = nn.Conv2d(
        weight.shape[1] * groups, len(weight), tuple(weight.shape[2:]), tuple(attributes.get("strides", (1, 1))),
        tuple(pads[:2]), tuple(attributes.get("dilations", (1, 1))), groups,
    )  # fmt: skip
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(weight))
        made.bias.copy_(torch.from_numpy(bias))
    return made


Seen = Callable[[str, torch.Tensor], None]


@contextmanager
def watching(network: Network, names: list[str], see: Seen) -> Iterator[None]:
    """Call `see(name, input)` whenever a convolution of `names` runs; inputs are float32 `(n, c, h, w)`."""

    def hook(name: str) -> Any:
        return lambda module, given, result: see(name, given[0].detach().float())

    handles = [network.convolutions[name].register_forward_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def patches(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """What each output pixel of a convolution sees: `(n*h*w, c_in*kh*kw)`, columns as in `weight[o].flatten()`."""
    unfolded = F.unfold(
        x, convolution.kernel_size, convolution.dilation, convolution.padding, convolution.stride
    )
    return unfolded.transpose(1, 2).reshape(-1, unfolded.shape[1])
