"""What lies in a bundle's folder: whole, verified, readable by anyone, and the same each time."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import networks
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import small_network
from numpy.typing import NDArray
from safetensors.numpy import load_file
from small_network import Network

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk.bundle.folder import Bundle, center_of
from csk_sdk.contract.manifest import (
    CHECKPOINT,
    EVAL_MODEL,
    EXPORT_TEMPLATE,
    MANIFEST,
    MEMORY_MODEL,
    SCHEMA_VERSION,
    TRAINING_MODEL,
    WEIGHTS,
    Manifest,
    sealed,
)
from csk_sdk.errors import BundleError
from csk_sdk.network.export import complete

GRAPHS = (TRAINING_MODEL, EVAL_MODEL, MEMORY_MODEL, EXPORT_TEMPLATE)
FILES = {*GRAPHS, WEIGHTS, CHECKPOINT}
MORE = [networks.MOBILENET, networks.GROUPS, networks.RESNET, networks.VGG]


def build(folder: Path, network: Network = networks.RESNET, name: str = "bundle") -> Path:
    onnx.save(network.proto(), folder / "model.onnx")
    build_artifacts(
        folder / "model.onnx", folder / name, BuildOptions(features="last", classes=("cat", "dog", "owl"))
    )
    return folder / name


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed: copy it."""
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in bundle.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


# --- the manifest


def test_manifest_has_size_and_hash_of_every_file(bundle: Path) -> None:
    entries = json.loads((bundle / MANIFEST).read_text())["files"]
    assert set(entries) == FILES
    assert {file.name for file in bundle.iterdir()} == FILES | {MANIFEST}
    for name, entry in entries.items():
        content = (bundle / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def test_manifest_reads_back_the_same(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    assert Manifest.from_json(text, "manifest").to_json() == text


def test_manifest_describes_the_model(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert (manifest.model, manifest.classes) == ("model.onnx", ("cat", "dog", "owl"))
    assert (manifest.input.channels, manifest.input.size) == (3, (9, 9))
    assert (manifest.head.features, manifest.head.source_weight, manifest.head.source_bias) == (
        6, "head_w", "head_b",
    )  # fmt: skip
    sites = {site.node: site for site in manifest.sites}
    assert list(sites) == ["stem", "first", "second"]
    assert (sites["first"].shape, sites["first"].stride) == ((6, 4, 3, 3), (2, 2))
    assert (sites["first"].input_size, sites["first"].output_size) == ((9, 9), (5, 5))
    assert manifest.precision == "exact"
    assert manifest.backends == ("portable",)


# --- the files


def test_checkpoint_holds_the_start(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    tensors, kernels = opened.checkpoint(), opened.weights()
    for site in opened.manifest.sites:
        np.testing.assert_array_equal(tensors[f"center/{site.name}"], kernels[site.weight][center_of(site)])
        assert tensors[f"moment/{site.name}"].shape == (site.groups, site.shape[1], site.shape[1])
        assert not tensors[f"moment/{site.name}"].any()
    np.testing.assert_array_equal(tensors["head/base/weight"], drawn("head_w"))


def drawn(name: str) -> NDArray:
    tensors = {tensor.name: tensor for tensor in networks.RESNET.proto().graph.initializer}
    return onnx.numpy_helper.to_array(tensors[name])


def test_graphs_hold_no_large_tensor(bundle: Path) -> None:
    for name in GRAPHS:
        proto = onnx.load(str(bundle / name), load_external_data=False)
        for tensor in proto.graph.initializer:
            external = tensor.data_location == onnx.TensorProto.EXTERNAL
            assert external or np.prod(tensor.dims) < 64, (name, tensor.name)
            assert external == (not tensor.raw_data and bool(tensor.external_data))
            assert {entry.value for entry in tensor.external_data if entry.key == "location"} <= {WEIGHTS}


def test_graphs_stay_small_however_large_the_kernels(tmp_path: Path) -> None:
    wide = networks.chain("wide", "Tanh", ((64, 3, 3, 3), ""), ((64, 64, 3, 3), ""), ((64, 64, 3, 3), ""))
    folder = build(tmp_path, wide)
    assert (folder / WEIGHTS).stat().st_size > 4 * 2 * 64 * 64 * 9
    assert max((folder / name).stat().st_size for name in GRAPHS) < 24_000


def test_external_tensors_are_those_of_the_safetensors_file(bundle: Path) -> None:
    weights = load_file(bundle / WEIGHTS)
    proto = onnx.load(str(bundle / EVAL_MODEL))
    outside = onnx.load(str(bundle / EVAL_MODEL), load_external_data=False).graph.initializer
    names = {tensor.name for tensor in outside if tensor.data_location == onnx.TensorProto.EXTERNAL}
    assert names
    for tensor in proto.graph.initializer:
        if tensor.name in names:
            np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), weights[tensor.name])


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = build(tmp_path)
    finally:
        os.umask(before)
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o644, file.name
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.slow
@pytest.mark.parametrize("network", MORE, ids=lambda network: network.name)
def test_two_builds_are_the_same_bytes(tmp_path: Path, network: Network) -> None:
    first, second = build(tmp_path, network, "first"), build(tmp_path, network, "second")
    assert {file.name: file.read_bytes() for file in first.iterdir()} == {
        file.name: file.read_bytes() for file in second.iterdir()
    }


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """Sets of strings are ordered anew in every process."""
    onnx.save(networks.MOBILENET_V3.proto(), tmp_path / "model.onnx")
    code = "import sys; from csk_artifacts_builder import build_artifacts as build; build(*sys.argv[1:])"
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "model.onnx", tmp_path / seed],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
        )
    for file in (tmp_path / "1").iterdir():
        assert file.read_bytes() == (tmp_path / "2" / file.name).read_bytes(), file.name


# --- damage


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 1.0])
def test_one_flipped_bit_is_refused(copy: Path, name: str, place: float) -> None:
    content = bytearray((copy / name).read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Bundle.open(copy)
    assert f"{copy / name} is not the file that was built" in str(caught.value)
    assert "Copy the bundle again." in str(caught.value)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_is_refused(copy: Path, name: str, change: int) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-1] if change < 0 else content + b"\0")
    with pytest.raises(BundleError, match="is not the file that was built"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError) as caught:
        Bundle.open(copy)
    assert str(caught.value) == f"{copy / name} is missing. Copy the bundle again."


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BundleError, match=r"There is no bundle in .* \(manifest\.json is missing\)"):
            Bundle.open(folder)


@pytest.mark.parametrize(
    ("edit", "fragment"),
    [
        (lambda raw: raw | {"schema_version": SCHEMA_VERSION + 1}, "update csk-sdk on this device"),
        (lambda raw: {**raw, "schema_version": "1"}, "has no schema_version; it is not a csk-sdk bundle."),
        (lambda raw: {key: raw[key] for key in raw if key != "schema_version"}, "has no schema_version"),
        (
            lambda raw: {key: raw[key] for key in raw if key != "sites"},
            "sites is missing. Build the bundle again",
        ),
        (lambda raw: {**raw, "head": {**raw["head"], "extra": 1}}, 'head["extra"] is not known'),
        (lambda raw: [raw], "has no schema_version"),
        (
            lambda raw: {**raw, "files": {"../outside": {"sha256": "0" * 64, "size": 0}}},
            "lists a file outside the bundle",
        ),
    ],
    ids=["newer", "text", "none", "no-sites", "unknown-field", "a-list", "outside"],
)
def test_a_manifest_that_does_not_fit_is_refused(copy: Path, edit: object, fragment: str) -> None:
    edited = edit(json.loads((copy / MANIFEST).read_text()))  # type: ignore[operator]
    # Sealed again, so that it is the content that is refused.
    (copy / MANIFEST).write_text(sealed(edited) if isinstance(edited, dict) else json.dumps(edited))
    with pytest.raises(BundleError) as caught:
        Bundle.open(copy)
    assert fragment in str(caught.value)
    assert str(copy / MANIFEST) in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe\x00"])
def test_a_manifest_that_is_no_json_is_refused(copy: Path, text: bytes) -> None:
    (copy / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match="is not valid JSON"):
        Bundle.open(copy)


def test_the_bundles_identity_is_that_of_its_content(bundle: Path, copy: Path, tmp_path: Path) -> None:
    assert Bundle.open(bundle).id == Bundle.open(copy).id
    assert Bundle.open(bundle).id != Bundle.open(build(tmp_path, networks.VGG)).id


# --- the export template


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("network", MORE, ids=lambda network: network.name)
def test_completed_template_is_the_source_model(tmp_path: Path, network: Network, end: str) -> None:
    nodes = network.nodes
    if end:
        start, _, last = nodes.rpartition("y = ")
        nodes = f"{start}z = {last}\n y = {end}(z)"
    source = Network(network.name, nodes, network.tensors)
    bundle = Bundle.open(build(tmp_path, source))
    tensors = bundle.checkpoint()
    exported = exported_model(bundle, tensors["head/base/weight"], tensors["head/base/bias"])
    onnx.checker.check_model(exported, full_check=True)
    assert {value.name for value in exported.graph.input} == {"x"}
    assert {value.name for value in exported.graph.output} == {"y"}
    assert {entry.key: entry.value for entry in exported.metadata_props} == {"who": "a test"}
    x = small_network.pictures(network, 5)
    expected = run(source.proto(), x)
    np.testing.assert_allclose(run(exported, x), expected, rtol=1e-4, atol=1e-5)


def test_completed_template_takes_another_number_of_classes(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    weight = np.random.default_rng(0).normal(size=(7, opened.manifest.head.features)).astype(np.float32)
    exported = exported_model(opened, weight, np.zeros(7, np.float32))
    onnx.checker.check_model(exported, full_check=True)
    assert run(exported, small_network.pictures(networks.RESNET, 2)).shape == (2, 7)


def exported_model(bundle: Bundle, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> onnx.ModelProto:
    manifest = bundle.manifest
    tensors = bundle.weights(manifest.weights_in_export)
    tensors |= {manifest.head.weight: weight, manifest.head.bias: bias}
    template = bundle.path(EXPORT_TEMPLATE).read_bytes()
    return onnx.load_from_string(b"".join(complete(template, tensors, {"who": "a test"})))


def run(proto: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]
