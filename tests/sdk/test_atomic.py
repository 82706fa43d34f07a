from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from csk_sdk.errors import StorageError
from csk_sdk.state import atomic
from small_disk import mounted


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, call, fail)


def test_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "HEAD"
    atomic.replace_file(path, b"1")
    atomic.replace_file(path, b"")
    assert path.read_bytes() == b""
    atomic.replace_file(path, b"x" * 100_000, durable=False)
    assert path.read_bytes() == b"x" * 100_000
    assert names(tmp_path) == ["HEAD"]


FULL = "The disk is full: could not write 3 bytes to {path}. Free some space and run the command again; "
LOST = "nothing that was learned is lost."
ERRORS = [
    (errno.ENOSPC, FULL + LOST),
    (errno.EDQUOT, FULL + LOST),
    (errno.EFBIG, FULL + LOST),
    (
        errno.EROFS,
        "The file system is read-only: could not write 3 bytes to {path}. Remount it writable, or choose "
        "another folder; " + LOST,
    ),
    (
        errno.EACCES,
        "Permission denied: could not write 3 bytes to {path}. Give this user the right to write there, or "
        "choose another folder; " + LOST,
    ),
    (
        errno.EIO,
        "The disk refused: could not write 3 bytes to {path} (Input/output error). Check the disk and the "
        "path, and run the command again; " + LOST,
    ),
]


@pytest.mark.parametrize(("code", "message"), ERRORS)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_an_error_names_the_file_and_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, message: str
) -> None:
    path = tmp_path / "HEAD"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        refuse(patch, call, code)
        with pytest.raises(StorageError) as caught:
            atomic.replace_file(path, b"new")
    assert str(caught.value) == message.format(path=path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["HEAD"]


def test_every_byte_is_written_when_the_system_takes_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(atomic.os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    atomic.replace_file(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_the_file_is_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            atomic.os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1]
        )
    atomic.replace_file(tmp_path / "a", b"1")
    assert calls == (["fsync", "replace"] if os.name == "nt" else ["fsync", "replace", "fsync"])
    calls.clear()
    atomic.replace_file(tmp_path / "a", b"2", durable=False)
    assert calls == ["fsync", "replace"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fsync of folders")
@pytest.mark.parametrize(("code", "passes"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_without_fsync_of_folders_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, passes: bool
) -> None:
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}") or os.path.isdir(f"/dev/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", only_files)
    if passes:
        atomic.replace_file(tmp_path / "a", b"1")
    else:
        with pytest.raises(StorageError, match="The disk refused"):
            atomic.replace_file(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"


def test_make_folder_makes_parents_and_names_what_is_in_the_way(tmp_path: Path) -> None:
    atomic.make_folder(tmp_path / "a" / "b")
    atomic.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"could not create the folder .*file \(a file of that name"):
        atomic.make_folder(tmp_path / "file")
    with pytest.raises(StorageError, match="could not create the folder"):
        atomic.make_folder(tmp_path / "file" / "below")


def test_clear_temporaries_takes_only_its_own_and_only_old_ones(tmp_path: Path) -> None:
    left = [tmp_path / ".HEAD.12-ab.csk-tmp", tmp_path / ".000001.json.9-cd.csk-tmp"]
    kept = [tmp_path / "HEAD", tmp_path / "a.csk-tmp", tmp_path / ".hidden"]
    for path in left + kept:
        path.touch()
    os.utime(left[0], (time.time() - 100, time.time() - 100))
    atomic.clear_temporaries(tmp_path, minimum_age=50)
    assert not left[0].exists()
    assert left[1].exists()
    atomic.clear_temporaries(tmp_path)
    assert names(tmp_path) == sorted(path.name for path in kept)
    atomic.clear_temporaries(tmp_path / "missing")


def test_remove_file_says_whether_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    assert atomic.remove_file(path)
    assert atomic.remove_file(path)
    path.mkdir()
    assert not atomic.remove_file(path)


def test_a_disk_without_inodes_says_so(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "1m", inodes=4) as disk:
        for number in range(3):
            (disk / str(number)).touch()
        with pytest.raises(StorageError) as caught:
            atomic.replace_file(disk / "x", b"x")
        assert str(caught.value).startswith(
            "The disk can hold no more files (all its inodes are used): could not"
        )
        assert not (disk / "x").exists()


def test_what_a_killed_process_left_of_one_file(tmp_path: Path) -> None:
    names = [
        ".model.onnx.1-ab.csk-tmp",
        ".model.onnx.2-cd.csk-tmp",
        ".other.1-ab.csk-tmp",
        "model.onnx",
        ".model.onnx.x",
    ]
    for name in names:
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (0, 0))
    os.utime(tmp_path / names[1])
    atomic.clear_temporaries(tmp_path, 3600.0, of="model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
