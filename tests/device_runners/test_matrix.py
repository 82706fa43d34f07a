"""The matrix: every graph of every bundle has a row, every declared runtime a column, and a deviation fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from platforms.__main__ import main
from platforms.conformance import report, run_conformance, write_report
from platforms.matrix import read_runtimes

REPOSITORY = Path(__file__).parents[2]
VECTORS = REPOSITORY / "tests" / "conformance" / "vectors"
RUNTIMES = REPOSITORY / "tests" / "conformance" / "runtimes.txt"
PAGE = REPOSITORY / "docs" / "matrix.md"


@pytest.fixture(scope="module")
def result():
    return report(VECTORS, run_conformance(VECTORS), "1.32.0", frozenset())


def matrix(tmp_path, *results):
    paths = []
    for number, one in enumerate(results):
        paths.append(tmp_path / f"{number}.json")
        write_report(paths[-1], one)
    return main(["matrix", str(VECTORS), *map(str, paths), "--runtimes", str(RUNTIMES)])


def cells(printed, *row):
    (line,) = [line for line in printed.splitlines() if line.startswith(f"| {' | '.join(row)} |")]
    return line.strip("| ").split(" | ")


def test_every_graph_of_every_bundle_is_run_and_all_its_outputs_are_compared():
    onnx = pytest.importorskip("onnx")
    run = set()
    for path in (VECTORS / "cases").glob("graphs-*.json"):
        case = json.loads(path.read_text())
        folder = VECTORS / "bundles" / case["bundle"]
        own = json.loads((folder / "manifest.json").read_text())["precision"]
        for name in case["settings"]["graphs"]:
            twin = case["precision"] != own and name != "export_template.onnx"
            file = folder / (f"exact_{name}" if twin else name)
            run.add(file)
            outputs = [value.name for value in onnx.load(file, load_external_data=False).graph.output]
            compared = {
                one["name"].partition("/")[2]
                for one in case["outputs"]
                if one["name"].startswith(f"{name.removesuffix('.onnx')}/")
            }
            assert compared == ({"logits"} if name == "export_template.onnx" else set(outputs)), file
    assert run == set((VECTORS / "bundles").glob("*/*.onnx"))


@pytest.mark.slow
def test_columns_are_in_the_order_of_the_runtimes_and_rows_hold_the_largest_deviation(
    result, tmp_path, capsys
):
    worse = json.loads(json.dumps(result))
    for case in worse["cases"]:
        for one in case["deviations"]:
            if case["name"] == "graphs-groups" and one["output"] == "eval_model/features":
                one["deviation"] = 7e-5
    assert matrix(tmp_path, {**result, "platform": "node"}, result, {**worse, "platform": "1.17.0"}) == 0
    printed = capsys.readouterr().out
    assert cells(printed, "graph")[4:] == ["1.17.0", "1.32.0", "node"]
    row = cells(printed, "eval model", "exact", "the graph's ops")
    assert row[3:5] == ["1e-4", "7e-5"]
    assert float(row[5]) < 1e-5


def test_a_deviation_fails_and_is_named(result, tmp_path, capsys):
    broken = json.loads(json.dumps(result))
    (case,) = [case for case in broken["cases"] if case["name"] == "graphs-plain"]
    case["deviations"][0] |= {"output": "training_model/first_w.gradient", "deviation": float("nan")}
    case |= {"status": "failed", "reason": "training_model/first_w.gradient off by nan"}
    assert matrix(tmp_path, {**broken, "passed": False}) == 1
    printed = capsys.readouterr().out
    assert cells(printed, "training model: gradients", "exact", "the graph's ops")[4] == "**inf**"
    assert "FAIL  1.32.0: graphs-plain: training_model/first_w.gradient off by nan" in printed


def test_the_page_has_every_declared_runtime_and_these_vectors():
    lines = PAGE.read_text().splitlines()
    columns = next(line for line in lines if line.startswith("| graph |")).strip("| ").split(" | ")[4:]
    assert columns == [*read_runtimes(RUNTIMES), "node", "browser"]
    assert not [line for line in lines if "**" in line]


def test_two_major_versions_of_numpy_are_covered():
    majors = {
        line.split("NumPy ")[1].split(".")[0]
        for line in PAGE.read_text().splitlines()
        if "onnxruntime" in line and "NumPy " in line
    }
    assert majors == {"1", "2"}


@pytest.mark.slow
def test_make_can_add_to_the_vectors_what_is_missing():
    made = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / "conformance" / "make.py"), "--add"],
        capture_output=True,
        text=True,
    )
    assert made.stdout.splitlines()[-1].startswith("0 cases written")
