"""watch: the inbox is learned as it fills, by a service that may be stopped at any time."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import csk_sdk.watching as watching_module
from csk_sdk.learner import Learner
from csk_sdk.watching import Watcher
from csk_sdk.workspace import Workspace


def watch(run, workspace, *options):
    return run(
        "watch", "--workspace", workspace, "--once", "--settle", "0", "--poll", "0.1", "--nice", "0", *options
    )


def watcher(workspace, settle=0.0):
    space = Workspace.open(workspace)
    return Watcher(space, space.learner(), settle, poll=0.02)


def test_all_that_waits_is_learned_in_order_of_names(run, workspace):
    done = watch(run, workspace, "--json")
    assert (done.status, done.err) == (0, "")
    assert [(line["event"], line["task"]) for line in done.lines] == [
        ("learned", "01-four-five"),
        ("learned", "02-six-seven"),
    ]
    assert done.lines[1]["report"]["generation"] == 2
    assert [task.name for task in Learner.open(workspace / "bundle", workspace / "state").tasks] == [
        "01-four-five",
        "02-six-seven",
    ]
    assert "generation 2." in watch(run, workspace).out  # and a second one finds nothing to do


def test_a_task_that_is_no_good_is_set_aside_and_the_next_is_learned(run, workspace):
    picture = next((workspace / "tasks/01-four-five/train").rglob("*.png"))
    picture.write_bytes(picture.read_bytes()[:60])
    done = watch(run, workspace)
    assert done.status == 0
    assert "01-four-five is set aside." in done.err
    assert str(picture) in done.err
    assert "Learned 02-six-seven" in done.out


def test_a_mended_task_is_looked_at_again(workspace):
    picture = next((workspace / "tasks/01-four-five/train").rglob("*.png"))
    whole = picture.read_bytes()
    picture.write_bytes(whole[:60])
    events = []
    watching = watcher(workspace)
    for happened in watching.run(once=False):
        events.append((happened.event, happened.task))
        if events[-1] == ("learned", "02-six-seven"):
            picture.write_bytes(whole)
        if len(events) == 3:
            watching.stop()
    assert events == [("set aside", "01-four-five"), ("learned", "02-six-seven"), ("learned", "01-four-five")]


def test_a_task_that_is_still_being_copied_is_left_alone(workspace, monkeypatch):
    tenths = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(tenths) / 10)
    monkeypatch.setattr(watching_module, "time", clock)
    watching = watcher(workspace, settle=0.4)
    shutil.rmtree(workspace / "tasks/01-four-five")
    growing = workspace / "tasks/02-six-seven.npz"
    whole = growing.read_bytes()
    looks = []
    for count in range(1, 11):
        growing.write_bytes(whole[: len(whole) * count // 10])
        looks.append(watching._look())
    assert looks == [None] * 10
    assert [happened.task for happened in watching.run(once=True)] == ["02-six-seven"]


def test_pictures_to_test_with_are_no_task(run, workspace):
    shutil.rmtree(workspace / "tasks/01-four-five/train")
    done = watch(run, workspace)
    assert (done.status, done.err) == (0, "")
    assert "01-four-five" not in done.out


def test_two_tasks_of_one_name_are_told_of_once(workspace):
    np.savez(workspace / "tasks/01-four-five.npz", images=np.zeros(1), labels=np.zeros(1))
    watching = watcher(workspace)
    seen = []
    for happened in watching.run():
        seen.append((happened.event, happened.task))
        if happened.event == "later":
            assert "both 01-four-five/ and 01-four-five.npz" in happened.reason
            (workspace / "tasks/01-four-five.npz").unlink()
        if happened.task == "02-six-seven":
            watching.stop()
    assert seen == [("later", ""), ("learned", "01-four-five"), ("learned", "02-six-seven")]


def test_another_process_that_learns_is_waited_for(workspace):
    watching = watcher(workspace)
    seen = []
    lock = Learner.open(workspace / "bundle", workspace / "state").state.lock()
    lock.__enter__()
    for happened in watching.run(once=True):
        seen.append(happened.event)
        if happened.event == "later":
            lock.__exit__(None, None, None)
    assert seen == ["later", "learned", "learned"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process at once on Windows")
def test_sigterm_stops_at_a_step_and_the_next_start_goes_on(workspace):
    (workspace / "csk.toml").write_text(
        "[training]\nepochs = 60\npatience = 0\nthreads = 1\nfew_shot = 0\ncheckpoint_seconds = 0.0\n"
    )
    command = [sys.executable, "-m", "csk_sdk", "watch", "--workspace", workspace, "--settle", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        progress = workspace / "state/progress.safetensors"
        deadline = time.monotonic() + 600
        while not progress.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        service.send_signal(signal.SIGTERM)
        out, _ = service.communicate(timeout=600)
    assert service.returncode == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["stopped"]
    space = Workspace.open(workspace)
    assert space.learner().tasks == ()
    first, second = (happened.report for happened in Watcher(space, space.learner(), 0.0, 0.1).run(once=True))
    assert first.resumed_at_step > 0
    assert second.resumed_at_step == 0
