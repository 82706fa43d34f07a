"""The examples and the demo, run as a user runs them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

REPOSITORY = Path(__file__).parents[2]


def run(*command: str, cwd: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_embed_is_short_and_works(tmp_path: Path, digits, digits_bundle: Path) -> None:
    script = REPOSITORY / "examples" / "embed.py"
    assert len(script.read_text().splitlines()) < 30
    images, labels = digits.arrays((4, 5), 0, 60)
    np.savez(tmp_path / "data.npz", images=images[..., None], labels=labels, class_names=["four", "five"])
    printed = run(str(script), str(digits_bundle), "data.npz", cwd=tmp_path)
    assert printed.startswith("learned four, five in ")
    session = onnxruntime.InferenceSession(str(tmp_path / "updated.onnx"), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == [
        "zero", "one", "two", "three", "four", "five"
    ]  # fmt: skip
    logits = session.run(None, {"image": np.zeros((3, 1, 8, 8), np.float32)})[0]
    assert logits.shape == (3, 6)


@pytest.mark.slow
def test_a_fleet_of_three_knows_what_one_device_knows_that_saw_everything(tmp_path: Path) -> None:
    printed = run(str(REPOSITORY / "examples" / "fleet.py"), "--out", "fleet", cwd=tmp_path)
    rows = re.findall(r"^  (kitchen|hall|yard) +([\d.]+) +([\d.]+)$", printed, re.MULTILINE)
    assert [name for name, *_ in rows] == ["kitchen", "hall", "yard"]
    (best,) = re.findall(r"that learned all three tasks +([\d.]+)$", printed, re.MULTILINE)
    for _, alone, merged in rows:
        assert float(alone) < 65.0
        assert float(merged) >= float(best) - 0.5


@pytest.mark.slow
def test_demo_shows_forgetting_and_its_absence(tmp_path: Path) -> None:
    result = json.loads(run("-m", "csk_sdk", "demo", "--out", "demo", "--json", cwd=tmp_path))
    ours, frozen, without = result["runs"]
    assert [run["label"] for run in result["runs"]] == ["csk-sdk", "frozen backbone", "unprotected"]
    assert (
        frozen["task"]["bwt"] == 0.0
    )  # heads alone forget nothing, and that is what the middle device learns
    assert ours["task"]["bwt"] >= -1.0
    assert (
        min(
            without["task"]["bwt"] - ours["task"]["bwt"],
            without["classes"]["accuracy"] - ours["classes"]["accuracy"],
        )
        <= -4.0
    )
    assert without["classes"]["bwt"] - ours["classes"]["bwt"] <= -5.0
    # Ten classes, three tasks of two: all were tested, none twice.
    assert ours["classes"]["tasks"] == ["base", "01-four-five", "02-six-seven", "03-eight-nine"]
    assert ours["classes"]["accuracy"] > 90.0
    assert Path(tmp_path, result["picture"]).read_bytes().startswith(b"\x89PNG")
    assert 20 << 20 < ours["peak_rss_bytes"] < 300 << 20
    shown = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shown = shown[shown.index("<!-- demo output -->") : shown.index("<!-- end of demo output -->")]
    assert set(re.findall(r"device \((.*)\): learned", shown)) == {run["label"] for run in result["runs"]}
    (accuracies,) = re.findall(r"Class-incremental: accuracy, %(.*)", shown)
    expected = [run["classes"]["accuracy"] for run in result["runs"]]
    np.testing.assert_allclose([float(one) for one in accuracies.split()], expected, atol=1.5)


@pytest.mark.slow
def test_the_demo_does_not_touch_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    done = subprocess.run(
        [sys.executable, "-m", "csk_sdk", "demo", "--out", "mine"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "mine is not empty and not an earlier demo. Choose another --out." in done.stderr
    assert (tmp_path / "mine" / "file").read_text() == "precious"
