"""`csk-sdk fleet`, as somebody at a terminal meets it: from devices to a merged file and back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import NAMES, Digits
from csk_sdk import Task
from csk_sdk.bundle.signing import SIGNATURE, sign
from csk_sdk.contract.manifest import MANIFEST
from field.test_signing import write_keys

SETTINGS = "[training]\nepochs = 1\nthreads = 1\nfew_shot = 100000\n"
Run = Callable[..., Any]


@pytest.fixture
def learned(tmp_path: Path, digits_bundle: Path, digits: Digits, run: Run) -> Callable[[str, Task], Path]:
    """Make a workspace of a device that has learned a task."""

    def make(name: str, task: Task) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "bundle").symlink_to(digits_bundle)
        (folder / "csk.toml").write_text(SETTINGS)
        digits.save(task, folder / "tasks")
        assert run("train", "--workspace", folder).status == 0
        return folder

    return make


@pytest.fixture
def spaces(learned: Callable[[str, Task], Path], digits: Digits) -> dict[str, Path]:
    """Workspaces of two devices that have learned two classes each."""
    return {
        name: learned(name, digits.task("01", chosen))
        for name, chosen in (("hall", (4, 5)), ("yard", (6, 7)))
    }


@pytest.fixture
def exported(spaces: dict[str, Path], tmp_path: Path, run: Run) -> list[Path]:
    paths = [tmp_path / f"{name}.cskc" for name in spaces]
    for path in paths:
        assert run("fleet", "export", path, "--workspace", spaces[path.stem]).status == 0
    return paths


def test_from_devices_to_a_merged_file_and_back(
    spaces: dict[str, Path], exported: list[Path], tmp_path: Path, run: Run
) -> None:
    hall = ["--workspace", spaces["hall"]]
    done = run("fleet", "export", exported[0], *hall)
    assert done.out.startswith(f"{exported[0]}: 2 classes (five 40, four 40), ")
    assert (done.status, done.err) == (0, "")
    report = run("fleet", "export", exported[0], *hall, "--json").json
    assert report["classes"] == {"five": 40.0, "four": 40.0}
    out = tmp_path / "merged.cskc"
    done = run("fleet", "merge", *exported, "--out", out)
    assert f"{out}: 4 classes (five 40, four 40, seven 40, six 40), of 2 devices, " in done.out
    assert "Unconfirmed, since fewer than three devices hold them: five, four, seven, six." in done.out
    merged = run("fleet", "merge", *reversed(exported), "--out", out, "--json").json
    assert (merged["devices"], merged["quarantined"]) == (2, {})
    done = run("fleet", "inspect", out)
    assert "  six: 40 images of 1 device\n" in done.out
    found = run("fleet", "inspect", exported[0], "--json").json
    assert [one["name"] for one in found["devices"].values()] == ["hall"]
    done = run("fleet", "apply", out, *hall)
    assert done.out == (
        "Known from the fleet, as task fleet: 4 classes, new here: seven, six. Generation 2 is current.\n"
    )
    assert run("fleet", "apply", out, *hall).out == "This is known here already. Generation 2 is current.\n"
    assert run("fleet", "apply", out, *hall, "--json").json["changed"] is False
    listed = run("tasks", *hall, "--json").json
    assert "fleet" in [one["name"] for one in listed]
    assert run("evaluate", *hall).status == 0
    assert run("verify", *hall).status == 0
    assert run("export", "--out", tmp_path / "model.onnx", *hall).status == 0
    assert run("rollback", "--to", "01", "--yes", *hall).out == "Back at generation 1. Known now: base, 01.\n"


def test_the_others_classes_are_predicted(
    spaces: dict[str, Path], exported: list[Path], tmp_path: Path, run: Run, digits: Digits
) -> None:
    out = tmp_path / "merged.cskc"
    run("fleet", "merge", *exported, "--out", out)
    run("fleet", "apply", out, "--workspace", spaces["hall"])
    said = []
    for digit in (4, 5, 6, 7):
        path = tmp_path / f"{digit}.png"
        Image.fromarray(digits.of(digit, 120, 121)[0]).save(path)
        (found,) = run("predict", path, "--workspace", spaces["hall"], "--json").json
        said.append(found["label"])
    assert said == [NAMES[digit] for digit in (4, 5, 6, 7)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["merge", "none.cskc", "--out", "m.cskc"],
            "none.cskc cannot be read as a .cskc file (No such file or",
        ),
        (["merge", "hall.cskc", "--out", "m.cskc", "--same", "four"], "--same is 'four', and must be A=B"),
        (
            ["merge", "hall.cskc", "--out", "hall/csk.toml"],
            "is there and is not a .cskc file: it would be lost.",
        ),
        (["merge", "hall.cskc", "--out", "m.cskc", "--without", "x"], "no device called 'x' in these files"),
        (["inspect", "hall/csk.toml"], "csk.toml cannot be read as a .cskc file"),
        (["apply", "hall/csk.toml", "--workspace", "hall"], "csk.toml cannot be read as a .cskc file"),
        (
            ["export", "x.cskc", "--least", "0", "--workspace", "hall"],
            "least is 0, and must be a whole number",
        ),
        (["export", "x.cskc", "--bits", "6", "--workspace", "hall"], "bits is 6, and must be 4 or 8."),
        (["export", "x.cskc", "--least", "50", "--workspace", "hall"], "There is nothing to export: "),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    exported: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
    arguments: list[str],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = run("fleet", *arguments)
    assert done.status == 1
    assert done.err.startswith("Error: ")
    assert text in done.err
    assert done.err.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_left_out_and_set_aside_is_said(
    spaces: dict[str, Path], exported: list[Path], tmp_path: Path, run: Run
) -> None:
    (tmp_path / "broken.cskc").write_bytes(exported[0].read_bytes()[:-1])
    out = tmp_path / "m.cskc"
    assert run("fleet", "merge", *exported, tmp_path / "broken.cskc", "--out", out).status == 1
    done = run("fleet", "merge", *exported, tmp_path / "broken.cskc", "--out", out, "--skip-broken")
    assert (done.status, done.err.count("left out: ")) == (0, 1)


def test_a_device_that_trusts_a_key_takes_what_its_holder_merged(
    spaces: dict[str, Path], exported: list[Path], tmp_path: Path, run: Run
) -> None:
    private, public = write_keys(tmp_path, "ours")
    theirs, _ = write_keys(tmp_path, "theirs")
    hall = spaces["hall"]
    bundle = hall / "bundle"
    source = bundle.resolve()
    bundle.unlink()
    shutil.copytree(source, bundle)
    (bundle / SIGNATURE).write_bytes(sign((bundle / MANIFEST).read_bytes(), private))
    (hall / "csk.toml").write_text(SETTINGS + f'[bundle]\ntrust = "{public}"\n')
    out = tmp_path / "m.cskc"
    for key, text in (
        ([], "is signed by nobody, and this device"),
        (["--sign", theirs], "is signed by another key"),
    ):
        assert run("fleet", "merge", *exported, "--out", out, *key).status == 0
        done = run("fleet", "apply", out, "--workspace", hall)
        assert (done.status, text in done.err) == (1, True)
    assert run("fleet", "merge", *exported, "--out", out, "--sign", private).status == 0
    assert run("fleet", "apply", out, "--workspace", hall).status == 0


def test_devices_sign_what_they_export(
    spaces: dict[str, Path], exported: list[Path], tmp_path: Path, run: Run
) -> None:
    private, public = write_keys(tmp_path, "hall-key")
    out = tmp_path / "m.cskc"
    assert run("fleet", "export", exported[0], "--sign", private, "--workspace", spaces["hall"]).status == 0
    assert "hall (" in run("fleet", "inspect", exported[0]).out
    done = run("fleet", "merge", *exported, "--out", out, "--trust", public)
    assert (done.status, "signed by nobody" in done.err) == (1, True)
    assert run("fleet", "merge", exported[0], "--out", out, "--trust", public).status == 0


@pytest.mark.slow
def test_a_device_with_exchanged_names_is_set_aside_and_two_names_of_one_thing_are_found(
    learned: Callable[[str, Task], Path], tmp_path: Path, run: Run, digits: Digits
) -> None:
    paths = []
    for device, start in (("one", 0), ("two", 25), ("three", 50), ("wrong", 75)):
        classes = ["five", "four"] if device == "wrong" else ["four", "five"]
        images, labels = digits.arrays((4, 5), start, start + 25)
        learned(device, Task.from_arrays("01", images, labels, classes))
        paths.append(tmp_path / f"{device}.cskc")
        assert run("fleet", "export", paths[-1], "--workspace", tmp_path / device).status == 0
    images, _ = digits.arrays((4,), 10, 70)
    learned("other", Task.from_arrays("01", images, [0] * len(images), ["quatre"]))
    paths.append(tmp_path / "other.cskc")
    assert run("fleet", "export", paths[-1], "--workspace", tmp_path / "other").status == 0
    out = tmp_path / "merged.cskc"
    done = run("fleet", "merge", *paths, "--out", out)
    assert done.status == 0
    aside, alike = done.err.splitlines()
    assert "set aside: wrong" in aside
    assert aside.endswith("Look at it; `--accept` counts it all the same.")
    assert "'four' and 'quatre' look like one thing" in alike
    assert f"{out}: 3 classes (five 75, four 75, quatre 60), of " in done.out
    same = run("fleet", "merge", *paths, "--out", out, "--same", "quatre=four", "--accept", "wrong")
    assert (same.status, same.err) == (0, "")
    assert f"{out}: 2 classes (five 100, four 160), of 5 devices" in same.out


@pytest.mark.parametrize(
    ("startup", "options", "words"),
    [
        ("fed_client.json", ["--bundle", "b"], "is a device's kit, which has no --bundle: leave that out."),
        (
            "fed_client.json",
            ["--trust", "k", "--inbox", "i"],
            "is a device's kit, which has no --inbox and no --trust",
        ),
        ("fed_server.json", ["--least", "20"], "is the server's kit, which has no --least: leave that out."),
        ("fed_server.json", ["--workspace", "w", "--bits", "8"], "which has no --workspace and no --bits"),
        ("fed_server.json", ["--inbox", "i"], "which needs --inbox, --merged and --trust"),
    ],
)
def test_options_of_the_other_kind_of_kit(
    tmp_path: Path, run: Run, startup: str, options: list[str], words: str
) -> None:
    made = tmp_path / "kit"
    (made / "startup").mkdir(parents=True)
    (made / "local").mkdir()
    (made / "startup" / startup).write_text("{}")
    done = run("fleet", "prepare", made, *options)
    assert done.status == 1
    assert words in done.err
