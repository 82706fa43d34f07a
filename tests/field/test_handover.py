"""A bundle and its state exchanged together for others, killed or without power at any moment: both, or neither."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from csk_sdk import StateError, StateLockedError
from csk_sdk.state import atomic, handover, swap
from csk_sdk.state.handover import Places, commit, commit_back, finish, handing_over
from csk_sdk.state.lock import StateLock
from csk_sdk.state.sealing import seal
from field.simulated_disk import Recorder, crash_states, read_tree, write_tree

KINDS = ("old", "new")


def identity(kind: str) -> str:
    return hashlib.sha256(f"{kind} manifest".encode()).hexdigest()


def bundle(folder: Path, kind: str) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text(f"{kind} manifest")
    (folder / "weights").write_text(f"{kind} weights")


def state(folder: Path, kind: str) -> None:
    folder.mkdir()
    (folder / "state.json").write_bytes(seal({"schema_version": 1, "bundle_id": identity(kind)}))
    (folder / "HEAD").write_text(f"{kind} head")


def device(folder: Path, learned: bool = True) -> Places:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    places = Places(folder / "bundle", folder / "state")
    bundle(places.bundle, "old")
    if learned:
        state(places.state, "old")
    return places


def what(places: Places) -> str:
    """Which of both kinds is there, whole; nothing else of them counts."""
    kind = (places.bundle / "manifest.json").read_text().split()[0]
    assert (places.bundle / "weights").read_text() == f"{kind} weights"
    if places.state.exists():
        assert (places.state / "HEAD").read_text() == f"{kind} head"
        assert identity(kind) in (places.state / "state.json").read_text()
    return kind


def make(places: Places, learned: bool = True) -> None:
    """A handover to the new ones."""
    with handing_over(places):
        into = places.next()
        bundle(into[0], "new")
        if learned:
            state(into[1], "new")
        commit(places, identity("new"))


def take_back(places: Places) -> None:
    with handing_over(places):
        commit_back(places, identity("old"))


def cannot_exchange(*_: object) -> bool:
    return False


@pytest.fixture(params=["exchanged", "renamed aside"])
def exchanges(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "exchanged")


class Killed(BaseException):
    """As a kill: nothing catches it."""


class Deadly:
    """`os` of which no call is reached any more once `at` calls that change or sync something were."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("open", "fsync", "replace", "unlink", "rmdir", "mkdir", "write"):
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            self.count()
            return real(*arguments, **options)

        return call

    def count(self) -> None:
        self.calls += 1
        if self.calls >= self.at:
            raise Killed


def killed(monkeypatch: pytest.MonkeyPatch, at: int, act: Any, places: Places, exchanges: bool) -> bool:
    deadly, real = Deadly(at), swap.exchange

    def exchange(one: Path, other: Path) -> bool:
        deadly.count()
        return exchanges and real(one, other)

    with monkeypatch.context() as patch:
        # Not the lock's: the system drops that of a process that is killed.
        for module in (atomic, swap):
            patch.setattr(module, "os", deadly)
        patch.setattr(swap, "exchange", exchange)
        try:
            act(places)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("learned", [True, False], ids=["learned", "nothing learned"])
@pytest.mark.parametrize("back", [False, True], ids=["there", "and back"])
def test_killed_before_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool, back: bool, learned: bool
) -> None:
    seen = []
    for at in range(1, 300):
        places = device(tmp_path / "device", learned)
        if back:
            make(places, learned)
        act = take_back if back else (lambda places: make(places, learned))
        ended = not killed(monkeypatch, at, act, places, exchanges)
        # Killed once more while it is finished.
        killed(
            monkeypatch, 1 + at % 17, lambda places: finish(places.bundle, places.state), places, exchanges
        )
        finish(places.bundle, places.state)
        seen.append(what(places))
        assert not places.journal.exists()
        # The next one begins afresh, and leaves nothing lying about.
        with handing_over(places):
            pass
        left = {path.name for path in places.bundle.parent.iterdir()}
        assert left - {"bundle", "state", "bundle.before", "state.before"} == {".state.upgrade"}
        assert what(places) == seen[-1]
        if ended:
            break
    order = ("new", "old") if back else KINDS
    first = seen.index(order[1])
    assert first > 0
    # From one moment on, the others count.
    assert seen == [order[0]] * first + [order[1]] * (len(seen) - first)
    assert ended
    assert len(seen) > 15


@pytest.mark.slow
def test_every_disk_that_a_power_cut_can_leave(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    places = device(disk)
    for folder, write in zip(places.next(), (bundle, state), strict=True):
        write(folder, "new")
    places.lock.mkdir()
    (places.lock / "lock").write_text("")
    with pytest.MonkeyPatch.context() as patch, StateLock(places.lock):
        recorder = Recorder(disk)
        for module in (atomic, swap):
            patch.setattr(module, "os", recorder)
        patch.setattr(swap, "exchange", recorder.exchange)
        commit(places, identity("new"))
        handover._go_on(places)
    found = set()
    for moment, tree in crash_states(recorder):
        shutil.rmtree(disk)
        disk.mkdir()
        write_tree(disk, tree)
        finish(places.bundle, places.state)
        kind = what(places)
        found.add(kind)
        assert kind == "new" or moment < len(recorder.log)
    assert found == set(KINDS)
    assert read_tree(disk)


def test_an_error_within_changes_nothing(tmp_path: Path) -> None:
    places = device(tmp_path / "device")

    def fails() -> None:
        with handing_over(places):
            bundle(places.next()[0], "new")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert what(places) == "old"
    assert not places.next()[0].exists()


def test_only_one_hands_over_at_a_time(tmp_path: Path) -> None:
    places = device(tmp_path / "device")
    with handing_over(places), pytest.raises(StateLockedError, match="is writing to"), handing_over(places):
        pass


def test_no_way_back_from_what_never_was(tmp_path: Path) -> None:
    places = device(tmp_path / "device")
    with pytest.raises(StateError, match="There is no way back"):
        take_back(places)
    assert what(places) == "old"


def test_a_second_upgrade_leaves_the_way_back_to_the_first(tmp_path: Path) -> None:
    places = device(tmp_path / "device")
    make(places)
    with handing_over(places):
        bundle(places.next()[0], "newest")
        state(places.next()[1], "newest")
        commit(places, identity("newest"))
    assert what(places) == "newest"
    with handing_over(places):
        commit_back(places, identity("new"))
    assert what(places) == "new"


def test_what_is_a_link_stays_one(tmp_path: Path) -> None:
    """A container mounts its state somewhere else: the names are links then."""
    real = device(tmp_path / "real")
    places = Places(tmp_path / "bundle", tmp_path / "state")
    places.bundle.symlink_to(real.bundle)
    places.state.symlink_to(real.state)
    make(places)
    assert what(places) == "new"
    take_back(places)
    assert what(places) == "old"
    assert places.state.is_symlink()
