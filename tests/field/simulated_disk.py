"""A disk on paper: what csk-sdk did to it, call by call, and every content that a crash may leave behind.

`Recorder` stands in for `os` in the modules that change a state folder, passes every call on, and keeps a log.
`crash_states` replays that log as a disk without mercy would, after Pillai et al., "All File Systems Are Not
Created Equal" (OSDI 2014), and as SQLite and LevelDB are tested:

- what an fsync of the file (its bytes) or of the folder (its names) covers is there;
- of everything else, *any subset* is there, in any order: POSIX promises no more;
- bytes that were not synced are missing, half there, there as zeros, or all there;
- a rename is atomic: both of its names or neither.

The text in the file `lock` is left out of this: nobody reads it but humans (and `test_any_text_in_the_lock_...`).

A killed process loses nothing that it wrote, so its leftovers are the subset "everything".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from csk_sdk.state.lock import LOCK_FILE
from csk_sdk.state.swap import exchange as swap_names

TEMPORARY = re.compile(r"\..*\.csk-tmp")
# Files by path relative to the disk's root; a folder is a key that ends in "/".
Tree = dict[str, bytes]
# The inode of the disk's topmost folder.
ROOT = 0
# Above this, not every subset of what is volatile can be tried.
_MOST_VOLATILE = 16


@dataclass(frozen=True)
class Names:
    """A change of names in one folder (its inode), atomic: each name becomes that inode, or nothing (None)."""

    folder: int
    entries: dict[str, int | None]


@dataclass(frozen=True)
class Bytes:
    """Bytes written to an inode at an offset; None stands for cutting it there."""

    inode: int
    offset: int
    data: bytes | None


@dataclass(frozen=True)
class Sync:
    """An fsync: of a file's bytes, or of a folder's names."""

    target: int


Operation = Names | Bytes | Sync


@dataclass
class Recorder:
    """`os` for the modules of csk_sdk.state that write: does what it is told, below `root`, and logs it.

    With `drop`, calls of that kind ("file sync", "folder sync") are not logged as done: as if csk-sdk forgot them.
    """

    root: Path
    drop: str = ""
    log: list[Operation] = field(default_factory=list)
    _inodes: dict[str, int] = field(default_factory=dict)
    _open: dict[int, tuple[int, int]] = field(default_factory=dict)
    _next: int = ROOT + 1

    def __post_init__(self) -> None:
        self.before = read_tree(self.root)
        self._inodes["."] = ROOT
        for name in self.before:
            self._inodes[name.rstrip("/")] = self._new()
        self.numbers = dict(self._inodes)
        self.folders = {ROOT, *(self.numbers[name[:-1]] for name in self.before if name.endswith("/"))}
        self.locks = {number for name, number in self.numbers.items() if Path(name).name == LOCK_FILE}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        name = self._name(path)
        there = os.path.lexists(path)
        descriptor = os.open(path, flags, mode)
        if not there:
            self._create(name)
        assert not flags & (os.O_TRUNC | os.O_APPEND), "not modelled"
        self._open[descriptor] = (self._inodes[name], 0)
        return descriptor

    def write(self, descriptor: int, data: bytes) -> int:
        written = os.write(descriptor, data)
        inode, offset = self._open[descriptor]
        self.log.append(Bytes(inode, offset, bytes(data[:written])))
        self._open[descriptor] = (inode, offset + written)
        return written

    def lseek(self, descriptor: int, position: int, how: int) -> int:
        assert how == os.SEEK_SET
        self._open[descriptor] = (self._open[descriptor][0], position)
        return os.lseek(descriptor, position, how)

    def ftruncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)
        self.log.append(Bytes(self._open[descriptor][0], size, None))

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        target, _ = self._open[descriptor]
        if self.drop != ("folder sync" if target in self.folders else "file sync"):
            self.log.append(Sync(target))

    def close(self, descriptor: int) -> None:
        os.close(descriptor)
        del self._open[descriptor]

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)  # noqa: PTH105 - what is recorded
        old, new = self._name(source), self._name(target)
        inode = self._inodes[old]
        self._move(old, new)
        self._log_names(new, {Path(old).name: None, Path(new).name: inode})

    def exchange(self, one: Path, other: Path) -> bool:
        """In place of csk_sdk.state.swap.exchange."""
        assert swap_names(one, other), "this system cannot exchange names"
        names = self._name(one), self._name(other)
        inodes = [self._inodes[name] for name in names]
        self._move(names[0], "exchanging")
        self._move(names[1], names[0])
        self._move("exchanging", names[1])
        self._log_names(names[0], dict(zip((one.name, other.name), reversed(inodes), strict=True)))
        return True

    def _move(self, old: str, new: str) -> None:
        """A file or a folder, with all that is in it."""
        assert Path(old).parent == Path(new).parent, "not modelled"
        for name in [name for name in self._inodes if name == old or name.startswith(f"{old}/")]:
            self._inodes[new + name[len(old) :]] = self._inodes.pop(name)

    def unlink(self, path: Path) -> None:
        os.unlink(path)  # noqa: PTH108 - what is recorded
        self._remove(self._name(path))

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)  # noqa: PTH106 - what is recorded
        self._remove(self._name(path))

    def _remove(self, name: str) -> None:
        del self._inodes[name]
        self._log_names(name, {Path(name).name: None})

    def mkdir(self, path: Path) -> None:
        os.mkdir(path)  # noqa: PTH102 - what is recorded
        self.folders.add(self._create(self._name(path)))

    def _create(self, name: str) -> int:
        self._inodes[name] = self._new()
        if Path(name).name == LOCK_FILE:
            self.locks.add(self._inodes[name])
        self._log_names(name, {Path(name).name: self._inodes[name]})
        return self._inodes[name]

    def _log_names(self, path: str, entries: Mapping[str, int | None]) -> None:
        self.log.append(Names(self._inodes[Path(path).parent.as_posix()], dict(entries)))

    def _name(self, path: Path) -> str:
        return Path(path).relative_to(self.root).as_posix()

    def _new(self) -> int:
        self._next += 1
        return self._next - 1


def read_tree(root: Path) -> Tree:
    """All files below `root`, and its folders."""
    return {
        path.relative_to(root).as_posix() + ("/" if path.is_dir() else ""): b""
        if path.is_dir()
        else path.read_bytes()
        for path in sorted(root.rglob("*"))
    }


def write_tree(root: Path, tree: Tree) -> None:
    """The opposite of `read_tree`, into an empty folder."""
    for name, content in sorted(tree.items()):
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.write_bytes(content)


def final_tree(recorder: Recorder) -> Tree:
    """The disk after the whole log, nothing lost."""
    return _Replay(recorder).tree(len(recorder.log), lambda _: "all")


def crash_states(recorder: Recorder) -> Iterator[tuple[int, Tree]]:
    """Every content that a crash before the log's i-th operation may leave, as (i, tree); i up to the log's length.

    Of contents that differ in temporary files only, the one with the most of them is given: they are told
    apart from everything else by their names alone.
    """
    replay = _Replay(recorder)
    for moment in range(len(recorder.log) + 1):
        found: dict[tuple[tuple[str, bytes], ...], Tree] = {}
        for tree in replay.possible(moment):
            key = tuple(sorted((n, c) for n, c in tree.items() if not TEMPORARY.fullmatch(Path(n).name)))
            if key not in found or len(tree) > len(found[key]):
                found[key] = tree
        for tree in found.values():
            yield moment, tree


class _Replay:
    def __init__(self, recorder: Recorder) -> None:
        self._log = recorder.log
        self._numbers = recorder.numbers
        self._before = recorder.before
        self._ignored, self._folders = recorder.locks, recorder.folders

    def possible(self, moment: int) -> Iterator[Tree]:
        """All trees that a crash at `moment` may leave, equal ones too."""
        choices: dict[int, tuple[str, ...]] = {}
        for index in self._volatile(moment):
            operation = self._log[index]
            torn = isinstance(operation, Bytes) and operation.data and len(operation.data) > 1
            choices[index] = ("none", "half", "zeros", "all") if torn else ("none", "all")
        assert len(choices) <= _MOST_VOLATILE, "too much is volatile to try every subset"
        for chosen in product(*choices.values()):
            fates = dict(zip(choices, chosen, strict=True))
            yield self.tree(moment, lambda index, fates=fates: fates.get(index, "all"))

    def _volatile(self, moment: int) -> list[int]:
        """Operations before `moment` that no sync before `moment` covers."""
        pending: dict[int, int] = {}
        for index, operation in enumerate(self._log[:moment]):
            if isinstance(operation, Bytes) and operation.inode in self._ignored:
                continue
            if isinstance(operation, Sync):
                pending = {i: target for i, target in pending.items() if target != operation.target}
            else:
                pending[index] = operation.folder if isinstance(operation, Names) else operation.inode
        return list(pending)

    def tree(self, moment: int, fate: Any) -> Tree:
        """The disk at `moment` if operation `i` met `fate(i)`."""
        content: dict[int, bytes] = {}
        names: dict[int, dict[str, int]] = {folder: {} for folder in self._folders}
        for name, data in self._before.items():
            path = Path(name.rstrip("/"))
            number = self._numbers[path.as_posix()]
            names[self._numbers[path.parent.as_posix()]][path.name] = number
            if not name.endswith("/"):
                content[number] = data
        for index, operation in enumerate(self._log[:moment]):
            if isinstance(operation, Bytes):
                content[operation.inode] = _written(content.get(operation.inode, b""), operation, fate(index))
            elif isinstance(operation, Names) and fate(index) == "all":
                entries = names[operation.folder]
                for name, inode in operation.entries.items():
                    entries.pop(name, None)
                    if inode is not None:
                        entries[name] = inode
        return dict(_walk(ROOT, "", names, content))


def _walk(
    folder: int, at: str, names: dict[int, dict[str, int]], content: dict[int, bytes]
) -> Iterator[tuple[str, bytes]]:
    for name, inode in names[folder].items():
        if inode in names:
            yield f"{at}{name}/", b""
            yield from _walk(inode, f"{at}{name}/", names, content)
        else:
            yield at + name, content.get(inode, b"")


def _written(old: bytes, operation: Bytes, fate: str) -> bytes:
    if fate == "none":
        return old
    if operation.data is None:
        return old[: operation.offset].ljust(operation.offset, b"\0")
    data = operation.data
    if fate == "half":
        data = data[: len(data) // 2]
    elif fate == "zeros":
        data = bytes(len(data))
    end = operation.offset + len(data)
    return old[: operation.offset].ljust(operation.offset, b"\0") + data + old[end:]
