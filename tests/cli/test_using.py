"""evaluate, predict, export."""

import json

import numpy as np
import onnxruntime
import pytest

from cli.conftest import write_png
from conftest import build_digits_bundle
from csk_sdk.cli.predictions import show_predictions
from csk_sdk.cli.rendering import Screen

TASKS = ["base", "01-four-five", "02-six-seven"]


@pytest.mark.parametrize(("scenario", "name"), [("task", "task-incremental"), ("class", "class-incremental")])
def test_evaluate_json(run, learned_workspace, scenario, name):
    found = run("evaluate", "--workspace", learned_workspace, "--scenario", scenario, "--json").json
    assert found["scenario"] == name
    assert found["tasks"] == TASKS
    matrix = found["accuracy_matrix"]
    assert [[value is not None for value in row] for row in matrix] == np.tri(3, dtype=bool).tolist()
    assert found["acc"] == pytest.approx(np.mean(matrix[-1]))
    assert found["bwt"] == pytest.approx(np.mean([matrix[2][0] - matrix[0][0], matrix[2][1] - matrix[1][1]]))
    assert found["forgetting"] is not None


def test_evaluate_both(run, learned_workspace):
    found = run("evaluate", "--workspace", learned_workspace, "--scenario", "both", "--json").json
    assert found.keys() == {"task", "class"}
    assert found["class"]["scenario"] == "class-incremental"
    text = run("evaluate", "--workspace", learned_workspace, "--scenario", "both").out
    assert text.index("task-incremental") < text.index("class-incremental")
    assert text.count("ACC ") == 2
    assert [line.split()[0] for line in text.splitlines() if line.startswith(("  base", "  0"))] == TASKS * 2


def test_without_test_pictures_there_is_nothing_to_evaluate(run, learned_workspace, tmp_path):
    done = run("evaluate", "--workspace", learned_workspace, "--tasks", tmp_path)
    assert done.status == 1
    assert "has test images" in done.err


def test_predict(run, learned_workspace):
    pictures = [f"{learned_workspace}/tasks/01-four-five/test/{name}/0.png" for name in ("four", "five")]
    found = run("predict", *pictures, "--workspace", learned_workspace, "--top", "2", "--json").json
    assert [one["file"] for one in found] == pictures
    assert [one["label"] for one in found] == ["four", "five"]
    for one in found:
        first, second = one["top"]
        assert first["class"] == one["label"]
        assert 1.0 >= first["probability"] >= second["probability"] >= 0.0
    text = run("predict", *pictures, "--workspace", learned_workspace).out
    assert [line.split()[1] for line in text.splitlines()[2:]] == ["four", "five"]


def test_predict_says_what_it_does_not_know(run, learned_workspace, tmp_path):
    from PIL import Image

    noise = np.random.default_rng(1).integers(0, 256, (30, 8, 8), np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{index:02d}.png")
    arguments = ("predict", tmp_path, "--workspace", learned_workspace)
    found = run(*arguments, "--json", "--reject", "0.2").json
    unknown = [one for one in found if not one["known"]]
    assert unknown
    # The best guess stays.
    assert all(one["label"] == one["top"][0]["class"] for one in found)
    furthest_known = max((one["distance"] for one in found if one["known"]), default=0.0)
    assert min(one["distance"] for one in unknown) > furthest_known
    assert f"unknown ({unknown[0]['label']}?)" in run(*arguments, "--reject", "0.2").out
    assert all(one["known"] for one in run(*arguments, "--json", "--reject", "0").json)
    assert "unknown" not in run(*arguments, "--reject", "0").out


@pytest.mark.parametrize(
    "command", [("predict", "{picture}"), ("export", "--with-rejection", "--out", "{out}")]
)
def test_a_share_that_is_none_is_refused(run, learned_workspace, tmp_path, command):
    picture = f"{learned_workspace}/tasks/01-four-five/test/four/0.png"
    arguments = [one.format(picture=picture, out=tmp_path / "model.onnx") for one in command]
    done = run(*arguments, "--workspace", learned_workspace, "--reject", "5")
    assert done.status == 1
    assert "reject is 5.0, and must be a share of the known images from 0 to below 1" in done.err
    assert not (tmp_path / "model.onnx").exists()


def test_export_with_rejection(run, learned_workspace, tmp_path):
    out = tmp_path / "model.onnx"
    assert (
        run(
            "export", "--out", out, "--with-rejection", "--reject", "0.1", "--workspace", learned_workspace
        ).status
        == 0
    )
    session = onnxruntime.InferenceSession(str(out))
    assert [(one.name, one.type) for one in session.get_outputs()[1:]] == [
        ("known", "tensor(bool)"),
        ("distance", "tensor(float)"),
    ]
    assert session.get_modelmeta().custom_metadata_map["csk_sdk_reject"] == "0.1"


def test_export_in_int8_is_for_bundles_of_quantised_models(run, learned_workspace, tmp_path):
    out = tmp_path / "model.onnx"
    done = run("export", "--out", out, "--precision", "int8", "--workspace", learned_workspace)
    assert done.status == 1
    assert "--precision int8 is for bundles of quantised models" in done.err
    assert not out.exists()


def test_predict_among_the_classes_of_one_task(run, learned_workspace):
    picture = learned_workspace / "tasks/01-four-five/test/four/0.png"
    arguments = ("predict", picture, "--workspace", learned_workspace, "--json", "--top", "9")
    assert len(run(*arguments).json[0]["top"]) == 8
    found = run(*arguments, "--task", "02-six-seven").json[0]
    assert {choice["class"] for choice in found["top"]} == {"six", "seven"}


def test_export_is_an_ordinary_model_and_never_overwrites_unasked(run, learned_workspace, tmp_path):
    out = tmp_path / "model.onnx"
    done = run("export", "--out", out, "--workspace", learned_workspace)
    assert done.status == 0
    assert done.out.startswith(f"Wrote {out}: 8 classes, generation 2, ")
    session = onnxruntime.InferenceSession(str(out))
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: np.zeros((1, 1, 8, 8), np.float32)})
    assert logits.shape == (1, len(classes)) == (1, 8)
    before = out.read_bytes()
    refused = run("export", "--out", out, "--task", "base", "--workspace", learned_workspace)
    assert refused.status == 1
    assert "exists already" in refused.err
    assert out.read_bytes() == before
    replaced = run("export", "--out", out, "--task", "base", "--overwrite", "--workspace", learned_workspace)
    assert "4 classes" in replaced.out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["predict", "nowhere.png"], "nowhere.png cannot be read"),
        (["predict", __file__], "not a PNG, JPEG, BMP, WebP, GIF or TIFF image"),
        (["predict", "nowhere.png", "--task", "nix"], "nowhere.png"),
        (["export", "--out", "x.onnx", "--task", "nix"], "Task 'nix' is not learned"),
    ],
)
def test_errors(run, learned_workspace, arguments, error):
    done = run(*arguments, "--workspace", learned_workspace)
    assert (done.status, done.out) == (1, "")
    assert error in done.err


def test_predict_takes_a_folder(run, learned, tmp_path):
    folder = learned / "tasks/01-four-five/test/four"
    done = run("predict", folder, "--workspace", learned, "--json")
    assert [one["file"] for one in done.json] == sorted(str(path) for path in folder.glob("*.png"))
    (tmp_path / "empty").mkdir()
    done = run("predict", tmp_path / "empty", "--workspace", learned)
    assert done.status == 1
    assert done.err.startswith(f"Error: {tmp_path}/empty holds no image and no signal (")


def test_predict_names_the_folders_in_a_folder(run, learned):
    """Class folders are what one has; which of them is meant is for the user to say."""
    folder = learned / "tasks/01-four-five/test"
    done = run("predict", folder, "--workspace", learned)
    assert done.status == 1
    assert done.err == (
        f"Error: {folder} holds no image and no signal (png, jpg, bmp, webp, gif, tif; wav, npy). 20 lie in its "
        f"folders (five, four): give one or more of them, such as {folder}/five.\n"
    )
    assert run("predict", folder / "five", folder / "four", "--workspace", learned).status == 0
    (folder / "five").rename(folder / ".five")
    for image in sorted((folder / "four").iterdir())[1:]:
        image.unlink()
    done = run("predict", folder, "--workspace", learned)
    assert done.err.endswith(f" 1 lies in its folder four: give {folder}/four.\n")


def test_a_share_to_reject_needs_the_outputs_that_tell_of_it(run, learned_workspace, tmp_path):
    """It was taken, and meant nothing."""
    arguments = ("export", "--out", tmp_path / "m.onnx", "--reject", "0.2", "--workspace", learned_workspace)
    done = run(*arguments)
    assert done.status == 1
    assert done.err == (
        "Error: --reject says what --with-rejection rejects: give both, or leave --reject out.\n"
    )
    assert run(*arguments, "--with-rejection").status == 0
    names = [one.name for one in onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).get_outputs()]
    assert names[1:] == ["known", "distance"]


def test_classes_may_be_called_what_the_commands_say(run, tmp_path, digits, capsys):
    """Many a model has a class "unknown", which is what predict says of what is unlike all; "base" names a task."""
    names = ["unknown", "base", "two", "three"]
    build_digits_bundle(tmp_path / "bundle", classes=names)
    for digit, name in enumerate(names):
        for index, picture in enumerate(digits.of(digit, 0, 4)):
            write_png(tmp_path / name / f"{index}.png", picture)
    at = ("--workspace", tmp_path, "--json")
    found = run("predict", tmp_path / "unknown", tmp_path / "base", "--task", "base", *at).json
    assert [one["label"] for one in found] == ["unknown"] * 4 + ["base"] * 4
    assert "known" not in found[0] or all(isinstance(one["known"], bool) for one in found)
    capsys.readouterr()
    show_predictions(Screen(), [{**found[0], "known": True}, {**found[0], "known": False}])
    printed = capsys.readouterr().out.splitlines()[2:]
    assert [line.split("   ")[1].strip() for line in printed] == ["unknown", "unknown (unknown?)"]
    assert not any(line.endswith(" ") for line in printed)
