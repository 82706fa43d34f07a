"""Which sizes are folded and which stay: of each graph, what ONNX Runtime computes is the same before and after."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx_text import model
from preparing import outputs

from csk_artifacts_builder.prepare.constant_sizes import (
    fold_sizes,
    gather_to_reshape,
    infer_again,
    sizes_to_scales,
)


def graph(
    nodes: str, source: str = "N,4,7,7", result: str = "N,a,b,c", **tensors: NDArray
) -> onnx.ModelProto:
    return model(f"(float[{source}] x) => (float[{result}] y) {{ {nodes} }}", **tensors)


def inferred(proto: onnx.ModelProto) -> ir.Model:
    loaded = ir.from_proto(proto)
    infer_again(loaded)
    return loaded


def ops(loaded: ir.Model) -> list[str]:
    return [node.op_type for node in loaded.graph]


def same_outputs(before: onnx.ModelProto, after: ir.Model, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(outputs(ir.to_proto(after), x), outputs(before, x), rtol=1e-5, atol=1e-6)


# What leads to `sizes`, by how it is written.
JOINED = {
    "shape-of-a-part": "s = Shape<start=0, end=2>(x) \n sizes = Concat<axis=0>(s, wanted)",
    "gathered": "s = Shape(x) \n k = Gather(s, first) \n sizes = Concat<axis=0>(k, wanted)",
    "one-by-one": "s = Shape(x) \n n = Gather(s, zero) \n n1 = Unsqueeze(n, axis0) \n c = Gather(s, one) \n"
    "c1 = Unsqueeze(c, axis0) \n sizes = Concat<axis=0>(n1, c1, wanted)",
    "cast-there-and-back": "s = Shape(x) \n f = Cast<to=1>(s) \n g = Cast<to=7>(f) \n k = Slice(g, axis0, two) \n"
    "sizes = Concat<axis=0>(k, wanted)",
    "every-second": "s = Shape(x) \n k = Slice(s, axis0, four, axis0, two) \n m = Gather(k, zero1) \n"
    "c = Shape<start=1, end=2>(x) \n sizes = Concat<axis=0>(m, c, wanted)",
}
PLACES = {
    "zero": np.array(0),
    "zero1": np.array([0]),
    "one": np.array(1),
    "first": np.array([0, 1]),
    "axis0": np.array([0]),
    "two": np.array([2]),
    "four": np.array([4]),
    "wanted": np.array([14, 21]),
}


def used(nodes: str) -> dict[str, NDArray]:
    words = nodes.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return {name: array for name, array in PLACES.items() if name in words}


@pytest.mark.parametrize("how", JOINED)
def test_a_resize_whose_sizes_are_joined_follows_the_batch(how: str) -> None:
    nodes = f'{JOINED[how]} \n y = Resize<mode="nearest">(x, , , sizes)'
    before = graph(nodes, **used(nodes))
    after = inferred(before)
    assert fold_sizes(after)
    assert ops(after) == ["Resize"]
    (resize,) = after.graph
    scales = resize.inputs[2].const_value  # type: ignore[union-attr]
    assert scales is not None
    assert scales.numpy().tolist() == [1, 1, 2, 3]
    same_outputs(before, after, (3, 4, 7, 7))


# Nothing tells what these come to: `other` is fed, a backward slice is nothing that exporters write.
UNKNOWN = {
    "of-a-mean": "m = ReduceMean<keepdims=0>(x) \n c = Cast<to=7>(m) \n n = Unsqueeze(c, axis0) \n"
    "k = Mul(n, zero1) \n s = Shape(x) \n o = Slice(s, axis0, two) \n g = Add(o, k) \n"
    "sizes = Concat<axis=0>(g, wanted)",
    "gathered-by-what-is-computed": "s = Shape(x) \n m = ReduceMax<keepdims=0>(x) \n z = Sub(m, m) \n"
    "i = Cast<to=7>(z) \n n = Gather(s, i) \n n1 = Unsqueeze(n, axis0) \n c = Shape<start=1, end=2>(x) \n"
    "sizes = Concat<axis=0>(n1, c, wanted)",
    "backwards": "s = Shape<start=0, end=2>(x) \n b = Slice(s, last, before, axis0, last) \n f = Gather(b, swap) \n"
    "sizes = Concat<axis=0>(f, wanted)",
}
BACKWARDS = {"last": np.array([-1]), "before": np.array([-3]), "swap": np.array([1, 0])}


@pytest.mark.parametrize("how", UNKNOWN)
def test_what_cannot_be_known_stays(how: str) -> None:
    nodes = f'{UNKNOWN[how]} \n y = Resize<mode="nearest">(x, , , sizes)'
    before = graph(nodes, **used(nodes), **(BACKWARDS if how == "backwards" else {}))
    after = inferred(before)
    fold_sizes(after)
    resize = next(node for node in after.graph if node.op_type == "Resize")
    assert len(resize.inputs) == 4
    same_outputs(before, after, (3, 4, 7, 7))


@pytest.mark.parametrize(
    ("mode", "more", "wanted", "scaled"),
    [
        ("linear", "", (9, 10), [1, 1, 9 / 7, 10 / 7]),
        ("nearest", "", (14, 7), [1, 1, 2, 1]),
        # Between two pixels each runtime rounds its own way.
        ("nearest", "", (9, 10), None),
        ("linear", ', keep_aspect_ratio_policy="not_larger"', (9, 10), None),
    ],
    ids=["linear", "whole-times", "nearest", "policy"],
)
def test_constant_sizes_of_a_known_image_are_written_as_scales(
    mode: str, more: str, wanted: tuple[int, int], scaled: list[float] | None
) -> None:
    opset = 18 if more else 17
    text = f'(float[2,4,7,7] x) => (float[2,4,p,q] y) {{ y = Resize<mode="{mode}"{more}>(x, , , sizes) }}'
    before = model(text, opset, sizes=np.array([2, 4, *wanted]))
    after = inferred(before)
    assert sizes_to_scales(after) == (scaled is not None)
    (resize,) = after.graph
    if scaled is None:
        assert len(resize.inputs) == 4
        return
    found = resize.inputs[2].const_value  # type: ignore[union-attr]
    assert found is not None
    np.testing.assert_allclose(found.numpy(), np.float32(scaled), rtol=1e-6)
    # Never a pixel fewer than was wanted, and the same in all.
    same_outputs(before, after, (2, 4, 7, 7))


ORDER = np.arange(4 * 7 * 7).reshape(1, 4, 7, 7)
FLAT = "f = Reshape(x, flat) \n y = Gather<axis=0>(f, order)"


@pytest.mark.parametrize(
    ("order", "source", "nodes"),
    [
        (ORDER.transpose(0, 1, 3, 2), "1,4,7,7", FLAT),
        (ORDER[:, :2], "1,4,7,7", FLAT),
        (ORDER, "N,4,7,7", FLAT),
        (ORDER, "196,1", FLAT.replace("flat", "rows")),
        (ORDER, "196", FLAT.replace("Reshape(x, flat)", "Neg(x)")),
        (np.arange(196), "1,4,7,7", FLAT),
        (ORDER, "1,196", "f = Reshape(x, flat) \n i = Neg(order) \n y = Gather<axis=0>(f, i)"),
    ],
    ids=["turned", "a-part", "open-batch", "rows", "not-flat", "a-vector", "computed"],
)
def test_a_gather_that_is_no_reshape_stays(order: NDArray, source: str, nodes: str) -> None:
    tensors = {"order": order, "flat": np.array([-1]), "rows": np.array([196, 1])}
    rank = order.ndim + ("rows" in nodes)
    proto = model(
        f"(float[{source}] x) => (float[{','.join('abcde'[:rank])}] y) {{ {nodes} }}",
        **{name: array for name, array in tensors.items() if name in nodes},
    )
    loaded = inferred(proto)
    assert not gather_to_reshape(loaded)
    assert "Gather" in ops(loaded)


def test_a_reshape_where_zero_is_a_size_stays() -> None:
    before = graph(
        "s = Shape<start=0, end=1>(x) \n t = Concat<axis=0>(s, rest) \n y = Reshape<allowzero=1>(x, t)",
        result="N,k",
        rest=np.array([196]),
    )
    after = inferred(before)
    assert not fold_sizes(after)
    assert "Concat" in ops(after)
    same_outputs(before, after, (3, 4, 7, 7))
