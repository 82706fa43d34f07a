"""The network families that people deploy, written out compactly in torch: torchvision is not needed.

Each follows its paper and torchvision's numbers. For images below 100 pixels the stem keeps the image's size, as
everyone does who trains these networks on small images. Weights are random; `settle` gives batch norm statistics
that fit them, perturbed, so that folding batch norm changes every kernel. The last two are 1-d, for signals.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALL_PICTURE = 100

# One input of a network by its size: images, and signals.
SHAPES = {32: (3, 32, 32), 224: (3, 224, 224), 8000: (1, 8000), 128: (9, 128)}


def unit(c_in, c_out, kernel=3, stride=1, groups=1, act=nn.ReLU, eps=1e-5) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    layers = [
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out, eps),
    ]
    return nn.Sequential(*layers, *([act()] if act is not None else []))


class Residual(nn.Module):
    """`act(body(x) + shortcut(x))`; no activation where `act` is None."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, act=nn.ReLU) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut or nn.Identity()
        self.act = act() if act is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.shortcut(x))


class SqueezeExcite(nn.Module):
    """Channels weighed by a gate computed from their means."""

    def __init__(self, channels: int, squeezed: int, act, gate) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.act, self.gate = act(), gate()

    def forward(self, x: Tensor) -> Tensor:
        means = F.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.expand(self.act(self.reduce(means))))


def classifier(features: nn.Module, width: int, classes: int) -> nn.Sequential:
    """Features, mean over the image, one fully connected layer."""
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def stem(size: int, width: int) -> list[nn.Module]:
    """ResNet's: 7x7 stride 2 and a max pool, or 3x3 for small images."""
    if size < SMALL_PICTURE:
        return [unit(3, width)]
    return [unit(3, width, 7, 2), nn.MaxPool2d(3, 2, 1)]


def resnet(size: int, classes: int, depths: list[int], bottleneck: bool) -> nn.Module:
    """ResNet-18 and ResNet-50 (He et al., 2015; stride on the 3x3, as torchvision)."""
    layers, c_in = stem(size, 64), 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        c_out = width * 4 if bottleneck else width
        for block in range(depth):
            stride = 2 if stage and not block else 1
            if bottleneck:
                body = [unit(c_in, width, 1), unit(width, width, 3, stride), unit(width, c_out, 1, act=None)]
            else:
                body = [unit(c_in, width, 3, stride), unit(width, c_out, 3, act=None)]
            same = stride == 1 and c_in == c_out
            layers.append(
                Residual(nn.Sequential(*body), None if same else unit(c_in, c_out, 1, stride, act=None))
            )
            c_in = c_out
    return classifier(nn.Sequential(*layers), c_in, classes)


def vgg11_bn(size: int, classes: int) -> nn.Module:
    """VGG-11 with batch norm; its three fully connected layers are 512 wide for small images."""
    layers: list[nn.Module] = []
    c_in = 3
    for entry in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if entry == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers.append(unit(c_in, entry))
            c_in = entry
    hidden = 512 if size < SMALL_PICTURE else 4096
    flat = 512 * (size // 32) ** 2
    return nn.Sequential(
        *layers, nn.Flatten(),
        nn.Linear(flat, hidden), nn.ReLU(), nn.Dropout(),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
        nn.Linear(hidden, classes),
    )  # fmt: skip


def inverted(c_in, hidden, c_out, kernel, stride, act, squeeze=None, eps=1e-5) -> nn.Module:
    """Expand 1x1, depthwise, optional squeeze-excite, project 1x1 (MobileNetV2, V3, EfficientNet)."""
    body = [] if hidden == c_in else [unit(c_in, hidden, 1, act=act, eps=eps)]
    body.append(unit(hidden, hidden, kernel, stride, groups=hidden, act=act, eps=eps))
    if squeeze is not None:
        body.append(squeeze(hidden))
    block = nn.Sequential(*body, unit(hidden, c_out, 1, act=None, eps=eps))
    return Residual(block, act=None) if stride == 1 and c_in == c_out else block


def mobilenet_v2(size: int, classes: int) -> nn.Module:
    """MobileNetV2 (Sandler et al., 2018)."""
    layers, c_in = [unit(3, 32, 3, 1 if size < SMALL_PICTURE else 2, act=nn.ReLU6)], 32
    for expand, c_out, depth, stride in (
        (1, 16, 1, 1), (6, 24, 2, 1 if size < SMALL_PICTURE else 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(depth):
            layers.append(inverted(c_in, c_in * expand, c_out, 3, 1 if block else stride, nn.ReLU6))
            c_in = c_out
    layers += [unit(c_in, 1280, 1, act=nn.ReLU6)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, classes)
    )


def mobilenet_v3_small(size: int, classes: int) -> nn.Module:
    """MobileNetV3-small (Howard et al., 2019): HardSwish, squeeze-excite with HardSigmoid."""
    layers, c_in = [unit(3, 16, 3, 1 if size < SMALL_PICTURE else 2, act=nn.Hardswish, eps=1e-3)], 16
    for kernel, hidden, c_out, squeeze, act, stride in (
        (3, 16, 16, True, nn.ReLU, 1 if size < SMALL_PICTURE else 2), (3, 72, 24, False, nn.ReLU, 2),
        (3, 88, 24, False, nn.ReLU, 1), (5, 96, 40, True, nn.Hardswish, 2),
        (5, 240, 40, True, nn.Hardswish, 1), (5, 240, 40, True, nn.Hardswish, 1),
        (5, 120, 48, True, nn.Hardswish, 1), (5, 144, 48, True, nn.Hardswish, 1),
        (5, 288, 96, True, nn.Hardswish, 2), (5, 576, 96, True, nn.Hardswish, 1),
        (5, 576, 96, True, nn.Hardswish, 1),
    ):  # fmt: skip
        gate = _mobilenet_v3_gate if squeeze else None
        layers.append(inverted(c_in, hidden, c_out, kernel, stride, act, gate, 1e-3))
        c_in = c_out
    layers.append(unit(c_in, 576, 1, act=nn.Hardswish, eps=1e-3))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, classes),
    )  # fmt: skip


def _mobilenet_v3_gate(hidden: int) -> SqueezeExcite:
    return SqueezeExcite(hidden, max(8, (hidden // 4 + 4) // 8 * 8), nn.ReLU, nn.Hardsigmoid)


def efficientnet_b0(size: int, classes: int) -> nn.Module:
    """EfficientNet-B0 (Tan and Le, 2019): SiLU, squeeze-excite with Sigmoid; stochastic depth is off."""
    layers, c_in = [unit(3, 32, 3, 1 if size < SMALL_PICTURE else 2, act=nn.SiLU)], 32
    for expand, kernel, stride, c_out, depth in (
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
    ):  # fmt: skip
        for block in range(depth):
            squeeze = partial(_efficientnet_gate, squeezed=max(1, c_in // 4))
            layers.append(
                inverted(c_in, c_in * expand, c_out, kernel, 1 if block else stride, nn.SiLU, squeeze)
            )
            c_in = c_out
    layers.append(unit(c_in, 1280, 1, act=nn.SiLU))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, classes)
    )


def _efficientnet_gate(hidden: int, squeezed: int) -> SqueezeExcite:
    return SqueezeExcite(hidden, squeezed, nn.SiLU, nn.Sigmoid)


class DenseLayer(nn.Module):
    """`concat(x, conv3x3(bn-relu(conv1x1(bn-relu(x)))))`: batch norm before the convolution."""

    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(c_in), nn.ReLU(), nn.Conv2d(c_in, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], 1)


def densenet121(size: int, classes: int) -> nn.Module:
    """DenseNet-121 (Huang et al., 2016)."""
    layers, width = stem(size, 64), 64
    for stage, depth in enumerate((6, 12, 24, 16)):
        if stage:
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False)]
            layers += [nn.AvgPool2d(2)]
            width //= 2
        for _ in range(depth):
            layers.append(DenseLayer(width, 32))
            width += 32
    return classifier(nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU()), width, classes)


class Fire(nn.Module):
    """SqueezeNet's module: squeeze 1x1, then 1x1 and 3x3 beside each other."""

    def __init__(self, c_in: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(c_in, squeezed, 1)
        self.point, self.wide = nn.Conv2d(squeezed, expanded, 1), nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.point(x)), F.relu(self.wide(x))], 1)


def squeezenet(size: int, classes: int) -> nn.Module:
    """SqueezeNet 1.1 (Iandola et al., 2016): the classifier is a 1x1 convolution before the mean."""
    pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 1 if size < SMALL_PICTURE else 2), nn.ReLU(), pool(),
        Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128), Fire(256, 32, 128), pool(),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        nn.Dropout(), nn.Conv2d(512, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: two branches, concatenated, channels shuffled."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        half = c_out // 2
        self.split = stride == 1
        inner = half if self.split else c_in
        self.right = nn.Sequential(
            unit(inner, half, 1), unit(half, half, 3, stride, half, act=None), unit(half, half, 1)
        )
        left = nn.Sequential(unit(c_in, c_in, 3, stride, c_in, act=None), unit(c_in, half, 1))
        self.left = nn.Identity() if self.split else left

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.split else (x, x)
        joined = torch.cat([self.left(left), self.right(right)], 1)
        n, c, h, w = joined.shape
        return joined.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet_v2(size: int, classes: int) -> nn.Module:
    """ShuffleNetV2 x1.0 (Ma et al., 2018)."""
    layers, c_in = [unit(3, 24, 3, 1 if size < SMALL_PICTURE else 2)], 24
    if size >= SMALL_PICTURE:
        layers.append(nn.MaxPool2d(3, 2, 1))
    for c_out, depth in ((116, 4), (232, 8), (464, 4)):
        for block in range(depth):
            layers.append(Shuffle(c_in, c_out, 1 if block else 2))
            c_in = c_out
    return nn.Sequential(*layers, unit(c_in, 1024, 1), Mean(), nn.Linear(1024, classes))


class Mean(nn.Module):
    """The mean over the image as `x.mean([2, 3])`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean([2, 3])


def regnet_x_400mf(size: int, classes: int) -> nn.Module:
    """RegNetX-400MF (Radosavovic et al., 2020): grouped 3x3 convolutions, 16 channels in a group."""
    layers, c_in = [unit(3, 32, 3, 1 if size < SMALL_PICTURE else 2)], 32
    for c_out, depth in ((32, 1), (64, 2), (160, 7), (400, 12)):
        for block in range(depth):
            stride = 1 if block else 2
            body = [unit(c_in, c_out, 1), unit(c_out, c_out, 3, stride, c_out // 16)]
            shortcut = None if block else unit(c_in, c_out, 1, stride, act=None)
            layers.append(Residual(nn.Sequential(*body, unit(c_out, c_out, 1, act=None)), shortcut))
            c_in = c_out
    return classifier(nn.Sequential(*layers), c_in, classes)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of an `(n, c, h, w)` tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, two fully connected layers with GELU between, layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.mix = nn.Sequential(
            nn.LayerNorm(width, 1e-6), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.mix(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext_tiny(size: int, classes: int) -> nn.Module:
    """ConvNeXt-tiny (Liu et al., 2022); a 2x2 patch instead of 4x4 for small images."""
    patch = 2 if size < SMALL_PICTURE else 4
    layers: list[nn.Module] = [nn.Conv2d(3, 96, patch, patch), ChannelNorm(96, 1e-6)]
    width = 96
    for stage, depth in enumerate((3, 3, 9, 3)):
        if stage:
            layers += [ChannelNorm(width, 1e-6), nn.Conv2d(width, 2 * width, 2, 2)]
            width *= 2
        layers += [ConvNeXtBlock(width) for _ in range(depth)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), ChannelNorm(width, 1e-6), nn.Flatten(), nn.Linear(width, classes)
    )


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "ResNet-18": partial(resnet, depths=[2, 2, 2, 2], bottleneck=False),
    "ResNet-50": partial(resnet, depths=[3, 4, 6, 3], bottleneck=True),
    "VGG-11-BN": vgg11_bn,
    "MobileNetV2": mobilenet_v2,
    "MobileNetV3-small": mobilenet_v3_small,
    "EfficientNet-B0": efficientnet_b0,
    "DenseNet-121": densenet121,
    "SqueezeNet 1.1": squeezenet,
    "ShuffleNetV2 x1.0": shufflenet_v2,
    "RegNetX-400MF": regnet_x_400mf,
    "ConvNeXt-tiny": convnext_tiny,
}


def unit_1d(c_in, c_out, kernel=3, stride=1, padding=None, act=nn.ReLU) -> nn.Sequential:
    """`unit` for signals."""
    padding = kernel // 2 if padding is None else padding
    layers = [nn.Conv1d(c_in, c_out, kernel, stride, padding, bias=False), nn.BatchNorm1d(c_out)]
    return nn.Sequential(*layers, *([act()] if act is not None else []))


def m5(size: int, classes: int) -> nn.Module:
    """Raw audio through small kernels, M5 of Dai et al. (2017): here one second at 8 kHz."""
    layers = [unit_1d(1, 128, 80, 4, padding=0), nn.MaxPool1d(4)]
    for c_in, c_out in ((128, 128), (128, 256), (256, 512)):
        layers += [unit_1d(c_in, c_out), nn.MaxPool1d(4)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(512, classes))


def resnet_1d(size: int, classes: int) -> nn.Module:
    """Motion sensors through residual blocks, after Wang et al. (2017): 9 channels, 128 samples, strided."""
    layers, c_in = [], 9
    for c_out, stride in ((64, 1), (128, 2), (128, 2)):
        body = [unit_1d(c_in, c_out, 7, stride), unit_1d(c_out, c_out, 5), unit_1d(c_out, c_out, 3, act=None)]
        layers.append(Residual(nn.Sequential(*body), unit_1d(c_in, c_out, 1, stride, act=None)))
        c_in = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(c_in, classes))


# With the size of their input.
SIGNALS: dict[str, tuple[Callable[[int, int], nn.Module], int]] = {
    "M5": (m5, 8000),
    "ResNet-1d": (resnet_1d, 128),
}


def without_kinks(make: Callable[[int, int], nn.Module]) -> Callable[[int, int], nn.Module]:
    """The same network with SiLU in place of ReLU and ReLU6."""

    def made(size: int, classes: int) -> nn.Module:
        network = make(size, classes)
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.ReLU | nn.ReLU6):
                    setattr(parent, name, nn.SiLU())
        return network

    return made


SMOOTH = {
    f"{name}, SiLU for ReLU": without_kinks(NETWORKS[name])
    for name in ("ResNet-50", "MobileNetV2", "DenseNet-121", "RegNetX-400MF")
}


def settle(network: nn.Module, size: int) -> nn.Module:
    """Random affine batch norms with statistics that nearly fit the random weights; the network in eval mode."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.copy_(0.7 + 0.6 * torch.rand_like(norm.weight))
            norm.bias.copy_(0.2 * torch.randn_like(norm.bias))
            norm.momentum = None  # statistics are those of the next batch
        network.train()
        network(torch.randn(8, *SHAPES.get(size, (3, size, size))))
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.weight)
            norm.running_var *= 0.9 + 0.2 * torch.rand_like(norm.weight)
    return network.eval()
