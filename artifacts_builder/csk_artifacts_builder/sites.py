"""Where the kernel centers are, and which of them to train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from csk_artifacts_builder.emit import attribute, constant_array, static_shape
from csk_sdk.errors import ConfigError, ModelError
from csk_sdk.manifest import Site


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
    def offset(self) -> tuple[int, ...]:
        """Where the center tap of the first output position reads: `dilation * (k // 2) - pad` (DESIGN 2)."""
        return tuple(d * (k // 2) - p for d, k, p in zip(self.dilation, self.kernel, self.pads, strict=False))


def geometry(node: ir.Node) -> Geometry:
    """Read a Conv node's numbers.

    Raises ModelError where its weight or picture size is not known before run time.
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
                f"Convolution '{node.name}' works on a picture of unknown height or width {shape}. "
                "Export the model with a fixed picture size."
            )
        sizes.append(tuple(int(dim) for dim in shape))
    return Geometry(
        kernel=kernel,
        stride=tuple(attribute(node, "strides", [1] * rank)),
        dilation=tuple(attribute(node, "dilations", [1] * rank)),
        pads=tuple(attribute(node, "pads", [0] * 2 * rank)),
        groups=int(attribute(node, "group", 1)),
        channels=int(weight.shape[1]) * int(attribute(node, "group", 1)),  # type: ignore[arg-type]
        in_size=sizes[0],
        out_size=sizes[1],
    )


def find_sites(model: ir.Model, where: str) -> list[Site]:
    """Every convolution with an odd kernel larger than 1, in graph order.

    A kernel that two layers share is left out: a change for one would change the other.
    Raises ModelError where the model has no convolution, or none with a center.
    """
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    if not convolutions:
        raise ModelError(
            f"{where} has no convolution; csk-sdk trains the kernel centers of convolutional networks."
        )
    sites = []
    for node in convolutions:
        weight = node.inputs[1]
        if weight is None or constant_array(weight) is None or len(weight.uses()) != 1:
            continue
        shape = geometry(node)
        if any(k % 2 == 0 for k in shape.kernel) or max(shape.kernel) == 1:
            continue
        sites.append(_site(node, shape))
    if not sites:
        raise ModelError(
            f"{where} has {len(convolutions)} convolutions, but none with an odd kernel larger than 1 "
            "(3x3, 5x5, ...), so there is no kernel center to train."
        )
    return sites


def choose_sites(
    sites: list[Site],
    trainable: str,
    order: list[str],
    where: str,
    fits: Callable[[list[Site]], bool] | None = None,
) -> list[Site]:
    """Apply `--trainable`: "all", "from:NODE" (that node and all behind it), or "auto"; of these, what `fits`.

    With `fits`, sites are placed from the back for as long as it holds; empty when not even the last one fits.
    """
    chosen = _eligible(sites, trainable, order, where)
    return chosen if fits is None else _from_the_back(chosen, fits)


def _from_the_back(sites: list[Site], fits: Callable[[list[Site]], bool]) -> list[Site]:
    """The longest tail that fits. Each further site needs more memory, so halving finds it."""
    most, beyond = 0, len(sites) + 1
    while beyond - most > 1:
        count = len(sites) if most == 0 and beyond > len(sites) else (most + beyond) // 2
        if fits(sites[len(sites) - count :]):
            most = count
        else:
            beyond = count
    return sites[len(sites) - most :]


def _eligible(sites: list[Site], trainable: str, order: list[str], where: str) -> list[Site]:
    """What `--trainable` allows.

    "auto" takes the last two stages, that is the sites whose output has one of the two smallest picture sizes:
    knowledge intensity is strongest in deeper layers (arXiv 2406.08830), and back-propagation ends there.
    `order` holds all node names in graph order. Raises ModelError for a node that is not there, ConfigError for
    any other choice.
    """
    if trainable == "all":
        return sites
    if trainable == "auto":
        stages = sorted({_area(site) for site in sites})[:2]
        return [site for site in sites if _area(site) in stages]
    if not trainable.startswith("from:"):
        raise ConfigError(f"--trainable is '{trainable}'; it must be auto, all or from:NODE.")
    name = trainable.removeprefix("from:")
    if name not in order:
        known = ", ".join(f"'{site.node}'" for site in sites)
        raise ModelError(f"{where} has no node '{name}'. Sites that training can start from: {known}.")
    chosen = [site for site in sites if order.index(site.node) >= order.index(name)]
    if not chosen:
        raise ModelError(
            f"{where} has no kernel center at or behind node '{name}'. Start from an earlier node."
        )
    return chosen


def _area(site: Site) -> int:
    area = 1
    for size in site.output_size:
        area *= size
    return area


def _site(node: ir.Node, shape: Geometry) -> Site:
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
    )
