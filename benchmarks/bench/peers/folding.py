"""Batch norm folded into torch's convolutions."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(network: nn.Module) -> nn.Module:
    """The network with batch norm folded into the convolutions before it, in place; nothing is to be trained."""
    for child in network.children():
        folded(child)
    if isinstance(network, nn.Sequential):
        for (first, convolution), (second, norm) in pairwise(list(network.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(network, first, fuse_conv_bn_eval(convolution, norm))
                setattr(network, second, nn.Identity())
    return network.requires_grad_(False)
