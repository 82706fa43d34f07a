"""Opening a bundle: everything is verified before anything is used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from csk_sdk.data.preprocess import Preprocessing
from csk_sdk.data.preprocess_signals import preprocessing_of
from csk_sdk.errors import BundleError
from csk_sdk.manifest import CHECKPOINT, MANIFEST, WEIGHTS, Manifest, Site
from csk_sdk.objectives import Objective, objective_of
from csk_sdk.runtime import Graph


class Bundle:
    """A folder of training artifacts, read-only. Open it with `Bundle.open`."""

    def __init__(self, folder: Path, manifest: Manifest, identity: str) -> None:
        self.folder = folder
        self.manifest = manifest
        self.id = identity

    @classmethod
    def open(cls, folder: Path | str) -> Bundle:
        """Read the manifest and check size and sha256 of every file that it lists.

        Raises BundleError for a missing or damaged bundle, or one of a newer schema or with an unknown loss.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        try:
            text = path.read_bytes()
        except OSError:
            raise BundleError(
                f"There is no bundle in {folder} ({MANIFEST} is missing). Build one on a workstation with "
                "`csk-sdk build-artifacts MODEL --out BUNDLE`, and copy it there."
            ) from None
        manifest = Manifest.from_json(text.decode("utf-8", "replace"), str(path))
        objective_of(manifest.loss)
        bundle = cls(folder, manifest, hashlib.sha256(text).hexdigest())
        bundle._verify()
        return bundle

    @property
    def objective(self) -> Objective:
        """What the bundle's loss means for labels, heads, predictions and measures."""
        return objective_of(self.manifest.loss)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """From pictures or signals to the model's input, as the workstation did it."""
        return preprocessing_of(self.manifest)

    def path(self, name: str) -> Path:
        """Where a file of the bundle lies."""
        return self.folder / name

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """The learnable state before the first task: generation 0."""
        return self._read(CHECKPOINT)

    def weights(self, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
        """Frozen tensors by their name in the source model; all of them when `names` is None."""
        return self._read(WEIGHTS, names)

    def folded_kernels(
        self, tensors: Mapping[str, NDArray[Any]], names: Iterable[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """The sites' kernels `(c_out, c_in / groups, *kernel)` with a generation's centers put in, by weight name.

        `names` picks some; all when None.
        """
        sites = {site.weight: site for site in self.manifest.sites}
        kernels = self.weights(sites if names is None else names)
        for name, kernel in kernels.items():
            kernel[center_of(sites[name])] = tensors[f"center/{sites[name].name}"]
        return kernels

    def graph(self, name: str, tensors: Mapping[str, NDArray[Any]], threads: int = 0) -> Graph:
        """Open one of the bundle's graphs as a generation sees it."""
        return Graph(self.path(name), threads, self.folded_kernels(tensors, self.manifest.kernels[name]))

    def _read(self, name: str, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
        try:
            with safe_open(self.path(name), framework="numpy") as file:
                return {key: file.get_tensor(key) for key in (file.keys() if names is None else names)}
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{self.path(name)} cannot be read ({error}). Copy the bundle again.") from None

    def _verify(self) -> None:
        for name, entry in self.manifest.files.items():
            if not _is_inside(name):
                raise BundleError(f"{self.folder / MANIFEST} lists a file outside the bundle: {name!r}.")
            path = self.path(name)
            if not path.is_file():
                raise BundleError(f"{path} is missing. Copy the bundle again.")
            with path.open("rb") as file:
                same = path.stat().st_size == entry.size and (
                    hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
                )
            if not same:
                raise BundleError(
                    f"{path} is not the file that was built: its content differs from the manifest's sha256. "
                    "Copy the bundle again."
                )


def _is_inside(name: str) -> bool:
    """Whether a file's name in the manifest is a plain path below the bundle, on every system."""
    parts = PurePosixPath(name).parts
    plain = not any(part in ("..", "/") or set(part) & set("\\:\0") for part in parts)
    return bool(parts) and plain and "/".join(parts) == name


def center_of(site: Site) -> tuple[slice | int, ...]:
    """The index of the centers in a site's weight: `W[:, :, kh // 2, kw // 2]`."""
    return (slice(None), slice(None), *(size // 2 for size in site.shape[2:]))
