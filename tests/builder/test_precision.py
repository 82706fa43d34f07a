"""Half-precision source models: trained in float32, exported with the source's own input and output types."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import small_network
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_text import in_float64

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, EXPORT_TEMPLATE, MEMORY_MODEL, TRAINING_MODEL
from csk_sdk.errors import ModelError

HALF = TensorProto.FLOAT16


def rounded(proto: onnx.ModelProto, to: int = HALF) -> onnx.ModelProto:
    """Every tensor, input and output in another precision: what a converter with `keep_io_types=False` writes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor)
            kind = onnx.helper.tensor_dtype_to_np_dtype(to)
            tensor.CopyFrom(numpy_helper.from_array(array.astype(kind), tensor.name))
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.elem_type = to
    return copy


def with_casts_at_the_ends(proto: onnx.ModelProto, to: int = HALF) -> onnx.ModelProto:
    """The same with float32 input and output: `keep_io_types=True`."""
    copy = rounded(proto, to)
    image, logits = copy.graph.input[0], copy.graph.output[0]
    for node in copy.graph.node:
        for position, name in enumerate(node.input):
            if name == image.name:
                node.input[position] = "image_low"
        for position, name in enumerate(node.output):
            if name == logits.name:
                node.output[position] = "logits_low"
    copy.graph.node.insert(0, onnx.helper.make_node("Cast", [image.name], ["image_low"], to=to))
    copy.graph.node.append(onnx.helper.make_node("Cast", ["logits_low"], [logits.name], to=TensorProto.FLOAT))
    image.type.tensor_type.elem_type = logits.type.tensor_type.elem_type = TensorProto.FLOAT
    return copy


def with_half_tensors_only(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Weights stored in float16 and cast where they are read, in a float32 graph: half the file."""
    copy = rounded(proto)
    tensors = [tensor.name for tensor in copy.graph.initializer if tensor.data_type == HALF]
    for node in copy.graph.node:
        for position, name in enumerate(node.input):
            if name in tensors:
                node.input[position] = f"{name}_wide"
    for name in tensors:
        cast = onnx.helper.make_node("Cast", [name], [f"{name}_wide"], to=TensorProto.FLOAT)
        copy.graph.node.insert(0, cast)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return copy


def with_one_half_layer(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph with one convolution in float16 between casts: a converter that was told to leave the others."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    node = [node for node in copy.graph.node if node.op_type == "Conv"][1]
    place = list(copy.graph.node).index(node)
    for tensor in copy.graph.initializer:
        if tensor.name in node.input:
            array = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    casts = [
        onnx.helper.make_node("Cast", [node.input[0]], ["narrow_in"], to=HALF),
        onnx.helper.make_node("Cast", ["narrow_out"], [node.output[0]], to=TensorProto.FLOAT),
    ]
    node.input[0] = "narrow_in"
    node.output[0] = "narrow_out"
    copy.graph.node.insert(place, casts[0])
    copy.graph.node.insert(place + 2, casts[1])
    return copy


FORMS = {
    "everything": (rounded, np.float16),
    "casts-at-the-ends": (with_casts_at_the_ends, np.float32),
    "tensors-only": (with_half_tensors_only, np.float32),
    "one-layer": (with_one_half_layer, np.float32),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", [networks.RESNET, networks.MOBILENET_V3], ids=lambda network: network.name
)
@pytest.mark.parametrize("form", FORMS)
def test_a_half_precision_model_trains_in_float32_and_exports_under_its_own_interface(
    tmp_path: Path, network: small_network.Network, form: str
) -> None:
    make, kind = FORMS[form]
    source = make(network.proto())
    onnx.checker.check_model(source, full_check=True)
    onnx.save(source, tmp_path / "model.onnx")
    build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(trainable="all"))
    bundle = Bundle.open(tmp_path / "bundle")
    for name in (TRAINING_MODEL, EVAL_MODEL, MEMORY_MODEL):
        assert HALF not in types(onnx.load(str(bundle.path(name)))), name
    template = onnx.load(str(bundle.path(EXPORT_TEMPLATE)))
    assert HALF not in {tensor.data_type for tensor in template.graph.initializer}

    Learner.open(bundle.folder, tmp_path / "state").export(tmp_path / "base.onnx", "base")
    exported = onnx.load(str(tmp_path / "base.onnx"))
    onnx.checker.check_model(exported, full_check=True)
    x = small_network.pictures(network, 3).astype(kind)
    got = run(exported, x)
    assert got.dtype == kind
    # The witness: the rounded weights, computed in float64.
    exact = ReferenceEvaluator(in_float64(widened(source)))
    expected = exact.run(None, {exact.input_names[0]: x.astype(np.float64)})[0]
    tolerance = 1e-3 if kind == np.float16 else 1e-5
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy"])
def test_logits_beyond_float16_are_exported_as_what_decides_the_same(tmp_path: Path, loss: str) -> None:
    """A discriminant over far apart classes has logits beyond 65504: as infinities they would be ties."""
    network = networks.RESNET
    onnx.save(rounded(network.proto()), tmp_path / "model.onnx")
    options = BuildOptions(loss=loss, classes=tuple(f"c{n}" for n in range(network.classes)))
    build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", options)
    x = small_network.pictures(network, 6).astype(np.float16)
    logits = {}
    for scale in (1.0, 1e6):
        learner = Learner.open(tmp_path / "bundle", tmp_path / f"state{scale:g}")
        generation = learner.state.load()
        tensors = dict(generation.tensors)
        tensors["head/base/weight"] = tensors["head/base/weight"] * np.float32(scale)
        tensors["head/base/bias"] = tensors["head/base/bias"] * np.float32(scale)
        with learner.state.lock():
            learner.state.commit(0, (), tensors)
        learner.export(tmp_path / "m.onnx", "base")
        logits[scale] = run(onnx.load(str(tmp_path / "m.onnx")), x).astype(np.float64)
    small, large = logits.values()
    assert np.isfinite(large).all()
    if loss == "cross-entropy":
        assert large.argmax(axis=1).tolist() == small.argmax(axis=1).tolist()
        assert (large.max(axis=1) <= 65504).all()
        assert len(np.unique(large.argmax(axis=1))) > 1
        assert ((large == large.max(axis=1, keepdims=True)).sum(axis=1) == 1).all()
    else:
        np.testing.assert_array_equal(np.sign(large), np.sign(small))


def types(model: onnx.ModelProto) -> set[int]:
    found = {tensor.data_type for tensor in model.graph.initializer}
    found |= {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    return found | {
        attribute.i for node in model.graph.node if node.op_type == "Cast" for attribute in node.attribute
    }


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """float16 as float32, for the witness; written for these test models only."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_type == HALF:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
            )
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in copy.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == HALF:
                attribute.i = TensorProto.FLOAT
    return copy


def run(model: onnx.ModelProto, x: NDArray) -> NDArray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize(
    ("make", "to", "fragments"),
    [
        (rounded, TensorProto.DOUBLE, ("computes in DOUBLE (op 'Conv', node ", "in float32 or float16.")),
        (
            with_casts_at_the_ends,
            TensorProto.DOUBLE,
            ("model.onnx computes in DOUBLE (op 'Conv', node ", "which ONNX Runtime does not run on CPUs."),
        ),
        (
            with_casts_at_the_ends,
            TensorProto.BFLOAT16,
            ("model.onnx computes in BFLOAT16 (op 'Conv', node ",),
        ),
    ],
    ids=["double", "double-inside", "bfloat16-inside"],
)
def test_other_precisions_are_refused(
    tmp_path: Path, make: object, to: int, fragments: tuple[str, ...]
) -> None:
    onnx.save(make(networks.VGG.proto(), to), tmp_path / "model.onnx")  # type: ignore[operator]
    with pytest.raises(ModelError) as caught:
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle")
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
