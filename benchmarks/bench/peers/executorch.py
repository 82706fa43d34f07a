"""ExecuTorch's training extension: forward and backward of torch's exporter, its own SGD, its portable kernels.

Batch norm is folded: exported, it would be trained, or keep what this extension has no kernel for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from executorch.extension.training import _load_for_executorch_for_training_from_buffer, get_sgd_optimizer
from torch import Tensor, nn

from bench import data
from bench.cases import CENTERS, FULL, LEARNING_RATE, MOMENTUM, Case
from bench.peers import torch_eager
from bench.peers.folding import folded


class WithLoss(nn.Module):
    """A network and its loss, as the extension wants them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.loss = network, nn.CrossEntropyLoss()

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.network(images), labels)


def prepare(case: Case, folder: Path) -> None:
    """A program for each method; its batch is fixed."""
    from executorch.exir import EdgeCompileConfig, to_edge
    from torch.export import export
    from torch.export.experimental import _export_forward_backward

    given = tuple(torch.from_numpy(array) for array in data.batch(case, folder))
    for method in (FULL, CENTERS):
        path = program(case, method, folder)
        if path.exists():
            continue
        network = folded(torch_eager.load(case, folder))
        torch_eager.choose(case, network, method, folder)
        exported = _export_forward_backward(export(WithLoss(network), given, strict=False))
        edge = to_edge(exported, compile_config=EdgeCompileConfig(_check_ir_validity=False))
        path.write_bytes(edge.to_executorch().buffer)


def program(case: Case, method: str, folder: Path) -> Path:
    """Where a method's program lies."""
    return folder / f"{method}-{case.batch}.pte"


def open_method(case: Case, method: str, folder: Path) -> Callable[[], object]:
    """A step of the extension's SGD with momentum."""
    torch.set_num_threads(1)
    # The module reads its weights where they are, and does not keep them alive.
    held = program(case, method, folder).read_bytes()
    module = _load_for_executorch_for_training_from_buffer(held)
    given = tuple(torch.from_numpy(array) for array in data.batch(case, folder))
    optimizers: list[object] = []

    def step(held: bytes = held) -> None:
        module.forward_backward("forward", given)
        if not optimizers:
            # Parameters are known after the first run.
            optimizers.append(
                get_sgd_optimizer(module.named_parameters(), LEARNING_RATE, MOMENTUM, 0, 0, False)
            )
        optimizers[0].step(module.named_gradients())

    return step


def versions() -> dict[str, str]:
    """What was measured."""
    return {"executorch": metadata.version("executorch")}
