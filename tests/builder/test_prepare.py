"""How exporters write things: after `prepare` it is opset 17 with a dynamic batch, and still says the same."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import small_network
from onnx_text import model
from preparing import (
    HEAD,
    REPOSITORY,
    bn,
    body,
    buildable,
    classifier,
    drawn,
    images,
    in_opset,
    last_conv,
    ops,
    outputs,
    prepared,
)
from small_network import norm

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.prepare.model import prepare
from csk_sdk.contract.manifest import EVAL_MODEL, MEMORY_MODEL, TRAINING_MODEL
from csk_sdk.errors import CskError


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


@pytest.mark.slow
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


RESIZED = """
    c = Conv(x, w)
    s = Shape(c)
    kept = Slice(s, axis0, axis2, axis0)
    sizes = Concat<axis=0>(kept, wanted)
    r = Resize<mode="{mode}", coordinate_transformation_mode="{coordinates}"{more}>(c, , , sizes)
    t = Conv(r, v)
"""


@pytest.mark.parametrize("wanted", [(9, 10), (3, 7), (14, 14)])
@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_a_resize_to_fixed_sizes_follows_the_batch(
    tmp_path: Path, mode: str, wanted: tuple[int, int]
) -> None:
    """torch's `interpolate(size=...)`, of a model with dynamic batch, of an image of 7 x 7."""
    places = {"axis0": np.array([0]), "axis2": np.array([2]), "wanted": np.array(wanted)}
    coordinates, more = ("half_pixel", "") if mode != "nearest" else ("asymmetric", ', nearest_mode="floor"')
    text = RESIZED.format(mode=mode, coordinates=coordinates, more=more)
    proto = classifier(text, "N", **places)
    if mode == "nearest" and wanted != (14, 14):
        with pytest.raises(CskError, match=r"unknown height or width|computed sizes"):
            buildable(prepared(proto, tmp_path), tmp_path)
        return
    source = prepared(proto, tmp_path)
    assert ops(source)[:3] == ["Conv", "Resize", "Conv"]
    buildable(source, tmp_path)


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
        path, tmp_path / "bundle", BuildOptions(features="last", trainable="from:" + last_conv(source))
    )


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_modules_that_torch_left_as_functions(tmp_path: Path) -> None:
    """torch 2.1 to 2.4 wrote one for each module, and one for each of its operators: called several times, nested."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18, "pkg.torch" : 1, "pkg.torch_lib" : 1]>
        g (float[N,3,9,9] x) => (float[N,3] y) {
            a = pkg.torch.block<pads=[1,1,1,1]>(x, w)
            b = pkg.torch.block<pads=[1,1,1,1]>(a, v)
            t = pkg.torch.block<pads=[0,0,0,0]>(b, u)
            p = GlobalAveragePool(t)
            f = Flatten(p)
            y = Gemm<transB=1>(f, h, hb)
        }
        <opset_import: ["" : 18, "pkg.torch_lib" : 1], domain: "pkg.torch">
        block <pads>(i, k) => (o) {
            [conv] c = pkg.torch_lib.conv<pads: ints = @pads>(i, k)
            o = pkg.torch_lib.silu(c)
        }
        <opset_import: ["" : 18], domain: "pkg.torch_lib">
        conv <pads>(i, k) => (o) { [n0] o = Conv<pads: ints = @pads>(i, k) }
        <opset_import: ["" : 18], domain: "pkg.torch_lib">
        silu (i) => (o) { one = Constant<value_float = 1.0>() \n s = Sigmoid(i) \n m = Mul(i, one) \n o = Mul(m, s) }
        """
    )
    tensors = HEAD | {"u": np.random.default_rng(7).normal(0, 0.3, (5, 5, 3, 3))}
    for name, array in tensors.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    source = prepared(proto, tmp_path)
    assert not source.model.functions
    names = [node.name for node in source.model.graph if node.op_type == "Conv"]
    assert len(set(names)) == 3
    assert [one.node for one in source.facts.convolutions] == names
    assert len(buildable(source, tmp_path).manifest.sites) == 3


@pytest.mark.parametrize("network", networks.NETWORKS, ids=lambda network: network.name)
def test_known_networks(tmp_path: Path, network: small_network.Network) -> None:
    prepared(network.proto(), tmp_path, ",".join(map(str, network.image)))
