"""Where the kernel centers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from csk_artifacts_builder.emit import attribute, constant_array, static_shape
from csk_artifacts_builder.model_kinds import kind_of
from csk_artifacts_builder.prepare.source_facts import CONVOLUTIONS
from csk_sdk.contract.manifest import LeftOut, Site
from csk_sdk.errors import ConfigError, ModelError
from csk_sdk.formats.wording import plural

CENTER, POINTWISE, ALL, KERNELS = "center", "1x1", "all", "kernels"
KINDS = (CENTER, POINTWISE, ALL, KERNELS)
# Why a convolution is left out that its owner would expect to be trained.
COMPUTED = "its kernel is computed from the image"
SHARED = "its kernel is shared with {}"


@dataclass(frozen=True)
class Geometry:
    """A convolution's numbers, one entry per spatial axis (pads: all begins, then all ends)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int
    channels: int
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def center(self) -> tuple[int, ...]:
        """The middle position of the kernel."""
        return tuple(k // 2 for k in self.kernel)

    @property
    def offset(self) -> tuple[int, ...]:
        """Where the center tap of the first output position reads: `dilation * (k // 2) - pad` (docs/method.md)."""
        return tuple(d * c - p for d, c, p in zip(self.dilation, self.center, self.pads, strict=False))


def geometry(node: ir.Node) -> Geometry:
    """Read a Conv node's numbers.

    Raises ModelError where its weight or image size is not known before run time.
    """
    x, y, weight = node.inputs[0], node.outputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    if weight.shape is None or not all(isinstance(dim, int) for dim in weight.shape):
        raise ModelError(f"The weight of convolution '{node.name}' has no fixed shape.")
    kernel = tuple(int(dim) for dim in list(weight.shape)[2:])  # type: ignore[arg-type]
    rank = len(kernel)
    sizes = []
    for value in (x, y):
        shape = static_shape(value)[2:] if value.shape is not None else ("?",)
        if not all(isinstance(dim, int) for dim in shape):
            raise ModelError(
                f"Convolution '{node.name}' works on an image of unknown height or width {shape}. "
                "Export the model with a fixed image size."
            )
        sizes.append(tuple(int(dim) for dim in shape))
    dilation = tuple(attribute(node, "dilations", [1] * rank))
    pads = tuple(attribute(node, "pads", [0] * 2 * rank))
    for axis in range(rank):
        if sizes[0][axis] + pads[axis] + pads[axis + rank] <= dilation[axis] * (kernel[axis] - 1):
            raise ModelError(
                f"Convolution '{node.name}' has no output: its kernel reaches further than its image of "
                f"{'x'.join(map(str, sizes[0]))}."
            )
    return Geometry(
        kernel=kernel,
        stride=tuple(attribute(node, "strides", [1] * rank)),
        dilation=dilation,
        pads=pads,
        groups=int(attribute(node, "group", 1)),
        channels=int(weight.shape[1]) * int(attribute(node, "group", 1)),  # type: ignore[arg-type]
        in_size=sizes[0],
        out_size=sizes[1],
    )


def find_sites(model: ir.Model, where: str, kinds: str = CENTER) -> list[Site]:
    """Every convolution that can be trained, in graph order.

    `kinds` is "center" (odd kernels larger than 1), "1x1" (kernels that are all center), "all" (both), or "kernels":
    kernels larger than 1, every position of them and not the center alone.
    A kernel that two layers share is left out: a change for one would change the other.
    Raises ModelError where the model has no convolution, or none of these kinds; ConfigError for another kind.
    """
    if kinds not in KINDS:
        raise ConfigError(f"--sites is '{kinds}'; it must be {', '.join(KINDS[:-1])} or {KINDS[-1]}.")
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    kind = kind_of(model) if len(convolutions) < 2 else None
    if kind is not None and not any(_why_not(node, kinds) is None for node in convolutions):
        raise ModelError(
            f"{where} is {kind}. csk-sdk trains the kernel centers of convolutional networks: take one of those."
        )
    if not convolutions:
        raise ModelError(
            f"{where} has no convolution; csk-sdk trains the kernel centers of convolutional networks."
        )
    sites = [
        _site(node, geometry(node), kinds == KERNELS)
        for node in convolutions
        if _why_not(node, kinds) is None
    ]
    if not sites:
        raise ModelError(_no_site(where, convolutions, kinds))
    return sites


def left_out(model: ir.Model, kinds: str = CENTER) -> tuple[LeftOut, ...]:
    """Every convolution that `find_sites` leaves out, in graph order, and why."""
    found = ((node, _why_not(node, kinds)) for node in model.graph if node.op_type in CONVOLUTIONS)
    return tuple(LeftOut(str(node.name), reason) for node, reason in found if reason is not None)


def _why_not(node: ir.Node, kinds: str) -> str | None:
    """Why a convolution cannot be trained, None where it can."""
    if node.op_type != "Conv":
        return f"{node.op_type} is not trained"
    weight = node.inputs[1]
    if weight is None or constant_array(weight) is None:
        return COMPUTED
    if len(weight.uses()) != 1:
        others = {str(user.name) for user, _ in weight.uses() if user is not node}
        return SHARED.format(", ".join(f"'{name}'" for name in sorted(others)) or "itself")
    kernel = [int(size) for size in list(weight.shape or ())[2:]]  # type: ignore[arg-type]
    if kinds != KERNELS and any(size % 2 == 0 for size in kernel):
        return f"a kernel of {'x'.join(map(str, kernel))} has no center"
    wanted = CENTER if kinds == KERNELS else kinds
    if wanted not in (ALL, _kind(kernel)):
        return f"not of --sites {kinds}"
    return None


def _kind(kernel: Sequence[int]) -> str:
    return POINTWISE if max(kernel) == 1 else CENTER


def _no_site(where: str, convolutions: Sequence[ir.Node], kinds: str) -> str:
    found = f"{where} has {plural(len(convolutions), 'convolution')}, but none"
    reasons = {_why_not(node, kinds) or "" for node in convolutions}
    if len(reasons) == 1 and (reason := reasons.pop()) == COMPUTED:
        return (
            f"{found} with a kernel of constants: {reason}. Export the model with its weights as constants."
        )
    if kinds == POINTWISE:
        return (
            f"{found} with a 1x1 kernel of its own. Train the centers of larger kernels with --sites center."
        )
    if kinds == KERNELS:
        return (
            f"{found} with a kernel larger than 1 of its own. 1x1 convolutions are trained with --sites 1x1."
        )
    return (
        f"{found} with an odd kernel larger than 1 (3x3, 5x5, ...), so there is no kernel center to train. "
        "1x1 convolutions are trained with --sites 1x1."
    )


def _site(node: ir.Node, shape: Geometry, whole: bool) -> Site:
    weight = node.inputs[1]
    assert weight is not None
    name = str(weight.name).removesuffix(".weight")
    return Site(
        name=name,
        node=str(node.name),
        weight=str(weight.name),
        shape=tuple(int(dim) for dim in weight.shape or ()),  # type: ignore[arg-type]
        groups=shape.groups,
        stride=shape.stride,
        dilation=shape.dilation,
        pads=shape.pads,
        input_size=shape.in_size,
        output_size=shape.out_size,
        delta=f"{name}.delta",
        indices=f"{name}.indices",
        gradient=f"{name}.gradient",
        moment=f"{name}.moment",
        whole=whole,
    )
