"""torch's own count of what `bench.costs` says by formula: FLOPs of a step, and bytes kept for the backward pass.

    python -m bench.count CASE FOLDER       in torch's environment; prints JSON by method

torch counts the products that it executes (`FlopCounterMode`) and hands over every tensor that it saves
(`saved_tensors_hooks`). Batch norm is folded, as in the formulas. Parameters that are saved are not counted as kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench import data
from bench.cases import CENTERS, FULL, HEAD, STAGE, Case
from bench.peers import torch_eager
from bench.peers.folding import folded

LABELS = {FULL: "fine-tuning", STAGE: "last stage", HEAD: "head only", CENTERS: "csk-sdk, exact"}


def count(case: Case, folder: Path, method: str) -> dict[str, float]:
    """FLOPs of a step, and bytes of distinct tensors kept, without parameters and buffers."""
    network = folded(torch_eager.load(case, folder))
    torch_eager.choose(case, network, method, folder)
    images, labels = (torch.from_numpy(array) for array in data.batch(case, folder))
    own = {tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in own:
            # Held here too, so that no address is used twice.
            alive.append(tensor)
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    alive: list[Tensor] = []
    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        F.cross_entropy(network(images), labels).backward()
    return {"flops": float(counter.get_total_flops()), "kept": float(sum(kept.values()))}


def null_space_flops(network: nn.Module) -> float:
    """Adam-NSCL's projection, executed on tensors without content: each update times P."""
    counter = FlopCounterMode(display=False)
    with counter, torch.device("meta"):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                update = torch.empty(module.out_channels, module.weight[0].numel())
                torch.mm(update, torch.empty(update.shape[1], update.shape[1]))
    return float(counter.get_total_flops())


def main() -> None:
    case, folder = Case.from_json(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    found = {LABELS[method]: count(case, folder, method) for method in LABELS}
    projection = null_space_flops(torch_eager.load(case, folder))
    found["Adam-NSCL"] = {
        "flops": found[LABELS[FULL]]["flops"] + projection,
        "kept": found[LABELS[FULL]]["kept"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
