"""watch: the inbox is learned as it fills, by a service that may be stopped at any time."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import csk_sdk.workspace.watching as watching_module
from csk_sdk.data.inbox import _task_name
from csk_sdk.learner import Learner
from csk_sdk.workspace.folder import Workspace
from csk_sdk.workspace.watching import Watcher


def watch(run, workspace, *options):
    return run(
        "watch", "--workspace", workspace, "--once", "--settle", "0", "--poll", "0.1", "--nice", "0", *options
    )


def watcher(workspace, settle=0.0):
    space = Workspace.open(workspace)
    return Watcher(space, space.learner(), settle, poll=0.02)


@pytest.mark.slow
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


def test_two_tasks_of_one_name_are_set_aside_and_the_next_is_learned(workspace):
    np.savez(workspace / "tasks/01-four-five.npz", images=np.zeros(1), labels=np.zeros(1))
    watching = watcher(workspace)
    seen = []
    for happened in watching.run():
        seen.append((happened.event, happened.task))
        if happened.event == "set aside":
            assert "both 01-four-five/ and 01-four-five.npz" in happened.reason
        if happened.task == "02-six-seven":
            (workspace / "tasks/01-four-five.npz").unlink()
        if len(seen) == 3:
            watching.stop()
    assert seen == [("set aside", "01-four-five"), ("learned", "02-six-seven"), ("learned", "01-four-five")]


def events(workspace):
    return [(happened.event, happened.task) for happened in watcher(workspace).run(once=True)]


ASIDE = [("set aside", "00-odd"), ("learned", "01-four-five"), ("learned", "02-six-seven")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a/" * 3000 + "x.png", "a\0b.png", "loop/x.png"])
def test_one_bad_line_ends_no_service(workspace, name):
    folder = workspace / "tasks/00-odd/train"
    folder.mkdir(parents=True)
    (folder / "loop").symlink_to("loop")
    (folder / "metadata.csv").write_text(f"file_name,cat,dog\n{name},1,0\n")
    happened = next(watcher(workspace).run(once=True))
    assert (happened.event, happened.task) == ("set aside", "00-odd")
    assert "metadata.csv, line 2" in happened.reason
    assert len(happened.reason) < 500
    assert events(workspace) == ASIDE


ERRORS = [
    OSError(36, "File name too long"),
    PermissionError(13, "Permission denied"),
    ValueError("embedded null byte"),
    UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed"),
    RuntimeError("Symlink loop"),
    RecursionError("maximum recursion depth exceeded"),
    MemoryError(),
    KeyError("x"),
]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["opening", "learning"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_one_task_raises_sets_it_aside(workspace, monkeypatch, error, when):
    shutil.copytree(workspace / "tasks/01-four-five", workspace / "tasks/00-odd")
    where, name = (
        ("csk_sdk.data.tasks.files_by_class", 0) if when == "opening" else ("csk_sdk.learner.LearnRun", 3)
    )
    module, attribute = where.rsplit(".", 1)
    real = getattr(sys.modules[module], attribute)

    def failing(*arguments):
        if "00-odd" in str(arguments[name]):
            raise error
        return real(*arguments)

    monkeypatch.setattr(where, failing)
    told = list(watcher(workspace).run(once=True))
    assert [(happened.event, happened.task) for happened in told] == ASIDE
    assert told[0].reason.endswith(".")
    assert "\n" not in told[0].reason


@pytest.mark.slow
@pytest.mark.parametrize("part", ["", "train", "train/four"])
def test_a_folder_that_may_not_be_read_is_set_aside(workspace, monkeypatch, part):
    # Whoever runs the tests may read everything.
    shutil.copytree(workspace / "tasks/01-four-five", workspace / "tasks/00-odd")
    real, forbidden = os.scandir, str(workspace / "tasks/00-odd" / part).rstrip("/")

    def scandir(path="."):
        if os.fspath(path) == forbidden:
            raise PermissionError(13, "Permission denied", forbidden)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    if not part:
        real_stat = os.stat

        def stat(path, **options):
            if os.fspath(path).startswith(forbidden + "/"):
                raise PermissionError(13, "Permission denied", path)
            return real_stat(path, **options)

        monkeypatch.setattr(os, "stat", stat)
    watching = watcher(workspace)
    told = list(watching.run(once=True))
    assert [(happened.event, happened.task) for happened in told] == ASIDE
    assert "(Permission denied)" in told[0].reason
    # Once it may be read, it is looked at again.
    monkeypatch.undo()
    assert [(happened.event, happened.task) for happened in watching.run(once=True)] == [
        ("learned", "00-odd")
    ]


def test_a_link_to_what_may_not_be_seen_does_not_hide_the_others(workspace):
    class Entry:
        name, path = "00-odd", "00-odd"

        def is_dir(self):
            raise PermissionError(13, "Permission denied")

    assert _task_name(Entry()) == "00-odd"
    Entry.name = "00-odd.npz"
    assert _task_name(Entry()) == "00-odd"


def test_an_empty_folder_is_waited_for(workspace):
    (workspace / "tasks/00-odd/train/four").mkdir(parents=True)
    assert events(workspace) == ASIDE[1:]


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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process at once on Windows")
def test_sigterm_stops_at_a_step_and_the_next_start_goes_on(workspace):
    (workspace / "csk.toml").write_text(
        "[training]\nepochs = 60\npatience = 0\nthreads = 1\nfew_shot = 0\ntrain = 'centers'\n"
        "checkpoint_seconds = 0.0\n"
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


def test_a_full_inbox_is_not_counted_anew_for_each_task(workspace, monkeypatch):
    """1,000 tasks that land at once: what is looked at grows with their number, and not with its square."""
    shutil.rmtree(workspace / "tasks")
    counts = {}
    for many in (50, 200):
        for number in range(many):
            (workspace / f"inbox-{many}" / f"{number:04}" / "train").mkdir(parents=True)
        space = Workspace.open(workspace, tasks=workspace / f"inbox-{many}")
        watching = Watcher(space, space.learner(), settle=0.0, poll=1000.0)
        looked_at, learned = [], []

        def signature(paths, seen=looked_at):
            seen.append(paths)
            return 1, 1, 1, 0

        def learn(name, done=learned):
            done.append(name)
            return watching_module.Happened("learned", name)

        monkeypatch.setattr(watching_module, "_signature", signature)
        monkeypatch.setattr(watching, "_learn", learn)
        monkeypatch.setattr(watching, "_known", lambda done=learned: set(done))
        happened = [one.task for one in watching.run(once=True)]
        assert happened == [f"{number:04}" for number in range(many)]
        counts[many] = len(looked_at)
    assert counts == {50: 100, 200: 400}, "once for all, and once more for each"
