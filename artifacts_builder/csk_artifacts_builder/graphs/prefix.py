"""Cutting the graphs in front of the first site: what never changes, and what is trained (docs/decisions/0013).

The layers before the first site are frozen, so what they make of an image never changes. `prefix_model` computes it,
and a suffix goes on from it: a graph of the bundle whose input `image` holds prefix features instead of an image.
Prefix features are stored, so they are small: float16 between exact graphs, uint8 between int8 ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, static_shape
from csk_artifacts_builder.graphs.models import IMAGE, finish
from csk_artifacts_builder.int8.quantize import Calibration, Range, quantize, scale_and_zero
from csk_artifacts_builder.measure.costs import flops_by_node
from csk_sdk.contract.manifest import Site

PREFIX = "prefix"
# A cut further ahead is taken where it holds smaller features and still saves this share of what the last one does.
_WORTH = 0.9
_HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Cut:
    """The tensor at which the network is cut: its name, and the shape of one image's features without the batch."""

    name: str
    shape: tuple[int, ...]


def find_cut(prepared: ir.Model, sites: Sequence[Site]) -> Cut | None:
    """Where to cut in front of the first site, or None where nothing worth computing lies there.

    A cut is a tensor that everything behind it depends on the image through. Of those the last one saves most; the
    smallest is taken of those that save nearly as much.
    """
    flops = flops_by_node(prepared)
    first = {site.node for site in sites}
    pending = {value: len(list(value.uses())) for value in prepared.graph.inputs}
    saved = 0
    found: list[tuple[int, Cut]] = []
    for node in prepared.graph:
        if node.name in first:
            break
        read = [value for value in node.inputs if value in pending]
        if not read:
            continue
        for value in read:
            assert value is not None
            pending[value] -= 1
        pending.update({value: len(list(value.uses())) for value in node.outputs})
        pending = {value: uses for value, uses in pending.items() if uses or value.is_graph_output()}
        saved += flops.get(str(node.name), 0)
        if len(pending) == 1 and saved:
            (value,) = pending
            shape = _of_one(value)
            if shape:
                found.append((saved, Cut(str(value.name), shape)))
    worth = [cut for flops_saved, cut in found if flops_saved >= _WORTH * found[-1][0]]
    return min(reversed(worth), key=lambda cut: int(np.prod(cut.shape)), default=None)


def prefix_model(prepared: ir.Model, cut: Cut) -> ir.Model:
    """In: image; out: `prefix`, the features at the cut, float32 `(N, *cut.shape)`. For `store_as_*`."""
    model = prepared.clone()
    model.graph.inputs[0].name = IMAGE
    model.graph.outputs.clear()
    Emitter(model.graph).output(_named(model, cut.name), PREFIX, ["N", *cut.shape])
    return finish(model, "csk_prefix")


def suffix_model(whole: ir.Model, cut: Cut) -> ir.Model:
    """A finished graph from the cut on: `image` is now the features at the cut, float32 `(N, *cut.shape)`."""
    model = whole.clone()
    at = _named(model, cut.name)
    graph = model.graph
    (picture,) = [value for value in graph.inputs if value.name == IMAGE]
    features = ir.Value(name=IMAGE, shape=ir.Shape(["N", *cut.shape]), type=ir.TensorType(ir.DataType.FLOAT))
    for user, position in list(at.uses()):
        user.replace_input_with(position, features)
    graph.inputs[list(graph.inputs).index(picture)] = features
    finished = finish(model, f"{graph.name}_suffix")
    assert not picture.uses(), "nothing behind the cut reads the image"
    return finished


def store_as_half(prefix: ir.Model, suffixes: Sequence[ir.Model]) -> None:
    """Let the prefix write float16, and the suffixes read it, in place."""
    _write(
        prefix,
        ir.DataType.FLOAT16,
        lambda emit, x: emit.op(
            "Cast",
            emit.op("Clip", x, emit.scalar(-_HALF_MAX), emit.scalar(_HALF_MAX)),
            to=ir.DataType.FLOAT16,
        ),
    )
    for suffix in suffixes:
        _read(suffix, ir.DataType.FLOAT16, lambda emit, x: emit.op("Cast", x, to=ir.DataType.FLOAT))


def store_as_uint8(
    prefix: ir.Model, suffixes: Sequence[ir.Model], calibration: Calibration, span: Range, head_weight: str
) -> None:
    """Put prefix and suffixes into int8, in place, with uint8 features of range `span` between them."""
    _write(
        prefix,
        ir.DataType.UINT8,
        lambda emit, x: emit.op("QuantizeLinear", x, *scale_and_zero(emit, span)),
    )
    for suffix in suffixes:
        _read(
            suffix,
            ir.DataType.UINT8,
            lambda emit, x: emit.op("DequantizeLinear", x, *scale_and_zero(emit, span)),
        )
    for model in (prefix, *suffixes):
        quantize(model, calibration, head_weight)


def _write(model: ir.Model, dtype: ir.DataType, store: Callable[[Emitter, ir.Value], ir.Value]) -> None:
    """Let the prefix give what `store` makes of its features."""
    (x,) = model.graph.outputs
    model.graph.outputs.clear()
    x.name = f"{PREFIX}.float"
    y = store(Emitter(model.graph), x)
    y.name, y.dtype, y.shape = PREFIX, dtype, x.shape
    model.graph.outputs.append(y)


def _read(model: ir.Model, dtype: ir.DataType, load: Callable[[Emitter, ir.Value], ir.Value]) -> None:
    """Let a suffix take features as they are stored."""
    (image,) = [value for value in model.graph.inputs if value.name == IMAGE]
    readers = list(image.uses())
    emit = Emitter(model.graph)
    with emit.before(model.graph[0]):
        x = load(emit, image)
    x.dtype, x.shape = ir.DataType.FLOAT, image.shape
    image.type = ir.TensorType(dtype)  # a new one: clones of a graph share theirs
    for user, position in readers:
        user.replace_input_with(position, x)


def _named(model: ir.Model, name: str) -> ir.Value:
    return next(value for node in model.graph for value in node.outputs if value.name == name)


def _of_one(value: ir.Value) -> tuple[int, ...]:
    """The shape without the batch; () where it is not known."""
    try:
        _, *rest = static_shape(value)
    except ValueError:
        return ()
    return tuple(int(dim) for dim in rest) if all(isinstance(dim, int) for dim in rest) else ()
