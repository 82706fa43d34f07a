"""A device in use: what it refuses, it refuses in one sentence, with its state as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Digits, open_learner, write_pictures
from csk_sdk import CskError, Inbox, Learner, Task

BUNDLE_FILES = (
    "manifest.json",
    "training_model.onnx",
    "eval_model.onnx",
    "memory_model.onnx",
    "export_template.onnx",
    "weights.safetensors",
    "checkpoint.safetensors",
)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's bytes; the lock file is none of the state's content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@dataclass
class Device:
    """A workspace with task "01" learned, and "02" interrupted at a checkpoint."""

    folder: Path
    digits: Digits

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def learner(self, **settings: Any) -> Learner:
        return open_learner(self.bundle, self.state, **settings)

    def learn(self, task: Task, **settings: Any) -> None:
        self.learner(**settings).learn(task)

    def npz(self, name: str = "03", **arrays: Any) -> Task:
        """A good npz task with some of its arrays replaced."""
        images, labels = self.digits.arrays((8, 9), 0, 10)
        path = self.folder / "tasks" / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        good = {"images": images, "labels": labels, "class_names": np.array(["eight", "nine"])}
        np.savez(path, **{**good, **arrays})
        return Inbox(path.parent).open(name)

    def pictures(self, name: str = "03") -> Path:
        """A good task folder."""
        write_pictures(self.folder / "tasks" / name / "train", self.digits, (8, 9), 0, 10)
        return self.folder / "tasks" / name

    def named(self, name: str) -> Task:
        return self.digits.task(name, (8, 9), 10, 0)


def refused(
    device: Device, kind: type[CskError], words: list[str], act: Callable[[], object], ignoring: str = "none"
) -> str:
    """`act` raises just `kind`, with all `words` in one short line; the state's files but `ignoring` stay."""
    before = tree(device.state)
    with pytest.raises(CskError) as caught:
        act()
    text = str(caught.value)
    assert type(caught.value) is kind, text
    for word in words:
        assert word in text
    assert "\n" not in text
    assert len(text) < 500 + 2 * len(str(device.folder))
    assert text.rstrip(")").endswith(".")
    after = tree(device.state)
    assert {n: b for n, b in after.items() if n != ignoring} == {
        n: b for n, b in before.items() if n != ignoring
    }
    return text
