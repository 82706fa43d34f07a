"""What learning may hold in memory to be fast: two profiles, and a bundle that opens its graphs in the smaller one.

Kernels with a generation's centers in them are handed to the runtime, which flips and packs them ahead, or written to
a file that it maps: of what is mapped, the system keeps in memory only what is being read, and nothing is there twice.
An int8 graph is always mapped, and optimised, since its packed copies are a quarter of what they replace. An exact one
is mapped in the profile `small`, and run as it is then, since flipped and packed copies would be all that mapping
saves. Measured in docs/decisions/0014-memory-budget.md.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle, put_centers
from csk_sdk.contract.manifest import INT8, WEIGHTS
from csk_sdk.errors import StorageError
from csk_sdk.formats.tensor_header import tensor_places
from csk_sdk.network.knowledge import HEAD_SAMPLE_BYTES
from csk_sdk.runtime.sessions import Graph

_PREFIX = "kernels-"
# A file of a process that was killed: no opening takes that long.
_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class Profile:
    """What is traded for memory.

    `maps_kernels`: kernels of exact graphs come from a file, too. `sample_bytes` is the memory for features that a head
    is fitted on, `pixel_bytes` for images that are kept between epochs, each at most.
    """

    name: str
    maps_kernels: bool
    sample_bytes: int
    pixel_bytes: int


FAST = Profile("fast", maps_kernels=False, sample_bytes=HEAD_SAMPLE_BYTES, pixel_bytes=64 << 20)
SMALL = Profile("small", maps_kernels=True, sample_bytes=4 << 20, pixel_bytes=8 << 20)
PROFILES = {profile.name: profile for profile in (FAST, SMALL)}


class MappedBundle(Bundle):
    """A bundle whose graphs are opened as a profile says; `scratch` is where their files are written.

    The files are as large as `weights.safetensors`, and are there only while a graph is being opened. Where there is no
    room for them, kernels are handed over after all, unless the profile is `small` or the memory `limited`.
    """

    def __init__(
        self, bundle: Bundle, scratch: Path, profile: Profile = SMALL, limited: bool = False
    ) -> None:
        # All that a view of it says, as `view` copies it.
        self.__dict__.update(vars(bundle))
        self._scratch, self._profile = scratch, profile
        self._must_map = profile.maps_kernels or limited

    def graph(
        self,
        name: str,
        tensors: Mapping[str, NDArray[Any]],
        threads: int = 0,
        channels: Mapping[str, int] | None = None,
    ) -> Graph:
        """Open one of the bundle's graphs as a generation sees it. Raises StorageError where there is no room."""
        int8 = self.precision == INT8
        if not int8 and not self._profile.maps_kernels:
            return super().graph(name, tensors, threads, channels)
        try:
            return self._mapped(self.graph_file(name), tensors, threads, int8, channels)
        except StorageError:
            if self._must_map:
                raise
            return super().graph(name, tensors, threads, channels)

    def _mapped(
        self,
        name: str,
        tensors: Mapping[str, NDArray[Any]],
        threads: int,
        optimised: bool,
        channels: Mapping[str, int] | None,
    ) -> Graph:
        with self._beside(name, tensors) as path:
            return Graph(path, threads, optimised=optimised, **self.session(channels))

    @contextmanager
    def _beside(self, name: str, tensors: Mapping[str, NDArray[Any]]) -> Iterator[Path]:
        """A graph's file beside a generation's kernels. An opened graph needs neither of the names any more."""
        self._clear_abandoned()
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._scratch))
        except OSError as error:
            raise self._no_room(error) from None
        try:
            try:
                shutil.copyfile(self.path(name), folder / name)
                shutil.copyfile(self.path(WEIGHTS), folder / WEIGHTS)
                self._put_centers(folder / WEIGHTS, tensors, name)
            except OSError as error:
                raise self._no_room(error) from None
            yield folder / name
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _put_centers(self, path: Path, tensors: Mapping[str, NDArray[Any]], graph: str) -> None:
        """Write a generation's centers into the kernels of a copy of the weights, one kernel after the other.

        Nothing is flushed: the file is gone in a moment, and its bytes need not reach the disk.
        """
        places = tensor_places(path)
        read = set(self.manifest.kernels[graph])
        for site in self.manifest.sites:
            if site.weight in read:
                kernel = np.memmap(path, np.float32, "r+", places[site.weight], site.shape)
                put_centers(kernel, site, tensors[f"center/{site.name}"])
                del kernel

    def _no_room(self, error: OSError) -> StorageError:
        size = self.manifest.files[WEIGHTS].size / 1e6
        small = self._profile.maps_kernels
        more = "more memory and the profile fast" if small else "no memory budget"
        return StorageError(
            f"The kernels cannot be written into {self._scratch} ({error.strerror}): the profile {self._profile.name} "
            f"needs {size:.0f} MB there for a moment. Make room, or learn with {more}."
        )

    def _clear_abandoned(self) -> None:
        for folder in self._scratch.glob(f"{_PREFIX}*"):
            try:
                old = time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS
            except OSError:
                continue
            if old:
                shutil.rmtree(folder, ignore_errors=True)


def in_profile(bundle: Bundle, profile: Profile, scratch: Path, limited: bool = False) -> Bundle:
    """The bundle as a profile opens it; `limited` where more memory than the profile says must not be taken."""
    maps = profile.maps_kernels or bundle.precision == INT8
    return MappedBundle(bundle, scratch, profile, limited) if maps else bundle
