"""The windows of convolutions and pools, written so that every declared ONNX Runtime sees the same ones.

Releases from 1.17 to 1.32 differ in what they make of the following, each by its own reading of the specification or by
an optimisation that is not exact (docs/decisions/0025). So the rule goes into the graph as plain numbers.

1. `auto_pad` becomes pads.
2. `ceil_mode` becomes pads at the end. A last window that would begin behind the image is left out, as torch and
   opset 22 say; up to 1.20 it was there and gave NaN, 0 or -3.4e38.
3. A mean that counts padding, with ceil_mode: divided by the cells within the padded image, as torch does; up to 1.25
   and opset 18 by all of the kernel. It becomes a mean over the whole kernel, times a constant for each place.
4. Zeros by Pad in front of MaxPool: runtimes up to 1.31 drop them into the pool's own padding, which is minus
   infinity. They go there, and what they can add is the maximum with a constant.
5. Zeros by Pad in front of AveragePool: 1.20 does not count them any more. They become the pool's own padding, counted.
6. Where a pool cannot pad so much itself (runtimes up to 1.31 do not open such a graph), zeros in front of it stay, but
   as the smallest positive number, which no runtime takes for padding of its own.
7. Means of dilated windows, which opset 17 has not, are sums of slices. And MaxPool whose dilated windows reach further
   over the edge than a pool may pad gets a Pad of the lowest number in front.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, attribute, called, constant_array
from csk_artifacts_builder.prepare.constant_sizes import infer_again
from csk_artifacts_builder.prepare.windows import Windows, padding, picture_size, windows_of
from csk_sdk.errors import ModelError

_LOWEST = float(np.finfo(np.float32).min)
_NEXT_TO_ZERO = float(np.finfo(np.float32).tiny)
# Before it the inputs of Max had one shape, and zeros in front of a pool stay there.
_BROADCASTING = 8
_POOLS = ("MaxPool", "AveragePool")
_NEVER_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softplus", "Exp", "Abs"}
_KEEP_SIGN = {
    *_POOLS,
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Concat",
    "Transpose",
    "Reshape",
    "Flatten",
    "Slice",
}
# What runtimes take away before they look for padding, with the constant that makes it do nothing.
_NOOPS = {"Mul": 1.0, "Div": 1.0, "Add": 0.0, "Sub": 0.0}


def write_windows(model: ir.Model, where: str) -> bool:
    """Write the windows of every convolution and pool of known size as above, in place; True when one changed.

    Shapes are inferred where a pool has fewer windows than they said. Raises ModelError naming a MaxPool with a window
    that has neither a pixel nor a zero.
    """
    emit = Emitter(model.graph)
    modified = False
    for node in list(model.graph):
        if node.op_type == "Conv":
            modified |= _write_auto_pad(node)
        elif node.op_type in _POOLS and (windows := windows_of(node)) is not None:
            if min(windows.out) < 1:
                raise ModelError(
                    f"{where}: '{called(node)}' ({node.op_type}) has no window: its kernel reaches further than the "
                    f"image of {'x'.join(str(axis.size) for axis in windows.axes)}."
                )
            before = node.outputs[0].shape
            modified |= _write_pool(emit, node, windows, where)
            if before is not None and list(before)[2:] != windows.out:
                infer_again(model)
    return modified


def misread_windows(model: ir.Model) -> tuple[str, ...]:
    """One sentence for each node whose `auto_pad` ONNX Runtime, up to 1.32, does not compute as the standard says.

    It pads dilated windows as if they were not dilated (MaxPool) or refuses them (Conv), and refuses to pad where a
    stride is larger than the kernel.
    """
    said = []
    for node in model.graph:
        mode = str(attribute(node, "auto_pad", ""))
        if node.op_type not in ("Conv", *_POOLS) or not mode.startswith("SAME"):
            continue
        shape = (
            list(node.inputs[1].shape or ()) if node.op_type == "Conv" and node.inputs[1] is not None else []
        )
        kernel = attribute(node, "kernel_shape") or shape[2:]
        ones = [1] * len(kernel)
        strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
        if any(d != 1 for d in dilations) or any(s > k for s, k in zip(strides, kernel, strict=False)):
            said.append(
                f"'{called(node)}' ({node.op_type}) has auto_pad {mode} with dilations {dilations}, strides {strides} "
                f"and a kernel of {kernel}, which ONNX Runtime does not compute as the ONNX standard says: the bundle "
                "and its exports hold the standard's padding as plain numbers."
            )
    return tuple(said)


def _write_auto_pad(node: ir.Node) -> bool:
    """Case 1 of a convolution; False where there is nothing to do, or the size is not known."""
    mode = attribute(node, "auto_pad", "NOTSET")
    x, weight = node.inputs[:2]
    if mode == "NOTSET" or x is None or weight is None or weight.shape is None:
        return False
    kernel = attribute(node, "kernel_shape") or [int(size) for size in list(weight.shape)[2:]]  # type: ignore[arg-type]
    sizes = picture_size(x)
    if sizes is None and mode != "VALID":
        return False
    ones = [1] * len(kernel)
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    _set(node, auto_pad=None, pads=padding(node, sizes or ones, kernel, strides, dilations))
    return True


def _write_pool(emit: Emitter, node: ir.Node, windows: Windows, where: str) -> bool:
    """Write one pool; True when something changed."""
    source, begin, end = _zeros_in_front(node)
    written = attribute(node, "auto_pad", "NOTSET") == "NOTSET" and not attribute(node, "ceil_mode", 0)
    if source is not None:
        inner = windows.behind(begin, end)
        if (
            inner.written
            and not inner.dilated_mean
            and not _tells_places(node)
            and emit.opset >= _BROADCASTING
        ):
            node.replace_input_with(0, source)
            windows = inner
        else:
            with emit.before(node):
                node.replace_input_with(0, _padded(emit, source, begin, end, _NEXT_TO_ZERO))
    elif written and not windows.dilated_mean and (windows.mean or windows.written):
        return False
    if windows.dilated_mean:
        _write_sum(emit, node, windows)
    elif windows.mean:
        _write_mean(emit, node, windows)
    else:
        _write_max(emit, node, windows, where)
    return True


def _write_max(emit: Emitter, node: ir.Node, windows: Windows, where: str) -> None:
    """Cases 2, 4 and 7 of a MaxPool."""
    x = node.inputs[0]
    assert x is not None
    begin, end = windows.over
    if not (windows.cells > 0).all():
        raise ModelError(
            f"{where}: '{called(node)}' (MaxPool) has a window in its padding alone, whose maximum is nothing. "
            "Export the model with less padding or dilation there."
        )
    if not windows.written:
        with emit.before(node):
            node.replace_input_with(0, _padded(emit, x, begin, end, _LOWEST))
        begin = end = [0] * len(begin)
    _set(node, auto_pad=None, ceil_mode=None, pads=[*begin, *end])
    _resize(node, windows)
    has_zero = windows.cells > windows.pixels
    if has_zero.any() and not _never_negative(x):
        floor = np.where(has_zero, 0.0, _LOWEST)[None, None]
        _behind(emit, node, "Max", emit.constant(floor, np.float32, "floor"))


def _write_mean(emit: Emitter, node: ir.Node, windows: Windows) -> None:
    """Cases 2, 3 and 5 of an AveragePool."""
    begin, end = windows.over
    counted, whole = windows.counted, float(np.prod([axis.kernel for axis in windows.axes]))
    # By all of the kernel, unless the padding of this pool alone is left out, which is what runtimes do by themselves.
    by_all = bool((counted == whole).all()) or bool((counted != windows.pixels).any())
    _set(
        node,
        auto_pad=None,
        ceil_mode=None,
        dilations=None,
        pads=[*begin, *end],
        count_include_pad=int(by_all),
    )
    _resize(node, windows)
    if by_all and (counted != whole).any():
        _behind(emit, node, "Mul", emit.constant(_shares(whole, counted), np.float32, "shares"))


def _write_sum(emit: Emitter, node: ir.Node, windows: Windows) -> None:
    """Case 7 of an AveragePool: along one axis after the other, the slices that its taps see, added up."""
    x, old = node.inputs[0], node.outputs[0]
    assert x is not None
    with emit.before(node):
        begin, end = windows.over
        total = _padded(emit, x, begin, end, 0.0) if any([*begin, *end]) else x
        for number, axis in enumerate(windows.axes):
            place, step = emit.ints(2 + number), emit.ints(axis.stride)
            taps = [
                emit.op("Slice", total, emit.ints(first), emit.ints(first + axis.reach), place, step)
                for first in range(0, axis.dilation * axis.kernel, axis.dilation)
            ]
            # Not Sum, which onnxruntime-training has no gradient for.
            total = reduce(partial(emit.op, "Add"), taps)
        mean = emit.op("Mul", total, emit.constant(_shares(1.0, windows.counted), np.float32, "shares"))
    mean.shape, mean.type = old.shape, old.type
    _take_over(mean, old)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _shares(whole: float, counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(1, 1, *out)`; a window that nothing is counted in gives 0."""
    return np.divide(whole, counted, out=np.zeros_like(counted), where=counted > 0)[None, None]


def _zeros_in_front(node: ir.Node) -> tuple[ir.Value | None, list[int], list[int]]:
    """What a Pad in front of a pool pads the images of with zeros, and how much; None where there is no such Pad."""
    nothing: tuple[None, list[int], list[int]] = None, [], []
    pad = node.inputs[0].producer() if node.inputs[0] is not None else None
    while pad is not None and _does_nothing(pad):
        pad = pad.inputs[0].producer() if pad.inputs[0] is not None else None
    if pad is None or pad.op_type != "Pad" or attribute(pad, "mode", "constant") != "constant":
        return nothing
    x = node.inputs[0]
    assert x is not None
    assert x.shape is not None
    rank = len(x.shape)
    pads, value, axes = _padding_of(pad, rank)
    if pads is None or value != 0.0 or axes is None:
        return nothing
    around = np.zeros((2, rank), np.int64)
    around[:, axes] = pads.reshape(2, -1)
    if (around < 0).any() or around[:, :2].any() or not around.any():
        return nothing
    return pad.inputs[0], around[0, 2:].tolist(), around[1, 2:].tolist()


def _padding_of(
    pad: ir.Node, rank: int
) -> tuple[NDArray[np.int64] | None, float | None, NDArray[np.int64] | None]:
    """The pads of a Pad of any opset, its number and its axes; None for what the graph computes."""
    if "pads" in pad.attributes:  # below opset 11
        return np.asarray(attribute(pad, "pads")), float(attribute(pad, "value", 0.0)), np.arange(rank)
    default: tuple[NDArray[Any] | None, ...] = (None, np.zeros(()), np.arange(rank))
    given = [*pad.inputs, None, None, None][1:4]
    pads, value, axes = (
        missing if one is None else constant_array(one) for one, missing in zip(given, default, strict=True)
    )
    return pads, None if value is None else float(value.item()), axes


def _does_nothing(node: ir.Node) -> bool:
    constant = constant_array(node.inputs[1]) if node.op_type in _NOOPS else None
    return constant is not None and bool((constant == _NOOPS[node.op_type]).all()) and constant.size == 1


def _tells_places(node: ir.Node) -> bool:
    """Whether someone reads where a MaxPool's maxima are: a Pad would move them."""
    return len(node.outputs) > 1 and bool(node.outputs[1].uses())


def _never_negative(value: ir.Value) -> bool:
    node = value.producer()
    if node is None:
        return False
    if node.op_type == "Clip":
        low = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
        return low is not None and float(low.item()) >= 0
    if node.op_type in _KEEP_SIGN:
        read = node.inputs if node.op_type == "Concat" else node.inputs[:1]
        return all(one is not None and _never_negative(one) for one in read)
    return node.op_type in _NEVER_NEGATIVE


def _padded(emit: Emitter, x: ir.Value, begin: list[int], end: list[int], value: float) -> ir.Value:
    assert x.shape is not None
    padded = emit.pad(x, [0, 0, *begin, 0, 0, *end], value)
    batch, channels, *sizes = x.shape
    padded.shape = ir.Shape(
        [batch, channels, *(int(n) + b + e for n, b, e in zip(sizes, begin, end, strict=True))]  # type: ignore[arg-type]
    )
    padded.type = x.type
    return padded


def _set(node: ir.Node, **values: list[int] | int | None) -> None:
    """Write a node's attributes; None takes one away."""
    for name, value in values.items():
        node.attributes.pop(name, None)
        if isinstance(value, list):
            node.attributes[name] = ir.AttrInt64s(name, value)
        elif value is not None:
            node.attributes[name] = ir.AttrInt64(name, value)


def _resize(node: ir.Node, windows: Windows) -> None:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    assert shape is not None
    for value in node.outputs:
        value.shape = ir.Shape([*list(shape)[:2], *windows.out])


def _behind(emit: Emitter, node: ir.Node, op_type: str, constant: ir.Value) -> None:
    """Put an elementwise op between a node's first output and all that read it."""
    y = node.outputs[0]
    with emit.behind(node):
        changed = emit.op(op_type, y, constant)
    changed.shape, changed.type = y.shape, y.type
    _take_over(changed, y)


def _take_over(value: ir.Value, old: ir.Value) -> None:
    """Let every reader of `old` but the maker of `value` read `value`, under the same name where it is an output."""
    for user, position in list(old.uses()):
        if user is not value.producer():
            user.replace_input_with(position, value)
    graph = old.graph
    if graph is not None and old.is_graph_output():
        value.name, old.name = old.name, None
        graph.outputs[list(graph.outputs).index(old)] = value
