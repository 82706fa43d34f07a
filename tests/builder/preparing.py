"""Prepare a model, and compare what it says with onnxruntime on its source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx_text import model
from small_network import norm

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.prepare.model import SourceModel, prepare
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL
from csk_sdk.runtime.sessions import Graph

REPOSITORY = Path(__file__).parents[2]
IMAGE = "3,9,9"


def outputs(proto: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def images(count: int, image: str = IMAGE) -> NDArray[np.float32]:
    size = tuple(map(int, image.split(",")))
    return np.random.default_rng(0).normal(size=(count, *size)).astype(np.float32)


def prepared(proto: onnx.ModelProto, folder: Path, image: str = IMAGE) -> SourceModel:
    """Prepare `proto`, and compare with onnxruntime on the source at the source's batch; then run 1 and 5."""
    path = folder / "model.onnx"
    onnx.save(proto, path)
    result = prepare(path)
    after = ir.to_proto(result.model)
    onnx.checker.check_model(after, full_check=True)
    assert after.ir_version == 8
    assert [(entry.domain, entry.version) for entry in after.opset_import] == [("", 17)]
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    for count in (1, 5):
        x = images(count, image)
        expected = (
            np.concatenate([outputs(proto, np.repeat(x[i : i + 1], batch, axis=0))[:1] for i in range(count)])
            if batch
            else outputs(proto, x)
        )
        np.testing.assert_allclose(outputs(after, x), expected, rtol=1e-4, atol=1e-5)
    return result


def ops(source: SourceModel) -> list[str]:
    return [node.op_type for node in source.model.graph]


def buildable(source: SourceModel, folder: Path) -> Bundle:
    """A bundle of the model, whose eval model gives the source's logits with its own head."""
    build_artifacts(source.path, folder / "bundle", BuildOptions(features="last", trainable="all"))
    bundle = Bundle.open(folder / "bundle")
    tensors = bundle.checkpoint()
    size = bundle.manifest.input
    x = images(3, ",".join(map(str, size.shape)))
    feeds = {"image": x, "head.weight": tensors["head/base/weight"], "head.bias": tensors["head/base/bias"]}
    for site in bundle.manifest.sites:
        feeds[site.delta], feeds[site.indices] = np.zeros((site.rows, 1), np.float32), np.zeros(1, np.int64)
    logits = Graph(bundle.path(EVAL_MODEL), 1).run(feeds, ["logits"])["logits"]
    expected = outputs(ir.to_proto(source.model), x)
    activation = split_head(source.model, "").activation
    if activation is not None:
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        logits = exponentials / exponentials.sum(axis=1, keepdims=True)
        logits = np.log(logits) if activation == "LogSoftmax" else logits
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    return bundle


def drawn(*names_and_shapes: tuple[str, tuple[int, ...]]) -> dict[str, NDArray]:
    return {
        name: np.random.default_rng(number).normal(0, 0.4, shape)
        for number, (name, shape) in enumerate(names_and_shapes)
    }


HEAD = drawn(("w", (4, 3, 3, 3)), ("v", (5, 4, 3, 3)), ("h", (3, 5)), ("hb", (3,)))
TAIL = "p = GlobalAveragePool(t) \n f = Flatten(p) \n y = Gemm<transB=1>(f, h, hb)"


def body(nodes: str, batch: str = "N", image: str = IMAGE) -> str:
    """A model whose `nodes` lead from `x` to `y`."""
    return f"(float[{batch},{image}] x) => (float[{batch},3] y) {{ {nodes} }}"


def classifier(nodes: str, batch: str = "N", **tensors: NDArray) -> onnx.ModelProto:
    """A model whose `nodes` lead from `x` to `t` `(N, 5, height, width)`."""
    return model(body(f"{nodes} \n {TAIL}", batch), **HEAD, **tensors)


BN = "BatchNormalization({}, {n}_gamma, {n}_beta, {n}_mean, {n}_var)"


def bn(x: str, name: str) -> str:
    return BN.format(x, n=name)


def in_opset(opset: int, batch: str = "N", end: str = "y = Identity(z)") -> onnx.ModelProto:
    """One classifier in the op forms of each opset: attributes became inputs in 12, 13 and 18."""
    tensors: dict[str, NDArray] = HEAD | norm("a", 4) | {"low": np.array(-0.5), "high": np.array(3.0)}
    tensors |= {"spatial": np.array([2, 3]), "two": np.array([2]), "sizes": np.array([1, 3])}
    tensors |= {"ratio": np.array(0.3), "zero": np.array(0.0)}
    if opset >= 18:
        tensors["pads"] = np.array([1, 0, 1, 2])
        pad, mean = "Pad(x, pads, zero, spatial)", "ReduceMean<keepdims=1>(t, spatial)"
        halves = "Split<axis=1, num_outputs=2>(r)"
    else:
        tensors["pads"] = np.array([0, 0, 1, 0, 0, 0, 1, 2])
        pad, mean, halves = "Pad(x, pads)", "ReduceMean<axes=[2,3], keepdims=1>(t)", "Split<axis=1>(r)"
    clip = "Clip(n, low, high)"
    if opset < 11:
        pad, clip = "Pad<pads=[0,0,1,0,0,0,1,2]>(x)", "Clip<min=-0.5, max=3.0>(n)"
    if opset >= 13:
        squeeze, unsqueeze = "Squeeze(p, spatial)", "Unsqueeze(d, two)"
        total, parts = "ReduceSum<keepdims=0>(u, two)", "Split<axis=1>(j, sizes)"
    else:
        squeeze, unsqueeze = "Squeeze<axes=[2,3]>(p)", "Unsqueeze<axes=[2]>(d)"
        total, parts = "ReduceSum<axes=[2], keepdims=0>(u)", "Split<axis=1, split=[1,3]>(j)"
    dropout = "Dropout(i, ratio)" if opset >= 12 else "Dropout<ratio=0.3>(i)"
    nodes = f"""
    q = {pad}
    c = Conv(q, w)
    n = {bn("c", "a")}
    r = {clip}
    k, l = {halves}
    j = Concat<axis=1>(l, k)
    o, e = {parts}
    i = Concat<axis=1>(e, o)
    d = {dropout}
    u = {unsqueeze}
    b = {total}
    t = Conv<pads=[1,1,1,1]>(b, v)
    p = {mean}
    f = {squeeze}
    z = Gemm<transB=1>(f, h, hb)
    {end}
    """
    return model(body(nodes, batch), opset, ir_version=6 if opset < 15 else 8, **tensors)


def last_conv(source: SourceModel) -> str:
    return [str(node.name) for node in source.model.graph if node.op_type == "Conv"][-1]
