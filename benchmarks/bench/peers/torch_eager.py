"""torch in eager mode. Batch norm keeps its statistics, so that every method computes the same function."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from architectures import NETWORKS, settle
from torch import Tensor, nn
from torch.nn import functional as F

from bench import data
from bench.cases import (
    CENTERS,
    CHANNEL_RATIO,
    CLASSES,
    FORWARD,
    FULL,
    HEAD,
    LEARNING_RATE,
    MOMENTUM,
    STAGE,
    Case,
)

# torch.optim imports much of torch when it is first used: that is no part of a step's memory.
torch.optim.SGD([nn.Parameter(torch.zeros(1))], LEARNING_RATE).zero_grad()


def prepare(case: Case, folder: Path) -> None:
    """The network, trained for a little while, for torch and as ONNX, and the data."""
    from bench import trained

    if (folder / data.IMAGES).exists():
        return
    torch.manual_seed(0)
    network = trained.train(settle(NETWORKS[case.network](case.size, CLASSES), case.size), case.size)
    trained.write_base(folder / data.BASE, case.size)
    torch.save(network.state_dict(), folder / "weights.pt")
    torch.onnx.export(
        network, (torch.randn(1, 3, case.size, case.size),), folder / "model.onnx", dynamo=False,
        opset_version=17, input_names=["image"], output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        # Initializers keep their names in torch, by which sites are found again.
        training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
    )  # fmt: skip
    data.write(case, folder)


def load(case: Case, folder: Path) -> nn.Module:
    """The prepared network, nothing of it to be trained yet."""
    with torch.device("meta"):
        network = NETWORKS[case.network](case.size, CLASSES)
    network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True), assign=True)
    return network.eval().requires_grad_(False)


def open_method(case: Case, method: str, folder: Path) -> Callable[[], object]:
    """One step of SGD with momentum on what the method trains, or a forward pass."""
    torch.set_num_threads(1)
    network = load(case, folder)
    images, labels = (torch.from_numpy(array) for array in data.batch(case, folder))
    if method == FORWARD:

        def forward() -> Tensor:
            with torch.no_grad():
                return network(images)

        return forward
    trained = choose(case, network, method, folder)
    optimizer = torch.optim.SGD(trained, LEARNING_RATE, MOMENTUM)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def choose(case: Case, network: nn.Module, method: str, folder: Path) -> list[nn.Parameter]:
    """Make trainable what the method trains, and return it."""
    head = next(module for module in reversed(list(network.modules())) if isinstance(module, nn.Linear))
    if method == CENTERS:
        trained = add_centers(network, json.loads((folder / "sites.json").read_text()))
    elif method == STAGE:
        trained = list(_last_stage(network))
    else:
        trained = list(network.parameters()) if method == FULL else []
    assert method in (CENTERS, STAGE, FULL, HEAD)
    known = {id(parameter) for parameter in trained}
    trained += [parameter for parameter in head.parameters() if id(parameter) not in known]
    for parameter in trained:
        parameter.requires_grad_(True)
    return trained


def _last_stage(network: nn.Module) -> list[nn.Parameter]:
    """Everything behind the last convolution with a stride, that one's block included."""
    features = network[0] if isinstance(network[0], nn.Sequential) and len(network[0]) > 3 else network
    blocks = list(features)
    strided = [
        index for index, block in enumerate(blocks)
        if any(isinstance(module, nn.Conv2d) and module.stride[0] > 1 for module in block.modules())
    ]  # fmt: skip
    return [parameter for block in blocks[strided[-1] :] for parameter in block.parameters()]


class CenterBranch(nn.Module):
    """A frozen convolution and, on some input channels, a trained change of its kernel's center.

    The branch reads the input as the center sees it: `x[:, S, offset::stride, offset::stride]`.
    """

    def __init__(self, frozen: nn.Conv2d, selected: Tensor) -> None:
        super().__init__()
        self.frozen = frozen
        self.register_buffer("selected", selected)
        rows = frozen.out_channels // frozen.groups
        self.delta = nn.Parameter(torch.zeros(rows, len(selected), 1, 1))
        self.offset = frozen.kernel_size[0] // 2 - frozen.padding[0]

    def forward(self, x: Tensor) -> Tensor:
        out = self.frozen(x)
        stride = self.frozen.stride[0]
        seen = x[:, self.selected]
        if stride > 1 or self.offset:
            seen = seen[:, :, self.offset :: stride, self.offset :: stride][
                :, :, : out.shape[2], : out.shape[3]
            ]
        if self.frozen.groups == 1:
            return out + F.conv2d(seen, self.delta)
        assert self.frozen.groups == self.frozen.in_channels == self.frozen.out_channels
        return out.index_add(1, self.selected, seen * self.delta.view(1, -1, 1, 1))


def add_centers(network: nn.Module, sites: list[dict[str, object]]) -> list[nn.Parameter]:
    """Put a branch beside each site's convolution; the branches' parameters."""
    trained = []
    generator = torch.Generator().manual_seed(0)
    for site in sites:
        path, _, _ = str(site["weight"]).rpartition(".")
        parent, _, name = path.rpartition(".")
        frozen = network.get_submodule(path)
        assert isinstance(frozen, nn.Conv2d)
        count = max(1, round(CHANNEL_RATIO * frozen.in_channels))
        selected = torch.randperm(frozen.in_channels, generator=generator)[:count].sort().values
        branch = CenterBranch(frozen, selected)
        setattr(network.get_submodule(parent), name, branch)
        trained.append(branch.delta)
    return trained


def versions() -> dict[str, str]:
    """What was measured."""
    return {"torch": torch.__version__}
