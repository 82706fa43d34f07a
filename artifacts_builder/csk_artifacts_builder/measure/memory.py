"""How much memory learning takes, predicted from the graphs: what `inspect` shows and `--memory-budget` bounds.

Predicted is the peak resident memory, over that after imports, of a process that opens the bundle, warms a task up
and trains it at the bundle's batch size. Warming up runs one step with all channels, so that one is counted. The parts:

    runtime      code and structures that a first opened graph brings in
    kernels      the sites' kernels with the centers put in, handed to the runtime; dropped when the graph is open.
                 None in int8, where the runtime maps them
    weights      all weights as the runtime packs them, and the kernels of input gradients, which it makes itself
    opening      copies that exist only while it does so; in int8, of one kernel at a time
    learning     centers' changes, gradients and the optimizer's state
    moments      of what sites see, while a task's are summed: these sums, the graph's, and those of two generations
    batch        images as float32, and once more while they are made
    activations  what is alive at the step's fullest moment
    head         matrices of features by features, while a task's head is fitted

Opening needs runtime to opening; a step needs all but kernels, opening, moments and head; summing needs runtime,
weights, batch and moments; fitting the head needs runtime and head, for no graph is open then. The largest is the peak.
The checkpoint, or a generation, is not in it: its tensors stay in their file, and are read one by one where they are
needed. What is alive is found by walking the graph in the file's order, which is that of execution
(docs/decisions/0003): a tensor lives from the node that makes it to the last that reads it, elementwise ops work in
place, and reshapes copy nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.measure.fixed_sizes import sized
from csk_sdk.contract.manifest import Site

PEAK = "peak"
# Measured with benchmarks/memory.py, docs/decisions/0009.
_RUNTIME_BYTES = 13 << 20
_NODE_BYTES = 16 << 10
_ARENA = 1.4
_FLOAT_BYTES = 4
# SGD with momentum: the change, its gradient, which becomes the update, the momentum, and buffers that sites share.
_PER_CENTER = 4
# Fitting a head inverts a matrix (csk_sdk.method.logistic): it, LAPACK's copy of it, the unit matrix, and the inverse.
_PER_PAIR_OF_FEATURES = 4 * 8
# A sum in float64; in float32 what a batch adds, and what the next generation and the one before have.
_PER_MOMENT = 8 + 3 * 4

_VIEWS = {"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity"}
_IN_PLACE = {
    *("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "Erf", "Exp", "Log", "Neg", "Sqrt", "Softmax"),
    *("Add", "Sub", "Mul", "Div", "LogSoftmax", "Pow", "Reciprocal", "HardSwish"),
}  # fmt: skip


def predict_memory(
    training: ir.Model,
    sites: Sequence[Site],
    features: int,
    classes: int,
    batch: int,
    int8: bool = False,
) -> dict[str, int]:
    """The table above in bytes, and "peak"; empty where a size is not known before run time.

    `features` is the width of the head, `classes` how many the base has; `int8` says whether frozen convolutions are in
    int8. Half of an int8 graph's nodes only say how kernels are rounded, and are gone when it is open.
    """
    model = _sized_step(training, sites, classes, batch)
    try:
        activations = _activations(model, classes)
        packed, folded, largest = _packed(model, _constants(model))
    except _UnknownSizeError:
        return {}
    centers = sum(site.rows * site.columns for site in sites) * _FLOAT_BYTES
    sizes = [int(np.prod(site.shape)) * _FLOAT_BYTES for site in sites]
    kernels = 0 if int8 else sum(sizes)
    parts = {
        "runtime": _RUNTIME_BYTES + _NODE_BYTES * len(model.graph) // (2 if int8 else 1),
        "kernels": kernels,
        "weights": packed,
        "opening": 2 * max(sizes, default=0) if int8 else kernels + folded + 2 * largest,
        "learning": _PER_CENTER * centers,
        "moments": _PER_MOMENT * sum(site.groups * site.width**2 for site in sites),
        "batch": 2 * _bytes(model.graph.inputs[0]),
        "activations": activations,
        "head": _PER_PAIR_OF_FEATURES * (features + 1) ** 2,
    }
    always = sum(parts[name] for name in ("runtime", "weights", "batch"))
    opening = sum(parts[name] for name in ("kernels", "opening"))
    step = sum(parts[name] for name in ("learning", "activations"))
    fitting = sum(parts[name] for name in ("runtime", "head"))
    return {**parts, PEAK: max(fitting, always + max(opening, step, parts["moments"]))}


def step_memory(
    training: ir.Model, sites: Sequence[Site], classes: int, batch: int, predicted: Mapping[str, int]
) -> dict[str, int]:
    """Bytes of a step's activations for "one" input, and for "each" further one; empty where they are not known.

    "each" is measured between one input and a batch of `batch`, so that nothing in between is underrated. `predicted`
    is what `predict_memory` says of that batch.
    """
    more = max(2, batch)
    try:
        one = _activations(_sized_step(training, sites, classes, 1), classes)
        if predicted and more == batch:
            all_ = predicted["activations"]
        else:
            all_ = _activations(_sized_step(training, sites, classes, more), classes)
    except _UnknownSizeError:
        return {}
    return {"one": one, "each": max(0, -(-(all_ - one) // (more - 1)))}


def _sized_step(training: ir.Model, sites: Sequence[Site], classes: int, batch: int) -> ir.Model:
    """The training graph at one batch size, with all channels, as warming up runs it."""
    sizes = {f"{site.name}.k": site.columns for site in sites}
    return sized(training, {**sizes, "N": batch, "classes": classes, "mask": 1})


def _activations(model: ir.Model, classes: int) -> int:
    _close(model, classes)
    return int(_ARENA * _fullest(model, _constants(model)))


class _UnknownSizeError(Exception):
    """Shape inference left a dimension open."""


def _close(model: ir.Model, classes: int) -> None:
    """Sizes that shape inference leaves open, because the graph computes them: of the loss, and of selections."""
    for node in model.graph:
        for value in node.outputs:
            shape = value.shape
            if shape is None or all(isinstance(dim, int) for dim in shape):
                continue
            if len(shape) == 2 and isinstance(shape[0], int):
                # Matrices of the loss are as wide as the head.
                value.shape = ir.Shape([shape[0], classes])
            elif node.op_type == "Range":
                counted = _counted(node.inputs[1])
                if counted is not None:
                    value.shape = counted.shape


def _counted(limit: ir.Value | None) -> ir.Value | None:
    """The vector whose length `limit` is, written as `Squeeze(Shape(vector))`."""
    for op_type in ("Squeeze", "Shape"):
        producer = limit.producer() if limit is not None else None
        if producer is None or producer.op_type != op_type:
            return None
        limit = producer.inputs[0]
    return limit


def _constants(model: ir.Model) -> set[ir.Value]:
    """Initializers, and what is computed from them alone: the runtime does that once."""
    constant = set(model.graph.initializers.values())
    for node in model.graph:
        if node.inputs and all(value is None or value in constant for value in node.inputs):
            constant.update(node.outputs)
    return constant


def _packed(model: ir.Model, constant: set[ir.Value]) -> tuple[int, int, int]:
    """Bytes of the constants that the step reads; of the kernels among them that are computed; of the largest.

    Kernels of convolutions are rewritten all together, so that those computed exist twice for a moment; matrices are
    packed one after the other.
    """
    read = {
        value
        for node in model.graph
        if node.outputs[0] not in constant
        for value in node.inputs
        if value is not None and value in constant
    }
    sizes = {value: _bytes(value) for value in read}
    computed = sum(
        size for value, size in sizes.items() if value.producer() is not None and _is_kernel(value)
    )
    return sum(sizes.values()), computed, max(sizes.values(), default=0)


def _is_kernel(value: ir.Value) -> bool:
    return any(usage.node.op_type in {"Conv", "ConvTranspose"} for usage in value.uses())


def _fullest(model: ir.Model, constant: set[ir.Value]) -> int:
    """Bytes of the tensors alive at the fullest moment, workspace included."""
    nodes = [node for node in model.graph if node.outputs[0] not in constant]
    root: dict[ir.Value, ir.Value] = {}
    last: dict[ir.Value, int] = {}
    for position, node in enumerate(nodes):
        for value in _computed(node.inputs, constant):
            last[root.get(value, value)] = position
        if node.op_type in _VIEWS and node.inputs[0] is not None:
            root[node.outputs[0]] = root.get(node.inputs[0], node.inputs[0])
    for value in model.graph.outputs:
        last[root.get(value, value)] = len(nodes)
    alive: dict[ir.Value, int] = {}
    fullest = 0
    for position, node in enumerate(nodes):
        ending = [
            value
            for value in {root.get(value, value) for value in _computed(node.inputs, constant)}
            if last[value] == position and value in alive
        ]
        made = {value: _bytes(value) for value in node.outputs if value not in root}
        now = sum(alive.values()) + sum(made.values()) + _workspace(node)
        if node.op_type in _IN_PLACE:
            now -= max((alive[value] for value in ending if alive[value] == sum(made.values())), default=0)
        fullest = max(fullest, now)
        alive.update({value: size for value, size in made.items() if last.get(value, position) > position})
        for value in ending:
            del alive[value]
    return fullest


def _computed(values: Sequence[ir.Value | None], constant: set[ir.Value]) -> Iterator[ir.Value]:
    return (value for value in values if value is not None and value not in constant)


def _workspace(node: ir.Node) -> int:
    """What the runtime's kernel takes beside inputs and outputs.

    ConvTranspose spreads one image of one group into columns, `(c_out / groups * taps, pixels)`. Where selects from
    either side into a tensor of its own before it merges them.
    """
    if node.op_type == "Where":
        return 2 * _bytes(node.outputs[0])
    if node.op_type != "ConvTranspose":
        return 0
    x, kernel = _shape(node.inputs[0]), _shape(node.inputs[1])
    return int(np.prod(kernel[1:]) * np.prod(x[2:])) * _FLOAT_BYTES


def _bytes(value: ir.Value) -> int:
    itemsize = value.dtype.itemsize if value.dtype is not None else _FLOAT_BYTES
    return int(np.prod(_shape(value), dtype=object) * itemsize)


def _shape(value: ir.Value | None) -> list[int]:
    if value is None or value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
        raise _UnknownSizeError
    return [int(dim) for dim in value.shape]  # type: ignore[arg-type]
