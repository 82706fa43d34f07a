"""An If that takes the same branch for every image and batch is that branch; any other is control flow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from preparing import TAIL, body, classifier, ops, prepared
from small_models import unchecked

from csk_artifacts_builder.prepare.model import prepare
from csk_sdk.errors import ModelError

LAYERS = "c = Conv(x, w) \n {} \n t = Conv(r, v)"
CHOICE = (
    "[{name}] {r} = If ({b}) <then_branch = g{name} () => (float[M,4,7,7] a) {{ a = {then} }},"
    " else_branch = k{name} () => (float[M,4,7,7] a) {{ a = {other} }}>"
)


def choice(b: str, then: str = "Relu(c)", other: str = "Neg(c)", name: str = "choice", r: str = "r") -> str:
    return CHOICE.format(b=b, then=then, other=other, name=name, r=r)


def source(nodes: str, batch: str = "N", **tensors: object) -> onnx.ModelProto:
    arrays = {name: np.asarray(array) for name, array in tensors.items()}
    proto = unchecked(body(f"{LAYERS.format(nodes)} \n {TAIL}", batch), **arrays)
    del proto.opset_import[1:]
    return proto


@pytest.mark.parametrize(
    ("nodes", "tensors", "taken"),
    [
        ("b = Cast<to=9>(one_) \n" + choice("b"), {"one_": 1}, "Relu"),
        ("b = Cast<to=9>(one_) \n n = Not(b) \n" + choice("n"), {"one_": 1}, "Neg"),
        (
            "s = Shape(c) \n n = Gather(s, at) \n b = Equal(n, four) \n" + choice("b"),
            {"at": 1, "four": 4},
            "Relu",
        ),
        (
            "s = Shape(c) \n n = Gather(s, at) \n b = Equal(n, four) \n" + choice("b"),
            {"at": 2, "four": 4},
            "Neg",
        ),
        (
            "b = Cast<to=9>(one_) \n"
            + choice("b", "Exp(c)", name="outer", r="e")
            + "\n"
            + choice("b", "Relu(e)"),
            {"one_": 1},
            "Relu",
        ),
    ],
    ids=["constant", "made-of-constants", "a-size", "another-size", "two-that-use-one-name"],
)
@pytest.mark.parametrize("batch", ["N", "1"])
def test_a_branch_that_is_always_taken(
    tmp_path: Path, nodes: str, tensors: dict[str, int], taken: str, batch: str
) -> None:
    """What the graph says is compared with ONNX Runtime on the file, at two batches."""
    assert taken in ops(prepared(source(nodes, batch, **tensors), tmp_path))


def test_a_branch_of_a_branch(tmp_path: Path) -> None:
    inner = choice("b", "Relu(c)", name="inner", r="i")
    nested = (
        "b = Cast<to=9>(one_) \n [choice] r = If (b) <then_branch = g () => (float[M,4,7,7] a) {"
        f" {inner} \n a = Exp(i) }}, else_branch = k () => (float[M,4,7,7] a) {{ a = Neg(c) }}>"
    )
    found = ops(prepared(source(nested, one_=1), tmp_path))
    assert found[:3] == ["Conv", "Relu", "Exp"]


def test_a_branch_with_a_constant_of_its_own(tmp_path: Path) -> None:
    nodes = (
        "b = Cast<to=9>(one_) \n [choice] r = If (b) <then_branch = g () => (float[M,4,7,7] a)"
        " { k = Constant<value_float=0.5>() \n a = Mul(c, k) }, else_branch = k () => (float[M,4,7,7] a)"
        " { a = Neg(c) }>"
    )
    assert "Mul" in ops(prepared(source(nodes, one_=1), tmp_path))


@pytest.mark.parametrize(
    ("condition", "tensors"),
    [
        ("s = Shape(x) \n n = Gather(s, at) \n b = Equal(n, one_)", {"at": 0, "one_": 1}),
        ("s = ReduceSum<keepdims=0>(x) \n b = Greater(s, zero)", {"zero": 0.0}),
        ("n = RandomUniform<shape=[1]>() \n b = Greater(n, half)", {"half": 0.5}),
    ],
    ids=["the-batch", "the-image", "chance"],
)
@pytest.mark.parametrize("batch", ["N", "1"])
def test_a_branch_on_the_batch_or_the_image_is_control_flow(
    tmp_path: Path, condition: str, tensors: dict[str, float], batch: str
) -> None:
    onnx.save(source(f"{condition} \n {choice('b')}", batch, **tensors), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"control flow: op 'If' \(node 'choice'\)"):
        prepare(tmp_path / "model.onnx")


SQUARES = "q = Mul(c, c) \n u = Reshape(q, five) \n d = Pad(u, {pads}) \n"
MEAN = "m = AveragePool<kernel_shape=[3,1,1], strides=[1,1,1]>(d) \n"
LOCAL = {"five": [1, 1, 4, 7, -1], "pads": [0, 0, 1, 0, 0, 0, 0, 1, 0, 0], "one_": [1]}


@pytest.mark.parametrize("zero", ["", "<allowzero=1>"])
def test_local_response_norm_of_one_batch(tmp_path: Path, zero: str) -> None:
    """torch's new exporter writes the batch as 1 into a Reshape whose last size is open, and lets 0 be a size."""
    nodes = SQUARES.format(pads="pads").replace("Reshape(", f"Reshape{zero}(")
    nodes += MEAN + "g = Squeeze(m, one_) \n e = Add(g, half) \n r = Div(c, e)"
    proto = classifier(
        LAYERS.format(nodes), "1", half=np.array(0.5), **{k: np.array(v) for k, v in LOCAL.items()}
    )
    prepared(proto, tmp_path)


def test_local_response_norm_of_torchscript(tmp_path: Path) -> None:
    """Its squeeze is an If on a size that follows from pads which it computes."""
    nodes = "z = ConstantOfShape<value=int64[1]{0}>(many) \n pads = Concat<axis=0>(given, z) \n"
    nodes += SQUARES.format(pads="pads") + MEAN
    nodes += (
        "s = Shape(m) \n n = Gather(s, at) \n b = Equal(n, at) \n o = If (b) <then_branch = g () =>"
        " (float[1,4,7,7] a) { i = Constant<value_ints=[1]>() \n a = Squeeze(m, i) },"
        " else_branch = k () => (float[1,1,4,7,7] l) { l = Identity(m) }> \n"
        "j = Reshape(o, four) \n e = Add(j, half) \n r = Div(c, e)"
    )
    tensors = {"many": [2], "given": [0, 0, 1, 0, 0, 0, 0, 1], "at": 1, "four": [1, 4, 7, 7], "half": 0.5}
    prepared(source(nodes, "1", five=LOCAL["five"], **tensors), tmp_path)
