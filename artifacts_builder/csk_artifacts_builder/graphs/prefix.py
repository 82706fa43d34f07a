"""Cutting the graphs in front of the first site: what never changes, and what is trained (docs/decisions/0013).

The layers before the first site are frozen, so what they make of an image never changes. `prefix_model` computes it,
and a suffix goes on from it: a graph of the bundle whose input `image` holds prefix features instead of an image.
Prefix features are stored, so they are small: float16 between exact graphs, uint8 between int8 ones.

Where features of layers are pooled in front of the cut too, prefix features are one vector: the tensor at the cut, what
is pooled, stored as finely, and what rounding that has left, so that heads see the same features either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, static_shape
from csk_artifacts_builder.graphs.models import HALF_MAX, IMAGE, finish
from csk_artifacts_builder.graphs.whole_images import of_whole_images
from csk_artifacts_builder.int8.quantize import Calibration, Range, quantize, scale_and_zero
from csk_artifacts_builder.measure.costs import flops_by_node
from csk_sdk.contract.manifest import Site

PREFIX = "prefix"
BESIDE = "prefix.beside"
# A cut further ahead is taken where it holds smaller features and still saves this share of what the last one does.
_WORTH = 0.9
# What a manifest has for the shape of an image's features.
_AXES = 3
# Two bytes keep a sixteen-thousandth of what base images show even so.
_BEYOND = 4.0


@dataclass(frozen=True)
class Cut:
    """The tensor at which the network is cut: its name, and the shape of one image's features without the batch.

    `beside` are vectors that were pooled in front of it and are read behind it too, of so many numbers in all.
    """

    name: str
    shape: tuple[int, ...]
    beside: tuple[str, ...] = ()
    pooled: int = 0

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape of one image's prefix features."""
        return (math.prod(self.shape) + 2 * self.pooled,) if self.beside else self.shape


def find_cut(prepared: ir.Model, sites: Sequence[Site]) -> Cut | None:
    """Where to cut in front of the first site, or None where nothing worth computing lies there.

    A cut is a tensor that everything behind it depends on the image through, but for vectors beside it. Of those the
    last one saves most; the smallest is taken of those that save nearly as much.
    """
    flops = flops_by_node(prepared)
    first, whole = {site.node for site in sites}, of_whole_images(prepared)
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
        cut = _cut_at(list(pending)) if saved else None
        if cut is not None and cut.name in whole:
            found.append((saved, cut))
    worth = [cut for flops_saved, cut in found if flops_saved >= _WORTH * found[-1][0]]
    return min(reversed(worth), key=lambda cut: math.prod(cut.stored), default=None)


def _cut_at(pending: Sequence[ir.Value]) -> Cut | None:
    """The cut where these values are all that is read further on: one tensor, and vectors beside it."""
    shapes = {value: _of_one(value) for value in pending}
    beside = [value for value in pending if len(shapes[value]) == 1] if len(pending) > 1 else []
    rest = [value for value in pending if value not in beside]
    if len(rest) != 1 or not 0 < len(shapes[rest[0]]) <= _AXES:
        return None
    names = tuple(str(value.name) for value in beside)
    return Cut(str(rest[0].name), shapes[rest[0]], names, sum(shapes[value][0] for value in beside))


def prefix_model(prepared: ir.Model, cut: Cut) -> ir.Model:
    """In: image; out: `prefix`, the features at the cut, float32 `(N, *cut.shape)`. For `store_as_*`.

    And `prefix.beside`, `(N, cut.pooled)`, where there is anything beside the cut.
    """
    model = prepared.clone()
    model.graph.inputs[0].name = IMAGE
    model.graph.outputs.clear()
    emit = Emitter(model.graph)
    emit.output(_named(model, cut.name), PREFIX, ["N", *cut.shape])
    if cut.beside:
        pooled = [_named(model, name) for name in cut.beside]
        emit.output(emit.op("Concat", *pooled, axis=1), BESIDE, ["N", cut.pooled])
    return finish(model, "csk_prefix")


def suffix_model(whole: ir.Model, cut: Cut) -> ir.Model:
    """A finished graph from the cut on: `image` is now the features at the cut, float32 `(N, *cut.shape)`.

    And `prefix.beside` what lies beside them.
    """
    model = whole.clone()
    graph = model.graph
    (picture,) = [value for value in graph.inputs if value.name == IMAGE]
    features = ir.Value(name=IMAGE, shape=ir.Shape(["N", *cut.shape]), type=ir.TensorType(ir.DataType.FLOAT))
    _read_instead(_named(model, cut.name), features)
    graph.inputs[list(graph.inputs).index(picture)] = features
    if cut.beside:
        emit = Emitter(graph)
        beside, begin = emit.input(BESIDE, ir.DataType.FLOAT, ["N", cut.pooled]), 0
        for name in cut.beside:
            value = _named(model, name)
            size = int(static_shape(value)[1])
            with emit.before(graph[0]):
                part = emit.op("Slice", beside, emit.ints(begin), emit.ints(begin + size), emit.ints(1))
            part.shape, part.type = value.shape, value.type
            _read_instead(value, part)
            begin += size
    finished = finish(model, f"{graph.name}_suffix")
    assert not picture.uses(), "nothing behind the cut reads the image"
    return finished


def _read_instead(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of `old` read `new`."""
    for user, position in list(old.uses()):
        user.replace_input_with(position, new)


Change = Callable[[Emitter, ir.Value], ir.Value]


@dataclass(frozen=True)
class _Form:
    """How a float32 tensor is stored as `dtype`."""

    dtype: ir.DataType
    store: Change
    restore: Change


def _half(emit: Emitter, x: ir.Value) -> ir.Value:
    clipped = emit.op("Clip", x, emit.scalar(-HALF_MAX), emit.scalar(HALF_MAX))
    return emit.op("Cast", clipped, to=ir.DataType.FLOAT16)


_HALF = _Form(ir.DataType.FLOAT16, _half, lambda emit, y: emit.op("Cast", y, to=ir.DataType.FLOAT))


def _bytes(span: Range) -> _Form:
    return _Form(
        ir.DataType.UINT8,
        lambda emit, x: emit.op("QuantizeLinear", x, *scale_and_zero(emit, span)),
        lambda emit, y: emit.op("DequantizeLinear", y, *scale_and_zero(emit, span)),
    )


def store_as_half(prefix: ir.Model, suffixes: Sequence[ir.Model]) -> None:
    """Let the prefix write float16, and the suffixes read it, in place."""
    _store(prefix, suffixes, _HALF, _HALF, _HALF)


def store_as_uint8(
    prefix: ir.Model,
    suffixes: Sequence[ir.Model],
    calibration: Calibration,
    spans: Mapping[str, Range],
    head_weight: str,
) -> None:
    """Put prefix and suffixes into int8, in place, with uint8 features between them.

    `spans` are the ranges of the prefix' outputs by name. What is pooled of an image on a bright ground lies far beyond
    what base images show, while the network's own features stay in theirs, so it may be `_BEYOND` times as large.
    """
    beside = spans.get(BESIDE, Range(0.0, 1.0))
    wide = Range(_BEYOND * min(beside.low, 0.0), _BEYOND * max(beside.high, 0.0))
    step = (wide.high - wide.low) / 255
    _store(prefix, suffixes, _bytes(spans[PREFIX]), _bytes(wide), _bytes(Range(-step / 2, step / 2)))
    for model in (prefix, *suffixes):
        quantize(model, calibration, head_weight)


def _store(prefix: ir.Model, suffixes: Sequence[ir.Model], at_cut: _Form, pooled: _Form, rest: _Form) -> None:
    """Let the prefix write, and the suffixes read, prefix features in these forms."""
    _write(prefix, at_cut, pooled, rest)
    for suffix in suffixes:
        _read(suffix, at_cut, pooled, rest)


def _write(model: ir.Model, at_cut: _Form, pooled: _Form, rest: _Form) -> None:
    """Let the prefix give its features as they are stored."""
    x, *others = model.graph.outputs
    model.graph.outputs.clear()
    x.name = f"{PREFIX}.float"
    emit = Emitter(model.graph)
    y, shape = at_cut.store(emit, x), _of_one(x)
    for beside in others:
        beside.name = f"{BESIDE}.float"
        rounded = pooled.store(emit, beside)
        left = rest.store(emit, emit.op("Sub", beside, pooled.restore(emit, rounded)))
        y = emit.op("Concat", emit.op("Flatten", y, axis=1), rounded, left, axis=1)
        shape = (math.prod(shape) + 2 * math.prod(_of_one(beside)),)
    y.name, y.dtype, y.shape = PREFIX, at_cut.dtype, ir.Shape(["N", *shape])
    model.graph.outputs.append(y)


def _read(model: ir.Model, at_cut: _Form, pooled: _Form, rest: _Form) -> None:
    """Let a suffix take features as they are stored."""
    graph = model.graph
    (image,) = [value for value in graph.inputs if value.name == IMAGE]
    beside = next((value for value in graph.inputs if value.name == BESIDE), None)
    stored = ir.Value(name=IMAGE, shape=image.shape, type=ir.TensorType(at_cut.dtype))
    emit, first = Emitter(graph), graph[0]
    with emit.before(first):
        packed: ir.Value = stored
        if beside is not None:
            shape, kept = _of_one(image), math.prod(_of_one(beside))
            size = math.prod(shape)
            stored.shape = ir.Shape(["N", size + 2 * kept])
            flat, rounded, left = (
                emit.op("Slice", stored, emit.ints(begin), emit.ints(end), emit.ints(1))
                for begin, end in ((0, size), (size, size + kept), (size + kept, size + 2 * kept))
            )
            packed = emit.op("Reshape", flat, emit.ints(-1, *shape))
            summed = emit.op("Add", pooled.restore(emit, rounded), rest.restore(emit, left))
            summed.shape, summed.dtype = beside.shape, ir.DataType.FLOAT
            _read_instead(beside, summed)
            graph.inputs.remove(beside)
        x = at_cut.restore(emit, packed)
    x.dtype, x.shape = ir.DataType.FLOAT, image.shape
    _read_instead(image, x)
    image.name = None
    graph.inputs[list(graph.inputs).index(image)] = stored


def _named(model: ir.Model, name: str) -> ir.Value:
    return next(value for node in model.graph for value in node.outputs if value.name == name)


def _of_one(value: ir.Value) -> tuple[int, ...]:
    """The shape without the batch; () where it is not known."""
    try:
        _, *rest = static_shape(value)
    except ValueError:
        return ()
    return tuple(int(dim) for dim in rest) if all(isinstance(dim, int) for dim in rest) else ()
