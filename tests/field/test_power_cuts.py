"""Power cuts: after each, whatever the disk kept, the state opens, is whole, and training ends with the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from csk_sdk.errors import CskError
from csk_sdk.state import atomic, blocks, lock
from field.field_device import Device
from field.simulated_disk import TEMPORARY, Names, Recorder, Sync, Tree, crash_states, final_tree, read_tree


@contextmanager
def recorded(device: Device, monkeypatch: pytest.MonkeyPatch, drop: str = "") -> Iterator[Recorder]:
    with monkeypatch.context() as patch:
        recorder = Recorder(device.disk, drop)
        patch.setattr(atomic, "os", recorder)
        patch.setattr(lock, "os", recorder)
        yield recorder


def acknowledged(recorder: Recorder) -> list[int]:
    """For each commit, from when on it must survive: just behind the sync of the folder of its HEAD."""
    moments = []
    for index, operation in enumerate(recorder.log):
        if isinstance(operation, Names) and operation.entries.get("HEAD") is not None:
            sync = recorder.log.index(Sync(operation.folder), index)
            moments.append(sync + 1)
    return moments


def survives(device: Device, tree: Tree, at_least: int, at_most: int) -> int:
    """`tree` opens with a whole generation in that range, those before it too; training then ends as expected."""
    device.put(tree)
    found = device.learner().generation.number
    assert at_least <= found <= at_most
    for number in range(found + 1):
        assert device.bits(number) == device.expected[number]
    done = device.train()
    assert (done.status, done.err) == (0, "")
    after = min(found + 1, max(device.expected))
    assert device.state().load().number == after
    assert device.bits() == device.expected[after]
    if after > found:
        left = [name for name in read_tree(device.disk) if TEMPORARY.fullmatch(Path(name).name)]
        # Scores are written without the lock, so what may be another process's is left for an hour.
        assert not [name for name in left if "/scores/" not in name]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("learned", "block_classes"), [(0, 128), (1, 128), (0, 2), (1, 2)])
def test_every_disk_that_a_power_cut_during_train_can_leave(
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    learned: int,
    block_classes: int,
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CLASSES", block_classes)
    for _ in range(learned):
        assert device.train().status == 0
    with recorded(device, monkeypatch) as recorder:
        assert device.train().status == 0
    # The log is complete: played on the disk as it was before, it gives the disk as it is now.
    assert final_tree(recorder) == read_tree(device.disk)
    commits = acknowledged(recorder)
    assert len(commits) == (2 if learned == 0 else 1), "the first commit writes a HEAD of 0 before"

    heads = {learned: 0, learned + 1: 0}
    disks, seen = 0, {}
    for moment, tree in crash_states(recorder):
        at_least = learned + (moment >= commits[-1])
        key = tuple(sorted(tree.items()))
        disks += 1
        if key not in seen:
            seen[key] = survives(device, tree, at_least, learned + 1)
            heads[seen[key]] += 1
        assert seen[key] >= at_least
    assert all(heads.values())
    with capsys.disabled():
        print(
            f"\n{len(recorder.log) + 1} crash points of one train after {learned} tasks: {disks} disks, "
            f"{len(seen)} of them different, {heads[learned]} before the commit and {heads[learned + 1]} after; "
            "each opened, was whole, and ended with the same bits"
        )


@pytest.mark.slow
@pytest.mark.parametrize("forgotten", ["file sync", "folder sync"])
def test_a_forgotten_sync_would_be_found(
    device: Device, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    assert device.train().status == 0
    state = device.learner().state
    generation = state.load()
    with recorded(device, monkeypatch, drop=forgotten) as recorder, state.lock():
        state.commit(1, generation.tasks, generation.tensors)
    lost = 0
    for moment, tree in crash_states(recorder):
        if moment == len(recorder.log):
            device.put(tree)
            try:
                lost += device.learner().generation.number != 2
            except CskError:
                lost += 1
    assert lost > 0
