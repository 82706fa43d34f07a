"""Batch norm is folded into the convolution in front of it, or becomes one."""

from __future__ import annotations

from pathlib import Path

import pytest
from numpy.typing import NDArray
from onnx_text import model
from preparing import HEAD, bn, body, buildable, classifier, drawn, ops, prepared
from small_network import norm


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "nodes", "left", "tensors"),
    [
        (
            "without conv bias",
            f"c = Conv(x, w) \n n = {bn('c', 'a')} \n r = Relu(n) \n t = Conv(r, v)",
            set(),
            norm("a", 4),
        ),
        (
            "with conv bias",
            f"c = Conv(x, w, b) \n n = {bn('c', 'a')} \n r = Relu(n) \n t = Conv(r, v)",
            set(),
            {**norm("a", 4), **drawn(("b", (4,)))},
        ),
        (
            "own epsilon",
            "c = Conv(x, w) \n n = BatchNormalization<epsilon=0.01>(c, a_gamma, a_beta, a_mean, a_var) \n"
            "r = Relu(n) \n t = Conv(r, v)",
            set(),
            norm("a", 4),
        ),
        (
            "twice in a row",
            f"c = Conv(x, w) \n m = {bn('c', 'a')} \n n = {bn('m', 'b')} \n r = Relu(n) \n t = Conv(r, v)",
            set(),
            {**norm("a", 4), **norm("b", 4)},
        ),
        (
            "grouped convolution",
            f"c = Conv(x, w) \n g = Conv<group=4>(c, dw) \n n = {bn('g', 'a')} \n t = Conv(n, v)",
            set(),
            {**norm("a", 4), **drawn(("dw", (4, 1, 3, 3)))},
        ),
        (
            "others read the conv's output",
            f"c = Conv<pads=[1,1,1,1]>(x, w) \n n = {bn('c', 'a')} \n s = Add(n, c) \n t = Conv(s, v)",
            {"Mul"},
            norm("a", 4),
        ),
        (
            "no conv before it",
            f"c = Conv(x, w) \n r = Relu(c) \n n = {bn('r', 'a')} \n t = Conv(n, v)",
            {"Mul", "Add"},
            norm("a", 4),
        ),
        (
            "on the image itself",
            f"i = {bn('x', 'a')} \n c = Conv<pads=[1,1,1,1]>(i, w) \n t = Conv(c, v)",
            {"Mul", "Add"},
            norm("a", 3),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_batch_norm_is_folded(
    tmp_path: Path, case: str, nodes: str, left: set[str], tensors: dict[str, NDArray]
) -> None:
    source = prepared(classifier(nodes, **tensors), tmp_path)
    assert "BatchNormalization" not in ops(source)
    assert left <= set(ops(source))
    if not left:
        assert not {"Mul", "Add"} & set(ops(source))
    buildable(source, tmp_path)


def test_batch_norm_behind_a_fully_connected_layer(tmp_path: Path) -> None:
    nodes = (
        f"c = Conv(x, w) \n t = Conv(c, v) \n p = GlobalAveragePool(t) \n f = Flatten(p) \n"
        f"g = Gemm<transB=1>(f, k) \n n = {bn('g', 'a')} \n y = Gemm<transB=1>(n, h, hb)"
    )
    tensors = HEAD | drawn(("k", (5, 5))) | norm("a", 5)
    source = prepared(model(body(nodes), **tensors), tmp_path)
    assert ops(source)[-4:] == ["Gemm", "Mul", "Add", "Gemm"]
    buildable(source, tmp_path)


@pytest.mark.parametrize("named", [True, False])
def test_convolutions_that_share_a_weight_keep_their_own_batch_norm(tmp_path: Path, named: bool) -> None:
    nodes, previous = "i = Conv<pads=[1,1,1,1]>(x, w) \n", "i"
    for number in range(4):
        label = f"[shared{number}]" if named else ""
        follow = bn(f"c{number}", f"a{number}") if number < 3 else f"Identity(c{number})"
        nodes += f"{label} c{number} = Conv<pads=[1,1,1,1]>({previous}, s) \n n{number} = {follow} \n"
        previous = f"n{number}"
    tensors = drawn(("s", (4, 4, 3, 3))) | norm("a0", 4) | norm("a1", 4) | norm("a2", 4)
    source = prepared(classifier(f"{nodes} t = Conv({previous}, v)", **tensors), tmp_path)
    assert "BatchNormalization" not in ops(source)
    buildable(source, tmp_path)


def test_a_kernel_that_two_layers_share_is_no_site(tmp_path: Path) -> None:
    nodes = (
        "i = Conv<pads=[1,1,1,1]>(x, w) \n a = Conv<pads=[1,1,1,1]>(i, s) \n b = Tanh(a) \n"
        "[twice] d = Conv<pads=[1,1,1,1]>(b, s) \n [last] t = Conv(d, v)"
    )
    source = prepared(classifier(nodes, **drawn(("s", (4, 4, 3, 3)))), tmp_path)
    bundle = buildable(source, tmp_path)
    assert [site.weight for site in bundle.manifest.sites] == ["w", "v"]
