"""No convolution is left out without its name and its reason."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_text import model
from small_models import classifier
from typer.testing import CliRunner

from csk_artifacts_builder import BuildOptions, build_artifacts, try_model
from csk_sdk.bundle.folder import Bundle
from csk_sdk.cli import app
from csk_sdk.contract.manifest import Manifest
from csk_sdk.errors import ModelError

RNG = np.random.default_rng(0)
KERNELS = {
    "three": RNG.normal(0, 0.3, (4, 4, 3, 3)),
    "one": RNG.normal(0, 0.3, (4, 4, 1, 1)),
    "two": RNG.normal(0, 0.3, (4, 4, 2, 2)),
}
# What a convolution may be, and what is said of it where it is left out (None: it is a site).
KINDS = {
    "own": ("k{n} = Identity(three{n}) \n c{n} = Conv<pads=[1,1,1,1]>({x}, k{n})", None),
    "computed of constants": (
        "k{n} = Mul(three{n}, three{n}) \n c{n} = Conv<pads=[1,1,1,1]>({x}, k{n})",
        None,
    ),
    "shared": ("c{n} = Conv<pads=[1,1,1,1]>({x}, three)", "its kernel is shared with"),
    "pointwise": ("c{n} = Conv({x}, one{n})", "not of --sites center"),
    "even": ("c{n} = Conv<pads=[0,0,1,1]>({x}, two{n})", "a kernel of 2x2 has no center"),
    "of the image": (
        "s{n} = Shape<start=0, end=1>(x) \n m{n} = Cast<to=1>(s{n}) \n o{n} = Div(m{n}, m{n}) \n"
        "k{n} = Mul(o{n}, three{n}) \n c{n} = Conv<pads=[1,1,1,1]>({x}, k{n})",
        "its kernel is computed from the image",
    ),
    "transposed": ("c{n} = ConvTranspose<pads=[1,1,1,1]>({x}, three{n})", "ConvTranspose is not trained"),
    "unread": ("[unread{n}] u{n} = Conv({x}, one{n}) \n c{n} = Conv<pads=[1,1,1,1]>({x}, three{n})", None),
    "of constants": ("[still{n}] q{n} = Conv(image, one{n}) \n c{n} = Add({x}, q{n})", None),
}
# Further convolutions of such a kind, and the one that is a classifier.
BESIDE = {"unread": "nothing of it reaches the scores", "still": "it works on constants alone"}
# How a network ends behind its pooled features `p`; what the refusal says, None where it builds.
ENDS = {
    "linear": ("f = Flatten(p) \n y = Gemm<transB=1>(f, h)", None),
    "convolution": ("[classifier] k = Conv(p, hc) \n y = Flatten(k)", None),
    "label": ("f = Flatten(p) \n z = Gemm<transB=1>(f, h) \n y = ArgMax<axis=1, keepdims=0>(z)", None),
    "relu": (
        "f = Flatten(p) \n z = Gemm<transB=1>(f, h) \n [bent] y = Relu(z)",
        "ends in op 'Relu' (node 'bent')",
    ),
    "features": ("[flat] y = Flatten(p)", "ends in op 'Flatten' (node 'flat')"),
    "two layers of other features": (
        "f = Flatten(p) \n a = Gemm<transB=1>(f, h) \n s = Sigmoid(f) \n b = MatMul(s, ht) \n [both] y = Add(a, b)",
        "ends in op 'Add' (node 'both')",
    ),
    "a weight of the image": (
        "f = Flatten(p) \n m = ReduceMean<axes=[0]>(f) \n v = Mul(h, m) \n [moved] y = Gemm<transB=1>(f, v)",
        "ends in op 'Gemm' (node 'moved')",
    ),
    "two heads": (
        "f = Flatten(p) \n y = Gemm<transB=1>(f, h) \n w = MatMul(f, ht)",
        "has 2 outputs ('y' [N,3], 'w' [N,3]), and more than one of them could hold the scores",
    ),
    "map": (
        "[map] y = Conv(r_last, hc)",
        "is a model of maps (a segmenter, an autoencoder, a part of a detector): its output 'y'",
    ),
}


def network(kinds: list[str], end: str = "linear") -> onnx.ModelProto:
    """A chain of such convolutions, an own one last, and an end."""
    parts, tensors, x = [], {}, "x"
    for n, kind in enumerate([*kinds, "own"]):
        text = KINDS[kind][0].format(n=n, x=x)
        parts.append(text.replace(f"c{n} = ", f"[node{n}] c{n} = "))
        parts.append(f"r{n} = Sigmoid(c{n})")
        for name, array in KERNELS.items():
            if f"{name}{n}" in text:
                tensors[f"{name}{n}"] = array
        if kind == "shared":
            tensors["three"] = KERNELS["three"]
        if kind == "of constants":
            tensors["image"] = RNG.normal(0, 1, (1, 4, 6, 6))
        x = f"r{n}"
    tail = f"p = GlobalAveragePool({x}) \n {ENDS[end][0].replace('r_last', x)}"
    heads = {"h": (3, 4), "ht": (4, 3), "hc": (3, 4, 1, 1)}
    tensors |= {
        name: RNG.normal(0, 0.5, shape)
        for name, shape in heads.items()
        if f" {name})" in tail or f"({name}," in tail
    }
    outputs = {"label": "int64[N] y", "two heads": "float[N,3] y, float[N,3] w", "map": "float[N,3,6,6] y"}
    told = outputs.get(end, "float[N,4] y" if end == "features" else "float[N,3] y")
    nodes = "\n".join(parts)
    return model(f"(float[N,4,6,6] x) => ({told}) {{ {nodes} \n {tail} }}", **tensors)


def expected_reasons(kinds: list[str], end: str) -> dict[str, str | None]:
    """By node: why it is left out, None where it may be trained."""
    found: dict[str, str | None] = {}
    for n, kind in enumerate([*kinds, "own"]):
        alone = kind == "shared" and kinds.count("shared") == 1  # nobody to share it with
        if kind != "of constants":
            found[f"node{n}"] = None if alone else KINDS[kind][1]
        for name, reason in BESIDE.items():
            if f"[{name}" in KINDS[kind][0]:
                found[f"{name}{n}"] = reason
    return found | ({"classifier": "it is the classifier"} if end == "convolution" else {})


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=5), st.sampled_from(sorted(ENDS)))
def test_every_convolution_has_a_fate_and_every_refused_head_a_reason(kinds: list[str], end: str) -> None:
    expected, refusal = expected_reasons(kinds, end), ENDS[end][1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(network(kinds, end), path)
        if refusal is not None:
            with pytest.raises(ModelError) as caught:
                try_model(path)
            assert refusal in str(caught.value)
            return
        trial = try_model(path)
        assert [one.name for one in Path(folder).iterdir()] == ["model.onnx"]
    told = {one.node: one for one in trial.convolutions}
    assert len(told) == len(trial.convolutions)
    assert told.keys() == expected.keys()
    for name, reason in expected.items():
        if reason is None:
            assert told[name].fate in ("trained", "frozen"), told[name]
        else:
            assert told[name].fate == "left out"
            assert reason in told[name].reason
    assert {one.node: one.reason for one in trial.manifest.left_out} == {
        one.node: one.reason for one in trial.convolutions if one.fate == "left out"
    }


@pytest.mark.parametrize(
    "kinds", [[], ["unread", "of constants", "shared", "shared", "of the image", "even"]]
)
def test_the_bundle_names_them_all(tmp_path: Path, kinds: list[str]) -> None:
    onnx.save(network(kinds, "convolution"), tmp_path / "model.onnx")
    build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    expected = expected_reasons(kinds, "convolution")
    left = {name: reason for name, reason in expected.items() if reason is not None}
    assert len(manifest.candidates) + len(left) == len(expected)
    assert [one.node for one in manifest.left_out] == [name for name in expected if name in left]
    assert all(left[one.node] in one.reason for one in manifest.left_out)


def built(tmp_path: Path) -> Path:
    nodes = (
        "[first] c = Conv(x, w) \n [again] d = Conv(x, w) \n a = Add(c, d) \n"
        "[small] o = Conv(a, one) \n [second] t = Conv(o, v5)"
    )
    onnx.save(classifier(nodes, v5=RNG.normal(0, 0.3, (5, 5, 3, 3))), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_the_build_and_inspect_name_them(tmp_path: Path) -> None:
    path = built(tmp_path)
    run = CliRunner().invoke(app, ["build-artifacts", str(path), "--out", str(tmp_path / "bundle")])
    assert run.exit_code == 0, run.output
    said = " ".join(run.output.split())
    assert "first: its kernel is shared with 'again'" in said
    assert "small: not of --sites center" in said
    assert "convolution 'first' is never trained: its kernel is shared with 'again'." in said
    assert "convolution 'small'" not in said  # as --sites says
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "bundle")])
    assert "first: its kernel is shared with 'again'" in " ".join(shown.output.split())
    as_json = CliRunner().invoke(app, ["inspect", str(tmp_path / "bundle"), "--json"])
    left = json.loads(as_json.stdout)["left_out"]
    assert [one["node"] for one in left] == ["first", "again", "small"]


def test_a_manifest_without_the_field_opens(tmp_path: Path) -> None:
    """Older builders did not write it."""
    build_artifacts(built(tmp_path), tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    text = manifest.to_json()
    assert Manifest.from_json(text, "manifest.json").left_out == manifest.left_out != ()


def test_a_network_of_computed_kernels_only(tmp_path: Path) -> None:
    nodes = (
        "s = Shape(x) \n sf = Cast<to=1>(s) \n m = ReduceMean(sf) \n k = Mul(m, w) \n c = Conv(x, k) \n"
        "l = Mul(m, v) \n t = Conv(c, l)"
    )
    onnx.save(classifier(nodes), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="none with a kernel of constants: its kernel is computed"):
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions())
