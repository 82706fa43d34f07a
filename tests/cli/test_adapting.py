"""adapt: images of another look, as they lie in folders."""

import numpy as np
from PIL import Image

from csk_sdk.learner import Learner


def hazy(folder, digits, classes=(0, 1, 2, 3), count=12):
    for digit in classes:
        (folder / str(digit)).mkdir(parents=True)
        for index, picture in enumerate(digits.of(digit, 0, count)):
            shown = (picture * 0.12 + 60).astype(np.uint8)
            Image.fromarray(shown).save(folder / str(digit) / f"{index}.png")
    return folder


def test_adapt_takes_a_folder_of_classes_and_is_taken_back(run, workspace, digits, tmp_path):
    done = run("adapt", "haze", hazy(tmp_path / "images", digits), "--workspace", workspace)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("Domain haze is known, of 48 images: ")
    for command in ("tasks", "status"):
        assert "Domains: haze." in run(command, "--workspace", workspace).out
    assert run("status", "--workspace", workspace, "--json").json["domains"] == ["haze"]
    exported = run("export", "--out", tmp_path / "a.onnx", "--workspace", workspace)
    assert "sees all images as the base's: what was learned of the domains haze" in exported.err
    gone = run("adapt", "haze", "--remove", "--workspace", workspace, "--json")
    assert gone.json == {"domain": "haze", "generation": 2, "removed": True}
    assert Learner.open(workspace / "bundle", workspace / "state").domains == ()


def test_adapt_says_in_json_what_it_did(run, workspace, digits, tmp_path):
    images = hazy(tmp_path / "images", digits)
    found = run("adapt", "haze", *sorted(images.iterdir()), "--workspace", workspace, "--json").json
    assert (found["domain"], found["generation"], found["images"], found["warnings"]) == ("haze", 1, 48, [])
    assert found["distance"] < found["distance_before"]


def test_predict_says_which_domain_an_image_is_of(run, workspace, digits, tmp_path):
    images = hazy(tmp_path / "images", digits)
    clear = tmp_path / "clear.png"
    Image.fromarray(digits.of(0, 20, 21)[0]).save(clear)
    arguments = ("predict", images / "0" / "0.png", clear, "--top", "1", "--workspace", workspace)
    assert all("domain" not in one for one in run(*arguments, "--json").json)
    run("adapt", "haze", images, "--workspace", workspace)
    assert [one["domain"] for one in run(*arguments, "--json").json] == ["haze", None]
    shown = run(*arguments).out
    assert ("Domain" in shown, shown.count("haze")) == (True, 1)


def test_going_back_before_a_domain_says_so(run, workspace, digits, tmp_path):
    run("adapt", "haze", hazy(tmp_path / "images", digits), "--workspace", workspace)
    done = run("rollback", "--to", "base", "--workspace", workspace)
    assert (done.status, done.out) == (
        0,
        "Back at generation 0. Known now: base. No longer known: domain haze.\n",
    )


def test_a_domain_that_is_not_known_is_not_replaced(run, workspace, digits, tmp_path):
    images = hazy(tmp_path / "images", digits)
    done = run("adapt", "haze", images, "--replace", "--workspace", workspace)
    assert (done.status, done.err) == (1, "Error: There is no domain 'haze'. Known: none.\n")
    assert Learner.open(workspace / "bundle", workspace / "state").generation.number == 0


def test_adapt_takes_images_or_takes_a_domain_back(run, workspace, tmp_path):
    for arguments in ((), (tmp_path, "--remove"), ("--remove", "--replace")):
        done = run("adapt", "haze", *arguments, "--workspace", workspace)
        assert done.status == 1
        assert "or take it back with --remove: one of both." in done.err
