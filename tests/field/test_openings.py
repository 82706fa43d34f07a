"""Files read by their names: no pipe is waited for, no device read, no link followed out."""

from __future__ import annotations

import ast
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csk_sdk import Bundle, BundleError, FleetError, Inbox, StateError, Task, TaskError, fleet
from csk_sdk.bundle.signing import SIGNATURE
from csk_sdk.cli.class_file import read_classes
from csk_sdk.contract.manifest import MANIFEST
from csk_sdk.data.metadata import METADATA
from csk_sdk.errors import ConfigError
from csk_sdk.formats.opening import RefusedError, open_file, read_file
from csk_sdk.state.lock import StateLock

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("sdk/csk_sdk", "artifacts_builder/csk_artifacts_builder", "device_runners/csk_device_runners")

# Whatever hangs here shall not hang for long.
pytestmark = pytest.mark.timeout(120)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_socket(path: Path) -> None:
    # A socket's path is short, so it is bound from its own folder.
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def a_folder(path: Path) -> None:
    path.mkdir()


ODD = (a_pipe, a_device, a_socket, a_folder)


@pytest.mark.parametrize("make", ODD)
def test_only_ordinary_files_are_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    with pytest.raises(RefusedError, match="not an ordinary file"):
        open_file(tmp_path / "x")
    with pytest.raises(RefusedError, match=r"not an ordinary file|a link that leads out of"):
        open_file(tmp_path / "x", within=tmp_path)


@pytest.mark.parametrize("make", ODD)
def test_what_takes_a_files_place_just_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    real, path = os.open, tmp_path / "x"

    def swapped(name: str, *arguments: object, **keywords: object) -> int:
        if Path(name).name == "x":
            path.unlink()
            make(path)
        return real(name, *arguments, **keywords)

    for within in (None, tmp_path):
        path.write_bytes(b"good")
        monkeypatch.setattr(os, "open", swapped)
        # A socket cannot be opened at all, and a link is not followed.
        with pytest.raises(OSError, match=r"not an ordinary file|No such device or address|Too many levels"):
            open_file(path, within)
        monkeypatch.undo()
        path.rmdir() if path.is_dir() else path.unlink()


def test_links_lead_anywhere_inside_a_folder_and_nowhere_else(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside.txt"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/x.txt").write_bytes(b"inside")
    outside.write_bytes(b"outside")
    (folder / "file").symlink_to("a/b/x.txt")
    (folder / "deep").symlink_to("a/b")
    (tmp_path / "named").symlink_to(folder)  # what an operator names may be a link
    for name in ("file", "deep/x.txt", "a/../a/b/x.txt"):
        assert read_file(folder / name, 10, folder) == b"inside"
        assert read_file(tmp_path / "named" / name, 10, tmp_path / "named") == b"inside"
    (folder / "out").symlink_to(outside)
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    for name in ("out", "up/outside.txt", "../outside.txt"):
        with pytest.raises(RefusedError, match="it is a link that leads out of"):
            read_file(folder / name, 10, folder)
    with pytest.raises(OSError, match="not an ordinary file"):
        read_file(folder / "loop", 10, folder)
    assert read_file(folder / "out", 10) == b"outside"
    with pytest.raises(FileNotFoundError):
        read_file(folder / "none", 10, folder)


def test_a_folder_swapped_for_a_link_on_the_way_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    (folder / "a").mkdir(parents=True)
    (folder / "a/x.txt").write_bytes(b"inside")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.txt").write_bytes(b"outside")
    real = os.open

    def swapped(name: object, *arguments: object, **keywords: object) -> int:
        if name == "a":
            shutil.rmtree(folder / "a")
            (folder / "a").symlink_to(tmp_path / "elsewhere")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        read_file(folder / "a/x.txt", 10, folder)


def test_sizes_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(RefusedError, match="5 bytes, and 4 are the most that it may have"):
        read_file(path, 4)
    os.truncate(path, 1 << 40)  # sparse: it takes no room on the disk
    with pytest.raises(RefusedError, match="1,099,511,627,776 bytes"):
        open_file(path, most=1 << 30)


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "x", os.fstat
    path.write_bytes(b"1")

    def grown(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        os.truncate(path, 1 << 40)
        return status

    monkeypatch.setattr(os, "fstat", grown)
    with pytest.raises(RefusedError, match="more than the 3,000,000 bytes that it may have"):
        read_file(path, 3_000_000)


@pytest.mark.parametrize("name", ["a\0b", "\udcff\ud800"])
def test_names_that_none_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"its name is none that a file can have|No such file"):
        open_file(tmp_path / name)


# Tasks


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks/01/train"
    folder.mkdir(parents=True)
    for index in range(2):
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(folder / f"{index}.png")
    (folder / METADATA).write_text("file_name,cat,dog\n0.png,1,0\n1.png,0,1\n")
    assert Task.open(folder.parent).train is not None
    return folder


@pytest.mark.parametrize("make", ODD)
def test_metadata_that_is_no_file_is_refused(table: Path, make: Callable[[Path], None]) -> None:
    (table / METADATA).unlink()
    make(table / METADATA)
    with pytest.raises(TaskError, match=r"metadata\.csv cannot be read \((not an ordinary|it is a link)"):
        Task.open(table.parent)


def test_metadata_from_outside_the_task_is_not_read(table: Path, tmp_path: Path) -> None:
    (table / METADATA).rename(tmp_path / "secret.csv")
    (table / METADATA).symlink_to(tmp_path / "secret.csv")
    with pytest.raises(TaskError, match=r"cannot be read \(it is a link that leads out of .*tasks/01\)"):
        Task.open(table.parent)
    # Inside the task a link is fine.
    (table / METADATA).unlink()
    (tmp_path / "secret.csv").rename(table.parent / "labels.csv")
    (table / METADATA).symlink_to("../labels.csv")
    assert Task.open(table.parent).classes == ("cat", "dog")


def test_metadata_of_a_terabyte_is_not_read(table: Path) -> None:
    os.truncate(table / METADATA, 1 << 40)
    with pytest.raises(TaskError, match=r"metadata\.csv cannot be read \(1,099,511,627,776 bytes"):
        Task.open(table.parent)


@pytest.mark.parametrize("suffix", [".png", ".wav", ".npy"])
def test_a_file_swapped_for_a_link_after_the_task_was_opened_is_not_read(tmp_path: Path, suffix: str) -> None:
    secret = tmp_path / f"secret{suffix}"
    for name in ("a", "b"):
        path = tmp_path / f"tasks/01/train/{name}/x{suffix}"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    secret.write_bytes(b"x")
    train = Inbox(tmp_path / "tasks").open("01").train
    assert train is not None
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(TaskError, match="it is a link that leads out of"):
        train.images.identity(1)
    with pytest.raises(TaskError, match="it is a link that leads out of"):
        train.images.read(1)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(TaskError, match="not an ordinary file"):
        train.images.read(1)


# Bundles, states, settings


@pytest.mark.parametrize(
    "name", [MANIFEST, "eval_model.onnx", "weights.safetensors", "checkpoint.safetensors"]
)
@pytest.mark.parametrize("make", ODD)
def test_a_bundles_file_that_is_none(
    tmp_path: Path, digits_bundle: Path, name: str, make: Callable[[Path], None]
) -> None:
    bundle = Path(shutil.copytree(digits_bundle, tmp_path / "bundle"))
    (bundle / name).unlink()
    make(bundle / name)
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", [MANIFEST, "eval_model.onnx"])
def test_a_bundles_file_from_elsewhere(tmp_path: Path, digits_bundle: Path, name: str) -> None:
    bundle = Path(shutil.copytree(digits_bundle, tmp_path / "bundle"))
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="a link that leads out of"):
        Bundle.open(bundle)


@pytest.mark.parametrize("make", ODD)
def test_a_signature_and_a_key_that_are_no_files(
    tmp_path: Path, digits_bundle: Path, make: Callable[[Path], None]
) -> None:
    from field.test_signing import write_keys

    _, trust = write_keys(tmp_path, "ours")
    bundle = Path(shutil.copytree(digits_bundle, tmp_path / "bundle"))
    make(bundle / SIGNATURE)
    with pytest.raises(BundleError, match=r"manifest\.sig cannot be read \("):
        Bundle.open(bundle, trust)
    trust.unlink()
    make(trust)
    with pytest.raises(ConfigError, match=r"The key .* cannot be read \(not an ordinary file\)"):
        Bundle.open(bundle, trust)


@pytest.mark.parametrize("make", ODD)
def test_a_file_of_a_fleet_that_is_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "hall.cskc")
    with pytest.raises(FleetError, match=r"cannot be read as a \.cskc file \(not an ordinary file\)"):
        fleet.inspect(tmp_path / "hall.cskc")


@pytest.mark.parametrize("make", ODD)
def test_a_class_file_that_is_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "classes.txt")
    with pytest.raises(ConfigError, match=r"--classes .* cannot be read \(not an ordinary file\)"):
        read_classes(tmp_path / "classes.txt")


def test_the_lock_is_not_written_into_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StateError, match="lock"), StateLock(tmp_path / "state"):
        pass
    assert (tmp_path / "precious").read_text() == "content"


# The code


# Calls that may open a file by its name, by what they end with.
OPENERS = {
    "open", "read_text", "read_bytes", "load", "load_file", "load_model", "fromfile", "memmap", "loadtxt", "genfromtxt",
    "safe_open", "ZipFile", "is_zipfile", "TarFile", "InferenceSession", "load_checkpoint", "CheckpointState", "Module",
    "mmap", "copyfile", "copytree", "copyfileobj", "copy2", "move", "load_external_data_for_model", "check_model",
    "FileIO", "fdopen", "open_code", "run_path", "spec_from_file_location", "imread", "read_csv", "ExternalTensor",
}  # fmt: skip
# Those of our own, which end at the one function.
OURS = {
    "Bundle.open", "State.open", "Task.open", "Workspace.open", "Learner.open", "inbox.open", "space.inbox.open",
    "self.inbox.open", "self._space.inbox.open", "self.state.load", "state.load", "self._optimizer.load",
    "self._targets.load", "digits.load", "life.open", "self._life.open", "learner.state.load", "Upgrade.open",
    "self._state().load", "FleetFile.open",
}  # fmt: skip

# What is opened in another way all the same, and why.
ALLOWED = {
    ("csk_sdk/cli/lost_output.py", "os.open"): "the null device, to write nowhere",
    ("csk_sdk/fleet/serving.py", "place.open"): "written under a name that was just drawn",
    ("csk_sdk/formats/opening.py", "io.open"): "the one function itself",
    ("csk_sdk/formats/opening.py", "os.open"): "the one function itself",
    ("csk_sdk/state/atomic.py", "os.open"): "to write a new file, and to sync a folder",
    ("csk_sdk/runtime/int8_sums.py", "ort.InferenceSession"): "gets a model in memory",
    ("csk_sdk/formats/schema.py", "file.read_text"): "csk_sdk's own, in its package",
    (
        "csk_sdk/contract/settings.py",
        "(resources.files('csk_sdk.contract') / 'settings.json').read_text",
    ): "csk_sdk's own, in its package",
    ("csk_sdk/runtime/peak_memory.py", "Path('/proc/meminfo').read_text"): "the kernel's",
    (
        "csk_sdk/contract/sentences.py",
        "(resources.files('csk_sdk.contract') / 'sentences.json').read_text",
    ): "csk_sdk's own, in its package",
    (
        "csk_sdk/contract/thresholds.py",
        "(resources.files('csk_sdk.contract') / 'thresholds.json').read_text",
    ): "csk_sdk's own, in its package",
    (
        "csk_sdk/state/handover.py",
        "shutil.copytree",
    ): "of a bundle's checked files; links are copied as such, and shutil refuses pipes",
    ("csk_sdk/state/swap.py", "os.open"): "to sync files of a folder that this process wrote",
    (
        "csk_sdk/state/lock.py",
        "os.open",
    ): "to lock: no link is followed, nothing waited for, and only a file locked",
    ("csk_sdk/data/images.py", "Image.open"): "gets an open file",
    ("csk_sdk/data/signals.py", "wave.open"): "gets an open file",
    ("csk_sdk/data/npz.py", "zipfile.is_zipfile"): "gets an open file",
    ("csk_sdk/data/npz.py", "zipfile.ZipFile"): "gets an open file",
    ("csk_sdk/data/npz.py", "archive.open"): "a member of an archive that is open",
    ("csk_sdk/bundle/onnx_file.py", "mmap.mmap"): "gets an open file",
    (
        "csk_sdk/bundle/folder.py",
        "safe_open",
    ): "opens by name only; check_file has found an ordinary file with its hash",
    ("csk_sdk/state/tensorfile.py", "safe_open"): "opens by name only; check_header has just read the file",
    (
        "csk_sdk/runtime/sessions.py",
        "load_onnxruntime().InferenceSession",
    ): "opens by name only; check_file has found the file that was built",
    ("csk_sdk/backends/ort_training.py", "api.CheckpointState.load_checkpoint"): "as InferenceSession",
    ("csk_sdk/backends/ort_training.py", "api.Module"): "as InferenceSession",
    (
        "csk_sdk/network/profiles.py",
        "shutil.copyfile",
    ): "of a bundle's checked files, and shutil refuses pipes",
    ("csk_sdk/network/profiles.py", "np.memmap"): "of the copy that was just made",
    ("csk_sdk/runtime/peak_memory.py", "Path('/proc/self/status').read_text"): "the kernel's",
    ("csk_sdk/device/choice.py", "path.read_text"): "the kernel's /proc/cpuinfo and /proc/meminfo",
    (
        "csk_artifacts_builder/prepare/source_file.py",
        "onnx.checker.check_model",
    ): "the operator's model, an ordinary file",
    ("csk_artifacts_builder/prepare/source_file.py", "onnx.load"): "the operator's model, an ordinary file",
    (
        "csk_artifacts_builder/prepare/source_file.py",
        "onnx.load_external_data_for_model",
    ): "the operator's model",
    ("csk_artifacts_builder/bundle_writer.py", "path.open"): "to write",
    ("csk_artifacts_builder/bundle_writer.py", "ir.ExternalTensor"): "of the draft that was just written",
    (
        "csk_artifacts_builder/measure/fixed_sizes.py",
        "ir.ExternalTensor",
    ): "stands for weights that are never read",
    (
        "csk_artifacts_builder/measure/running.py",
        "onnx.load",
    ): "the operator's model, as prepare.py has opened it",
    ("csk_artifacts_builder/measure/running.py", "onnx.load_external_data_for_model"): "the operator's model",
    ("csk_artifacts_builder/ort/artifacts.py", "onnx.load"): "of a draft that was just written",
    ("csk_artifacts_builder/ort/check.py", "api.CheckpointState.load_checkpoint"): "of a draft",
    ("csk_artifacts_builder/ort/check.py", "api.Module"): "of a draft that was just written",
    (
        "csk_artifacts_builder/ort/probe.py",
        "api.CheckpointState.load_checkpoint",
    ): "of a probe that was just written",
    ("csk_artifacts_builder/ort/probe.py", "api.Module"): "of a probe that was just written",
    ("csk_device_runners/ssh.py", "tarfile.open"): "a stream, unpacked with the filter for data",
    (
        "csk_device_runners/remote.py",
        "State.open(out / 'state', opened.id, opened.checkpoint()).load",
    ): "State's own",
}


def calls_that_open(path: Path) -> Iterator[str]:
    """The calls in a module that may open a file by its name, as they are written."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.rsplit(".", 1)[-1] in OPENERS or name.startswith("shutil.copy"):
                yield name


def test_every_file_is_opened_by_the_one_function() -> None:
    found = set()
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            module = path.relative_to((REPOSITORY / package).parent).as_posix()
            found |= {(module, call) for call in calls_that_open(path) if call not in OURS}
    assert sorted(found - ALLOWED.keys()) == [], "open it with csk_sdk.formats.opening, or say here why not"
    assert sorted(ALLOWED.keys() - found) == [], "nothing does that any more"


@pytest.mark.parametrize(
    "code",
    [
        "open(name)",
        "path.open()",
        "np.load(path)",
        "Path(x).read_text()",
        "Image.open(path)",
        "shutil.copy(a, b)",
    ],
)
def test_an_opening_would_be_found(tmp_path: Path, code: str) -> None:
    (tmp_path / "x.py").write_text(code)
    assert len(list(calls_that_open(tmp_path / "x.py"))) == 1
