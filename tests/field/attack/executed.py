"""What is never executed: every file of a workspace replaced by something that would run."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from field.attack.ground import Ground, csk_sdk
from field.attack.intruders import picture, reseal
from field.attack.promise import GUARANTEES, Tries, promise


class Watched:
    """Notes what the interpreter loads or runs from below a folder; hooks cannot be removed, so there is one."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in ("pickle.find_class", "os.system", "os.exec", "subprocess.Popen", "socket.connect") or (
            event in ("ctypes.dlopen", "import", "exec", "compile") and self.root in str(arguments)
        ):
            self.seen.append(f"{event} {arguments!r}"[:200])

    @contextmanager
    def nothing_runs(self) -> Iterator[None]:
        self.seen.clear()
        self.on = True
        try:
            yield
        finally:
            self.on = False
        assert not self.seen, f"something was executed: {self.seen[0]}"


class Bomb:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (str(self.canary),))


def payloads(canary: Path) -> dict[str, bytes]:
    """Contents that would run, had they been handed to whoever runs them."""
    pickled = pickle.dumps(Bomb(canary))
    objects = io.BytesIO()
    np.save(objects, np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    np.savez(archive, images=np.array([Bomb(canary)], dtype=object), labels=[0], class_names=["a"])
    source = f"import os; os.mkdir({str(canary)!r})\n".encode()
    text = json.dumps(
        {"__reduce__": f"os.mkdir({str(canary)!r})", "!!python/object/apply:os.mkdir": [str(canary)]}
    )
    header = text.encode().ljust((len(text) + 7) // 8 * 8)
    return {
        "a pickle": pickled,
        "an array of objects": objects.getvalue(),
        "an archive of objects": archive.getvalue(),
        "Python": source,
        "a shell script": f"#!/bin/sh\nmkdir {canary}\n".encode(),
        "a header of tensors that names code": struct.pack("<Q", len(header)) + header + pickled,
        "JSON that names code": text.encode(),
        "a torch file": b"PK\x03\x04" + pickled,
    }


@promise(GUARANTEES, "No file that csk-sdk reads can bring code with it.", tries=400)
def nothing_is_executed(tries: Tries, ground: Ground, place: Path) -> None:
    """Every file of a workspace is replaced by something that would run; the interpreter's own audit is the judge."""
    canary = place / "executed"
    watched = Watched(place)
    workspace = own_workspace(ground, place / "workspace")
    kept = place / "kept"
    shutil.copytree(workspace, kept)
    files = sorted(path.relative_to(kept) for path in kept.rglob("*") if path.is_file())
    commands = [
        ("predict", str(place / "image.png")),
        ("tasks",),
        ("verify", "--repair"),
        ("train",),
        ("doctor",),
    ]
    (place / "image.png").write_bytes(picture(ground))
    made = payloads(canary)
    for _ in tries:
        target = tries.rng.choice(
            [*files, Path("tasks/03/train/a/x.png"), Path("tasks/03/metadata.csv"), Path("sitecustomize.py")]
        )
        what = tries.rng.choice(sorted(made))
        command = tries.rng.choice(commands)
        shutil.rmtree(workspace)
        shutil.copytree(kept, workspace)
        (workspace / target).parent.mkdir(parents=True, exist_ok=True)
        (workspace / target).write_bytes(made[what])
        if target.parts[0] == "bundle" and target.name != "manifest.json":
            reseal(workspace / "bundle")
        with tries.one(f"{what} as {target}, {command[0]}"), watched.nothing_runs():
            done = csk_sdk(*command, "--workspace", workspace)
            assert done.status in (0, 1), done.err[-500:]
            assert "Traceback" not in done.err
        if canary.exists():
            tries.fault(f"{what} as {target} was executed by {command[0]}")
            canary.rmdir()


def own_workspace(ground: Ground, place: Path) -> Path:
    """A workspace with a bundle and tasks of its own, one task learned and one waiting."""
    workspace = ground.workspace(place, 1)
    for name in ("bundle", "tasks"):
        (workspace / name).unlink()
        shutil.copytree(ground.folder / name, workspace / name)
    return workspace
