"""Sparse update of tiny-training: a choice of layers and channels made once, before deployment."""

from __future__ import annotations

import torch
from torch import nn

from .finetune import last_stage
from .method import Method

RATIO = 0.25


class SparseUpdate(Method):
    """Biases of the later half of the convolutions, and whole kernels of a quarter of the channels in the last stage.

    The channels are those with the largest weights ("magnitude+"), chosen once for all tasks. The paper searches the
    layers by measured contribution under a memory budget; here they are given, with about the trained share of ours.
    """

    name, title = "sparse-update", "sparse update (tiny-training)"
    source = "Lin et al., NeurIPS 2022, arXiv 2206.15472"

    def parameters(self) -> list[nn.Parameter]:
        convolutions = list(self.network.convolutions.values())
        later = convolutions[len(convolutions) // 2 :]
        chosen = [conv for conv in last_stage(self) if conv.kernel_size != (1, 1)]
        self._masks = {conv.weight: channel_mask(conv.weight, RATIO) for conv in chosen}
        return [conv.bias for conv in later if conv.bias is not None] + list(self._masks)

    def share(self, parameter: nn.Parameter) -> float:
        return RATIO if parameter in self._masks else 1.0

    def kept(self, convolution: nn.Conv2d) -> float:
        return RATIO

    def direction(self, parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
        if parameter in self._masks:
            gradient = gradient * self._masks[parameter]
        return self.with_momentum(parameter, gradient)


def channel_mask(weight: torch.Tensor, ratio: float) -> torch.Tensor:
    """Ones `(1, c_in, 1, 1)` at the input channels with the largest norm over the weight, zeros elsewhere."""
    norms = weight.detach().permute(1, 0, 2, 3).flatten(1).norm(dim=1)
    mask = torch.zeros(1, len(norms), 1, 1)
    mask[:, norms.argsort(descending=True)[: int(ratio * len(norms))]] = 1.0
    return mask
