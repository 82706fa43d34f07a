"""Ops that compute with integers, as the float ops that they stand for.

1. QLinear... and QGemm, of the standard and of ONNX Runtime's domain `com.microsoft`: the op on what its integers stand
   for, held within the range of its result.
2. DynamicQuantizeLinear, ConvInteger, MatMulInteger: a scale that is computed for each image is taken for 1, and the
   kernel's scale, which stands behind the product, is multiplied into it.
3. MatMulNBits: weights of few bits in blocks, unpacked by ONNX Runtime itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import attribute, constant_array
from csk_artifacts_builder.prepare.quantized_values import MICROSOFT, Grid, Values

Rule = Callable[[Values, ir.Node], None]
# What the attributes of com.microsoft's ops say more than those of the standard ones.
_FOREIGN = {"channels_last", "opset"}


def _given(node: ir.Node, count: int) -> list[ir.Value | None]:
    """Its first `count` inputs, None for those that it leaves out."""
    inputs = [*node.inputs, *[None] * count]
    return [value if value is not None and value.name else None for value in inputs[:count]]


def _settings(values: Values, node: ir.Node) -> dict[str, Any]:
    if attribute(node, "channels_last", 0):
        raise values.refuse(node, "reads images with their channels last")
    return {name: attribute(node, name) for name in node.attributes if name not in _FOREIGN}


def _emit(
    values: Values, node: ir.Node, op_type: str, *inputs: ir.Value | None, **attributes: Any
) -> ir.Value:
    """The float op, under the name of the node that it stands for."""
    with values.emit.before(node):
        result = values.emit.op(op_type, *inputs, **attributes)
    producer = result.producer()
    assert producer is not None
    producer.name, node.name = node.name, None
    result.shape = node.outputs[0].shape
    return result


def _replace(node: ir.Node, result: ir.Value) -> None:
    """Let all readers of a float output read `result`."""
    old = node.outputs[0]
    result.shape, result.type = old.shape, ir.TensorType(ir.DataType.FLOAT)
    if old.is_graph_output():
        result.name, old.name = old.name, None
    old.replace_all_uses_with(result, replace_graph_outputs=True)


def _conv(values: Values, node: ir.Node) -> None:
    """y = conv(x, w) + b, the bias in units of both scales"""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, b = _given(node, 9)
    image = values.real(node, x, x_scale, x_zero)
    kernel = values.real(node, w, w_scale, w_zero, axis=0)
    bias = values.biased(b, _product(values, node, x_scale, w_scale))
    inputs = [image, kernel, *([bias] if bias is not None else [])]
    values.rounded(node, _emit(values, node, "Conv", *inputs, **_settings(values, node)), y_scale, y_zero)


def _product(values: Values, node: ir.Node, *scales: ir.Value | None) -> Any:
    product = np.ones((), np.float32)
    for scale in scales:
        array = values.constant(node, scale, "scale")
        product = product * (array.reshape(()) if array.size == 1 else array)
    return product


def _matmul(values: Values, node: ir.Node) -> None:
    """y = a @ b"""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = _given(node, 8)
    left, right = values.real(node, a, a_scale, a_zero), values.real(node, b, b_scale, b_zero, axis=-1)
    values.rounded(node, _emit(values, node, "MatMul", left, right), y_scale, y_zero)


def _gemm(values: Values, node: ir.Node) -> None:
    """y = alpha * (a @ b) + c, the bias in units of alpha and both scales; float where no scale is given for it"""
    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = _given(node, 9)
    alpha, turned = float(attribute(node, "alpha", 1.0)), attribute(node, "transB", 0)
    left = values.real(node, a, a_scale, a_zero)
    right = values.real(node, b, b_scale, b_zero, axis=0 if turned else 1)
    bias = values.biased(c, np.float32(alpha) * _product(values, node, a_scale, b_scale))
    inputs = [left, right, *([bias] if bias is not None else [])]
    y = _emit(values, node, "Gemm", *inputs, alpha=alpha, transA=attribute(node, "transA", 0), transB=turned)
    if y_scale is None:
        _replace(node, y)
    else:
        values.rounded(node, y, y_scale, y_zero)


def _binary(values: Values, node: ir.Node) -> None:
    """y = a + b, y = a * b"""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = _given(node, 8)
    inputs = values.real(node, a, a_scale, a_zero), values.real(node, b, b_scale, b_zero)
    values.rounded(node, _emit(values, node, _float_name(node), *inputs), y_scale, y_zero)


def _unary(values: Values, node: ir.Node) -> None:
    """Pools, activations and means: one input, and the scale of the result."""
    x, x_scale, x_zero, y_scale, y_zero = _given(node, 5)
    image = values.real(node, x, x_scale, x_zero)
    settings = _settings(values, node)
    values.rounded(node, _emit(values, node, _float_name(node), image, **settings), y_scale, y_zero)


def _float_name(node: ir.Node) -> str:
    return node.op_type.removeprefix("QLinear")


def _concat(values: Values, node: ir.Node) -> None:
    """y = concat(x_1, ...); the scale of the result comes first"""
    y_scale, y_zero, *parts = _given(node, len(node.inputs))
    triples = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    reals = [values.real(node, x, x_scale, x_zero) for x, x_scale, x_zero in triples]
    values.rounded(node, _emit(values, node, "Concat", *reals, **_settings(values, node)), y_scale, y_zero)


def _where(values: Values, node: ir.Node) -> None:
    """y = where(condition, a, b)"""
    condition, a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = _given(node, 9)
    inputs = values.real(node, a, a_scale, a_zero), values.real(node, b, b_scale, b_zero)
    values.rounded(node, _emit(values, node, "Where", condition, *inputs), y_scale, y_zero)


_ONE = Grid(np.ones((), np.float32), np.zeros((), np.int64), ir.DataType.INT32)


def _dynamic(values: Values, node: ir.Node) -> None:
    """y, scale, zero = x rounded to its own range: x itself, with 1 and 0"""
    x = node.inputs[0]
    assert x is not None
    y, scale, zero = node.outputs
    values.reals[y] = x, _ONE
    scale.replace_all_uses_with(values.emit.constant(1.0, np.float32, "scalar"))
    zero.replace_all_uses_with(values.emit.constant(0, np.uint8, "zero_point"))


def _integer_product(values: Values, node: ir.Node) -> None:
    """y = conv(x, w - w_zero) or x @ (w - w_zero), in units of the scales"""
    x, w, _, w_zero = _given(node, 4)
    if x not in values.reals or w is None:
        raise values.refuse(node, "reads integers that csk-sdk does not know the scale of")
    assert x is not None
    conv = node.op_type == "ConvInteger"
    integers = values.constant(node, w, "weights").astype(np.float32)
    zeros = constant_array(w_zero)
    if zeros is not None:
        shape = [-1, *[1] * (integers.ndim - 1)] if conv and zeros.size > 1 else zeros.shape
        integers = integers - zeros.astype(np.float32).reshape(shape)
    kernel = values.initializer(w, integers)
    y = _emit(
        values, node, "Conv" if conv else "MatMul", values.reals[x][0], kernel, **_settings(values, node)
    )
    y.dtype = ir.DataType.FLOAT
    values.reals[node.outputs[0]] = y, _ONE


def fold_scale(values: Values, node: ir.Node) -> bool:
    """A product's scale, a constant Mul behind it, in its kernel; True where `node` was one."""
    for place in (0, 1):
        product, scale = node.inputs[place], constant_array(node.inputs[1 - place])
        producer = product.producer() if product is not None else None
        if product is None or scale is None or producer is None or len(product.uses()) != 1:
            continue
        kernel = producer.inputs[1] if producer.op_type in ("Conv", "MatMul") else None
        array = constant_array(kernel)
        if kernel is None or array is None or len(kernel.uses()) != 1:
            continue
        conv = producer.op_type == "Conv"
        size = array.shape[0] if conv else array.shape[-1]
        if scale.size not in (1, size):
            continue
        shape = [-1 if place == (0 if conv else array.ndim - 1) else 1 for place in range(array.ndim)]
        by_output = scale.reshape(shape) if scale.size > 1 else scale.reshape(())
        kernel.const_value = ir.tensor((array * by_output).astype(np.float32), name=kernel.name)
        _replace(node, product)
        return True
    return False


def _few_bits(values: Values, node: ir.Node) -> None:
    """y = x @ w + b: w is what the op itself makes of the rows of the unit matrix"""
    x, w, scales, zeros, index, b = _given(node, 6)
    count = int(attribute(node, "K"))
    rows = values.emit.initializer(np.eye(count, dtype=np.float32), f"{w.name if w else ''}.rows")
    settings = {name: attribute(node, name) for name in node.attributes if name != "accuracy_level"}
    assert w is not None
    unpacked = values.computed(node, node.op_type, (rows, w, scales, zeros, index), MICROSOFT, **settings)
    kernel = values.initializer(w, unpacked)
    values.weights[str(kernel.name)] = Grid(np.ones(1, np.float32), np.zeros(1, np.int64), ir.DataType.UINT4)
    y = _emit(values, node, "MatMul", x, kernel)
    if b is not None:
        with values.emit.before(node):
            y = values.emit.op("Add", y, b)
    _replace(node, y)


QOPERATORS: dict[str, Rule] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _binary),
    **dict.fromkeys(
        (
            *("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu"),
            *("QLinearSigmoid", "QLinearSoftmax"),
        ),
        _unary,
    ),
}
DYNAMIC: dict[str, Rule] = {
    "DynamicQuantizeLinear": _dynamic,
    **dict.fromkeys(("ConvInteger", "MatMulInteger"), _integer_product),
}
FEW_BITS: dict[str, Rule] = {"MatMulNBits": _few_bits}
