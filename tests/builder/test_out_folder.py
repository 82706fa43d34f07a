"""The place for the bundle: nothing but a bundle is replaced, and a failed build leaves nothing behind."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from small_models import saved

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import ConfigError, StorageError


def test_out_exists(tmp_path: Path) -> None:
    path, out = saved(tmp_path), tmp_path / "bundle"
    build_artifacts(path, out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(ConfigError) as caught:
        build_artifacts(path, out)
    assert str(caught.value) == (
        f"{out} exists already. Choose another --out, or pass --overwrite to replace it."
    )
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    build_artifacts(path, out, BuildOptions(overwrite=True, batch_size=3))
    assert Bundle.open(out).manifest.batch_size == 3


def test_an_empty_folder_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    build_artifacts(saved(tmp_path), tmp_path / "bundle")
    Bundle.open(tmp_path / "bundle")


def test_overwrite_replaces_nothing_but_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"dear to someone")
    with pytest.raises(ConfigError) as caught:
        build_artifacts(saved(tmp_path), tmp_path / "photos", BuildOptions(overwrite=True))
    assert f"{tmp_path / 'photos'} is not a bundle, so --overwrite will not replace it." in str(caught.value)
    assert (tmp_path / "photos" / "cat.png").read_bytes() == b"dear to someone"


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_in_the_place_of_the_bundle(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "bundle").write_text("a file")
    with pytest.raises(ConfigError, match=r"bundle (exists already|is not a bundle)"):
        build_artifacts(saved(tmp_path), tmp_path / "bundle", BuildOptions(overwrite=overwrite))
    assert (tmp_path / "bundle").read_text() == "a file"


@pytest.mark.slow
@pytest.mark.parametrize("written", range(6))
@pytest.mark.parametrize("overwrite", [True, False])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, overwrite: bool) -> None:
    path, out = saved(tmp_path), tmp_path / "bundle"
    if overwrite:
        build_artifacts(path, out)
    before = {file.name: file.read_bytes() for file in out.iterdir()} if overwrite else None
    write_bytes, calls = Path.write_bytes, []

    def full(self: Path, data: bytes) -> int:
        calls.append(self.name)
        if len(calls) > written:
            self.open("wb").close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError) as caught:
        build_artifacts(path, out, BuildOptions(overwrite=overwrite))
    monkeypatch.undo()
    assert str(caught.value) == (
        f"The bundle could not be written to {out} (No space left on device). Nothing was left behind."
    )
    if before is None:
        assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    else:
        assert sorted(file.name for file in tmp_path.iterdir()) == ["bundle", "model.onnx"]
        assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_full_disk_while_writing_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "manifest.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    path = saved(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left on device"):
        build_artifacts(path, tmp_path / "bundle")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="could not be written"):
        build_artifacts(saved(tmp_path), tmp_path / "file" / "bundle")


def test_a_bundle_may_be_written_where_you_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    monkeypatch.chdir(tmp_path)
    build_artifacts(path, "bundle")
    build_artifacts(path, Path("new") / "folders" / "bundle")
    Bundle.open(tmp_path / "bundle")
    Bundle.open(tmp_path / "new" / "folders" / "bundle")


def test_the_current_folder_may_become_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    (tmp_path / "bundle").mkdir()
    monkeypatch.chdir(tmp_path / "bundle")
    build_artifacts(path, ".")
    Bundle.open(tmp_path / "bundle")
