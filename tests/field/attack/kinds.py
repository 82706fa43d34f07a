"""Files of odd kinds, in place of whatever is read by its name or handed over; and tasks that watch cannot take."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from field.attack import judge
from field.attack.executed import own_workspace
from field.attack.ground import NAMES, Ground, csk_sdk, save_task
from field.attack.handed import folder_of, written
from field.attack.promise import GUARANTEES, Tries, promise

# Who waits for a pipe waits for ever; nothing here takes a hundredth of it.
_EVER_SECONDS = 300


@contextmanager
def not_for_ever() -> Iterator[None]:
    """A fault where the block waits for something that never comes."""

    def ring(*_: object) -> None:
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(_EVER_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _odd(path: Path, kind: str, outside: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        here = Path.cwd()
        os.chdir(path.parent)  # its name may be longer than a socket's may
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a link to a device":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to(outside)


READ = (
    *(
        "csk.toml",
        "bundle/manifest.json",
        "bundle/manifest.sig",
        "bundle/weights.safetensors",
        "bundle/eval_model.onnx",
    ),
    *(
        "state/HEAD",
        "state/state.json",
        "state/generations/000001.json",
        "state/generations/000001.safetensors",
    ),
    *(
        "state/progress.safetensors",
        "state/scores/000001.json",
        "device.json",
        "tasks/02.npz",
        "tasks/03/metadata.csv",
    ),
    *("tasks/03/train/a/0.png", "state/lock", "state/field.json", "state/field.lock", "tasks/.paused"),
)
KINDS = ("a pipe", "a socket", "a folder", "a link to a device", "a link out")


@promise(GUARANTEES, "any file that is read by its name", tries=300)
def files_of_odd_kinds(tries: Tries, ground: Ground, place: Path) -> None:
    """A pipe, a socket, a folder or a link in its place: no command waits, or shows what is outside."""
    workspace = own_workspace(ground, place / "workspace")
    for name in ("a", "b"):
        (workspace / "tasks/03/train" / name).mkdir(parents=True)
        (workspace / f"tasks/03/train/{name}/0.png").write_bytes(written(ground.of(4, 0, 1)[0]))
    kept = Path(shutil.copytree(workspace, place / "kept"))
    secret = place / "secret"
    secret.write_text("that nobody may read here\n")
    (place / "x.png").write_bytes(written(ground.of(4, 0, 1)[0]))
    commands = (
        ("tasks",),
        ("train",),
        ("verify",),
        ("status",),
        ("predict", str(place / "x.png")),
        # Nicer, it would make this process so, and wait for whatever else runs on the machine.
        ("watch", "--once", "--settle", "0", "--nice", "0"),
    )
    for _ in tries:
        name, kind, command = tries.rng.choice(READ), tries.rng.choice(KINDS), tries.rng.choice(commands)
        shutil.rmtree(workspace)
        shutil.copytree(kept, workspace)
        _odd(workspace / name, kind, secret)
        with tries.one(f"{kind} as {name}, {command[0]}"), not_for_ever():
            done = csk_sdk(*command, "--workspace", workspace)
            assert done.status in (0, 1), done.err[-400:]
            assert "Traceback" not in done.err
            assert "nobody may read" not in done.out + done.err
            assert secret.read_text() == "that nobody may read here\n"


@promise(
    GUARANTEES,
    "watch sets a task aside in a sentence, whatever opening, checking",
    tries=40,
)
def watch_goes_on(tries: Tries, ground: Ground, place: Path) -> None:
    """Up to five bad tasks of any kind before a good one: each is told in a sentence, and the good one is learned."""
    workspace = ground.workspace(place / "workspace")
    (workspace / "tasks").unlink()
    for _ in tries:
        shutil.rmtree(workspace / "tasks", ignore_errors=True)
        ground.reset(workspace, 0)
        bad = [_bad(workspace / f"tasks/0{number}", tries) for number in range(tries.rng.randint(1, 5))]
        save_task(workspace / "tasks/09.npz", ground, (4, 5), 12)
        with tries.one(f"{bad}"), not_for_ever():
            told = csk_sdk(
                *(
                    "watch",
                    "--once",
                    "--settle",
                    "0",
                    "--poll",
                    "0.1",
                    "--nice",
                    "0",
                    "--json",
                    "--workspace",
                ),
                workspace,
            )
            assert told.status == 0, told.err
            events = [json.loads(line) for line in told.out.splitlines()]
            assert [one["task"] for one in events if one["event"] == "learned"] == ["09"], events
            aside = [one for one in events if one["event"] == "set aside"]
            assert len(aside) == len(bad), (bad, events)
            assert all(one["reason"].endswith(".") and "\n" not in one["reason"] for one in aside)


def _bad(path: Path, tries: Tries) -> str:
    kind = tries.rng.choice(
        ["junk npz", "long name in a table", "pipe for a table", "broken image", "loop of links"]
    )
    if kind == "junk npz":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".npz").write_bytes(tries.rng.randbytes(200))
        return kind
    for name in ("a", "b"):
        (path / "train" / name).mkdir(parents=True)
        (path / f"train/{name}/0.png").write_bytes(
            b"no image" if kind == "broken image" else written(np.zeros((8, 8), np.uint8))
        )
    if kind == "long name in a table":
        (path / "train/metadata.csv").write_text(f"file_name,label\n{'x' * 5000}.png,a\n")
    elif kind == "pipe for a table":
        os.mkfifo(path / "train/metadata.csv")
    elif kind == "loop of links":
        (path / "train/a/1.png").symlink_to("1.png")
    return kind


@promise(GUARANTEES, "a GIF", "TIFF", "HEIC, AVIF", tries=200)
def other_formats(tries: Tries, ground: Ground, place: Path) -> None:
    """GIF and uncompressed TIFF give their pixels; a compressed TIFF, and what cannot be decoded, is named."""
    from csk_sdk import TaskError
    from csk_sdk.data.images import FileImages

    for _ in tries:
        gray = tries.numpy.integers(0, 256, (int(tries.numpy.integers(1, 20)), 9), np.uint8)
        kind = tries.rng.choice(["gif", "tiff", "tiff, compressed", "heic that is none"])
        path = place / f"x.{kind[:4].strip(',')}"
        image = Image.fromarray(gray)
        if kind == "gif":
            image.save(path, save_all=True, append_images=[Image.fromarray(255 - gray)])
        elif kind == "heic that is none":
            path.write_bytes(b"\0\0\0\x18ftypheic" + tries.rng.randbytes(50))
        else:
            image.save(
                path,
                "TIFF",
                compression=None if kind == "tiff" else tries.rng.choice(["tiff_lzw", "tiff_adobe_deflate"]),
            )
        with tries.one(kind):
            try:
                found = FileImages([path]).read(0)
            except TaskError as error:
                assert kind not in ("gif", "tiff"), str(error)
                assert str(path) in str(error)
            else:
                assert kind in ("gif", "tiff"), "it was read"
                assert np.array_equal(found[:, :, 0], gray)


@promise(
    GUARANTEES,
    "broken images, and those that a metadata.csv lists and that are not there",
    "files of other kinds, folders inside a class",
    tries=40,
)
def what_is_left_out_is_told(tries: Tries, ground: Ground, place: Path) -> None:
    """Any number of broken images and of other files: all are told; --skip-broken learns the rest, and says so."""
    workspace = ground.workspace(place / "workspace")
    (workspace / "tasks").unlink()
    for _ in tries:
        shutil.rmtree(workspace / "tasks", ignore_errors=True)
        ground.reset(workspace, 0)
        task = folder_of(ground, workspace / "tasks/01", (4, 5), 12)
        broken = [f"broken-{number}.png" for number in range(tries.rng.randint(0, 6))]
        for name in broken:
            (task / "train" / NAMES[tries.rng.choice((4, 5))] / name).write_bytes(tries.rng.randbytes(50))
        others = tries.rng.randint(0, 6)
        for number in range(others):
            (task / f"train/four/notes-{number}.xyz").write_bytes(b"x")
        with tries.one(f"{len(broken)} broken, {others} others"):
            done = csk_sdk("train", "--epochs", "1", "--no-evaluate", "--workspace", workspace)
            assert done.status == bool(broken), done.err
            assert all(name in done.err for name in broken), done.err
            if broken:
                assert not (workspace / "state/HEAD").exists()
                done = csk_sdk(
                    "train",
                    "--epochs",
                    "1",
                    "--no-evaluate",
                    "--skip-broken",
                    "--json",
                    "--workspace",
                    workspace,
                )
                assert done.status == 0, done.err
                assert all(name in done.out for name in broken)
            if others:
                assert "xyz" in done.out + done.err
            look = judge.look(workspace / "state")
            assert look.records[1]["tasks"][0]["images"] == 24
            kept = "".join(path.read_text() for path in (workspace / "state").rglob("*.json"))
            assert not any(name in kept for name in broken), "a file name in the state"


@promise(
    GUARANTEES,
    "An older bundle is refused.",
    "Made once a bundle with a counter, signed by a key that the device trusts, is opened",
    tries=80,
)
def older_bundles(tries: Tries, ground: Ground, place: Path) -> None:
    """Bundles of random counters, one after another: lower than the highest seen is refused, and changes nothing."""
    from field.attack.intruders import key_pair, reseal, signed_by

    private, trust = key_pair(place, "ours")
    workspace = place / "workspace"
    highest = -1
    for number in tries:
        if number % 10 == 0:
            shutil.rmtree(workspace, ignore_errors=True)
            workspace.mkdir()
            highest = -1
        shutil.rmtree(workspace / "bundle", ignore_errors=True)
        bundle = Path(shutil.copytree(ground.bundle, workspace / "bundle"))
        counter = tries.rng.randrange(20)
        raw = json.loads((bundle / "manifest.json").read_text())
        reseal(bundle, {**raw, "counter": counter})
        signed_by(bundle, private)
        # `verify` changes nothing, so it refuses and does not remember; whoever opens the bundle does both.
        command = tries.rng.choice(("tasks", "verify"))
        with tries.one(f"{counter} after {highest}, {command}"):
            done = csk_sdk(command, "--workspace", workspace, "--trust", trust)
            if counter < highest:
                assert done.status == 1, "an older bundle was accepted"
            else:
                assert done.status == 0, done.out + done.err
                highest = counter if command == "tasks" else highest
            if (workspace / "state/accepted.json").exists():
                kept = judge.sealed_json(workspace / "state/accepted.json")
                assert [key["highest"] for key in kept["keys"].values()] == [highest]
