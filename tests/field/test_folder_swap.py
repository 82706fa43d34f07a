"""What `swap` makes of what systems answer that cannot exchange two names, or not rename a folder."""

from __future__ import annotations

import ctypes
import errno
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from csk_sdk.state import swap
from csk_sdk.state.swap import aside, exchange, remove_folder, replace_folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A new folder and an old one, with one file in each."""
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "what").write_text(name)
    return tmp_path / "new", tmp_path / "old"


def answer(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """renameat2 fails so."""

    def renameat2(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(renameat2=renameat2))


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM, errno.EXDEV])
def test_where_names_cannot_be_exchanged_folders_are_renamed(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    answer(monkeypatch, code)
    assert not exchange(*folders)
    replace_folder(*folders)
    assert (folders[1] / "what").read_text() == "new"
    assert [path.name for path in folders[1].parent.iterdir()] == ["old"]


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ENOSPC])
def test_any_other_answer_is_an_error_and_nothing_has_moved(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    answer(monkeypatch, code)
    with pytest.raises(OSError, match=str(folders[0])) as caught:
        replace_folder(*folders)
    assert caught.value.errno == code
    assert [(one / "what").read_text() for one in folders] == ["new", "old"]


@pytest.mark.parametrize("platform", ["win32", "darwin", "linux"])
def test_other_systems_and_c_libraries_have_no_such_call(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    assert not exchange(*folders)


def test_where_the_second_rename_fails_the_old_one_is_back(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = folders
    real = swap.rename

    def rename(source: Path, target: Path) -> None:
        if source == new:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(swap, "exchange", lambda *_: False)
    monkeypatch.setattr(swap, "rename", rename)
    with pytest.raises(OSError, match="Input/output error"):
        replace_folder(new, old)
    assert [(one / "what").read_text() for one in folders] == ["new", "old"]
    assert not aside(old).exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EXDEV, "it lies in the lower layer of an overlay"), (errno.EIO, "no more")],
)
def test_a_folder_that_cannot_be_renamed(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    """As in a container's image, where a folder is in a layer that is not to be written."""

    def rename(source: Path, target: Path) -> None:
        raise OSError(code, "no more")

    monkeypatch.setattr(swap, "exchange", lambda *_: False)
    monkeypatch.setattr(swap, "rename", rename)
    with pytest.raises(OSError, match=words) as caught:
        replace_folder(*folders)
    assert caught.value.errno == code
    assert [(one / "what").read_text() for one in folders] == ["new", "old"]


def test_a_link_is_removed_and_what_it_leads_to_stays(folders: tuple[Path, Path], tmp_path: Path) -> None:
    new, old = folders
    (tmp_path / "link").symlink_to(old)
    (new / "inner").symlink_to(old)
    (new / "deeper").mkdir()
    remove_folder(tmp_path / "link")
    remove_folder(new)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (old / "what").read_text() == "old"
