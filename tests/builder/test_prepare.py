"""After `prepare`, every source model is opset 17 with a dynamic batch, and still says the same."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import norm
from numpy.typing import NDArray
from onnx_text import model

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.head import split_head
from csk_artifacts_builder.prepare import SourceModel, prepare
from csk_sdk.bundle import Bundle
from csk_sdk.manifest import EVAL_MODEL, MEMORY_MODEL, TRAINING_MODEL
from csk_sdk.runtime import Graph

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


# --- batch norm

BN = "BatchNormalization({}, {n}_gamma, {n}_beta, {n}_mean, {n}_var)"


def bn(x: str, name: str) -> str:
    return BN.format(x, n=name)


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
            "on the picture itself",
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


# --- opsets


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
    r = Clip(n, low, high)
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


@pytest.mark.parametrize("opset", [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23])
@pytest.mark.parametrize("batch", ["N", "1"], ids=["dynamic", "static"])
def test_every_opset(tmp_path: Path, opset: int, batch: str) -> None:
    source = prepared(in_opset(opset, batch), tmp_path)
    assert "Dropout" not in ops(source)
    build_artifacts(
        source.path,
        tmp_path / "bundle",
        BuildOptions(features="last", trainable=f"from:{_last_conv(source)}"),
    )


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 23])
@pytest.mark.parametrize("end", ["y = Softmax<axis=1>(z)", "y = Softmax(z)", "y = LogSoftmax<axis=-1>(z)"])
def test_probabilities_at_the_end(tmp_path: Path, opset: int, end: str) -> None:
    source = prepared(in_opset(opset, "N", end), tmp_path)
    assert split_head(source.model, "").activation == end.split(" ")[2].split("<")[0].split("(")[0]


def test_ops_younger_than_opset_17_are_rewritten(tmp_path: Path) -> None:
    for number, gelu in enumerate(("Gelu", 'Gelu<approximate="tanh">')):
        nodes = f"c = Conv(x, w) \n g = {gelu}(c) \n t = Conv(g, v) \n {TAIL}"
        folder = tmp_path / str(number)
        folder.mkdir()
        source = prepared(model(body(nodes), 20, **HEAD), folder)
        assert "Gelu" not in ops(source)


def test_mish_is_rewritten(tmp_path: Path) -> None:
    source = prepared(
        model(body(f"c = Conv(x, w) \n g = Mish(c) \n t = Conv(g, v) \n {TAIL}"), 18, **HEAD), tmp_path
    )
    assert "Mish" not in ops(source)
    buildable(source, tmp_path)


def test_group_normalization_is_rewritten(tmp_path: Path) -> None:
    nodes = f"c = Conv(x, w) \n g = GroupNormalization<num_groups=2>(c, s, b) \n t = Conv(g, v) \n {TAIL}"
    source = prepared(model(body(nodes), 21, **HEAD, **drawn(("s", (4,)), ("b", (4,)))), tmp_path)
    assert "InstanceNormalization" in ops(source)
    buildable(source, tmp_path)


def test_reductions_without_axes(tmp_path: Path) -> None:
    """No axes reduces everything, unless `noop_with_empty_axes` says nothing."""
    nodes = (
        "c = Conv(x, w) \n m = ReduceMax(c, all) \n o = ReduceMean<noop_with_empty_axes=1>(c) \n"
        f"a = Add(o, m) \n n = ReduceL2<keepdims=0>(all_w) \n b = Mul(a, n) \n t = Conv(b, v) \n {TAIL}"
    )
    tensors = HEAD | {"all": np.array([0, 1, 2, 3])} | drawn(("all_w", (2, 2)))
    proto = model(body(nodes), 18, **tensors)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    after = ir.to_proto(prepare(path).model)
    np.testing.assert_allclose(outputs(after, images(3)), outputs(proto, images(3)), rtol=1e-4, atol=1e-5)


def test_pooling_with_dilations_of_one_is_lowered(tmp_path: Path) -> None:
    nodes = "c = Conv(x, w) \n a = AveragePool<kernel_shape=[2,2], dilations=[1,1]>(c) \n t = Conv(a, v)"
    buildable(prepared(model(body(f"{nodes} \n {TAIL}"), 19, **HEAD), tmp_path), tmp_path)


def test_split_into_uneven_parts(tmp_path: Path) -> None:
    """`num_outputs` of opset 18 may leave a smaller last part."""
    nodes = (
        "c = Conv(x, w) \n u = Conv(c, v) \n a, b, d = Split<axis=1, num_outputs=3>(u) \n"
        f"e = Concat<axis=1>(d, b, a) \n t = Conv(e, vv) \n {TAIL}"
    )
    tensors = HEAD | drawn(("vv", (5, 5, 3, 3)))
    prepared(model(body(nodes), 18, **tensors), tmp_path)


# --- how exporters write things


def test_identity_dropout_and_constant_nodes(tmp_path: Path) -> None:
    nodes = """
    k = Constant<value = float[1] {0.5}>()
    wi = Identity(w)
    wj = Identity(wi)
    c = Conv(x, wj)
    i = Identity(c)
    m = Mul(i, k)
    d, mask = Dropout(m)
    t = Conv(d, v)
    """
    source = prepared(classifier(nodes), tmp_path)
    assert not {"Identity", "Dropout", "Constant"} & set(ops(source))
    assert len(buildable(source, tmp_path).manifest.sites) == 2


def test_the_demo_model_whose_weights_pass_through_identities(tmp_path: Path) -> None:
    path = REPOSITORY / "examples" / "digits" / "digits-base4.onnx"
    source = prepared(onnx.load(str(path)), tmp_path, "1,8,8")
    assert {"Conv", "Relu", "Add", "Gemm"} <= set(ops(source)) <= {
        "Conv", "Relu", "Add", "Gemm", "GlobalAveragePool", "Flatten",
    }  # fmt: skip
    bundle = buildable(source, tmp_path)
    assert "stage3.second.conv" in [site.name for site in bundle.manifest.sites]


@pytest.mark.parametrize(
    "flatten",
    [
        "f = Reshape(t, one_rest)",
        "f = Reshape(t, one_125)",
        "f = Flatten(t)",
        "s = Shape(t) \n n = Gather(s, first) \n a = Unsqueeze(n, axis0) \n r = Concat<axis=0>(a, rest) \n"
        "f = Reshape(t, r)",
        "s = Shape(t) \n a = Slice(s, axis0, axis1) \n r = Concat<axis=0>(a, rest) \n f = Reshape(t, r)",
        "s = Shape<start=0, end=1>(t) \n r = Concat<axis=0>(s, rest) \n f = Reshape(t, r)",
        "c1 = Constant<value_ints=[-1, 125]>() \n f = Reshape(t, c1)",
    ],
    ids=["reshape-minus-1", "reshape-125", "flatten", "torch-gather", "torch-slice", "shape-15", "constant"],
)
@pytest.mark.parametrize("batch", ["N", "1", "4"], ids=["dynamic", "static-1", "static-4"])
def test_flattening_follows_the_batch(tmp_path: Path, flatten: str, batch: str) -> None:
    first = int(batch) if batch != "N" else 0
    if "one_" in flatten and batch == "N":
        flatten = flatten.replace("one_", "zero_")
    nodes = f"c = Conv(x, w) \n t = Conv(c, v) \n {flatten} \n y = Gemm<transB=1>(f, g, hb)"
    shapes = {
        "one_rest": np.array([first, -1]),
        "one_125": np.array([first, 125]),
        "zero_rest": np.array([0, -1]),
        "zero_125": np.array([-1, 125]),
        "first": np.array(0),
        "axis0": np.array([0]),
        "axis1": np.array([1]),
        "rest": np.array([-1]),
    }
    tensors = {"w": HEAD["w"], "v": HEAD["v"], "hb": HEAD["hb"], **shapes, **drawn(("g", (3, 125)))}
    source = prepared(model(body(nodes, batch), **tensors), tmp_path)
    buildable(source, tmp_path)


def test_channel_shuffle_follows_the_batch(tmp_path: Path) -> None:
    nodes = """
    c = Conv(x, w)
    a = Reshape(c, parts)
    b = Transpose<perm=[0,2,1,3,4]>(a)
    d = Reshape(b, whole)
    t = Conv(d, v)
    """
    shapes = {"parts": np.array([1, 2, 2, 7, 7]), "whole": np.array([1, 4, 7, 7])}
    buildable(prepared(classifier(nodes, "1", **shapes), tmp_path), tmp_path)


SHUFFLE = """
    c = Conv(x, w)
    s = Shape(c)
    n = Gather(s, zero)
    channels = Gather(s, one)
    size = Gather(s, last_two)
    half = Div(channels, two)
    n1 = Unsqueeze(n, axis0)
    half1 = Unsqueeze(half, axis0)
    channels1 = Unsqueeze(channels, axis0)
    parts = Concat<axis=0>(n1, two1, half1, size)
    a = Reshape(c, parts)
    b = Transpose<perm=[0,2,1,3,4]>(a)
    whole = Concat<axis=0>(n1, channels1, size)
    d = Reshape(b, whole)
    t = Conv(d, v)
"""
INDICES = {
    "zero": np.array(0),
    "one": np.array(1),
    "two": np.array(2),
    "two1": np.array([2]),
    "axis0": np.array([0]),
    "last_two": np.array([-2, -1]),
}


def test_sizes_that_torch_leaves_to_be_computed_at_run_time_are_folded(tmp_path: Path) -> None:
    source = prepared(classifier(SHUFFLE, "N", **INDICES), tmp_path)
    assert ops(source)[:5] == ["Conv", "Reshape", "Transpose", "Reshape", "Conv"]
    assert [site.output_size for site in buildable(source, tmp_path).manifest.sites] == [(7, 7), (5, 5)]


def test_sizes_that_depend_on_the_batch_stay(tmp_path: Path) -> None:
    """The mean over the batch divides by a number that is only known at run time."""
    nodes = """
    c = Conv(x, w)
    s = Shape(c)
    n = Gather(s, zero)
    float_n = Cast<to=1>(n)
    ones = Div(float_n, float_n)
    d = Mul(c, ones)
    t = Conv(d, v)
    """
    source = prepared(classifier(nodes, "N", zero=np.array(0)), tmp_path)
    assert "Gather" in ops(source)


def test_a_change_of_strides_written_as_a_gather_follows_the_batch(tmp_path: Path) -> None:
    """torch's new exporter decomposes `as_strided` so, for the one batch size that it saw."""
    nodes = "c = Conv(x, w) \n q = Reshape(c, flat) \n d = Gather<axis=0>(q, order) \n t = Conv(d, v)"
    order = np.arange(4 * 7 * 7).reshape(1, 4, 7, 7)
    source = prepared(classifier(nodes, "1", flat=np.array([-1]), order=order), tmp_path)
    assert ops(source)[:3] == ["Conv", "Reshape", "Conv"]
    buildable(source, tmp_path)


def test_constants_of_two_emitters_keep_apart() -> None:
    """Preparation and the training graph's gradients write constants into the same graph, one after the other."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 17}, name="two")
    first, second = Emitter(graph).ints(1, 2), Emitter(graph).ints(3, 4)
    assert first.name != second.name
    assert {tuple(value.const_value.numpy()) for value in graph.initializers.values()} == {(1, 2), (3, 4)}


def test_external_data(tmp_path: Path) -> None:
    proto = in_opset(17)
    path = tmp_path / "apart.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="apart.bin", size_threshold=0)
    source = prepare(path)
    np.testing.assert_allclose(
        outputs(ir.to_proto(source.model), images(2)), outputs(in_opset(17), images(2)), rtol=1e-4, atol=1e-5
    )
    build_artifacts(
        path, tmp_path / "bundle", BuildOptions(features="last", trainable="from:" + _last_conv(source))
    )


def _last_conv(source: SourceModel) -> str:
    return [str(node.name) for node in source.model.graph if node.op_type == "Conv"][-1]


def test_initializers_listed_as_inputs(tmp_path: Path) -> None:
    proto = classifier(
        f"c = Conv(x, w) \n n = {bn('c', 'a')} \n r = Relu(n) \n t = Conv(r, v)", **norm("a", 4)
    )
    for tensor in proto.graph.initializer:
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(value)
    del proto.graph.value_info[:]
    source = prepared(proto, tmp_path)
    assert len(source.model.graph.inputs) == 1
    buildable(source, tmp_path)


def test_initializers_listed_before_the_picture(tmp_path: Path) -> None:
    proto = classifier("c = Conv(x, w) \n r = Relu(c) \n t = Conv(r, v)")
    listed = [
        onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in proto.graph.initializer
    ]
    picture = proto.graph.input[0]
    del proto.graph.input[:]
    proto.graph.input.extend([*listed, picture])
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    build_artifacts(path, tmp_path / "bundle")


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_automatic_padding(tmp_path: Path, mode: str, stride: int, kernel: int) -> None:
    auto = f'auto_pad="{mode}", strides=[{stride},{stride}]'
    nodes = (
        f'c = Conv<{auto}>(x, k) \n r = Tanh(c) \n m = MaxPool<auto_pad="{mode}", kernel_shape=[2,2]>(r) \n'
        f'a = AveragePool<auto_pad="{mode}", kernel_shape=[2,2], strides=[2,2]>(m) \n'
        "t = Conv<pads=[1,1,1,1]>(a, v)"
    )
    source = prepared(classifier(nodes, **drawn(("k", (4, 3, kernel, kernel)))), tmp_path)
    assert not any("auto_pad" in node.attributes for node in source.model.graph)
    buildable(source, tmp_path)


HEADS = {
    "Gemm transB=1": ("y = Gemm<transB=1>(f, h, hb)", {}),
    "Gemm transB=0": ("y = Gemm(f, ht, hb)", {}),
    "Gemm without bias": ("y = Gemm<transB=1>(f, h)", {}),
    "Gemm alpha and beta": ("y = Gemm<transB=1, alpha=0.5, beta=2.0>(f, h, hb)", {}),
    "Gemm bias as a row": ("y = Gemm<transB=1>(f, h, row)", {"row": np.array([[0.3, -0.2, 0.7]])}),
    "Gemm bias as a scalar": ("y = Gemm<transB=1>(f, h, one)", {"one": np.array(0.3)}),
    "MatMul and Add": ("m = MatMul(f, ht) \n y = Add(m, hb)", {}),
    "Add the other way round": ("m = MatMul(f, ht) \n y = Add(hb, m)", {}),
    "MatMul without bias": ("y = MatMul(f, ht)", {}),
    "MatMul by a transposed weight": ("k = Transpose(h) \n m = MatMul(f, k) \n y = Add(m, hb)", {}),
    "Softmax behind": ("z = Gemm<transB=1>(f, h, hb) \n y = Softmax(z)", {}),
    "MatMul, Add, LogSoftmax": ("m = MatMul(f, ht) \n z = Add(m, hb) \n y = LogSoftmax<axis=1>(z)", {}),
    "behind Dropout": ("d = Dropout(f) \n y = Gemm<transB=1>(d, h, hb)", {}),
    "behind Dropout and Flatten": ("d = Dropout(p) \n e = Flatten(d) \n y = Gemm<transB=1>(e, h, hb)", {}),
    "Identity behind": ("z = Gemm<transB=1>(f, h, hb) \n y = Identity(z)", {}),
    "Dropout behind": ("z = Gemm<transB=1>(f, h, hb) \n y = Dropout(z)", {}),
    "Cast to float behind": ("z = Gemm<transB=1>(f, h, hb) \n y = Cast<to=1>(z)", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_heads(tmp_path: Path, case: str) -> None:
    text, tensors = HEADS[case]
    nodes = f"c = Conv(x, w) \n t = Conv(c, v) \n p = GlobalAveragePool(t) \n f = Flatten(p) \n {text}"
    used = HEAD | {"ht": HEAD["h"].T.copy()} | tensors
    bundle = buildable(prepared(model(body(nodes), **used), tmp_path), tmp_path)
    assert bundle.manifest.head.features == 5
    assert bundle.checkpoint()["head/base/weight"].shape == (3, 5)


@pytest.mark.parametrize(
    "nodes",
    [
        "features = Conv(x, w) \n logits = Relu(features) \n t = Conv(logits, v)",
        "loss = Conv(x, w) \n image = Relu(loss) \n label = Identity(image) \n t = Conv(label, v)",
        "label = Conv(x, w) \n image = Tanh(label) \n loss = Conv(image, v) \n t = Tanh(loss)",
        "val_0 = Conv(x, w) \n val_1 = Tanh(val_0) \n val_2 = Conv(val_1, v) \n t = Tanh(val_2)",
    ],
)
def test_names_that_bundles_use_themselves(tmp_path: Path, nodes: str) -> None:
    bundle = buildable(prepared(classifier(nodes), tmp_path), tmp_path)
    for name, wanted in (
        (TRAINING_MODEL, ({"image", "label"}, {"loss", "logits"})),
        (EVAL_MODEL, ({"image"}, {"logits", "features"})),
        (MEMORY_MODEL, ({"image"}, {"features"})),
    ):
        graph = onnx.load(str(bundle.path(name))).graph
        assert wanted[0] <= {value.name for value in graph.input}
        assert wanted[1] <= {value.name for value in graph.output}
        onnx.checker.check_model(str(bundle.path(name)), full_check=True)


def test_a_local_function_is_inlined(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N,3,9,9] x) => (float[N,3] y) {
            c = Conv(x, w)
            r = local.act(c)
            t = Conv(r, v)
            p = GlobalAveragePool(t)
            f = Flatten(p)
            y = Gemm<transB=1>(f, h, hb)
        }
        <opset_import: ["" : 17], domain: "local">
        act (a) => (b) { s = Sigmoid(a) \n b = Mul(a, s) }
        """.replace("\\n", "\n")
    )
    for name, array in HEAD.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    source = prepared(proto, tmp_path)
    assert not source.model.functions
    buildable(source, tmp_path)


@pytest.mark.parametrize("network", networks.NETWORKS, ids=lambda network: network.name)
def test_known_networks(tmp_path: Path, network: networks.Network) -> None:
    prepared(network.proto(), tmp_path, ",".join(map(str, network.image)))
