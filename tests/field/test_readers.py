"""One writer, many readers: predictions while another process learns come from one whole generation each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import Digits
from csk_sdk import StateError, StateLockedError
from csk_sdk.state import LearnedTask, State
from csk_sdk.state.lock import LOCK_FILE, StateLock

READERS, TASKS = 4, 5

# Both print, for what they predicted, the generation that it came from and a hash of every bit of it.
COMMON = """
import hashlib, json, os, sys
import numpy as np
from csk_sdk.workspace.folder import Workspace

folder = sys.argv[1]
probe = np.load(folder + "/probe.npy")

def tag(predictor):
    prediction = predictor.head().predict(predictor.features(probe))
    digest = hashlib.sha256(prediction.probabilities.tobytes() + json.dumps(prediction.classes).encode())
    for task in predictor.generation.tasks:
        digest.update(predictor.head(task.name).predict(predictor.features(probe)).probabilities.tobytes())
    return predictor.generation.number, digest.hexdigest()

def say(*values):
    print(json.dumps(values), flush=True)
"""

WRITER = """
learner = Workspace.open(folder).learner()
say(*tag(learner.predictor()))
for task in Workspace.open(folder).waiting(learner):
    learner.learn(task)
    say(*tag(learner.predictor()))
open(folder + "/done", "w").close()
"""

READER = """
learner, count = None, 0
say("ready", "")
while not os.path.exists(folder + "/done"):
    if count % 3 == 0:
        learner = Workspace.open(folder).learner()
    predictor = learner.predictor()
    say(*tag(predictor))
    assert len(learner.predict(probe).labels) == len(probe)
    [record.task for record in learner.state.history()]
    count += 1
"""


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMMON + code, str(folder)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("keep", [8, 1])
def test_readers_see_whole_generations_while_a_writer_learns(
    tmp_path: Path, digits_bundle: Path, digits: Digits, keep: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bundle").symlink_to(digits_bundle)
    (tmp_path / "csk.toml").write_text(
        "[training]\nthreads = 1\nepochs = 2\nfew_shot = 0\ntrain = 'centers'\n"
        f"checkpoint_seconds = 0.0\n[state]\nkeep = {keep}\n"
    )
    for number in range(TASKS):
        task = digits.task(f"{number}", (4 + number, 5 + number) if number < 5 else (4, 5), train=20, test=0)
        renamed = type(task)(task.name, tuple(f"{name}-{number}" for name in task.classes), task.train, None)
        digits.save(renamed, tmp_path / "tasks")
    np.save(tmp_path / "probe.npy", digits.images[:6, :, :, None])

    readers = [start(READER, tmp_path) for _ in range(READERS)]
    for reader in readers:
        assert reader.stdout is not None
        assert json.loads(reader.stdout.readline())[0] == "ready"
    writer = start(WRITER, tmp_path)
    written, errors = writer.communicate(timeout=600)
    assert (writer.returncode, errors) == (0, "")
    expected = dict(json.loads(line) for line in written.splitlines())
    assert list(expected) == list(range(TASKS + 1))
    assert len(set(expected.values())) == TASKS + 1

    seen: list[list[int]] = []
    for reader in readers:
        out, errors = reader.communicate(timeout=600)
        assert (reader.returncode, errors) == (0, "")
        tags = [json.loads(line) for line in out.splitlines()]
        for number, digest in tags:
            assert digest == expected[number], f"torn: a reader saw something else as generation {number}"
        seen.append([number for number, _ in tags])
        assert seen[-1] == sorted(seen[-1]), "a reader went back in time"
    reached = set().union(*seen)
    assert len(reached) > TASKS // 2, "the readers ran beside the writer"
    if keep == 1:
        assert len(list((tmp_path / "state/generations").glob("*.safetensors"))) == 2
    with capsys.disabled():
        print(
            f"\nkeep = {keep}: {sum(map(len, seen))} predictions by {READERS} readers, of generations "
            f"{sorted(reached)}, while a writer learned {TASKS} tasks: none torn, no error"
        )


# The race itself, step by step


def state_at(folder: Path, keep: int = 1) -> State:
    return State.open(folder, "b" * 64, {"t": np.zeros(2, np.float32)}, keep=keep)


def commit(folder: Path, names: str) -> None:
    state = state_at(folder)
    tasks = [LearnedTask(name, ("a", "b"), 1, 2, 0.1, 0.1, 1, {}) for name in names]
    with state.lock():
        state.commit(len(names) - 1, tasks, {"t": np.full(2, len(names), np.float32)})


def test_a_generation_pruned_while_it_is_read_is_read_again_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(tmp_path, "A")
    reader = state_at(tmp_path)
    opened = reader._store.opened
    waiting = ["AB", "ABC", "ABCD"]

    def opened_late(number: int) -> object:
        # Between reading HEAD and reading the tensors, the writer commits twice, and prunes.
        for names in waiting:
            commit(tmp_path, names)
        waiting.clear()
        return opened(number)

    monkeypatch.setattr(reader._store, "opened", opened_late)
    generation = reader.load()
    assert generation.number == 4
    assert generation.tensors["t"].tolist() == [4.0, 4.0]
    with pytest.raises(StateError, match="is missing"):
        reader.load(1)


def test_the_first_commit_seen_half_way_is_not_taken_for_a_lost_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from csk_sdk.state import identity

    exists, asked = identity.exists, []

    def exists_late(path: Path) -> bool:
        there = exists(path)
        if not asked:
            asked.append(path)
            commit(tmp_path / "state", "A")
        return there

    monkeypatch.setattr(identity, "exists", exists_late)
    assert state_at(tmp_path / "state").head() == 1
    assert asked[0].name == "state.json"


# Locks

HOLDER = "import sys, time; from csk_sdk.state.lock import StateLock; from pathlib import Path\n"
HOLDER += "with StateLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(100)"


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StateLockedError, match=rf"Another process \(pid {holder.pid}\) is writing to"):
            StateLock(tmp_path).__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        # Its text is still there, and blocks nobody.
        assert f"pid {holder.pid}" in (tmp_path / LOCK_FILE).read_text()
        commit(tmp_path, "A")


@pytest.mark.parametrize(
    "text", [b"", b"pid 1\n", b"pid 99999999999999999999\n", b"pid x", b"\xff\xfe", bytes(1 << 20)]
)
def test_any_text_in_the_lock_of_a_dead_process_blocks_nobody(tmp_path: Path, text: bytes) -> None:
    (tmp_path / LOCK_FILE).write_bytes(text)
    commit(tmp_path, "A")
    assert state_at(tmp_path).head() == 1
    (tmp_path / LOCK_FILE).write_bytes(text)
    with StateLock(tmp_path), pytest.raises(StateLockedError, match="process"):
        StateLock(tmp_path).__enter__()


def test_a_state_copied_from_a_device_that_was_learning(tmp_path: Path) -> None:
    commit(tmp_path / "state", "A")
    with StateLock(tmp_path / "state"):
        shutil.copytree(tmp_path / "state", tmp_path / "copy")
        begun = time.monotonic()
        commit(tmp_path / "copy", "AB")
        assert time.monotonic() - begun < 30
    assert state_at(tmp_path / "copy").head() == 2
