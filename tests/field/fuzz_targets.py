"""What fuzzing feeds: each target takes any bytes to a reader of csk-sdk, and lets through only what may be raised.

A target returns normally or raises an error that is a finding. `tests/field/fuzz.py` drives them with coverage
feedback for minutes or days, `test_fuzzing.py` with hypothesis for seconds.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from csk_sdk.bundle.manifest_checks import check_manifest
from csk_sdk.bundle.onnx_file import contents
from csk_sdk.contract.manifest import Manifest, sealed
from csk_sdk.data.images import FileImages
from csk_sdk.data.inbox import Inbox
from csk_sdk.data.tasks import Task
from csk_sdk.errors import BundleError, CskError, StateError, TaskError
from csk_sdk.formats.protobuf import MalformedError
from csk_sdk.state import LearnedTask, State
from csk_sdk.state.repair import StateCheck
from csk_sdk.state.sealing import seal
from csk_sdk.state.tensorfile import decode, encode

Target = Callable[[bytes], None]
# In memory where there is such a place: nothing here needs to survive.
_PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# A fuzzer ends without ceremony, so that the process that started it has to clean up.
SCRATCH = Path(os.environ.get("CSK_FUZZ_SCRATCH") or tempfile.mkdtemp(prefix="csk-fuzz-", dir=_PLACE))
# What a hostile JSON file may have in the place of anything.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 255, 1 << 31, 1 << 63, 1 << 64, 10**400, -(1 << 63)),
    *(0.5, -0.0, 1e308, 1e400, float("nan"), "", "0", "x", "\0", "../x", "/", "a" * 5000, "\ud800", "\u202e"),
    *([], [[]], {}, {"": {}}, [0], [1, 2, 3, 4], ["a"], {"a": 1}),
]


class Choices:
    """Numbers and bytes drawn from the input, which ends in zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def below(self, bound: int) -> int:
        """A number from 0 to `bound` - 1."""
        size = 1 if bound <= 256 else 2
        piece = self._data[self._position : self._position + size].ljust(size, b"\0")
        self._position += size
        return int.from_bytes(piece, "little") % max(bound, 1)

    @property
    def left(self) -> bytes:
        """All that was not drawn yet."""
        return self._data[self._position :]


def edited(good: Any, choices: Choices) -> Any:
    """A copy of JSON values with up to 8 places removed, replaced, or given a value of another place."""
    changed = json.loads(json.dumps(good))
    for _ in range(1 + choices.below(8)):
        place = changed
        for _ in range(1 + choices.below(5)):
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = keys[choices.below(len(keys))]
            if isinstance(place[key], dict | list) and place[key] and choices.below(3):
                place = place[key]
                continue
            action = choices.below(4)
            if action == 0:
                del place[key]
            elif action == 1 and isinstance(place, dict):
                place[str(choices.below(1000))] = place.pop(key)
            else:
                place[key] = VALUES[choices.below(len(VALUES))]
            break
    return changed


def each_value_changed(good: Any) -> Iterator[Any]:
    """JSON values with one place removed or replaced: every place, every hostile value, one after the other."""
    text = json.dumps(good)
    for path in _places(good):
        for value in VALUES:
            changed = json.loads(text)
            place = changed
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
            yield changed
        del place[path[-1]]
        yield changed


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from _places(value[key], (*path, key))


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """An empty folder."""
    folder = SCRATCH / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder


def good_manifest() -> dict[str, Any]:
    """A small valid manifest."""
    site = {
        **{"name": "s", "node": "s", "weight": "w", "shape": [4, 4, 3, 3], "groups": 1, "stride": [1, 1]},
        **{"dilation": [1, 1], "pads": [1, 1, 1, 1], "input_size": [8, 8], "output_size": [8, 8]},
        **{"delta": "d", "indices": "i", "gradient": "g", "moment": "m"},
    }
    names = ("training_model.onnx", "eval_model.onnx", "memory_model.onnx", "export_template.onnx")
    files = (*names, "weights.safetensors", "checkpoint.safetensors")
    return {
        **{"schema_version": 1, "model": "m.onnx", "classes": ["a", "b"], "base_protected": True},
        "input": {"name": "image", "channels": 3, "size": [8, 8]},
        "preprocessing": {"mean": [0.0] * 3, "std": [1.0] * 3, "scale": 0.00392, "resize": "bilinear"},
        **{"head": {"features": 4}, "sites": [site], "channel_ratio": 0.25, "batch_size": 16},
        **{"kernels": {"eval_model.onnx": ["w"]}, "costs": {"forward": 1}},
        "files": {name: {"sha256": "0" * 64, "size": 5} for name in files},
    }


def manifest(data: bytes) -> None:
    """manifest.json: any bytes, or a good one with hostile values and a seal that fits."""
    choices = Choices(data)
    with suppress(BundleError):
        if choices.below(4) == 0:
            text = choices.left.decode("utf-8", "replace")
        else:
            try:
                text = sealed(edited(good_manifest(), choices))
            except (ValueError, TypeError):
                return
        read_manifest(text)


def read_manifest(text: str) -> None:
    """A manifest as a bundle's opening reads it. Raises BundleError."""
    read = Manifest.from_json(text, "manifest.json")
    check_manifest(read, Path("bundle"))
    text.encode("utf-8", "replace")


def onnx(data: bytes) -> None:
    """A graph's protobuf."""
    with suppress(MalformedError):
        contents(memoryview(data))


def safetensors(data: bytes) -> None:
    """A file of tensors: what the header check lets through must decode, to as many bytes as there are."""
    path = SCRATCH / "x.safetensors"
    path.write_bytes(data)
    with suppress(StateError):
        tensors, _ = decode(path)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= len(data)


def npz(data: bytes) -> None:
    """An npz task: any bytes, or an archive with any bytes as one of its arrays."""
    choices = Choices(data)
    path = SCRATCH / "x.npz"
    mode = choices.below(5)
    if mode == 0:
        path.write_bytes(choices.left)
    else:
        members = {
            "images": np.zeros((2, 3, 3, 1), np.uint8),
            "labels": np.arange(2),
            "class_names": np.array(["a", "b"]),
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if mode == 1 else zipfile.ZIP_STORED) as file:
            for number, (name, array) in enumerate(members.items()):
                good = io.BytesIO()
                np.save(good, array)
                file.writestr(f"{name}.npy", choices.left if mode - 2 == number else good.getvalue())
    with suppress(TaskError):
        Task.open(path).fingerprint()


def picture(data: bytes) -> None:
    """An image file."""
    path = SCRATCH / "x.png"
    path.write_bytes(data)
    with suppress(TaskError):
        pixels = FileImages([path]).read(0)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3


_NAMES = [
    "train",
    "test",
    "a",
    "b",
    ".hidden",
    "ü",
    "日本",
    "x.png",
    "y.JPG",
    "z.txt",
    "01.npz",
    "-",
    "\udce9",
    " ",
]


def _within(folder: Path, path: Path) -> bool:
    """Whether `path` lies in `folder` once its links are followed."""
    with suppress(OSError, RuntimeError):  # a circle of links leads nowhere
        return path.resolve().is_relative_to(folder.resolve())
    return False


def task_folder(data: bytes) -> None:
    """An inbox with any files, folders, links and pipes in it."""
    choices = Choices(data)
    with scratch("tasks") as folder:
        for _ in range(choices.below(12)):
            parts = [_NAMES[choices.below(len(_NAMES))] for _ in range(1 + choices.below(4))]
            path = folder.joinpath(*parts)
            if not _within(folder, path.parent):
                continue  # a link leads out of the folder: nothing of the machine is written
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.is_symlink() or path.is_fifo():
                    continue  # writing there would write elsewhere, or wait
                kind = choices.below(6)
                if kind == 0:
                    path.mkdir()
                elif kind == 1:
                    path.symlink_to(
                        [_NAMES[choices.below(len(_NAMES))], "..", "/", "/dev/zero"][choices.below(4)]
                    )
                elif kind == 2:
                    os.mkfifo(path)
                else:
                    path.write_bytes(PNG if kind == 3 else choices.left)
        inbox = Inbox(folder)
        with suppress(TaskError):
            for name in inbox.names():
                with suppress(TaskError):
                    task = inbox.open(name)
                    task.fingerprint()
                    for split in (task.train, task.test):
                        if split is not None:
                            split.images.read(len(split) - 1)


STATE_FILES = [
    "state.json",
    "HEAD",
    "generations/000001.json",
    "generations/000002.json",
    "scores/000001.json",
]
_TENSORS = ["generations/000002.safetensors", "progress.safetensors"]


def state(data: bytes) -> None:
    """A state folder with one file of any bytes, or of hostile values whose checksum fits; then it is repaired."""
    choices = Choices(data)
    name = [*STATE_FILES, *_TENSORS][choices.below(7)]
    if name in _TENSORS or choices.below(4) == 0:
        changed = choices.left
    else:
        try:
            changed = seal(edited(good_record(name), choices))
        except (ValueError, TypeError):
            changed = _good_state()[name]
    read_state({name: changed})


def good_record(name: str) -> dict[str, Any]:
    """What one of STATE_FILES holds, without its checksum."""
    raw: dict[str, Any] = json.loads(_good_state()[name])
    del raw["check"]
    return raw


def read_state(changed: dict[str, bytes]) -> None:
    """Read a state of two tasks with some files as given here, repair it, and hold the repair to its word."""
    with scratch("state") as folder:
        for name, content in (_good_state() | changed).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        with suppress(CskError):
            opened = State.open(folder, "b" * 64, {"t": np.zeros(2, np.float32)})
            opened.load_progress()
            opened.load_scores()
            with suppress(CskError):
                opened.load()
            opened.records()
            opened.history()
        with suppress(CskError):
            findings = list(StateCheck(folder, "b" * 64).run(repair=True))
            again = list(StateCheck(folder, "b" * 64).run())
            mended = {one.name for one in findings if one.status == "repaired"}
            assert not {one.name for one in again if one.status == "damaged"} & mended, (
                "repaired, and still damaged"
            )


def _good_state() -> dict[str, bytes]:
    if not _GOOD:
        with scratch("good") as folder:
            made = State.open(folder, "b" * 64, {"t": np.zeros(2, np.float32)})
            with made.lock():
                for names in ("A", "AB"):
                    tasks = [LearnedTask(name, ("a", "b"), 1, 2, 0.1, 0.1, 1, {"x": 1}) for name in names]
                    made.commit(len(names) - 1, tasks, {"t": np.ones(2, np.float32)})
                made.save_progress({"t": np.ones(2, np.float32)}, {"step": 1})
            made.save_scores(1, {"A": {"task": 1.0}})
            for path in folder.rglob("*"):
                if path.is_file():
                    _GOOD[path.relative_to(folder).as_posix()] = path.read_bytes()
    return _GOOD


_GOOD: dict[str, bytes] = {}


def _encoded(form: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(75, dtype=np.uint8).reshape(5, 5, 3)).save(out, form)
    return out.getvalue()


PNG = _encoded("PNG")
TARGETS: dict[str, Target] = {
    "manifest": manifest,
    "onnx": onnx,
    "safetensors": safetensors,
    "npz": npz,
    "picture": picture,
    "task-folder": task_folder,
    "state": state,
}


def seeds(name: str) -> list[bytes]:
    """Good inputs, from which a fuzzer gets further than from nothing."""
    tensors = {"a": np.ones((2, 3), np.float32), "b": np.arange(4)}
    npy, archive = io.BytesIO(), io.BytesIO()
    np.save(npy, np.zeros((2, 3, 3, 1), np.uint8))
    np.savez_compressed(archive, images=np.zeros((2, 3, 3), np.uint8), labels=[0, 1], class_names=["a", "b"])
    graphs = sorted((Path(__file__).parents[2] / "examples").rglob("*.onnx"))
    by_name = {
        "manifest": [b"\0" + sealed(good_manifest()).encode(), bytes(range(1, 60))],
        "onnx": [graph.read_bytes()[:4096] for graph in graphs],
        "safetensors": [encode(tensors), encode(tensors, {"meta": "{}"})],
        "npz": [b"\0" + archive.getvalue(), *(bytes([mode]) + npy.getvalue() for mode in (2, 3, 4))],
        "picture": [_encoded(form) for form in ("PNG", "JPEG", "BMP", "WEBP")],
        "state": [bytes([index, 1]) + bytes(range(40)) for index in range(7)],
    }
    return by_name.get(name, [bytes(range(1, 80))])


if "CSK_FUZZ_SCRATCH" not in os.environ:
    atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
