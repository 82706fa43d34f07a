"""try: what would be built, and why not more; nothing is written."""

import pathlib
import re

import onnx
import pytest

MODEL = pathlib.Path(__file__).parents[2] / "examples/digits/digits-base4.onnx"
CLASSES = MODEL.with_suffix(".json")


def test_the_table_names_every_convolution(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("try", MODEL, "--classes", CLASSES)
    assert (done.status, done.err) == (0, "")
    text = " ".join(done.out.split())
    assert "digits-base4.onnx: 4 of 9 convolutions would be trained" in text
    assert "Classes 4: zero, one, two, three" in text
    assert "9 batch norms become part of the convolutions in front of them" in text
    assert "Sites the sites of the last two stages (--trainable auto)" in text
    assert "11.1 % of 77,732 parameters" in text
    rows = [
        line.split(None, 3) for line in done.out.splitlines() if "/conv/Conv" in line or "shortcut" in line
    ]
    fates = [row[3].strip() for row in rows]
    kept = "left out: not of --sites center"
    assert fates == ["frozen"] * 3 + ["trained", "trained", kept] * 2
    assert rows[3][1:3] == ["3x3", "16\N{RIGHTWARDS ARROW}32"]
    assert "csk-sdk build-artifacts" in done.out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_options_change_what_would_be_built(run):
    everything = run(
        "try", MODEL, "--classes", CLASSES, "--sites", "all", "--trainable", "all", "--features", "last"
    )
    assert "9 of 9 convolutions would be trained" in everything.out
    assert "sees 64 features\n" in everything.out.replace(" " * 2, "").replace(" \n", "\n")
    small = run("try", MODEL, "--classes", CLASSES, "--memory-budget", "18MiB", "--json")
    assert small.json["choice"].endswith("as many from the back as fit into the memory budget")
    assert small.json["memory"]["peak"] <= 18 << 20


@pytest.mark.slow
def test_json(run, tmp_path):
    done = run("try", MODEL, "--classes", CLASSES, "--json")
    found = done.json
    assert found["file"]["opset"] == 17
    assert found["head"] == {"node": "/head/Gemm", "features": 240, "own": 64, "activation": None}
    assert {one["fate"] for one in found["convolutions"]} == {"trained", "frozen", "left out"}
    assert found["convolutions"][3]["kernel"] == [32, 16, 3, 3]
    assert "files" not in found
    built = run("build-artifacts", MODEL, "--classes", CLASSES, "--out", tmp_path / "bundle", "--json").json
    for name in (
        "sites",
        "candidates",
        "left_out",
        "memory",
        "choice",
        "input",
        "preprocessing",
        "parameters",
    ):
        assert found[name] == built[name], name


@pytest.mark.slow
def test_int8_is_tried_on_base_data(run, base_data):
    refused = run("try", MODEL, "--classes", CLASSES, "--precision", "int8")
    assert refused.status == 1
    assert "--precision int8 needs --base-data" in refused.err
    done = run("try", MODEL, "--classes", CLASSES, "--precision", "int8", "--base-data", base_data)
    assert (done.status, done.err) == (0, "")
    assert "% of the exact ones, cosine of each site's gradient at least 0.99" in " ".join(done.out.split())


def test_base_data_of_other_classes(run, base_data, tmp_path):
    (tmp_path / "names").write_text("a\nb\nc\nd\n")
    done = run("try", MODEL, "--classes", tmp_path / "names", "--base-data", base_data)
    assert done.status == 1
    assert "one" in done.err


@pytest.mark.parametrize("width", [80, 50])
def test_nothing_is_cut_on_a_terminal(run, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", run("try", MODEL, "--classes", CLASSES).out).splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    rows = [line for line in lines if " 1x1 " in line or " 3x3 " in line]
    assert len(rows) == 9
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)
    if width == 80:  # names stay whole
        assert sum("conv/Conv " in row for row in rows) == 9
        assert sum("left out: not of" in row for row in rows) == 2


def test_a_refusal_is_one_sentence(run, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x24\x00\x00\x00ORTM" + bytes(32))
    done = run("try", tmp_path / "model.onnx")
    assert done.status == 1
    assert "ONNX Runtime's own format (.ort)" in done.err
    assert done.out == ""


LONG = "StatefulPartitionedCall/" + "/".join(f"a_block_of_layers_{number}" for number in range(9))


def renamed(path: pathlib.Path) -> pathlib.Path:
    """The model; its first convolution has a name of 200 characters."""
    proto = onnx.load(MODEL)
    next(node for node in proto.graph.node if node.op_type == "Conv").name = LONG
    onnx.save(proto, path)
    return path


def test_long_names_make_no_wide_table_in_a_pipe(run, tmp_path):
    done = run("try", renamed(tmp_path / "model.onnx"), "--classes", CLASSES)
    lines = done.out.splitlines()
    table = lines[
        next(number for number, line in enumerate(lines) if line.lstrip().startswith("Convolution")) :
    ]
    assert max(len(line.rstrip()) for line in table) <= 160
    names = "".join(line[2:62].strip() for line in table[2:8])
    assert LONG in names


def test_try_and_build_call_convolutions_by_one_name(run, tmp_path):
    tried = run("try", MODEL, "--classes", CLASSES)
    built = run("build-artifacts", MODEL, "--classes", CLASSES, "--out", tmp_path / "bundle")
    rows = [line.split() for line in tried.out.splitlines() if line.rstrip().endswith("trained")]
    trained = [row[0] for row in rows if len(row) == 4]
    assert len(trained) == 4
    assert f"4: {', '.join(trained)}" in " ".join(built.out.split())


def test_what_is_built_otherwise_is_no_warning(run, tmp_path):
    """A second output that is left out: nobody needs to act on it."""
    proto = onnx.load(MODEL)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("/flatten/Flatten_output_0", 1, ["N", 64]))
    onnx.save(proto, tmp_path / "model.onnx")
    done = run("build-artifacts", tmp_path / "model.onnx", "--classes", CLASSES, "--out", tmp_path / "bundle")
    said = "output 'logits' of model.onnx; bundle and exports leave out '/flatten/Flatten_output_0'."
    assert re.search(rf"Changed +the scores of the classes are {re.escape(said)}", done.out)
    assert "leave out" not in done.err
    assert "Warning: the base classes are UNPROTECTED" in done.err
    arguments = (
        "build-artifacts",
        tmp_path / "model.onnx",
        "--classes",
        CLASSES,
        "--out",
        tmp_path / "other",
        "--json",
    )
    as_json = run(*arguments)
    assert [said in one for one in as_json.json["notes"]] == [True]
    assert not any(said in one for one in as_json.json["warnings"])
