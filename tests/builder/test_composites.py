"""LRN, LpPool and Einsum: the same numbers, and gradients that central differences confirm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_text import model
from preparing import HEAD, TAIL, body, buildable, drawn, ops, prepared

from csk_device_runners.check import check_bundle

# Nodes from `c` (N, 4, 7, 7) to `b`, opset, tensors.
FORMS = {
    "LRN of 3": ("b = LRN<size=3, alpha=0.5, beta=0.6, bias=1.5>(c)", 17),
    "LRN of 5, as AlexNet's": ("b = LRN<size=5, alpha=0.02, beta=0.75, bias=2.0>(c)", 13),
    "LRN of one channel": ("b = LRN<size=1, alpha=0.5>(c)", 17),
    "LRN with its defaults": ("b = LRN<size=3>(c)", 9),
    "LpPool": ("b = LpPool<kernel_shape=[2,2], strides=[2,2]>(c)", 17),
    "LpPool of p 1": ("b = LpPool<kernel_shape=[3,2], p=1, pads=[1,0,1,1]>(c)", 17),
    "LpPool of p 3": ("b = LpPool<kernel_shape=[2,2], p=3, strides=[2,1]>(c)", 17),
    "LpPool SAME": ('b = LpPool<kernel_shape=[3,3], auto_pad="SAME_UPPER", strides=[2,2]>(c)', 11),
    "LpPool, dilated": ("b = LpPool<kernel_shape=[2,2], dilations=[2,2]>(c)", 18),
    "LpPool behind Relu": ("r = Relu(c) \n b = LpPool<kernel_shape=[2,2]>(r)", 22),
    "GlobalLpPool": ("m = GlobalLpPool(c) \n b = Mul(c, m)", 17),
    "GlobalLpPool of p 3": ("m = GlobalLpPool<p=3>(c) \n b = Mul(c, m)", 17),
    "Einsum of channels": ('b = Einsum<equation="nchw,cd->ndhw">(c, square)', 17),
    # The axes come in the order of the alphabet.
    "Einsum, implicit": ('b = Einsum<equation="acxy,cb">(c, square)', 17),
    "Einsum of attention": (
        'a = Einsum<equation="bchw,bdhw->bcd">(c, c) \n s = Softmax(a) \n b = Einsum<equation="bcd,bdhw->bchw">(s, c)',
        17,
    ),
    "Einsum outer": (
        'm = ReduceMean<axes=[2,3], keepdims=0>(c) \n b = Einsum<equation="nc,nchw->nchw">(m, c)',
        17,
    ),
    "Einsum of one": ('b = Einsum<equation="nchw->ncwh">(c)', 17),
    "Einsum that sums": (
        'm = Einsum<equation="nchw->nc">(c) \n b = Einsum<equation="nc,nchw->nchw">(m, c)',
        17,
    ),
    "Einsum that sums in two": ('b = Einsum<equation="nchw,kd->ndhw">(c, square)', 20),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FORMS)
def test_the_same_numbers_and_right_gradients(tmp_path: Path, case: str) -> None:
    nodes, opset = FORMS[case]
    tensors = HEAD | (drawn(("square", (4, 4))) if "square" in nodes else {})
    text = f"c = Conv(x, w) \n {nodes} \n t = Conv<pads=[1,1,1,1]>(b, v) \n {TAIL}"
    source = prepared(model(body(text), opset, **tensors), tmp_path)
    assert not {"LRN", "LpPool", "GlobalLpPool", "Einsum"} & set(ops(source))
    bundle = buildable(source, tmp_path)
    assert len(bundle.manifest.sites) == 2
    results = check_bundle(bundle.folder)
    assert all(result.passed for result in results), [str(result) for result in results]


@pytest.mark.parametrize(
    "nodes",
    [
        'b = Einsum<equation="...c,cd->...d">(u, square)',
        'd = Einsum<equation="ncww->ncw">(c) \n b = Unsqueeze(d, last)',
    ],
)
def test_other_forms_stay(tmp_path: Path, nodes: str) -> None:
    """Repeated axes, and an ellipsis: in front of the sites they may be."""
    turned = "u = Transpose<perm=[0,2,3,1]>(c) \n " if "u" in nodes else ""
    text = f"c = Conv(x, w) \n {turned}{nodes} \n t = Conv<pads=[1,1,1,1]>(b, vv) \n {TAIL}"
    channels = 7 if "..." in nodes else 4
    tensors = {name: array for name, array in HEAD.items() if name != "v"} | drawn(
        ("vv", (5, channels, 3, 3))
    )
    tensors |= drawn(("square", (4, 4))) if "square" in nodes else {"last": np.array([3])}
    source = prepared(model(body(text), 17, **tensors), tmp_path)
    assert "Einsum" in ops(source)
