"""train, tasks, rollback."""

import json
import shutil

import pytest

from csk_sdk.learner import Learner
from csk_sdk.learning.training import TaskTraining

PROMISED = {"task", "classes", "epochs", "loss", "seconds", "peak_rss_bytes", "generation", "accuracy"}


def test_train_next_learns_the_first_task_and_shows_accuracies(run, workspace):
    done = run("train", "--workspace", workspace)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "Learning 01-four-five: 2 classes, 40 images" in lines
    assert len([line for line in lines if line.startswith("  Epoch ")]) == 1
    assert any(line.startswith("Learned 01-four-five in ") and "generation 1" in line for line in lines)
    assert [line.split()[0] for line in lines[-2:]] == ["base", "01-four-five"]
    # Generation 0 was tested first, so that forgetting of the base can be seen.
    assert json.loads((workspace / "state/scores/000000.json").read_text())["scores"].keys() == {"base"}


def test_train_all_prints_one_json_object_a_line(run, workspace):
    done = run("train", "--task", "all", "--workspace", workspace, "--json")
    assert (done.status, done.err) == (0, "")
    first, second = done.lines
    assert first.keys() >= PROMISED
    assert (first["task"], first["classes"], first["generation"]) == ("01-four-five", ["five", "four"], 1)
    assert (second["task"], second["epochs"], second["generation"]) == ("02-six-seven", 1, 2)
    assert second["accuracy"].keys() == {"task", "class"}
    assert second["accuracy"]["task"].keys() == {"base", "01-four-five", "02-six-seven"}


def test_train_by_name_with_settings(run, workspace):
    options = ("--epochs", "2", "--seed", "3", "--batch-size", "8", "--optimizer", "adamw", "--no-evaluate")
    done = run("train", "--task", "02-six-seven", "--workspace", workspace, "--json", *options)
    assert done.json["epochs"] == 2
    assert done.json["accuracy"] is None
    assert not (workspace / "state/scores").exists()
    saved = Learner.open(workspace / "bundle", workspace / "state").tasks[0].config
    assert (saved["seed"], saved["batch_size"], saved["optimizer"]) == (3, 8, "adamw")


def test_what_is_trained_is_said(run, workspace):
    done = run("train", "--workspace", workspace, "--train", "heads", "--no-evaluate", "--json")
    assert (done.json["heads_only_because"], done.json["epochs"], done.json["choice"]) == ("train", 0, "")
    auto = ("--train", "auto", "--learning-rate", "1e-7", "--batch-size", "8", "--no-evaluate")
    done = run("train", "--workspace", workspace, *auto)
    assert done.status == 0
    assert "Training would not pay: after" in done.out
    assert "--train centers trains all the same" in done.out
    # Of a lesson that is not trained on there is no epoch to tell of.
    assert " steps, to ask whether training pays " in done.out
    assert "Epoch 1 of" not in done.out
    assert "Warning: training" not in done.err
    done = run("train", "--workspace", workspace, "--train", "never", "--no-evaluate")
    assert (done.status, "train is 'never'; it must be auto, heads, centers or kernels" in done.err) == (
        2,
        True,
    )


def test_few_pictures_get_heads_only_and_a_sentence(run, workspace):
    done = run("train", "--workspace", workspace, "--few-shot", "21", "--no-evaluate")
    assert done.status == 0
    assert "Warning: 20 images a class: too few" in done.err
    done = run("train", "--workspace", workspace, "--few-shot", "21", "--no-evaluate", "--json")
    assert (done.json["heads_only"], done.json["heads_only_because"], done.json["epochs"]) == (
        True,
        "few-shot",
        0,
    )


def test_that_one_class_alone_is_not_trained_on_is_said_to_whom_asked_for_it(run, workspace):
    for part in ("train/five", "test/five"):
        shutil.rmtree(workspace / "tasks/01-four-five" / part)
    train = ("train", "--workspace", workspace, "--task", "01-four-five", "--no-evaluate", "--train")
    said = "Of one class alone there is no decision to train on: the backbone stays as it is."
    for wanted, told in (("heads", False), ("centers", True)):
        shutil.rmtree(workspace / "state", ignore_errors=True)
        done = run(*train, wanted)
        assert (done.status, said in done.out) == (0, told)


def test_nothing_to_learn(run, learned_workspace):
    done = run("train", "--workspace", learned_workspace)
    assert done.status == 0
    assert done.out == f"Nothing to learn: all 2 tasks in {learned_workspace / 'tasks'} are learned.\n"
    done = run("train", "--workspace", learned_workspace, "--task", "all", "--json")
    assert done.json["task"] is None
    assert done.json["learned"] == ["01-four-five", "02-six-seven"]


def test_an_empty_inbox_has_nothing_to_learn(run, workspace, tmp_path):
    (tmp_path / "none").mkdir()
    done = run("train", "--workspace", workspace, "--tasks", tmp_path / "none")
    assert (done.status, done.out) == (
        0,
        f"Nothing to learn: there is no task to learn in {tmp_path / 'none'}.\n",
    )


def test_ctrl_c_and_again_goes_on_where_it_stopped(run, workspace, monkeypatch):
    (workspace / "csk.toml").write_text(
        "[training]\nepochs = 2\nthreads = 1\nfew_shot = 0\ntrain = 'centers'\n"
        "gradient_share = 1.0\ncheckpoint_seconds = 0.0\n"
    )
    step, count = TaskTraining.step, 0

    def interrupted(self, batch, schedule):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return step(self, batch, schedule)

    monkeypatch.setattr(TaskTraining, "step", interrupted)
    done = run("train", "--workspace", workspace)
    assert done.status == 130
    assert done.err == "Interrupted; run the same command to go on where it stopped.\n"
    done = run("train", "--workspace", workspace)
    assert done.status == 0
    assert "Going on with the interrupted run at step 3 of 6." in done.out


def test_ctrl_c_before_the_first_checkpoint(run, workspace, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(TaskTraining, "step", interrupted)
    done = run("train", "--workspace", workspace)
    assert done.status == 130
    assert done.err.startswith("Interrupted before the first checkpoint: nothing was learned.")


def test_a_second_writer_is_refused(run, workspace):
    learner = Learner.open(workspace / "bundle", workspace / "state")
    with learner.state.lock():
        done = run("train", "--workspace", workspace)
    assert done.status == 1
    assert "is writing to" in done.err


def test_a_broken_test_split_does_not_hide_what_was_learned(run, workspace):
    (workspace / "tasks/base/test/zero/0.png").write_bytes(b"no image")
    done = run("train", "--workspace", workspace, "--json")
    assert done.status == 0
    assert done.json["generation"] == 1
    assert "Warning: not tested." in done.err
    assert "0.png" in done.err
    assert "Nothing to test with" not in done.out + done.err


def test_tasks_lists_states_counts_and_what_is_broken(run, workspace):
    run("train", "--workspace", workspace, "--no-evaluate")
    (workspace / "tasks/03-broken.npz").write_bytes(b"no zip")
    done = run("tasks", "--workspace", workspace, "--json")
    found = {one["name"]: one for one in done.json}
    states = {name: one["state"] for name, one in found.items()}
    assert states == {
        "01-four-five": "learned", "02-six-seven": "next", "03-broken": "broken", "base": "test only"
    }  # fmt: skip
    first = found["01-four-five"]
    assert (first["generation"], first["train_images"], first["test_images"]) == (1, 40, 20)
    assert first["seconds"] > 0
    done = run("tasks", "--workspace", workspace)
    assert done.status == 0
    assert "learned, generation 1" in done.out
    assert "03-broken.npz is not an npz file" in done.out


def test_a_broken_task_is_not_skipped(run, workspace):
    (workspace / "tasks/00-broken").mkdir()
    assert "next" not in {one["state"] for one in run("tasks", "--workspace", workspace, "--json").json}
    done = run("train", "--workspace", workspace)
    assert done.status == 1
    assert "00-broken has no train/ folder" in done.err


def test_a_learned_task_that_left_the_inbox_is_still_listed(run, learned):
    (learned / "tasks/02-six-seven.npz").unlink()
    found = {one["name"]: one for one in run("tasks", "--workspace", learned, "--json").json}
    assert (found["02-six-seven"]["state"], found["02-six-seven"]["train_images"]) == ("learned", 40)


def test_rollback(run, learned):
    done = run("rollback", "--to", "01-four-five", "--workspace", learned)
    assert (done.status, done.out) == (0, "Back at generation 1. Known now: base, 01-four-five.\n")
    assert run("train", "--workspace", learned, "--json", "--no-evaluate").json["task"] == "02-six-seven"
    assert run("rollback", "--to", "base", "--workspace", learned).out.startswith("Back at generation 0.")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["train", "--task", "nix"], "There is no task 'nix'"),
        (["train", "--task", "01-four-five"], "'01-four-five' is learned already"),
        (["train", "--task", "base"], "no training images"),
        (["train", "--bundle", "nowhere"], "There is no bundle in nowhere"),
        (["tasks", "--bundle", "nowhere"], "There is no bundle in nowhere"),
        (["rollback", "--to", "nix"], "no generation of task 'nix'"),
    ],
)
def test_errors_are_one_line_on_stderr(run, learned_workspace, arguments, error):
    done = run(*arguments, "--workspace", learned_workspace)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("Error: ")
    assert error in done.err
    assert done.err.count("\n") == 1
