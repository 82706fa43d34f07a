"""A folder that is plainly another one than the command needs is recognised, and the right one named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from csk_sdk import BundleError, ConfigError, Learner, StateError, Task, TaskError
from csk_sdk.formats.places import kind_of
from field.test_openings import a_pipe

# What is given -> what is said of it. "{ws}" is the workspace, which holds bundle/, state/ and tasks/.
WRONG: dict[str, tuple[str, str]] = {
    "a bundle as workspace": (
        "tasks --workspace {ws}/bundle",
        "{ws}/bundle is a bundle, not a workspace: give {ws}.",
    ),
    "a state as workspace": (
        "tasks --workspace {ws}/state",
        "{ws}/state is a state, not a workspace: give {ws}.",
    ),
    "an inbox as workspace": (
        "train --workspace {ws}/tasks",
        "{ws}/tasks is a folder of tasks, not a workspace: give {ws}.",
    ),
    "a task as workspace": (
        "train --workspace {ws}/tasks/01-four-five",
        "{ws}/tasks/01-four-five is a task, not a workspace: give {ws}.",
    ),
    "a class as workspace": (
        "train --workspace {ws}/tasks/01-four-five/train/four",
        "{ws}/tasks/01-four-five/train/four is inside a workspace: give {ws}.",
    ),
    "the folder above as workspace": ("train --workspace {ws}/..", "{above} is not a workspace: give {ws}."),
    "a bundle elsewhere as workspace": (
        "predict x.png --workspace {other}",
        "{other} is a bundle, not a workspace: give it as --bundle.",
    ),
    "a state as bundle": (
        "train --workspace {ws} --bundle {ws}/state",
        "{ws}/state is a state, not a bundle: give {ws}/bundle.",
    ),
    "a workspace as bundle": (
        "export --out x.onnx --workspace {ws} --bundle {ws}",
        "{ws} is a workspace, not a bundle: give {ws}/bundle.",
    ),
    "a part of a bundle as bundle": (
        "inspect {ws}/bundle/ort",
        "{ws}/bundle/ort is inside a bundle: give {ws}/bundle.",
    ),
    "a workspace as state": (
        "train --workspace {ws} --state {ws}",
        "{ws} is a workspace, not a state: give {ws}/state.",
    ),
    "a bundle as state": (
        "train --workspace {ws} --state {ws}/bundle",
        "{ws}/bundle is a bundle, not a state: give {ws}/state.",
    ),
    "an inbox as state": (
        "rollback --to base --workspace {ws} --state {ws}/tasks",
        "{ws}/tasks is a folder of tasks, not a state: give {ws}/state.",
    ),
    "a part of a state as state": (
        "tasks --workspace {ws} --state {ws}/state/generations",
        "{ws}/state/generations is inside a state: give {ws}/state.",
    ),
    "a task as state to verify": (
        "verify --repair --workspace {ws} --state {ws}/tasks/01-four-five",
        "{ws}/tasks/01-four-five is a task, not a state: give {ws}/state.",
    ),
    "a file as state": (
        "predict x.png --workspace {ws} --state {ws}/bundle/manifest.json",
        "{ws}/bundle/manifest.json is a file, not a state: give a folder.",
    ),
    "a folder of images as state": (
        "train --workspace {ws} --state {images}",
        "{images} is no state and holds other things (0.png, 1.png, 10.png, ...): a state needs a folder of its own. "
        "Give one that is empty, or that is not there yet.",
    ),
    "a folder of images as state to verify": (
        "verify --repair --workspace {ws} --state {images}",
        "{images} is no state and holds other things (0.png, ",
    ),
    "a folder of images as state to watch": (
        "watch --once --workspace {ws} --state {images}",
        "{images} is no state and holds other things (0.png, ",
    ),
    "a state as tasks": (
        "train --workspace {ws} --tasks {ws}/state",
        "{ws}/state is a state, not a folder of tasks: give {ws}/tasks.",
    ),
    "a bundle as tasks": (
        "tasks --workspace {ws} --tasks {ws}/bundle",
        "{ws}/bundle is a bundle, not a folder of tasks: give {ws}/tasks.",
    ),
    "a workspace as tasks": (
        "evaluate --workspace {ws} --tasks {ws}",
        "{ws} is a workspace, not a folder of tasks: give {ws}/tasks.",
    ),
    "a task as tasks": (
        "train --workspace {ws} --tasks {ws}/tasks/01-four-five",
        "{ws}/tasks/01-four-five is a task, not a folder of tasks: give {ws}/tasks.",
    ),
    "tasks that are not there": (
        "train --workspace {ws} --tasks {ws}/nope",
        "There is no folder {ws}/nope, where tasks are looked for: make it, or name another with --tasks.",
    ),
    "a task of an inbox that is not there": (
        "train --task nope --workspace {ws}",
        "There is no task 'nope' in {ws}/tasks: it has 01-four-five, 02-six-seven, base.",
    ),
    "a file as workspace": (
        "tasks --workspace {ws}/csk.toml",
        "{ws}/csk.toml is a file, not a workspace: give a folder.",
    ),
    "a file as tasks": (
        "train --workspace {ws} --tasks {ws}/csk.toml",
        "{ws}/csk.toml is a file, not a folder of tasks: give a folder.",
    ),
    "a file as tasks to list": (
        "tasks --workspace {ws} --tasks {ws}/csk.toml",
        "{ws}/csk.toml is a file, not a folder of tasks: give a folder.",
    ),
    "a file as tasks to watch": (
        "watch --once --workspace {ws} --tasks {ws}/csk.toml",
        "{ws}/csk.toml is a file, not a folder of tasks: give a folder.",
    ),
    "a file as bundle": (
        "inspect {ws}/csk.toml",
        "{ws}/csk.toml is a file, not a bundle: give a folder.",
    ),
    "an empty folder": (
        "train --workspace {empty}",
        "There is no bundle in {empty}: run the command in the device's workspace, or name that with --workspace.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_folder_is_named_and_so_is_the_right_one(
    run: Any, learned: Path, tmp_path: Path, case: str
) -> None:
    (tmp_path / "empty").mkdir()
    bundle = learned / "bundle"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").touch()
    if "a part of a bundle" in case:  # a real folder, since one may not write into the shared bundle
        bundle.unlink()
        (bundle / "ort").mkdir(parents=True)
        (bundle / "manifest.json").touch()
    images = Path(shutil.copytree(learned / "tasks/01-four-five/train/four", tmp_path / "images"))
    words = {
        "images": images,
        "ws": learned,
        "above": learned.parent,
        "other": tmp_path / "other",
        "empty": tmp_path / "empty",
    }
    arguments, said = WRONG[case]
    before = sorted(path for path in (*learned.rglob("*"), *images.iterdir()))
    done = run(*(one.format(**words) for one in arguments.split()))
    assert done.status == 1, done.out
    assert done.err.startswith(f"Error: {said.format(**words)}")
    assert sorted(path for path in (*learned.rglob("*"), *images.iterdir())) == before, (
        "and nothing is written there"
    )


def test_a_wrong_working_directory_is_named(run: Any, learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(learned / "tasks")
    assert (
        run("train").err == f"Error: {learned}/tasks is a folder of tasks, not a workspace: give {learned}.\n"
    )
    monkeypatch.chdir(learned / "tasks" / "01-four-five")
    done = run("doctor", "--json")
    assert f"01-four-five is a task, not a workspace: give {learned}." in done.out


def test_the_same_in_python(learned: Path) -> None:
    with pytest.raises(BundleError, match=r"is a workspace, not a bundle: give .*/bundle"):
        Learner.open(learned)
    with pytest.raises(StateError, match=r"is a bundle, not a state: give .*/state"):
        Learner.open(learned / "bundle", learned / "bundle")
    with pytest.raises(TaskError, match=r"is a folder of tasks, not a task: give .*/01-four-five"):
        Task.open(_only_one(learned / "tasks"))
    with pytest.raises(TaskError, match=r"train is inside a task: give .*/01-four-five"):
        Task.open(learned / "tasks" / "01-four-five" / "train")
    with pytest.raises(TaskError, match="bundle is a bundle, not a task"):
        Task.open(learned / "bundle")


def _only_one(tasks: Path) -> Path:
    """An inbox of one folder, so that the one that is named is known."""
    (tasks / "base").rename(tasks.parent / "kept")
    return tasks


def test_a_task_may_be_called_train(run: Any, workspace: Path) -> None:
    (workspace / "tasks" / "01-four-five").rename(workspace / "tasks" / "train")
    assert kind_of(workspace / "tasks") == "inbox"
    assert run("train", "--task", "train", "--no-evaluate", "--workspace", workspace).status == 0


def test_parts_elsewhere_need_no_workspace(run: Any, learned: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    parts = [f for name in ("bundle", "state", "tasks") for f in (f"--{name}", learned / name)]
    assert run("tasks", "--workspace", tmp_path / "here", *parts).status == 0


@pytest.mark.parametrize("command", ["export", "report"])
@pytest.mark.parametrize(
    "name",
    ["state/HEAD", "state/generations/000001.safetensors", "state/new", "bundle/manifest.json", "bundle/new"],
)
def test_nothing_is_written_into_a_bundle_or_a_state(
    run: Any, learned: Path, command: str, name: str
) -> None:
    """Not even when --overwrite says so: every file there is needed, and hashed."""
    shared = (learned / "bundle").resolve()
    (learned / "bundle").unlink()
    shutil.copytree(shared, learned / "bundle")
    before = {
        path: path.read_bytes() for path in learned.rglob("*") if path.is_file() and path.name != "lock"
    }
    done = run(command, "--out", learned / name, "--overwrite", "--workspace", learned)
    kind = name.split("/")[0]
    assert done.status == 1
    assert done.err == (
        f"Error: {learned / name} would lie in a {kind}, {learned / kind}, where only csk-sdk's own files are: choose "
        "another --out.\n"
    )
    assert before == {path: path.read_bytes() for path in before}
    assert not (learned / kind / "new").exists()


def test_a_manifest_of_another_program_is_in_nobody_s_way(run: Any, learned: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert run("export", "--out", tmp_path / "model.onnx", "--workspace", learned).status == 0


@pytest.mark.slow
@pytest.mark.parametrize(("command", "what"), [("export", "an ONNX model"), ("report", "an HTML page")])
def test_only_its_own_kind_of_file_is_replaced(
    run: Any, learned: Path, tmp_path: Path, command: str, what: str
) -> None:
    """--overwrite is said for the file of before, and not for the image that a slip of the finger names."""
    at = ("--overwrite", "--workspace", learned)
    image = learned / "tasks/01-four-five/train/four/0.png"
    words = tmp_path / "notes.txt"
    words.write_text("0\n")
    for path in (image, words, learned / "csk.toml"):
        before = path.read_bytes()
        done = run(command, "--out", path, *at)
        assert (done.status, done.err) == (
            1,
            f"Error: {path} is there and is not {what}: it would be lost. Choose another --out, or remove it first.\n",
        )
        assert path.read_bytes() == before
    for path in (tmp_path / "new", tmp_path / "empty"):
        (tmp_path / "empty").touch()
        for _ in range(2):
            assert run(command, "--out", path, *at).status == 0


def test_what_is_no_file_is_not_replaced(run: Any, learned: Path, tmp_path: Path) -> None:
    a_pipe(tmp_path / "pipe")
    done = run("export", "--out", tmp_path / "pipe", "--overwrite", "--workspace", learned)
    assert done.err.startswith(
        f"Error: {tmp_path}/pipe is there and is not an ONNX model (not an ordinary file): "
    )
    assert (tmp_path / "pipe").is_fifo()


def test_any_onnx_model_may_be_replaced(learned: Path, tmp_path: Path) -> None:
    """In Python, too: nothing but a model is replaced."""
    learner = Learner.open(learned / "bundle", learned / "state")
    shutil.copy(next((learned / "bundle").glob("*.onnx")), tmp_path / "model.onnx")
    learner.export(tmp_path / "model.onnx")
    (tmp_path / "0.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ConfigError, match=r"0\.npy is there and is not an ONNX model: it would be lost"):
        learner.export(tmp_path / "0.npy")


@pytest.mark.parametrize(
    "there", ["", ".gitkeep", "lost+found/", "lock", "kernels-x/", "blocks/", "ledger/", ".csk-tmp"]
)
def test_an_empty_folder_becomes_a_state(run: Any, workspace: Path, tmp_path: Path, there: str) -> None:
    """What systems, and a run that was killed, leave in a folder is in nobody's way."""
    folder = tmp_path / "new"
    folder.mkdir()
    if there.endswith("/"):
        (folder / there).mkdir()
    elif there:
        (folder / there).touch()
    done = run("train", "--no-evaluate", "--workspace", workspace, "--state", folder)
    assert done.status == 0, done.err
    (folder / "notes.txt").touch()
    assert run("tasks", "--workspace", workspace, "--state", folder).status == 0, (
        "and whoever has one may add to it"
    )


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (("fleet", "export", "{place}"), "a .cskc file"),
        (("export", "--out", "{place}", "--overwrite"), "an ONNX model"),
        (("report", "--out", "{place}", "--overwrite"), "an HTML page"),
    ],
)
def test_a_folder_is_no_place_for_a_file(
    run: Any, learned_workspace: Path, tmp_path: Path, command: tuple[str, ...], what: str
) -> None:
    done = run(*(one.format(place=tmp_path) for one in command), "--workspace", learned_workspace)
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        f"Error: {tmp_path} is a folder, and {what} is a file: give a file's name, in that folder or elsewhere.\n"
    )
