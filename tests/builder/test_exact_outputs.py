"""A source that the runtime itself computes less exactly than the graph that is built of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx_text import initializer
from pool_rows import convolved
from preparing import outputs

from csk_artifacts_builder import BuildOptions, build_artifacts, try_model
from csk_artifacts_builder.measure import running, verify
from csk_artifacts_builder.prepare import opset
from csk_sdk import Learner
from csk_sdk.errors import ModelError

RNG = np.random.default_rng(0)
TENSORS = {
    "w": RNG.normal(0, 0.3, (8, 3, 3, 3)),
    "s": np.linspace(0.5, 1.5, 8),
    "b": np.linspace(-0.2, 0.3, 8),
    "v": RNG.normal(0, 0.3, (8, 8, 3, 3)),
    "h": RNG.normal(0, 0.7, (3, 8)),
    "hb": RNG.normal(0, 0.1, 3),
}


def normalised(mean: float) -> onnx.ModelProto:
    """Two convolutions, and between them groups of two channels around `mean`, normalised."""
    text = """(float[N,3,12,12] x) => (float[N,3] y) {
    [first] c = Conv<pads=[1,1,1,1]>(x, w) a = Add(c, far) g = GroupNormalization<num_groups=4>(a, s, b)
    [second] t = Conv<pads=[1,1,1,1]>(g, v) u = Tanh(t) p = GlobalAveragePool(u) f = Flatten(p)
    [head] y = Gemm<transB=1>(f, h, hb) }"""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {text}')
    tensors = TENSORS | {"far": np.array(mean)}
    proto.graph.initializer.extend(initializer(name, array) for name, array in tensors.items())
    return proto


def by_hand(x: NDArray[np.float32], mean: float) -> NDArray[np.float64]:
    """The same in float64."""
    w, s, b, v, h, hb = (array.astype(np.float32).astype(np.float64) for array in TENSORS.values())
    a = convolved(x.astype(np.float64), w) + mean
    groups = a.reshape(len(x), 4, -1)
    groups = groups - groups.mean(axis=2, keepdims=True)
    groups = groups / np.sqrt(np.square(groups).mean(axis=2, keepdims=True) + 1e-5)
    g = groups.reshape(a.shape) * s[:, None, None] + b[:, None, None]
    return np.tanh(convolved(g, v)).mean(axis=(2, 3)) @ h.T + hb


def test_a_normalisation_that_the_runtime_computes_inexactly_is_built(tmp_path: Path) -> None:
    """By its definition a variance is the mean of squares less the square of the mean: 1.32 is off by 0.002 here."""
    onnx.save(normalised(400.0), tmp_path / "model.onnx")
    x = RNG.normal(size=(4, 3, 12, 12)).astype(np.float32)
    expected = by_hand(x, 400.0)
    theirs = np.abs(outputs(normalised(400.0), x) - expected).max()
    report = build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(trainable="all"))
    said = [one for one in report.notes if "does not compute model.onnx exactly" in one]
    tried = try_model(tmp_path / "model.onnx", BuildOptions(trainable="all"))
    assert [one for one in tried.prepared if "does not compute" in one] == said
    Learner.open(tmp_path / "bundle", state=tmp_path / "state").export(tmp_path / "exported.onnx")
    ours = np.abs(outputs(onnx.load(str(tmp_path / "exported.onnx")), x) - expected).max()
    assert ours < 5e-5
    assert bool(said) == (theirs > 2e-4), theirs  # a runtime that is exact is told nothing of


def test_where_the_runtime_is_exact_nothing_is_said(tmp_path: Path) -> None:
    onnx.save(normalised(0.0), tmp_path / "model.onnx")
    tried = try_model(tmp_path / "model.onnx", BuildOptions(trainable="all"))
    assert not [one for one in tried.prepared if "exactly" in one]


@pytest.mark.parametrize("mean", [0.0, 400.0])
def test_a_wrong_preparation_is_refused_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean: float
) -> None:
    right = opset._LOWER["GroupNormalization"]

    def scaled(emit, node):  # type: ignore[no-untyped-def]
        wider = emit.constant(TENSORS["s"] * 1.02, np.float32, "wrong")
        node.replace_input_with(1, wider)
        right(emit, node)

    monkeypatch.setitem(opset._LOWER, "GroupNormalization", scaled)
    onnx.save(normalised(mean), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"outputs of model\.onnx differ by .* cannot be told here"):
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(trainable="all"))
    assert not (tmp_path / "bundle").exists()


def test_a_source_that_gives_nan_on_this_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 1.25 a LayerNormalization around 30000 does; the file itself has a number."""
    onnx.save(normalised(400.0), tmp_path / "model.onnx")

    def broken(session, batches, which, output=None):  # type: ignore[no-untyped-def]
        answers = running.run(session, batches, which, output)
        return [np.full_like(one, np.nan) for one in answers] if which == running.SOURCE else answers

    monkeypatch.setattr(verify, "run", broken)
    tried = try_model(tmp_path / "model.onnx", BuildOptions(trainable="all"))
    assert any("it gives NaN or infinity, and the bundle" in one for one in tried.prepared)
    onnx.save(normalised(0.0), tmp_path / "model.onnx")
    with pytest.raises(
        ModelError, match=r"on this ONNX Runtime .*: by its definition it does not. Build it with"
    ):
        try_model(tmp_path / "model.onnx", BuildOptions(trainable="all"))


OPSET = (
    "[ONNXRuntimeError] : 1 : FAIL : Load model from m/a.onnx failed:/onnxruntime_src/onnxruntime/core/graph/"
    "model_load_utils.h:46 void onnxruntime::model_load_utils::ValidateOpsetForDomain(const std::unordered_map<std::"
    "__cxx11::basic_string<char>, int>&, const onnxruntime::logging::Logger&, bool, const std::string&, int) "
    "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset 22 is "
    "under development and support for this is limited. The operator schemas and or other functionality may change "
    "before next ONNX release and in this case ONNX Runtime will not guarantee backward compatibility. Current "
    "official support for domain ai.onnx is till opset 20."
)
IR = (
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Failed to load model with error: /onnxruntime_src/onnxruntime/core/"
    "graph/model.cc:179 onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&, const "
    "onnxruntime::IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, const "
    "onnxruntime::ModelOptions&) Unsupported model IR version: 13, max supported IR version: 9\n"
)
MISSING = "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Relu(14) node with name ''"
SAID = {
    OPSET: "it knows opsets up to 20, and this is opset 22",
    IR: "Unsupported model IR version: 13, max supported IR version: 9",
    MISSING: "Could not find an implementation for Relu(14) node with name ''",
}


@pytest.mark.parametrize("text", SAID, ids=["opset", "IR", "op"])
def test_why_the_source_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What ONNX Runtime 1.17.0 and 1.25.0 said, to its point, and what can be done."""
    onnx.save(normalised(0.0), tmp_path / "model.onnx")

    def refuse(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(running, "open_session", refuse)
    with pytest.raises(ModelError) as caught:
        try_model(tmp_path / "model.onnx", BuildOptions(trainable="all"))
    end = f"cannot run the source model ({SAID[text]}). Another release may, or export the model again with opset 17."
    assert str(caught.value).endswith(end)
