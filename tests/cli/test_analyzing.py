"""analyze: table, verdict, JSON and image."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MODEL = Path(__file__).parents[2] / "examples/digits/digits-base4.onnx"
CLASSES = MODEL.with_suffix(".json")


@pytest.fixture(scope="module")
def task(tmp_path_factory, digits):
    return digits.save(digits.task("four-five", (4, 5)), tmp_path_factory.mktemp("new"))


@pytest.fixture
def analyze(run, task):
    def ask(*more, status=0):
        done = run("analyze", MODEL, task, "--classes", CLASSES, "--images", 64, "--threads", 1, *more)
        assert done.status == status, done.err
        return done

    return ask


def test_the_table_has_every_position_of_every_site(analyze):
    text = analyze().out
    assert "digits-base4.onnx, 2 new classes of " in text
    assert "64 images" in text
    assert "mean 0.3056, std 0.3776" in text
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if "stage3.second.conv" in line)
    grid = [
        [float(x) for x in line.split() if x.startswith(("0.", "1."))][:3]
        for line in lines[start : start + 3]
    ]
    assert np.shape(grid) == (3, 3)
    assert np.max(grid) == 1.0
    assert "The center is the strongest position at" in text
    assert "depth: rank correlation" in text


def test_json_says_what_the_table_says(analyze):
    found = analyze("--json").json
    assert found["classes"] == ["four", "five"]
    assert (found["images"], found["by_training"]) == (64, None)
    assert [site["name"] for site in found["sites"]][-2:] == ["stage3.first.conv", "stage3.second.conv"]
    for site in found["sites"]:
        values = np.array(site["intensity"])
        assert values.shape == (3, 3)
        assert (values > 0).all()
        assert site["center_rank"] == 1 + np.sum(values > values[1, 1])
        assert site["center_ratio"] == pytest.approx(values[1, 1] / values.mean())
    first = sum(site["center_rank"] == 1 for site in found["sites"])
    assert found["premise"]["center_first"] == first
    assert found["premise"]["sites"] == len(found["sites"]) == 7


def test_1x1_sites_are_shown_but_not_compared(analyze):
    found = analyze("--sites", "all", "--json").json
    assert sum(np.shape(site["intensity"]) == (1, 1) for site in found["sites"]) == 2
    assert found["premise"]["sites"] == len(found["sites"]) - 2
    text = analyze("--sites", "1x1").out
    assert "1 of 1" in text
    assert "strongest position" not in text


@pytest.mark.slow
def test_by_training(analyze):
    done = analyze("--by-training", "2", "--json").json
    assert (done["by_training"]["steps"], done["by_training"]["held_out_images"]) == (2, 64)
    assert -1 <= done["by_training"]["agreement"] <= 1
    assert np.shape(done["sites"][0]["loss_decrease"]) == (3, 3)
    text = analyze("--by-training", "1").out
    assert "Trained alone for 1 step, the center gains most at" in text
    assert "trained alone:" in text
    assert "loss decrease" in text


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture(analyze, tmp_path, suffix):
    path = tmp_path / f"intensity{suffix}"
    assert f"Image    {path}" in analyze("--picture", path).out
    if suffix == ".svg":
        assert path.read_text().count("stage3.second.conv") >= 2
    else:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.shape[0] > 400
        assert pixels.shape[1] > 1000
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--picture", "p.gif"], "--picture p.gif must end in .png, .svg or .pdf."),
        (["--picture", "no/where/p.png"], "The image could not be written to no/where/p.png (No such file"),
        (["--batch-size", "80"], "--images is 64, less than one batch of 80 images."),
        (["--mean", "0.5,0.5"], "--mean has 2 numbers, but the model's input has 1 channel."),
    ],
)
def test_errors(analyze, arguments, error):
    assert error in analyze(*arguments, status=1).err


def test_no_task_is_one_sentence(run, tmp_path):
    done = run("analyze", MODEL, tmp_path / "nowhere")
    assert (done.status, done.out.count("\n")) == (1, 1)
    assert "There is no task at" in done.err


def test_without_matplotlib_one_sentence_says_how_to_get_it(analyze, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = analyze("--picture", tmp_path / "p.png", status=1)
    assert done.err == "Error: --picture draws with matplotlib: pip install 'csk-sdk[demo]'.\n"


def test_without_the_builder_one_sentence_says_how_to_get_it(run, monkeypatch, task):
    monkeypatch.setitem(sys.modules, "csk_artifacts_builder", None)
    done = run("analyze", MODEL, task)
    assert (done.status, done.out) == (1, "")
    assert done.err == "Error: analyze needs the workstation extra: pip install 'csk-sdk[builder]'.\n"


@pytest.mark.slow
def test_a_bundle_remembers_why_its_sites_were_chosen(run, task, tmp_path):
    out = tmp_path / "bundle"
    built = run(
        "build-artifacts", MODEL, "--out", out, "--classes", CLASSES,
        "--intensity-data", task, "--sites", "all", "--json",
    ).json  # fmt: skip
    assert built["choice"] == "the sites of the last two stages (--trainable auto)"
    assert len(built["candidates"]) == 9
    assert all(one["intensity"] > 0 for one in built["candidates"])
    assert [one["name"] for one in built["candidates"] if one["chosen"]] == [
        one["name"] for one in built["sites"]
    ]
    found = json.loads(run("inspect", out, "--json").out)
    assert found["candidates"] == built["candidates"]
    text = run("inspect", out).out
    assert "intensity" in text
    assert f"{built['sites'][-1]['intensity']:.2e}" in text
    assert "the sites of the last two stages (--trainable auto)" in text
    left = next(one for one in built["candidates"] if not one["chosen"])
    assert f"{left['name']} ({left['intensity']:.2e})" in text
