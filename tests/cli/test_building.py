"""build-artifacts and inspect."""

import json
import sys
from pathlib import Path

import pytest

from csk_sdk.cli.size_options import parse_size
from csk_sdk.contract.manifest import sealed

MODEL = Path(__file__).parents[2] / "examples/digits/digits-base4.onnx"
NAMES = ["zero", "one", "two", "three"]
NORMALIZE = {"mean": [0.3056], "std": [0.3776]}


@pytest.fixture
def class_file(tmp_path):
    def write(text):
        path = tmp_path / "classes"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return path

    return write


def test_build_with_base_data(run, tmp_path, base_data):
    out = tmp_path / "bundle"
    classes = MODEL.with_suffix(".json")
    done = run("build-artifacts", MODEL, "--out", out, "--base-data", base_data, "--classes", classes)
    assert (done.status, done.err) == (0, "")
    assert "mean 0.3056, std 0.3776" in done.out
    assert "Base accuracy  100.0 % of the base data" in done.out
    assert "11.1 % of 77,732 parameters" in done.out
    assert "csk-sdk train" in done.out


def test_without_base_data_it_warns_and_says_so_in_json(run, tmp_path, class_file):
    names = class_file("\n".join(NAMES))
    arguments = ("build-artifacts", MODEL, "--out", tmp_path / "bundle", "--classes", names, "--json")
    done = run(*arguments, "--trainable", "all", "--channel-ratio", "0.5", "--batch-size", "8", "--no-flip")
    assert done.status == 0
    assert "Warning: the base classes are UNPROTECTED" in done.err
    found = done.json
    assert found["base_accuracy"] is None
    assert len(found["warnings"]) == 2
    assert (found["classes"], found["batch_size"], found["flip"]) == (NAMES, 8, False)
    assert [site["selected"] / site["channels"] for site in found["sites"][1:]] == [0.5] * 6


@pytest.mark.slow
def test_int8_tells_how_close_it_comes(run, tmp_path, base_data):
    out, classes = tmp_path / "bundle", MODEL.with_suffix(".json")
    arguments = ("build-artifacts", MODEL, "--out", out, "--classes", classes, "--precision", "int8")
    refused = run(*arguments)
    assert (refused.status, out.exists()) == (1, False)
    assert "--precision int8 needs --base-data: the ranges of the network's activations" in refused.err
    done = run(*arguments, "--base-data", base_data)
    assert (done.status, done.err) == (0, "")
    assert "% of the exact ones, cosine of each site's gradient at least 0.99" in " ".join(done.out.split())
    found = run(*arguments, "--base-data", base_data, "--overwrite", "--json").json
    assert found["precision"] == "int8"
    assert 0 < found["agreement"]["logits"] < 0.02
    assert set(found["agreement"]["gradients"]) == {site["name"] for site in found["sites"]}
    assert "int8, centers in fp32" in run("inspect", out).out
    assert run(*arguments, "--precision", "int4").status == 2


@pytest.mark.slow
def test_an_existing_bundle_is_only_replaced_when_asked(run, tmp_path):
    arguments = ("build-artifacts", MODEL, "--out", tmp_path / "bundle")
    assert run(*arguments).status == 0
    refused = run(*arguments)
    assert refused.status == 1
    assert "--overwrite" in refused.err
    assert run(*arguments, "--overwrite", "--mean", "0.3056", "--std", "0.3776").status == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--out", "taken"), "taken exists already"),
        (("--out", "taken", "--overwrite"), "taken is not a bundle"),
        (
            ("--out", "new", "--backend", "both", "--sites", "kernels"),
            "--sites kernels is for the portable backend",
        ),
        (("--out", "new", "--precision", "int8"), "--precision int8 needs --base-data"),
        (("--out", "new", "--channel-ratio", "3"), "--channel-ratio is 3"),
        (("--out", "new", "--counter", "4"), "--counter says how new a signed bundle is"),
        (("--out", "new", "--base-data", "nowhere"), "There is no folder nowhere"),
        (("--out", "new", "--intensity-data", "nowhere"), "There is no task at nowhere"),
    ],
)
def test_what_needs_no_model_is_refused_before_it_is_read(run, tmp_path, monkeypatch, arguments, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/photo.png").write_bytes(b"dear to someone")
    done = run("build-artifacts", "no-such-model.onnx", *arguments)
    assert (done.status, done.out) == (1, "")
    assert error in done.err


@pytest.mark.parametrize(
    ("content", "mean"),
    [
        ("zero\none\n\ntwo\nthree\n", [0.0]),
        (NAMES, [0.0]),
        ({"classes": NAMES, "normalize": NORMALIZE}, [0.3056]),
    ],
)
def test_classes_file_formats(run, tmp_path, class_file, content, mean):
    done = run("build-artifacts", MODEL, "--out", tmp_path / "b", "--classes", class_file(content), "--json")
    assert done.json["classes"] == NAMES
    assert done.json["preprocessing"]["mean"] == mean


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("zero\none", "--classes has 2 names, but digits-base4.onnx has 4 outputs"),
        ("[1, 2", "is not valid JSON"),
        ({"names": NAMES}, "has no list of names"),
        ([1, 2, 3, 4], "has no list of names"),
        ({"classes": NAMES, "normalize": {"mean": 0.3}}, '"mean" in "normalize" must be a list of numbers'),
        ({"classes": NAMES, "normalize": [1]}, '"normalize" must be'),
    ],
)
def test_classes_file_errors(run, tmp_path, class_file, content, error):
    done = run("build-artifacts", MODEL, "--out", tmp_path / "b", "--classes", class_file(content))
    assert done.status == 1
    assert error in done.err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([MODEL, "--classes", "nowhere"], "--classes nowhere cannot be read"),
        (["nowhere.onnx"], "There is no model file nowhere.onnx"),
        ([__file__], "is not a valid ONNX model"),
        ([MODEL, "--base-data", "nowhere"], "There is no folder nowhere"),
        ([MODEL, "--trainable", "from:nowhere"], "has no node 'nowhere'"),
        ([MODEL, "--channel-ratio", "2"], "--channel-ratio is 2.0"),
    ],
)
def test_errors(run, tmp_path, arguments, error):
    done = run("build-artifacts", *arguments, "--out", tmp_path / "b")
    assert done.status == 1
    assert error in done.err
    assert not (tmp_path / "b").exists()


def test_without_the_builder_one_sentence_says_how_to_get_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "csk_artifacts_builder", None)
    done = run("build-artifacts", MODEL, "--out", "b")
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "Error: build-artifacts needs the workstation extra: pip install 'csk-sdk[builder]'.\n"
    )


def test_inspect_counts_what_can_be_counted_by_hand(run, digits_bundle):
    found = run("inspect", digits_bundle, "--json").json
    assert [(site["name"], site["kernel"], site["centers"], site["trained"]) for site in found["sites"]] == [
        ("stage2.first.conv", [32, 16, 3, 3], 32 * 16, 32 * 4),
        ("stage2.second.conv", [32, 32, 3, 3], 32 * 32, 32 * 8),
        ("stage3.first.conv", [64, 32, 3, 3], 64 * 32, 64 * 8),
        ("stage3.second.conv", [64, 64, 3, 3], 64 * 64, 64 * 16),
    ]
    convolutions = {  # multiply-adds: output pixels x output channels x taps
        "stem": 64 * 16 * 9,
        "stage1": 2 * 64 * 16 * 16 * 9,
        "stage2": 16 * 32 * (16 * 9 + 32 * 9 + 16),
        "stage3": 4 * 64 * (32 * 9 + 64 * 9 + 32),
    }
    # The last stage's means, those of what the four sites see, and root mean squares of what stage 1 does.
    features = 64 + (16 + 32 + 32 + 64) + 2 * 16
    forward = 2 * (sum(convolutions.values()) + features * 4)
    assert found["inference_flops"] == forward
    assert found["flops_per_image"]["full"] == 3 * forward - 2 * convolutions["stem"]
    # Kept: x_c on the selected channels (float32), four ReLU masks (bytes), features, the logits' two images.
    selected = 4 * (4 * 16 + 8 * 16 + 8 * 4 + 16 * 4)
    assert (
        found["kept_bytes_per_image"]["centers"]
        == selected + (2 * 32 * 16 + 2 * 64 * 4) + 4 * features + 2 * 16
    )
    # Full: the input of every layer, once (the image, stem, two in stage 1, two in 2, two in 3, features),
    # and no activation that is not also an input, but for the last, which the pooling reads.
    kept = 64 + 3 * 16 * 64 + 2 * 32 * 16 + 2 * 64 * 4 + features
    assert found["kept_bytes_per_image"]["full"] == 4 * kept
    assert found["flops_per_image"]["centers"] < found["flops_per_image"]["full"]
    biases = 16 * 3 + 32 * 3 + 64 * 3 + 4
    weights = 9 * (16 + 2 * 256 + 512 + 1024 + 2048 + 4096) + 512 + 2048 + features * 4
    assert found["parameters"] == weights + biases
    assert found["trainable"] == 512 + 1024 + 2048 + 4096 + (features + 1) * 4
    assert found["files"]["manifest.json"] > 0


def test_inspect_counts_each_site(run, digits_bundle):
    found = run("inspect", digits_bundle, "--json").json["sites"]
    counts = [(site["forward_flops"], site["backward_flops"], site["kept_bytes"]) for site in found]
    first, second = 2 * 16 * 32 * (16 * 9), 2 * 16 * 32 * (32 * 9)  # frozen kernels: pixels x channels x taps
    branch = [2 * 16 * 32 * 4, 2 * 16 * 32 * 8]  # on the selected channels, and as much for their gradient
    dense = 2 * 16 * 32 * 32  # the input's gradient through all centers
    assert counts[0] == (first + branch[0], branch[0], 4 * 16 * 4)
    assert counts[1] == (second + branch[1], branch[1] + second + dense, 4 * 16 * 8)


def test_the_memory_budget_is_kept_and_shown(run, tmp_path):
    arguments = ("build-artifacts", MODEL, "--out", tmp_path / "bundle", "--trainable", "all")
    found = run(*arguments, "--memory-budget", "17.5MiB", "--json").json
    assert found["memory_budget"] == int(17.5 * 2**20)
    assert found["memory"]["peak"] <= found["memory_budget"]
    assert 1 <= len(found["sites"]) < 7
    assert "built for 18.4 MB" in run("inspect", tmp_path / "bundle").out


@pytest.mark.parametrize(
    ("text", "expected"),
    [("64MiB", 64 << 20), ("1.5 GiB", 3 << 29), ("500MB", 500_000_000), ("20kB", 20_000), ("4096", 4096)],
)
def test_sizes(text, expected):
    assert parse_size(text, "--memory-budget") == expected


@pytest.mark.parametrize("text", ["", "many", "0", "-1MiB", "64 miles", "0.1B"])
def test_what_is_no_size(run, tmp_path, text):
    done = run("build-artifacts", MODEL, "--out", tmp_path / "b", "--memory-budget", text)
    assert done.status == 2
    assert "is no size such as 64MiB, 500MB or 1.5GiB." in " ".join(done.err.replace("│", " ").split())


def test_inspect_shows_it(run, digits_bundle):
    text = run("inspect", digits_bundle).out
    for part in (
        "protected",
        "stage3.second.conv",
        "64x64x3x3",
        "full fine-tuning",
        "weights.safetensors",
        "while learning",
    ):
        assert part in text


def test_inspect_refuses_a_damaged_bundle(run, own_bundle):
    (own_bundle / "training_model.onnx").write_bytes(b"")
    done = run("inspect", own_bundle)
    assert done.status == 1
    assert "training_model.onnx is not the file that was built" in done.err


def test_inspect_without_costs(run, own_bundle):
    path = own_bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["costs"]
    path.write_text(sealed(manifest))
    found = run("inspect", own_bundle, "--json").json
    assert (found["parameters"], found["flops_per_image"]) == (None, None)
    assert "8,644 parameters" in run("inspect", own_bundle).out
