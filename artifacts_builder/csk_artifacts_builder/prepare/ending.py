"""What a file does with its classifier's scores, taken off so that the graph ends in them; exports put it on again.

1. Of several outputs, one holds the scores: others lead to it (features), or are made of it (probabilities, labels).
2. ArgMax and TopK, with the casts and changes of shape behind them, are cut off.
3. Scores `(N, classes, 1, 1)` are flattened.
4. A scale, a temperature or a shift behind the linear layer is folded into it; axes of 1 and back are left out. Two
   linear layers of the same features, whose scores are added, are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, attribute, called, constant_array
from csk_artifacts_builder.linear_layer import Linear, linear_layer
from csk_artifacts_builder.model_kinds import CLASSIFIERS_ONLY, kind_of
from csk_sdk.errors import ModelError

PROBABILITIES = {"Softmax", "LogSoftmax", "Sigmoid"}
_LABELS = {"ArgMax", "TopK"}
# The best score itself, beside its label: no scores can be had of it.
_BEST = {"ReduceMax"}
_MOVES = {"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_SCALES = {"Add", "Div", "Mul", "Sub"}


@dataclass(frozen=True)
class Output:
    """An output as the file has it."""

    name: str
    shape: tuple[int | str, ...]
    dtype: ir.DataType


@dataclass(frozen=True)
class Step:
    """A node behind the scores. `inputs` are its constants, None for what the step before gives (or the scores).

    Of its `count` outputs the next step reads the one at `taken`; `outputs` are the file's own, of the last step.
    """

    op_type: str
    attributes: tuple[ir.Attr, ...]
    inputs: tuple[NDArray[Any] | None, ...]
    outputs: tuple[Output | None, ...] = ()
    count: int = 1
    taken: int = 0

    def put(self, emit: Emitter, x: ir.Value) -> Sequence[ir.Value]:
        """Add the node behind `x`."""
        inputs = [x if one is None else emit.constant(one, one.dtype, "step") for one in self.inputs]
        node_outputs = emit.ops(self.op_type, *inputs, outputs=self.count)
        producer = node_outputs[0].producer()
        assert producer is not None
        for one in self.attributes:
            producer.attributes[one.name] = one
        return node_outputs


def choose_output(model: ir.Model, wanted: str | None, where: str) -> tuple[str, ...]:
    """Case 1: leave the output that holds the scores, `wanted` where that is given, in place; sentences on the others.

    Raises ModelError where there is no such output, or several could be it.
    """
    outputs = list(model.graph.outputs)
    listed = ", ".join(
        f"'{value.name}' {value.shape if value.shape is not None else ''}".strip() for value in outputs
    )
    if wanted is None and len(outputs) == 1:
        return ()
    named = [value for value in outputs if value.name == wanted]
    if wanted is not None and not named:
        raise ModelError(f"{where} has no output '{wanted}'; it has {listed}.")
    chosen = named[0] if named else _scores(outputs)
    if chosen is None:
        kind = kind_of(model)
        if kind is not None:
            raise ModelError(
                f"{where} is {kind}. {CLASSIFIERS_ONLY} If one of its outputs is that, --output names it."
            )
        raise ModelError(
            f"{where} has {len(outputs)} outputs ({listed}), and more than one of them could hold the scores of the "
            "classes. Say which with --output NAME."
        )
    kept = _of_one_node(chosen, outputs)
    model.graph.outputs.clear()
    model.graph.outputs.extend(kept)
    left = ", ".join(f"'{value.name}'" for value in outputs if value not in kept)
    if not left:
        return ()
    label = _goes_through(_LABELS, _chain(chosen))
    what = "what a bundle is built of is" if label else "the scores of the classes are"
    return (f"{what} output '{chosen.name}' of {where}; bundle and exports leave out {left}.",)


def _of_one_node(chosen: ir.Value, outputs: Sequence[ir.Value]) -> list[ir.Value]:
    """TopK has two outputs, which only go together."""
    node = chosen.producer()
    if node is None or node.op_type != "TopK":
        return [chosen]
    return [value for value in outputs if value.producer() is node]


def _scores(outputs: Sequence[ir.Value]) -> ir.Value | None:
    """The output that all others lead to, or are made of; of several made of one, the first that is no label."""
    chains = {value: _chain(value) for value in outputs}
    for value in outputs:
        family = [other for other in outputs if chains[other][-1] is chains[value][-1]]
        above = _above(chains[value][-1])
        if all(other in family or other in above for other in outputs):
            raw = [one for one in family if all(one in chains[other] for other in family)]
            scores = [one for one in family if not _goes_through(_LABELS | _BEST, chains[one])]
            labels = [one for one in family if not _goes_through(_BEST, chains[one])]
            return (raw or scores or labels or family)[0]
    return None


def _chain(value: ir.Value) -> list[ir.Value]:
    """The value and those that it is made of by what only reads scores, back to where they come from."""
    chain = [value]
    while True:
        node = chain[-1].producer()
        if node is None or node.op_type not in PROBABILITIES | _LABELS | _BEST | _MOVES | _SCALES | {"Cast"}:
            return chain
        given = [one for one in node.inputs if one is not None and constant_array(one) is None]
        if len(given) != 1:
            return chain
        chain.append(given[0])


def _goes_through(ops: set[str], chain: Sequence[ir.Value]) -> bool:
    return any((node := value.producer()) is not None and node.op_type in ops for value in chain)


def _above(value: ir.Value) -> set[ir.Value]:
    """All values that `value` is computed from."""
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop().producer()
        for one in node.inputs if node is not None else ():
            if one is not None and one not in seen:
                seen.add(one)
                waiting.append(one)
    return seen


def cut_labels(model: ir.Model) -> tuple[Step, ...]:
    """Case 2, in place: the graph ends in front of its ArgMax or TopK; what was behind it, first to last."""
    graph = model.graph
    nodes: list[ir.Node] = []
    value = graph.outputs[0]
    while (node := value.producer()) is not None and node.op_type in _LABELS | _MOVES | {"Cast"}:
        nodes.insert(0, node)
        x = node.inputs[0]
        if x is None or any(one is not None and constant_array(one) is None for one in node.inputs[1:]):
            break
        value = x
    first = next((place for place, node in enumerate(nodes) if node.op_type in _LABELS), None)
    if first is None:
        return ()
    outputs = {
        value: Output(str(value.name), _dims(value), value.dtype or ir.DataType.FLOAT)
        for value in graph.outputs
    }
    behind = [*(node.inputs[0] for node in nodes[first + 1 :]), None]
    steps = tuple(_step(node, outputs, read) for node, read in zip(nodes[first:], behind, strict=True))
    scores = nodes[first].inputs[0]
    assert scores is not None
    graph.outputs.clear()
    graph.outputs.append(scores)
    return steps


def _step(node: ir.Node, outputs: dict[ir.Value, Output], read: ir.Value | None) -> Step:
    own = tuple(outputs.get(value) for value in node.outputs)
    inputs = (None, *(constant_array(value) for value in node.inputs[1:]))
    taken = next((place for place, value in enumerate(node.outputs) if value is read), 0)
    return Step(node.op_type, tuple(node.attributes.values()), inputs, own, len(node.outputs), taken)


def _dims(value: ir.Value) -> tuple[int | str, ...]:
    """The shape, its first axis open."""
    dims = [dim if isinstance(dim, int) else str(dim) for dim in value.shape or ()]
    return ("N", *dims[1:]) if dims else ()


def flatten_scores(model: ir.Model) -> tuple[Step, ...]:
    """Case 3, in place: the graph ends in `(N, classes)`; the step that gives the file's own shape back."""
    old = model.graph.outputs[0]
    if old.shape is not None and len(old.shape) == 1 and not isinstance(old.shape[0], int):
        return _with_axis(model, old)
    axis = _class_axis(old)
    if axis is None or old.shape is None or len(old.shape) == 2:
        return ()
    emit = Emitter(model.graph)
    flat = emit.op("Flatten", old, axis=1)
    flat.shape, flat.type = ir.Shape([old.shape[0], old.shape[axis]]), old.type
    target = [1] * len(old.shape)
    target[0], target[axis] = 0, -1
    shape: list[int | str] = [1] * len(old.shape)
    shape[0], shape[axis] = "N", "classes"
    output = Output(str(old.name), tuple(shape), old.dtype or ir.DataType.FLOAT)
    _end_in(model, flat, old)
    return (Step("Reshape", (), (None, np.array(target, np.int64)), (output,)),)


def _with_axis(model: ir.Model, old: ir.Value) -> tuple[Step, ...]:
    """Of one number for each image, `(N,)`, a column `(N, 1)`."""
    emit = Emitter(model.graph)
    assert old.shape is not None
    column = emit.op("Unsqueeze", old, emit.ints(1))
    column.shape, column.type = ir.Shape([old.shape[0], 1]), old.type
    output = Output(str(old.name), ("N",), old.dtype or ir.DataType.FLOAT)
    _end_in(model, column, old)
    return (Step("Reshape", (), (None, np.array([-1], np.int64)), (output,)),)


def _holds_scores(value: ir.Value | None) -> bool:
    """Whether the classes are on one axis of it, or it is one number for each image."""
    return _class_axis(value) is not None or (
        value is not None and value.shape is not None and len(value.shape) == 1
    )


def _class_axis(value: ir.Value | None) -> int | None:
    """The one axis behind the batch that is longer than 1, or the first; None where there is no such axis."""
    if value is None or value.shape is None or len(value.shape) < 2:
        return None
    sizes = list(value.shape)[1:]
    if not all(isinstance(size, int) for size in sizes):
        return None
    long = [axis for axis, size in enumerate(sizes, 1) if size != 1]
    return None if len(long) > 1 else (long or [1])[0]


def fold_scales(model: ir.Model) -> tuple[str, ...]:
    """Case 4, in place: the graph ends in a linear layer, and perhaps probabilities; a sentence for each scale."""
    output = model.graph.outputs[0]
    value, activation = output, None
    scales: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    said: list[str] = []
    modified = False
    while (node := value.producer()) is not None and (layer := linear_layer(node)) is None:
        if (both := _two_layers(node)) is not None:
            layer, modified = both, True
            said.insert(0, f"two classifiers, whose scores are added (node '{called(node)}'), are one.")
            break
        if not node.inputs or not _holds_scores(value):
            return ()
        read = node.inputs[0]
        if node.op_type in PROBABILITIES and activation is None and not scales and _over_classes(node):
            activation = node
        elif node.op_type in _MOVES and _holds_scores(read) and _per_picture(read) == _per_picture(value):
            modified = True
        elif (scaled := _scaled(node)) is not None:
            read, scale, shift = scaled
            scales.insert(0, (scale, shift))
            said.insert(
                0, f"op '{node.op_type}' (node '{called(node)}') behind the classifier is folded into it."
            )
            modified = True
        else:
            return ()
        assert read is not None
        value = read
    if node is None or layer is None or not modified:
        return ()
    features, weight, bias, weight_name, bias_name = layer
    for scale, shift in scales:
        weight, bias = weight * scale[:, None], bias * scale + shift
    emit = Emitter(model.graph)
    if features.shape is not None and len(features.shape) != 2:
        if _per_picture(features) != weight.shape[1]:
            return ()
        features = emit.op("Flatten", features, axis=1)
    tensors = [_own(emit, name, array) for name, array in ((weight_name, weight), (bias_name, bias))]
    logits = emit.op("Gemm", features, *tensors, transB=1)
    producer = logits.producer()
    assert producer is not None
    producer.name, node.name = node.name, None
    if activation is not None:
        attributes: dict[str, Any] = {} if activation.op_type == "Sigmoid" else {"axis": -1}
        logits = emit.op(activation.op_type, logits, **attributes)
    logits.shape, logits.type = output.shape, output.type
    _end_in(model, logits, output)
    return tuple(said)


def _two_layers(node: ir.Node) -> Linear | None:
    """The layer that a sum of two, of the same features, is: a classifier and one that learned by distillation."""
    if node.op_type != "Add":
        return None
    found = [value.producer() if value is not None else None for value in node.inputs]
    one, other = (linear_layer(layer) if layer is not None else None for layer in found)
    if one is None or other is None or one[0] is not other[0] or one[1].shape != other[1].shape:
        return None
    return one[0], one[1] + other[1], one[2] + other[2], one[3], one[4]


def _own(emit: Emitter, name: str, array: NDArray[Any]) -> ir.Value:
    """An initializer of the new layer, beside the old one's, which may have other readers."""
    taken = emit.graph.initializers
    while name in taken:
        name += ".folded"
    return emit.initializer(np.ascontiguousarray(array, np.float32), name)


def _scaled(node: ir.Node) -> tuple[ir.Value, NDArray[np.float64], NDArray[np.float64]] | None:
    """What a node scales, by how much and what it adds, `(classes,)` each; None where it does something else."""
    if node.op_type not in _SCALES or len(node.inputs) != 2:
        return None
    arrays = [constant_array(value) for value in node.inputs]
    place = next((place for place in (1, 0) if arrays[place] is not None), None)
    if place is None or (place == 0 and node.op_type == "Div"):
        return None
    x, array = node.inputs[1 - place], arrays[place]
    axis = _class_axis(x)
    if x is None or x.shape is None or axis is None or array is None:
        return None
    target = [1] * len(x.shape)
    target[axis] = int(x.shape[axis])  # type: ignore[arg-type]
    try:
        constant = np.broadcast_to(array.astype(np.float64), target).reshape(-1)
    except ValueError:
        return None
    one, none = np.ones_like(constant), np.zeros_like(constant)
    if node.op_type == "Mul":
        return x, constant, none
    if node.op_type == "Div":
        return x, 1 / constant, none
    if node.op_type == "Add":
        return x, one, constant
    return (x, one, -constant) if place == 1 else (x, -one, constant)


def _over_classes(node: ir.Node) -> bool:
    if node.op_type == "Sigmoid":
        return True
    value = node.outputs[0]
    assert value.shape is not None
    return int(attribute(node, "axis", -1)) % len(value.shape) == _class_axis(value)


def _per_picture(value: ir.Value | None) -> int:
    assert value is not None
    assert value.shape is not None
    sizes = [size for size in list(value.shape)[1:] if isinstance(size, int)]
    return prod(sizes) if len(sizes) == len(value.shape) - 1 else 0


def _end_in(model: ir.Model, value: ir.Value, old: ir.Value) -> None:
    value.name, old.name = old.name, None
    model.graph.outputs[0] = value
