"""The benchmark's driver, statistics, targets and tables, with a peer that needs nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bench import cases, driver, extras, growth, page, report, targets, timing
from bench.cases import Case, Method
from bench.driver import Measured

CASE = Case("ResNet-18", 32, 16, rounds=3, steps=2)

# A peer that writes down the order of everything that is asked of it.
PEER = """
from bench.peers import UnavailableError
calls = []
def prepare(case, folder):
    if case.batch == 99: raise UnavailableError("no batch of 99")
    (folder / "prepared").write_text(str(case.batch))
def open_method(case, method, folder):
    if method == "absent": raise UnavailableError("not for this network")
    if method == "broken": raise ValueError("first line\\nsecond line")
    held = bytearray(50_000_000) if method == "large" else b""
    def step():
        with (folder / "steps").open("a") as file: print(method, file=file)
        if method == "dying" and len((folder / "steps").read_text().split()) > 4: raise SystemExit(3)
        return len(held)
    print("a library that prints must not break the protocol")
    return step
def versions(): return {"fake": "1"}
"""


@pytest.fixture
def pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    folder = tmp_path / "more" / "bench_peers"
    folder.mkdir(parents=True)
    (folder / "fake.py").write_text(PEER)
    # The peers' package takes modules from here too.
    monkeypatch.setenv("BENCH_PEERS", str(folder))
    return {"fake": Path(sys.executable)}


def run(pythons: dict[str, Path], root: Path, *names: str) -> dict[str, Measured]:
    cases.folder_of(root, CASE).mkdir(parents=True)
    rows = driver.measure(CASE, pythons, root, [Method("fake", name, name) for name in names])
    return {row.key: row for row in rows}


def test_methods_take_turns(pythons: dict[str, Path], tmp_path: Path) -> None:
    found = run(pythons, tmp_path, "one", "two")
    steps = (cases.folder_of(tmp_path, CASE) / "steps").read_text().split()
    turn = ["one"] * 3 + ["two"] * 3  # one step that does not count, and two that do
    assert steps == ["one"] * 2 + ["two"] * 2 + turn * 3
    assert [len(found[key].cpu) for key in ("fake/one", "fake/two")] == [6, 6]
    assert found["fake/one"].versions == {"fake": "1"}


def test_a_peak_is_what_opening_took(pythons: dict[str, Path], tmp_path: Path) -> None:
    found = run(pythons, tmp_path, "small", "large")
    assert 45e6 < found["fake/large"].peak - found["fake/small"].peak < 60e6


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "not for this network"),
        ("broken", "ValueError: first line"),
        ("dying", "its process ended with status 3"),
    ],
)
def test_what_fails_is_left_out_and_says_why(
    pythons: dict[str, Path], tmp_path: Path, name: str, reason: str
) -> None:
    found = run(pythons, tmp_path, name, "other")
    assert found[f"fake/{name}"].missing == reason
    assert len(found["fake/other"].cpu) == 6


def test_a_peer_without_an_environment_is_named(tmp_path: Path) -> None:
    found = run({}, tmp_path, "one")
    assert found["fake/one"].missing == "its environment was not made"


def test_preparation_says_why_it_failed(pythons: dict[str, Path], tmp_path: Path) -> None:
    assert driver.prepare(CASE, "fake", pythons["fake"], tmp_path) == ""
    assert (cases.folder_of(tmp_path, CASE) / "prepared").read_text() == "16"
    assert driver.prepare(Case("x", 32, 99, 1, 1), "fake", pythons["fake"], tmp_path) == "no batch of 99"


def test_medians_and_ratios() -> None:
    rows = [Measured("a", cpu=[0.3, 0.1, 0.2]), Measured("b", cpu=[0.4, 0.2]), Measured("c")]
    found = timing.medians(rows)
    assert found == pytest.approx({"a": 0.2, "b": 0.3})
    assert timing.ratio(found, "b", "a") == pytest.approx(1.5)
    assert timing.ratio(found, "b", "c") is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00425, "4.25"), (0.0425, "42.5"), (0.4251, "425"), (12.3456, "12346"), (0.0001, "0.10")],
)
def test_milliseconds(seconds: float, text: str) -> None:
    assert page.milliseconds(seconds) == text


def test_a_table_with_a_missing_cell_is_refused() -> None:
    assert page.table(["", "n"], [["a", "1"]]) == "|  | n |\n| --- | ---: |\n| a | 1 |"
    with pytest.raises(ValueError, match="2 cells"):
        page.table(["", "n"], [["a"]])


def test_sections_are_replaced_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- bench: one -->\nold\n<!-- end of one -->\nafter\n")
    page.paste(path, {"one": r"new \1"})
    page.paste(path, {"one": r"new \1"})
    assert path.read_text() == "before\n<!-- bench: one -->\nnew \\1\n<!-- end of one -->\nafter\n"
    with pytest.raises(ValueError, match="section 'two'"):
        page.paste(path, {"one": "lost?", "two": "x"})
    assert "lost?" not in path.read_text()


def test_targets_are_ratios_of_time_and_of_memory() -> None:
    rows = [
        Measured("torch_eager/full", cpu=[0.7], peak=400),
        Measured("csk/int8", cpu=[0.1], peak=120),
        Measured("torch_eager/forward", cpu=[0.15], peak=90),
    ]
    results = {targets.BATCH_16: rows}
    found = {target.label: target.measured(results) for target in targets.TARGETS}
    assert found["torch, all weights / int8, batch 16"] == pytest.approx(7.0)
    assert found["torch, all weights / int8, batch 1"] is None
    assert found["peak memory, int8 / torch, all weights"] == pytest.approx(0.3)
    text = report.targets(results, [("memory", 0.08, 0.053), ("operations", 0.25, 0.3)])
    assert "| memory, by formula | at most 0.08 | 0.05 | met |" in text
    assert "| operations, by formula | at most 0.25 | 0.30 | **not met** |" in text
    assert "| torch, all weights / int8, batch 16 | at least 6 | 7.00 | met |" in text
    assert "| int8 / torch's forward pass, batch 16 | at most 0.5 | 0.67 | **not met** |" in text
    assert "| peak memory, int8 / torch, all weights | at most 0.25 | 0.30 | **not met** |" in text


def test_a_case_as_a_table_names_what_is_missing() -> None:
    rows = [
        Measured("torch_eager/full", cpu=[0.6, 0.7, 0.8], peak=300 << 20, open_seconds=1.0),
        Measured("csk/int8", cpu=[0.07, 0.07, 0.07], peak=60 << 20, open_seconds=0.5),
        Measured("mnn/full", missing="no wheel"),
    ]
    text = report.steps(cases.CASES[0], rows)
    assert "| torch eager, all weights | 700 | 650 to 750 | 1.00 | 10.00 | 300 | 1.0 |" in text
    assert "| **csk-sdk, int8** | 70.0 | 70.0 to 70.0 | 0.10 | 1.00 | 60 | 0.5 |" in text
    assert "MNN" not in text
    assert report.absent({"here": rows}) == "- MNN training, all weights: no wheel (here)."


def test_the_page_has_every_section_and_is_the_run_that_is_stored() -> None:
    text = (driver.BENCHMARKS.parent / "docs/benchmarks.md").read_text()
    for name in ("steps", "targets", "absent", "ops", "growth", "costs", "counts", "start", "machine"):
        assert text.count(f"<!-- bench: {name} -->") == text.count(f"<!-- end of {name} -->") == 1


def test_growth_has_a_row_for_every_batch_and_size() -> None:
    def rows(case: Case) -> list[Measured]:
        return [Measured(key, cpu=[0.01 * case.batch], peak=case.size << 20) for key in growth.SHOWN[:2]]

    found = {case.title: rows(case) for case in (*growth.BATCHES, *growth.SIZES)}
    text = growth.page(found)
    assert "| 16 | 160 | 160 | - | 32 | 32 | - |" in text
    assert "| 64x64 | 40.0 | 40.0 | - | 64 | 64 | - |" in text


def test_ops_are_shares_of_their_step() -> None:
    text = extras.op_table(
        {"exact": {"Conv": 90.0, "Add": 9.0, "Mul": 1.0}, "int8": {"QLinearConv": 30.0, "Add": 10.0}}
    )
    assert text.splitlines()[2:] == [
        "| Conv | 90.0 % | 0.0 % |", "| QLinearConv | 0.0 % | 75.0 % |", "| Add | 9.0 % | 25.0 % |",
    ]  # fmt: skip
