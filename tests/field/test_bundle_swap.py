"""`build-artifacts --overwrite`, killed or without power at any moment: a whole bundle is there, the old or the new."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from csk_artifacts_builder.bundle_writer import BundleDraft
from csk_sdk import Bundle, BundleError, StorageError
from csk_sdk.state import atomic, swap
from csk_sdk.state.swap import aside, remove_folder, replace_folder, restore_folder
from field.simulated_disk import Recorder, Tree, crash_states, final_tree, read_tree, write_tree

OLD: Tree = {"manifest.json": b"old manifest", "weights": b"old weights", "ort/": b"", "ort/x": b"old x"}
NEW: Tree = {"manifest.json": b"new manifest", "weights": b"new weights", "ort/": b"", "ort/y": b"new y"}


def cannot_exchange(*_: object) -> bool:
    return False


@pytest.fixture(params=["exchanged", "renamed aside"])
def exchanges(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "exchanged")


@contextmanager
def recorded(disk: Path, exchanges: bool, drop: str = "") -> Iterator[Recorder]:
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(disk, drop)
        patch.setattr(atomic, "os", recorder)
        patch.setattr(swap, "os", recorder)
        patch.setattr(swap, "exchange", recorder.exchange if exchanges else cannot_exchange)
        yield recorder


def write_new(recorder: Recorder, folder: Path) -> None:
    """The new bundle, written as the builder does it: nothing is synced."""
    recorder.mkdir(folder)
    for name, content in sorted(NEW.items()):
        if name.endswith("/"):
            recorder.mkdir(folder / name.rstrip("/"))
            continue
        descriptor = recorder.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        recorder.write(descriptor, content)
        recorder.close(descriptor)


def replaced(disk: Path, exchanges: bool, there: bool = True, drop: str = "") -> Recorder:
    if there:
        (disk / "bundle").mkdir()
        write_tree(disk / "bundle", OLD)
    with recorded(disk, exchanges, drop) as recorder:
        write_new(recorder, disk / "draft")
        replace_folder(disk / "draft", disk / "bundle")
    return recorder


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False], ids=["over another", "the first"])
def test_every_disk_that_a_power_cut_can_leave(tmp_path: Path, exchanges: bool, there: bool) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    recorder = replaced(disk, exchanges, there)
    assert read_tree(disk / "bundle") == NEW
    assert {name.split("/")[0] for name in read_tree(disk)} == {"bundle"}
    assert final_tree(recorder) == read_tree(disk)
    found, missing, moments = set(), 0, 0
    for moment, tree in crash_states(recorder):
        moments += 1
        shutil.rmtree(disk)
        disk.mkdir()
        write_tree(disk, tree)
        missing += not (disk / "bundle").exists()
        restore_folder(disk / "bundle")
        left = read_tree(disk / "bundle") if (disk / "bundle").exists() else None
        assert left in ([OLD, NEW] if there else [None, NEW]), moment
        if moment == len(recorder.log):
            assert left == NEW
        found.add(left is not None and left == NEW)
        assert not aside(disk / "bundle").exists()
    assert found == {True, False}
    assert moments > 20
    # Exchanged, there is a bundle at every moment, and nothing to be restored.
    assert not there or missing == 0 or not exchanges


@pytest.mark.slow
@pytest.mark.parametrize("forgotten", ["file sync", "folder sync"])
def test_a_forgotten_sync_would_be_found(tmp_path: Path, exchanges: bool, forgotten: str) -> None:
    recorder = replaced(tmp_path, exchanges, drop=forgotten)
    torn = 0
    for _, tree in crash_states(recorder):
        at = {name.removeprefix("bundle/"): data for name, data in tree.items() if name.startswith("bundle/")}
        at.pop("", None)
        torn += at not in ({}, OLD, NEW)
    assert torn > 0


class Killed(BaseException):
    """As a kill: nothing catches it."""


class Deadly:
    """`os`, whose call that `at` numbers, of those that change or sync, is never reached."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("open", "fsync", "replace", "unlink", "rmdir"):
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise Killed
            return real(*arguments, **options)

        return call


@pytest.fixture
def out(tmp_path: Path, digits_bundle: Path) -> Path:
    return Path(shutil.copytree(digits_bundle, tmp_path / "out"))


def draft_of(out: Path, bundle: Path) -> BundleDraft:
    draft = BundleDraft(out, overwrite=True)
    shutil.copytree(bundle, draft.folder)
    (draft.folder / "new").write_text("")
    return draft


@pytest.mark.slow
def test_a_build_that_is_killed_while_it_publishes(
    out: Path, digits_bundle: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    seen = set()
    for call in range(1, 200):
        shutil.rmtree(out)
        shutil.copytree(digits_bundle, out)
        draft = draft_of(out, digits_bundle)
        deadly = Deadly(call)
        with monkeypatch.context() as patch:
            patch.setattr(swap, "os", deadly)
            patch.setattr(atomic, "os", deadly)
            if not exchanges:
                patch.setattr(swap, "exchange", cannot_exchange)
            try:
                draft.publish()
                killed = False
            except Killed:
                killed = True
        if not out.exists():
            assert not exchanges
            with pytest.raises(
                BundleError, match=r"a build was killed just when it .* is in .*\.out\.replaced;"
            ):
                Bundle.open(out)
            BundleDraft(out, overwrite=True)  # the next build puts the old one back first
        Bundle.open(out)
        seen.add((out / "new").exists())
        remove_folder(draft.folder)
        if not killed:
            break
    assert seen == {True, False}
    assert call > 20
    assert not killed
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_disk_that_refuses_the_second_rename(
    out: Path, digits_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = draft_of(out, digits_bundle)
    real = swap.rename

    def rename(source: Path, target: Path) -> None:
        if source == draft.folder:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(swap, "exchange", cannot_exchange)
    monkeypatch.setattr(swap, "rename", rename)
    with pytest.raises(StorageError, match=r"could not be written to .* Nothing was left behind"), draft:
        draft.publish()
    Bundle.open(out)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_drafts_of_killed_builds_are_removed(out: Path) -> None:
    old, young = (out.parent / f".out.building-{number}" for number in (1, 2))
    for folder in (old, young, out.parent / ".other.building-1"):
        folder.mkdir()
        (folder / "weights").write_text("x")
        os.utime(folder, (0, 0))
    os.utime(young, (time.time(), time.time()))
    BundleDraft(out, overwrite=True)
    assert sorted(path.name for path in out.parent.iterdir()) == [
        ".other.building-1",
        ".out.building-2",
        "out",
    ]


def test_what_a_link_leads_to_is_not_removed(tmp_path: Path, digits_bundle: Path, out: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(out)
    draft_of(link, digits_bundle).publish()
    assert (link / "new").exists()
    Bundle.open(out)
    assert not (out / "new").exists()
