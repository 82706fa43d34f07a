"""What a training step costs by method, in FLOPs and bytes, from formulas over the layers of a network.

For a layer with forward FLOPs `f` the weight gradient costs `f` and the input gradient `f`; neither activations,
normalization nor elementwise work are counted. Bytes are what a method must hold during a step: weights, kept
activations, gradients of the parameters, optimizer state, and what protects old knowledge. Workspaces of a runtime are
not in it. Batch norm is folded. `n` is the batch.

    fine-tuning     all weights; SGD with momentum
    csk-sdk         a center branch beside each site's frozen kernel; input gradients down to the first site, by a
                    second copy of the kernels, flipped; a bool for every element of a ReLU behind it
    last stage, head only
    TinyTL          biases only (Cai et al., 2020): no inputs are kept, but a bit for every element of a ReLU
    Adam-NSCL       fine-tuning with Adam; each layer's update is projected, dW P, with P of (c_in k^2)^2 (Wang et al.,
                    2021); the second moments that P comes from are as large again, and can be on a disk meanwhile
    GPM             fine-tuning with SGD; (dW M) M^T, with M of c_in k^2 x r (Saha et al., 2021); r is a half here
    EWC             fine-tuning with a penalty: a Fisher diagonal and the old weights (Kirkpatrick et al., 2017)
    LwF             fine-tuning with the old network's logits as targets, computed beside it (Li and Hoiem, 2016)
    ER              fine-tuning with as many old images as new ones in the step, buffer of 500 (Chaudhry et al., 2019)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from bench.layers import Layer, Network

FLOAT = 4
RANK = 0.5
# The default energy; equally strong directions need this share of them.
PROTECTED = 0.8
BUFFER_PICTURES = 500


@dataclass(frozen=True)
class Cost:
    """One step's FLOPs, and bytes by what holds them."""

    flops: float
    weights: float
    kept: float
    gradients: float
    optimizer: float
    protection: float

    @property
    def bytes(self) -> float:
        """All of it."""
        return self.weights + self.kept + self.gradients + self.optimizer + self.protection


def parameters(layers: Iterable[Layer]) -> int:
    """Weights and biases."""
    return sum(layer.weights + layer.biases for layer in layers)


def forward(network: Network) -> int:
    """FLOPs of one image's forward pass."""
    return sum(layer.flops for layer in network.layers)


def kept_by(network: Network, numbers: Sequence[int]) -> int:
    """Elements of what these layers read and of the rectifiers behind them, each tensor once."""
    elements = {network.layers[number].reads: network.layers[number].inputs for number in numbers}
    behind = (rectifier for rectifier in network.rectifiers if rectifier.after & set(numbers))
    elements.update({rectifier.name: rectifier.elements for rectifier in behind})
    return sum(elements.values())


def trained_from(network: Network, stage: int, n: int, states: int = 1) -> Cost:
    """All weights of this stage and behind, with an optimizer of so many states; stage 0 is full fine-tuning."""
    numbers = [number for number, layer in enumerate(network.layers) if layer.stage >= stage]
    trained = [network.layers[number] for number in numbers]
    count = parameters(trained)
    gradients = sum(layer.flops for layer in trained) + sum(layer.flops for layer in network.behind(numbers))
    return Cost(
        flops=n * (forward(network) + gradients),
        weights=FLOAT * parameters(network.layers), kept=FLOAT * n * kept_by(network, numbers),
        gradients=FLOAT * count, optimizer=FLOAT * states * count, protection=0,
    )  # fmt: skip


def fine_tuning(network: Network, n: int) -> Cost:
    """All weights, SGD with momentum."""
    return trained_from(network, 0, n)


def last_stage(network: Network, n: int) -> Cost:
    """From the last convolution with a stride on."""
    return trained_from(network, network.layers[-1].stage, n)


def head_only(network: Network, n: int) -> Cost:
    """The classifier."""
    head = network.layers[-1]
    count = FLOAT * parameters([head])
    return Cost(
        n * (forward(network) + head.flops), FLOAT * parameters(network.layers), FLOAT * n * head.inputs,
        count, count, 0,
    )  # fmt: skip


def biases_only(network: Network, n: int) -> Cost:
    """TinyTL without its side branches; the classifier is trained whole."""
    head = network.layers[-1]
    count = FLOAT * (sum(layer.biases for layer in network.layers) + head.weights)
    bits = sum(rectifier.elements for rectifier in network.rectifiers)
    return Cost(
        flops=n * (forward(network) + sum(layer.flops for layer in network.layers[1:]) + head.flops),
        weights=FLOAT * parameters(network.layers), kept=n * (bits / 8 + FLOAT * head.inputs),
        gradients=count, optimizer=count, protection=0,
    )  # fmt: skip


def centers(network: Network, n: int, kernel_bytes: int = FLOAT) -> Cost:
    """csk-sdk, its bases as large as the default energy can make them; `kernel_bytes` is 1 for int8."""
    head, sites = network.layers[-1], network.sites
    numbers = [number for number, layer in enumerate(network.layers) if layer.channels]
    # The classifier's input gradient is one of these.
    behind = network.behind(numbers)
    branch = {layer.reads: 2 * layer.channels * layer.rows * layer.positions for layer in sites}
    # Forward, the delta's gradient, and behind the first site the input's.
    branches = 2 * sum(branch.values()) + sum(branch[layer.reads] for layer in behind if layer.channels)
    products = forward(network) + branches + sum(layer.flops for layer in behind) + head.flops
    projection = sum(4 * layer.rows * layer.channels * PROTECTED * layer.channels for layer in sites)
    count = FLOAT * (sum(layer.rows * layer.channels for layer in sites) + parameters([head]))
    kernels = sum(layer.weights for layer in (*network.layers, *behind) if layer is not head)
    rest = head.weights + sum(layer.biases for layer in network.layers)
    seen = sum(layer.channels * layer.positions for layer in sites)
    bools = sum(rectifier.elements for rectifier in network.rectifiers if rectifier.after & set(numbers))
    bases = sum(PROTECTED * layer.channels**2 for layer in sites)
    moments = sum(layer.groups * layer.group_channels**2 for layer in sites)
    return Cost(
        flops=n * products + projection, weights=kernel_bytes * kernels + FLOAT * rest,
        kept=n * (FLOAT * (seen + head.inputs) + bools), gradients=count, optimizer=count,
        protection=FLOAT * (bases + moments),
    )  # fmt: skip


def centers_int8(network: Network, n: int) -> Cost:
    """csk-sdk with int8 kernels: as many operations, most of them on bytes."""
    return centers(network, n, kernel_bytes=1)


def adam_nscl(network: Network, n: int) -> Cost:
    """Each convolution's update, `c_out x depth`, times P, `depth x depth`."""
    full = trained_from(network, 0, n, states=2)
    convolutions = network.layers[:-1]
    projection = sum(2 * layer.c_out * layer.depth**2 for layer in convolutions)
    held = FLOAT * sum(layer.groups * layer.depth**2 for layer in convolutions)
    return replace(full, flops=full.flops + projection, protection=held)


def gpm(network: Network, n: int) -> Cost:
    """Each convolution's gradient less what lies along M, `depth x r`."""
    full = fine_tuning(network, n)
    convolutions = network.layers[:-1]
    projection = sum(4 * layer.c_out * layer.depth * RANK * layer.depth for layer in convolutions)
    held = FLOAT * sum(layer.groups * layer.depth * RANK * layer.depth for layer in convolutions)
    return replace(full, flops=full.flops + projection, protection=held)


def ewc(network: Network, n: int) -> Cost:
    """The penalty is elementwise."""
    return replace(fine_tuning(network, n), protection=2 * FLOAT * parameters(network.layers))


def lwf(network: Network, n: int) -> Cost:
    """The old network's forward pass, and its weights."""
    full = fine_tuning(network, n)
    return replace(
        full, flops=full.flops + n * forward(network), protection=FLOAT * parameters(network.layers)
    )


def replay(network: Network, n: int) -> Cost:
    """Twice the batch, and a buffer of images as bytes."""
    return replace(fine_tuning(network, 2 * n), protection=BUFFER_PICTURES * network.layers[0].inputs)


ADAM_NSCL = "Adam-NSCL"
OURS = ("csk-sdk, exact", "csk-sdk, int8")
METHODS: dict[str, Callable[[Network, int], Cost]] = {
    OURS[0]: centers,
    OURS[1]: centers_int8,
    "head only": head_only,
    "biases only (TinyTL)": biases_only,
    "last stage": last_stage,
    "fine-tuning": fine_tuning,
    "EWC": ewc,
    "LwF": lwf,
    "ER": replay,
    "GPM": gpm,
    ADAM_NSCL: adam_nscl,
}
