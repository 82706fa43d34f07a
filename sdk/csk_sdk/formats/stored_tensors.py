"""Tensors that stay in their file: what is needed once per task need not be in memory while it is trained."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import CskError, StateError
from csk_sdk.formats.opening import open_file
from csk_sdk.formats.tensor_header import check_open_header

_DTYPES = {
    code: np.dtype(name) for code, name in (("F64", "<f8"), ("F32", "<f4"), ("I64", "<i8"), ("U8", "u1"))
}


class StoredTensors(Mapping[str, NDArray[Any]]):
    """The tensors of a safetensors file by name, each read whenever it is asked for: a fresh array every time.

    Read by position, not mapped: mapped pages would count as the process's memory. The file is held open, so another
    one that is put in its place, or its removal, changes nothing here. `error` is what is raised, with one sentence,
    where the file is missing or damaged, holds another dtype than a state's, or can no longer be read. Not for several
    threads at once.
    """

    def __init__(self, path: Path, error: type[CskError] = StateError) -> None:
        self._path, self._error = path, error
        try:
            # Without a buffer, which would hold a copy of what is read.
            self._file = cast(FileIO, open_file(path).detach())
            weakref.finalize(self, self._file.close)
            self._entries, self._begin = check_open_header(self._file)
        except (OSError, ValueError) as problem:
            raise self.unreadable(problem) from problem
        for name, entry in self._entries.items():
            if entry["dtype"] not in _DTYPES:
                raise self.unreadable(f"tensor {name!r} is {entry['dtype']}")

    def __getitem__(self, name: str) -> NDArray[Any]:
        found = np.empty(*self.kind(name))
        self.read_into(name, found)
        return found

    def kind(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """A tensor's shape and dtype."""
        entry = self._entries[name]
        return tuple(entry["shape"]), _DTYPES[entry["dtype"]]

    def read_into(self, name: str, found: NDArray[Any]) -> None:
        """Read a tensor into a contiguous array of its kind."""
        self._read(self._entries[name]["data_offsets"][0], found.reshape(-1).view(np.uint8))

    def several(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Tensors of these names, in the order of the file.

        Those that lie beside each other are read at once, and are parts of one array: a state has two for each task.
        """
        places = sorted([(*self._entries[name]["data_offsets"], name) for name in names])
        found: dict[str, NDArray[Any]] = {}
        at = 0
        while at < len(places):
            last = at
            while last + 1 < len(places) and places[last + 1][0] == places[last][1]:
                last += 1
            first = places[at][0]
            run = np.empty(places[last][1] - first, np.uint8)
            self._read(first, run)
            for begin, _, name in places[at : last + 1]:
                entry = self._entries[name]
                found[name] = np.ndarray(entry["shape"], _DTYPES[entry["dtype"]], run, begin - first)
            at = last + 1
        return found

    def holds(self, tensors: Mapping[str, NDArray[Any]]) -> bool:
        """Whether these are all its tensors, to the bit."""
        kinds = {name: (one.shape, one.dtype.newbyteorder("<")) for name, one in tensors.items()}
        if kinds != {name: self.kind(name) for name in self}:
            return False
        data = np.empty(self.nbytes, np.uint8)
        self._read(0, data)
        places = {name: slice(*self._entries[name]["data_offsets"]) for name in self}
        return all(data[places[name]].data == one.tobytes() for name, one in tensors.items())

    def resident(self) -> dict[str, NDArray[Any]]:
        """All of them; the file is closed afterwards."""
        try:
            return self.several(self)
        finally:
            self.close()

    def _read(self, begin: int, into: NDArray[np.uint8]) -> None:
        rest = into.data
        try:
            self._file.seek(self._begin + begin)
            while rest:
                count = self._file.readinto(rest)
                if not count:
                    raise OSError("it was cut short")
                rest = rest[count:]
        except OSError as problem:
            raise self.unreadable(problem) from problem

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        return os.fstat(self._file.fileno()).st_size - self._begin

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._file.close()

    def unreadable(self, problem: object) -> CskError:
        """The error that says so."""
        return self._error(f"{self._path} cannot be read ({problem}). `csk-sdk verify` says what is intact.")


class JoinedTensors(Mapping[str, NDArray[Any]]):
    """The tensors of several files as those of one; a tensor that more than one has is their rows, one after another.

    `last` is the file whose tensors are all seen, `behind` those before it, whose tensors named `hidden` are not. Each
    is read whenever it is asked for, as those of `StoredTensors` are.
    """

    def __init__(self, behind: Sequence[StoredTensors], last: StoredTensors, hidden: str) -> None:
        self._files = (*behind, last)
        # By name, the file that has it; of what several files have, the last, and all of them.
        self._place: dict[str, int] = {}
        self._parts: dict[str, tuple[int, ...]] = {}
        for place, file in enumerate(self._files):
            names = dict.fromkeys((name for name in file if file is last or name != hidden), place)
            for name in names.keys() & self._place.keys():
                self._parts[name] = (*self._parts.get(name, (self._place[name],)), place)
            self._place |= names

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._parts:
            return self._files[self._place[name]][name]
        files = [self._files[place] for place in self._parts[name]]
        kinds = [file.kind(name) for file in files]
        rest, dtype = kinds[0][0][1:], kinds[0][1]
        if any(not shape or shape[1:] != rest or kind != dtype for shape, kind in kinds):
            raise files[-1].unreadable(f"tensor {name!r} does not fit those in other files")
        ends = list(accumulate(shape[0] for shape, _ in kinds))
        found = np.empty((ends[-1], *rest), dtype)
        for file, begin, end in zip(files, (0, *ends), ends, strict=False):
            file.read_into(name, found[begin:end])
        return found

    def several(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Tensors of these names; those that lie beside each other in a file are read at once."""
        wanted = list(names)
        found = {name: self[name] for name in wanted if name in self._parts}
        alone: dict[int, list[str]] = {}
        for name in wanted:
            if name not in self._parts:
                alone.setdefault(self._place[name], []).append(name)
        for place, own in alone.items():
            found |= self._files[place].several(own)
        return found

    def resident(self) -> dict[str, NDArray[Any]]:
        """All of them; the files are closed afterwards."""
        try:
            return self.several(self)
        finally:
            self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors, about."""
        return sum(file.nbytes for file in self._files)

    @property
    def bytes_behind(self) -> int:
        """Those in the files before the last."""
        return sum(file.nbytes for file in self._files[:-1])

    def close(self) -> None:
        """Close the files; nothing can be read afterwards."""
        for file in self._files:
            file.close()


InFiles = StoredTensors | JoinedTensors
"""Tensors that are left in files."""


def several(tensors: Mapping[str, NDArray[Any]], names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Tensors of these names, read at once as far as they lie in a file."""
    return tensors.several(names) if isinstance(tensors, InFiles) else {name: tensors[name] for name in names}
