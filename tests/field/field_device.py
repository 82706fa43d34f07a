"""A device whose state lies on a disk of its own, that tests can interrupt, break and replace."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cli.conftest import Done, csk_sdk
from csk_sdk.bundle.folder import Bundle
from csk_sdk.learner import Learner
from csk_sdk.state.folder import State
from csk_sdk.workspace.folder import Workspace
from field.simulated_disk import Tree, write_tree

# One thread, so that results are the same to the bit; a progress checkpoint after each of 4 steps but the last.
SETTINGS = "[training]\nthreads = 1\nshift = 1\nfew_shot = 0\ntrain = 'centers'\nepochs = 2\ncheckpoint_seconds = 0.0\n"
Bits = dict[str, bytes]


@dataclass
class Device:
    """A workspace with two tasks, its state on a disk of its own, and what an undisturbed life has there."""

    folder: Path
    expected: dict[int, Bits] = field(default_factory=dict)

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    @cached_property
    def bundle(self) -> Bundle:
        """Opened once: nothing here changes it, and its checks take longer than to read a small state."""
        return Bundle.open(self.folder / "bundle")

    def state(self) -> State:
        return State.open(self.disk / "state", self.bundle.id, self.bundle.stored_checkpoint)

    def learner(self) -> Learner:
        return Workspace.open(self.folder, state=self.disk / "state").learner()

    def train(self) -> Done:
        return csk_sdk("train", "--workspace", self.folder, "--state", self.disk / "state")

    def bits(self, number: int | None = None) -> Bits:
        tensors = self.state().load(number).tensors
        return {name: tensor.tobytes() for name, tensor in tensors.items()}

    def put(self, tree: Tree) -> None:
        """Make the disk hold `tree` and nothing else."""
        shutil.rmtree(self.disk, ignore_errors=True)
        self.disk.mkdir()
        write_tree(self.disk, tree)
