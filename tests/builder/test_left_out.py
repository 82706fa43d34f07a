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

from csk_artifacts_builder import BuildOptions, build_artifacts
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
}


def network(kinds: list[str]) -> tuple[onnx.ModelProto, list[str]]:
    """A chain of such convolutions, an own one last; and the names of their nodes."""
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
        x = f"r{n}"
    nodes = "\n".join(parts)
    tail = f"p = GlobalAveragePool({x}) \n f = Flatten(p) \n y = Gemm<transB=1>(f, h)"
    tensors["h"] = RNG.normal(0, 0.5, (3, 4))
    text = f"(float[N,4,6,6] x) => (float[N,3] y) {{ {nodes} \n {tail} }}"
    return model(text, **tensors), [f"node{n}" for n in range(len(kinds) + 1)]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=5))
def test_every_convolution_is_a_candidate_or_has_a_reason(kinds: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        proto, names = network(kinds)
        onnx.save(proto, Path(folder) / "model.onnx")
        build_artifacts(Path(folder) / "model.onnx", Path(folder) / "bundle")
        manifest = Bundle.open(Path(folder) / "bundle").manifest
    assert len(manifest.candidates) + len(manifest.left_out) == len(names)
    reasons = {one.node: one.reason for one in manifest.left_out}
    for name, kind in zip(names, [*kinds, "own"], strict=True):
        expected = KINDS[kind][1]
        if kind == "shared" and kinds.count("shared") == 1:
            expected = None  # nobody to share it with
        assert (name in reasons) == (expected is not None), (name, kind)
        assert expected is None or expected in reasons[name]


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
