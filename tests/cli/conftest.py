"""A workspace of digits, and the command line as a function."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csk_sdk.cli import app

# The tasks are small, and shall be trained on all the same.
SETTINGS = "[training]\nepochs = 1\nthreads = 1\nfew_shot = 0\ntrain = 'centers'\n"


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def csk_sdk(*arguments: str | Path) -> Done:
    """`csk-sdk ARGUMENTS` in this process; neither of its streams is a terminal."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app([str(argument) for argument in arguments], prog_name="csk-sdk")
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


@pytest.fixture
def run() -> Callable[..., Done]:
    return csk_sdk


def write_png(path: Path, picture: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture(scope="session")
def fresh_workspace(tmp_path_factory: pytest.TempPathFactory, digits: Any, digits_bundle: Path) -> Path:
    """Tasks 01-four-five (a folder) and 02-six-seven (npz), base with test images only; nothing learned."""
    folder = tmp_path_factory.mktemp("fresh") / "workspace"
    folder.mkdir()
    (folder / "bundle").symlink_to(digits_bundle)
    (folder / "csk.toml").write_text(SETTINGS)
    names = ("zero", "one", "two", "three", "four", "five")
    for task, split, chosen, begin, end in (
        ("base", "test", (0, 1, 2, 3), 100, 110),
        ("01-four-five", "train", (4, 5), 0, 20),
        ("01-four-five", "test", (4, 5), 100, 110),
    ):
        for digit in chosen:
            for index, picture in enumerate(digits.of(digit, begin, end)):
                write_png(folder / "tasks" / task / split / names[digit] / f"{index}.png", picture)
    digits.save(digits.task("02-six-seven", (6, 7), train=20, test=10), folder / "tasks")
    return folder


@pytest.fixture(scope="session")
def learned_workspace(tmp_path_factory: pytest.TempPathFactory, fresh_workspace: Path) -> Path:
    """The same with both tasks learned. Read only, but for scores."""
    folder = tmp_path_factory.mktemp("learned") / "workspace"
    shutil.copytree(fresh_workspace, folder, symlinks=True)
    done = csk_sdk("train", "--task", "all", "--workspace", folder)
    assert done.status == 0, done.err
    return folder


@pytest.fixture
def workspace(tmp_path: Path, fresh_workspace: Path) -> Path:
    """One's own, nothing learned."""
    return Path(shutil.copytree(fresh_workspace, tmp_path / "workspace", symlinks=True))


@pytest.fixture
def learned(tmp_path: Path, learned_workspace: Path) -> Path:
    """One's own, both tasks learned."""
    return Path(shutil.copytree(learned_workspace, tmp_path / "learned", symlinks=True))


@pytest.fixture
def own_bundle(workspace: Path) -> Path:
    """The workspace's bundle as real files, to be damaged."""
    bundle = workspace / "bundle"
    source = bundle.resolve()
    bundle.unlink()
    return Path(shutil.copytree(source, bundle))
