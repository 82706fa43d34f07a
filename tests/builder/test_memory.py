"""Predicted memory against measured, the budget, and what is too large."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_text import model
from PIL import Image
from plain_stack import stack
from safetensors.numpy import load_file

from conftest import REPOSITORY, build_digits_bundle
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.bundle_writer import write_tensors
from csk_artifacts_builder.measure.memory import _constants, _fullest, _packed
from csk_artifacts_builder.prepare import source_file
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import Manifest
from csk_sdk.errors import ConfigError, ModelError, StorageError
from csk_sdk.learner import Learner
from csk_sdk.network import export

DIGITS = REPOSITORY / "examples/digits/digits-base4.onnx"
RNG = np.random.default_rng(0)


def learned_in(bundle: Path) -> dict[str, int]:
    """Predicted and measured bytes, from a fresh process."""
    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks/memory.py", "--learn", bundle],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
@pytest.mark.parametrize(
    ("channels", "size", "batch", "largest"),
    [
        pytest.param((3, 256, 512, 512, 512), 8, 4, "opening", id="weights"),
        pytest.param((3, 48, 48, 48, 48), 64, 16, "activations", id="pictures"),
        pytest.param(None, 8, 16, "runtime", id="digits"),
    ],
)
def test_predicted_is_measured_within_a_quarter(tmp_path, channels, size, batch, largest):
    source = stack(tmp_path / "m.onnx", channels, size) if channels else DIGITS
    build_artifacts(
        source, tmp_path / "bundle", BuildOptions(features="last", trainable="all", batch_size=batch)
    )
    parts = dict(Bundle.open(tmp_path / "bundle").manifest.memory)
    peak = parts.pop("peak")
    assert max(parts, key=parts.__getitem__) == largest
    found = learned_in(tmp_path / "bundle")
    assert found["predicted"] == peak
    assert found["predicted"] == pytest.approx(found["measured"], rel=0.25), parts


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
@pytest.mark.parametrize(
    ("channels", "size", "batch"),
    [
        pytest.param((3, 256, 512, 512, 512), 8, 4, id="weights"),
        pytest.param((3, 48, 48, 48, 48), 64, 16, id="pictures"),
        pytest.param((3, 64, 128, 256, 256), 16, 16, id="both"),
    ],
)
def test_int8_is_predicted_within_a_quarter_too(tmp_path, channels, size, batch):
    for name in range(4):
        folder = tmp_path / "base" / str(name)
        folder.mkdir(parents=True)
        for index in range(4):
            pixels = RNG.integers(0, 256, (size, size, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    options = BuildOptions(features="last",
        trainable="all", batch_size=batch, precision="int8", base_data=tmp_path / "base",
        classes=list("0123"),
    )  # fmt: skip
    build_artifacts(stack(tmp_path / "m.onnx", channels, size), tmp_path / "bundle", options)
    found = learned_in(tmp_path / "bundle")
    parts = Bundle.open(tmp_path / "bundle").manifest.memory
    assert found["predicted"] == pytest.approx(found["measured"], rel=0.25), parts


def test_what_is_alive_is_counted_by_hand():
    # a 4 channels, b 8, c in b's place; then d (2 channels) beside a and c; the reshape is a view.
    source = """(float[2,4,5,5] x) => (float[2,50] y) {
        a = Relu(x)
        b = Conv(a, w)
        c = Relu(b)
        d = Conv(c, v)
        e = Conv(a, u)
        f = Add(d, e)
        g = Reshape(f, s)
        y = Neg(g)
    }"""
    kernels = {
        name: np.zeros((out, c_in, 1, 1)) for name, out, c_in in (("w", 8, 4), ("v", 2, 8), ("u", 2, 4))
    }
    graph = ir.from_proto(
        onnx.shape_inference.infer_shapes(model(source, 17, **kernels, s=np.array([2, 50])))
    )
    pixel = 4 * 2 * 25
    assert _fullest(graph, _constants(graph)) == pixel * (4 + 8 + 2)  # a, c and d


def test_constants_are_counted_as_the_step_reads_them():
    source = """(float[2,4,5,5] x) => (float[2,4,5,5] y) {
        a = Conv(x, w)
        t = Transpose<perm=[1,0,2,3]>(w)
        y = Conv(a, t)
    }"""
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model(source, 17, w=np.zeros((4, 4, 1, 1)))))
    kernel = 4 * 4 * 4
    assert _packed(graph, _constants(graph)) == (2 * kernel, kernel, kernel)


def test_matrices_that_are_computed_are_packed_one_after_the_other():
    source = """(float[2,4] x) => (float[2,4] y) {
        t = Transpose(w)
        y = MatMul(x, t)
    }"""
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model(source, 17, w=np.zeros((4, 4)))))
    assert _packed(graph, _constants(graph)) == (64, 0, 64)


def test_where_selects_into_tensors_of_its_own():
    source = """(float[2,8] x) => (float[2,8] y) {
        m = Greater(x, zero)
        y = Where(m, x, zero)
    }"""
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model(source, 17, zero=np.zeros(()))))
    assert _fullest(graph, _constants(graph)) == 2 * 8 * (
        1 + 3 * 4
    )  # the mask, the result, and two of its size


def test_a_step_through_max_pooling_is_predicted_too(tmp_path):
    pooled = """(float[N,3,8,8] x) => (float[N,4] y) {
        c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0)
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)
        d = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(p, w1)
        q = GlobalAveragePool(d)
        f = Flatten(q)
        y = Gemm<transB=1>(f, h, hb)
    }"""
    tensors = {
        "w0": RNG.normal(size=(4, 3, 3, 3)),
        "w1": RNG.normal(size=(64, 4, 3, 3)),
        "h": RNG.normal(size=(4, 64)),
    }
    onnx.save(model(pooled, 17, **tensors, hb=np.zeros(4)), tmp_path / "m.onnx")
    build_artifacts(tmp_path / "m.onnx", tmp_path / "b", BuildOptions(features="last", trainable="all"))
    memory = Bundle.open(tmp_path / "b").manifest.memory
    # Fitting a head inverts a matrix of the 64 features and a one: four of them in float64.
    assert memory["head"] == 4 * 8 * 65**2
    assert memory["activations"] > 16 * 4 * 8 * 8 * 4  # one tensor in front of the pool, at least


# --- the budget


def peak(bundle: Path) -> int:
    return Bundle.open(bundle).manifest.memory["peak"]


@pytest.mark.slow
def test_sites_are_placed_from_the_back_until_the_budget_is_spent(tmp_path):
    source = stack(tmp_path / "m.onnx", (3, 32, 64, 128, 256), 16)
    names = [f"w{index}" for index in range(4)]
    peaks = []
    for index in range(4):
        out = tmp_path / f"from{index}"
        build_artifacts(source, out, BuildOptions(features="last", trainable=f"from:conv{index}"))
        peaks.append(peak(out))
    assert peaks == sorted(peaks, reverse=True)
    for index in range(4):
        out = tmp_path / f"budget{index}"
        build_artifacts(
            source, out, BuildOptions(features="last", trainable="all", memory_budget=peaks[index])
        )
        manifest = Bundle.open(out).manifest
        assert [site.name for site in manifest.sites] == names[index:]
        assert manifest.memory_budget == peaks[index]
        assert manifest.memory["peak"] == peaks[index]


@pytest.fixture
def int8_options(tmp_path):
    data, classes = tmp_path / "base", "abcd"
    for name in classes:
        (data / name).mkdir(parents=True)
        for number in range(8):
            picture = RNG.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(picture).save(data / name / f"{number}.png")
    return BuildOptions(
        features="last", trainable="all", precision="int8", base_data=data, classes=[*classes]
    )


@pytest.fixture
def built(tmp_path):
    source = stack(tmp_path / "m.onnx", (3, 32, 64, 128, 256), 16)

    def build(name: str, options: BuildOptions) -> Manifest:
        build_artifacts(source, tmp_path / name, options)
        return Bundle.open(tmp_path / name).manifest

    return build


@pytest.mark.slow
def test_a_budget_of_int8_is_that_of_int8(int8_options, built):
    """Before anything was calibrated; kernels take a quarter of what exact ones do."""
    whole = built("whole", int8_options)
    enough = whole.memory["peak"] + 256  # some scales and zero points are equal, and stored once
    assert built("enough", replace(int8_options, memory_budget=enough)).sites == whole.sites
    exact = replace(int8_options, precision="exact", base_data=None)
    for name, options in (("less", int8_options), ("exact", exact)):
        fewer = built(name, replace(options, memory_budget=enough - 512))
        assert 0 < len(fewer.sites) < len(whole.sites)
        assert fewer.memory["peak"] < enough


@pytest.mark.slow
def test_a_budget_of_int8_counts_what_stays_in_float32(int8_options, built, monkeypatch):
    """Which convolutions do is known once sites are chosen: then fewer of them are."""
    in_int8 = built("int8", int8_options)
    last = built("last", replace(int8_options, trainable="from:conv3"))
    monkeypatch.setattr("csk_artifacts_builder.int8.mixed.LEAST_COSINE", 1.0 - 1e-9)
    whole = built("whole", int8_options)
    assert whole.in_float
    between = (in_int8.memory["peak"] + whole.memory["peak"]) // 2
    assert in_int8.memory["peak"] < between
    fewer = built("fewer", replace(int8_options, memory_budget=between))
    assert 0 < len(fewer.sites) < len(whole.sites)
    assert fewer.memory["peak"] <= between
    with pytest.raises(ConfigError, match="to train its last site"):
        built("none", replace(int8_options, memory_budget=last.memory["peak"] + 512))


def test_a_budget_for_nothing_says_what_would_do(tmp_path):
    def build(mebibytes: int) -> None:
        build_artifacts(DIGITS, tmp_path / "b", BuildOptions(features="last", memory_budget=mebibytes << 20))

    with pytest.raises(ConfigError) as caught:
        build(1)
    needed = int(str(caught.value).split(" needs ")[1].split(" MiB")[0])
    assert str(caught.value) == (
        f"--memory-budget is 1.0 MiB, but digits-base4.onnx needs {needed} MiB to train its last site "
        f"'stage3.second.conv' alone, in batches of 16. Pass --memory-budget {needed}MiB or more, a smaller "
        "--batch-size, or a smaller network."
    )
    assert not (tmp_path / "b").exists()
    with pytest.raises(ConfigError, match="--memory-budget is"):
        build(needed - 1)
    build(needed)


def test_a_budget_that_the_features_do_not_fit_into_says_so(tmp_path):
    """Fitting a head inverts a matrix of features by features; no choice of sites makes that smaller."""
    source = stack(tmp_path / "m.onnx", (3, 16, 256, 256, 256), 16)

    def build(mebibytes: int, features: str) -> None:
        options = BuildOptions(memory_budget=mebibytes << 20, batch_size=1, features=features, overwrite=True)
        build_artifacts(source, tmp_path / "b", options)

    with pytest.raises(ConfigError) as caught:
        build(60, "wide")
    needed = int(str(caught.value).split(" needs ")[1].split(" MiB")[0])
    assert str(caught.value) == (
        f"--memory-budget is 60.0 MiB, but m.onnx needs {needed} MiB to fit a head on 1,318 features. Pass "
        f"--memory-budget {needed}MiB or more, or --features last."
    )
    build(needed, "wide")
    build(60, "last")


# --- too large


def too_large(folder: Path, sparse: int) -> Path:
    """A model whose first kernel lies in a file of `sparse` bytes that takes no room on the disk."""
    path = stack(folder / "m.onnx", (3, 4, 4), 8)
    proto = onnx.load(path)
    tensor = next(t for t in proto.graph.initializer if t.name == "w0")
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    onnx.save(proto, path)
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(sparse)
    return path


def test_weights_above_2_gib_are_refused_before_they_are_read(tmp_path):
    with pytest.raises(ModelError) as caught:
        build_artifacts(too_large(tmp_path, 5 << 29), tmp_path / "b")
    assert str(caught.value) == (
        "m.onnx has 2.5 GiB of weights, and the model that a device exports must stay below 2 GiB, the most that an "
        "ONNX file holds. Take a smaller network of the same family."
    )
    assert not (tmp_path / "b").exists()


def test_a_file_above_2_gib_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(5 << 29)
    with pytest.raises(ModelError, match=r"m\.onnx has 2\.5 GiB of weights"):
        build_artifacts(path, tmp_path / "b")


def test_a_graph_above_the_limit_leaves_nothing(tmp_path, monkeypatch):
    # Above the source, below the training graph.
    monkeypatch.setattr(source_file, "MAX_BYTES", 6_000)
    source = stack(tmp_path / "m.onnx", (3, 4, 4, 4), 8)
    assert source.stat().st_size < 6_000
    with pytest.raises(ModelError, match=r"training_model\.onnx has"):
        build_artifacts(source, tmp_path / "out" / "b", BuildOptions(features="last", trainable="all"))
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_above_the_limit_is_refused(tmp_path, monkeypatch):
    learner = Learner.open(build_digits_bundle(tmp_path / "b"), tmp_path / "state")
    monkeypatch.setattr(export, "MAX_BYTES", 100_000)
    with pytest.raises(StorageError) as caught:
        learner.export(tmp_path / "out.onnx")
    assert "out.onnx cannot be written: the model has " in str(caught.value)
    assert "MB, and an ONNX file holds less than 2 GiB" in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


# --- files


def test_safetensors_are_written_as_the_library_reads_them(tmp_path):
    tensors = {
        "names": np.frombuffer("zwölf".encode(), np.uint8),
        "scrambled?": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        "empty": np.zeros((0, 3)),
        "scalar": np.array(2.5),
        "ints": np.array([-1, 2**40]),
    }
    offsets = write_tensors(tmp_path / "t.safetensors", tensors)
    found = load_file(tmp_path / "t.safetensors")
    assert set(found) == set(tensors)
    data = (tmp_path / "t.safetensors").read_bytes()
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        assert data[offsets[name] : offsets[name] + array.nbytes] == array.tobytes()
        assert offsets[name] % array.itemsize == 0


def test_an_unprotected_bundle_holds_no_matrix_of_zeros(tmp_path):
    checkpoint = Bundle.open(build_digits_bundle(tmp_path / "b")).checkpoint()
    assert checkpoint["statistics.scatter"].shape == (0, 0)
