"""doctor and demo."""

import sys
from dataclasses import replace

import pytest

from csk_sdk.demo import result as demo
from csk_sdk.demo import run as demo_run
from csk_sdk.learner import Learner
from csk_sdk.learning.training import TaskTraining
from csk_sdk.runtime import sessions as runtime


def checks(done):
    return {check["name"]: check for check in done.json["checks"]}


@pytest.mark.slow
def test_everything_is_in_order(run, learned_workspace):
    done = run("doctor", "--workspace", learned_workspace, "--json")
    found = checks(done)
    assert {check["status"] for check in found.values()} <= {"ok", "warn"}
    device = ["Python", "System", "CPU", "Memory", "NumPy", "ONNX Runtime", "Disk"]
    assert list(found) == [*device, "Bundle", "Graphs", "Training step", "State", "Lock", "Tasks"]
    assert "ms for 16 images" in found["Training step"]["detail"]
    assert found["State"]["detail"] == "generation 2, intact: 01-four-five, 02-six-seven"
    assert found["Tasks"]["detail"].startswith("2 learned, 0 waiting")
    assert (done.status, done.json["ok"]) == (0, True)


def test_doctor_changes_nothing(run, workspace):
    before = sorted(path.name for path in workspace.iterdir())
    done = run("doctor", "--workspace", workspace)
    assert done.status == 0
    assert "nothing learned yet" in done.out
    assert sorted(path.name for path in workspace.iterdir()) == before


def test_a_folder_without_a_bundle_is_neither_ready_nor_damaged(run, tmp_path):
    done = run("doctor", "--workspace", tmp_path)
    assert done.status == 1
    assert f"fail  Bundle         there is none in {tmp_path / 'bundle'}" in done.out
    assert "1 problem to mend." in done.out
    assert "Ready" not in done.out
    done = run("verify", "--workspace", tmp_path)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"Error: There is neither a bundle in {tmp_path}/bundle nor a state in ")


def test_a_damaged_bundle_fails(run, own_bundle):
    (own_bundle / "eval_model.onnx").write_bytes(b"")
    done = run("doctor", "--workspace", own_bundle.parent)
    assert done.status == 1
    assert "eval_model.onnx is not the file that was built" in done.out
    assert "1 problem to mend." in done.out


def test_a_damaged_state_fails_and_names_the_way_back(run, learned):
    (learned / "state/generations/000002.safetensors").write_bytes(b"")
    found = checks(run("doctor", "--workspace", learned, "--json"))
    assert found["State"]["status"] == "fail"
    assert "csk-sdk rollback --to 01-four-five" in found["State"]["detail"]


def test_many_pruned_generations_are_one_row(run, learned):
    state = learned / "state"
    for tensors in sorted((state / "generations").glob("*.safetensors"))[:-1]:
        tensors.unlink()
    assert "generations 1" not in run("verify", "--workspace", learned).out
    learner = Learner.open(learned / "bundle", state)
    for number in range(4):
        known = learner.state.load()
        with learner.state.lock():
            tasks = (*known.tasks, replace(known.tasks[-1], name=f"again {number}"))
            learner.state.commit(known.number, tasks, known.tensors)
    last = learner.state.head()
    for number in range(1, last):
        (state / f"generations/{number:06d}.safetensors").unlink(missing_ok=True)
    printed = run("verify", "--workspace", learned).out.splitlines()
    rows = [line.split() for line in printed if " pruned " in line]
    assert [row[:5] for row in rows] == [["generations", "1", "to", str(last - 1), "pruned"]]
    every = run("verify", "--workspace", learned, "--json").json["state"]
    assert sum(one["status"] == "pruned" for one in every) == last - 1


def test_a_held_lock_and_a_broken_task_are_warnings(run, learned):
    (learned / "tasks/03-broken").mkdir()
    with Learner.open(learned / "bundle", learned / "state").state.lock():
        done = run("doctor", "--workspace", learned, "--json")
    found = checks(done)
    assert (found["Lock"]["status"], found["Tasks"]["status"]) == ("warn", "warn")
    assert "03-broken has no train/ folder" in found["Tasks"]["remedy"]
    assert done.status == 0


def test_an_interrupted_run_is_reported(run, workspace, monkeypatch):
    (workspace / "csk.toml").write_text(
        "[training]\nthreads = 1\nfew_shot = 0\ntrain = 'centers'\ncheckpoint_seconds = 0\n"
    )
    step, count = TaskTraining.step, 0

    def interrupted(self, batch, schedule):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return step(self, batch, schedule)

    monkeypatch.setattr(TaskTraining, "step", interrupted)
    assert run("train", "--workspace", workspace).status == 130
    found = checks(run("doctor", "--workspace", workspace, "--json"))
    assert "`csk-sdk train --task 01-four-five` goes on at step 2" in found["Progress"]["detail"]


def test_two_runtimes_fail(run, monkeypatch, workspace):
    two = {"onnxruntime": "1.20.0", "onnxruntime-training-cpu": "1.19.2"}
    monkeypatch.setattr(runtime, "installed_runtimes", lambda: two)
    found = checks(run("doctor", "--workspace", workspace, "--json"))
    assert found["ONNX Runtime"]["status"] == "fail"
    assert "are both installed" in found["ONNX Runtime"]["detail"]
    assert "Training step" not in found


def test_no_runtime_fails(run, monkeypatch, workspace):
    monkeypatch.setattr(runtime, "installed_runtimes", dict)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = run("doctor", "--workspace", workspace)
    assert done.status == 1
    assert "pip install 'csk-sdk[device]'" in done.out


@pytest.mark.parametrize("text", ["[training]\nepoch = 1\n", "[training\n", "[state]\nkeep = 0\n"])
def test_bad_settings_fail(run, workspace, text):
    (workspace / "csk.toml").write_text(text)
    found = checks(run("doctor", "--workspace", workspace, "--json"))
    assert found["Workspace"]["status"] == "fail"
    assert "csk.toml" in found["Workspace"]["detail"]


def test_demo_shows_progress_and_its_result(run, tmp_path, monkeypatch):
    scores = {"tasks": ["base", "01"], "accuracy_matrix": [[99.0, None], [98.5, 77.0]]}
    first = demo.DemoRun(
        "ours", {"acc": 90.25, "bwt": -0.5}, {**scores, "accuracy": 88.0, "bwt": -1.0}, 1.5, 2**26
    )
    other = demo.DemoRun(
        "other", {"acc": 91.0, "bwt": None}, {**scores, "accuracy": 44.0, "bwt": -9.0}, 2.5, 2**27
    )
    result = demo.DemoResult(tmp_path / "workspace", tmp_path / "demo.png", (first, other))

    def run_demo(out, on_progress):
        assert out == tmp_path
        on_progress("building")
        return result

    monkeypatch.setattr(demo_run, "run_demo", run_demo)
    shown = run("demo", "--out", tmp_path).out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == "building"
    assert "01 98.5 77.0" in lines
    assert "Class-incremental: accuracy, % 88.0 44.0" in lines
    assert "Task-incremental: BWT -0.5 -" in lines
    assert "Peak memory of the process 64 MiB 128 MiB" in lines
    done = run("demo", "--out", tmp_path, "--json")
    assert (done.json, done.err) == (result.to_json(), "")
