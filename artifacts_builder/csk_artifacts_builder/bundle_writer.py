"""Writing a bundle: graphs that hold no large tensor, and two safetensors files that hold them all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from csk_artifacts_builder.emit import constant_array
from csk_sdk.errors import ConfigError, StorageError
from csk_sdk.manifest import CHECKPOINT, EXPORT_TEMPLATE, MANIFEST, WEIGHTS, FileEntry, Manifest, Site
from csk_sdk.signing import SIGNATURE, sign

# Smaller tensors stay in the graphs, where shape inference can see them.
_EXTERNAL_ELEMENTS = 64


def large_weights(model: ir.Model, sites: Sequence[Site]) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a prepared model that live in weights.safetensors, by name.

    Those are the large ones, and every site's kernel, which a device replaces however small it is.
    """
    kernels = {site.weight for site in sites}
    weights = {}
    for name, value in model.graph.initializers.items():
        array = constant_array(value)
        if (
            array is not None
            and array.dtype == np.float32
            and (array.size >= _EXTERNAL_ELEMENTS or name in kernels)
            and value.uses()
        ):
            weights[name] = np.ascontiguousarray(array)
    return weights


class BundleDraft:
    """A bundle being written beside its place, so that a half-written one is never seen there.

        with BundleDraft(out, overwrite) as draft:
            draft.write(models, weights, checkpoint, manifest)
            draft.publish()

    Raises StorageError for a full disk, ConfigError where `out` is in the way. What is not published is removed.
    """

    def __init__(self, out: Path, overwrite: bool) -> None:
        in_the_way = out.exists() and (not out.is_dir() or any(out.iterdir()))
        if in_the_way and not overwrite:
            raise ConfigError(
                f"{out} exists already. Choose another --out, or pass --overwrite to replace it."
            )
        if in_the_way and not (out / MANIFEST).is_file():
            raise ConfigError(
                f"{out} is not a bundle, so --overwrite will not replace it. Choose another --out."
            )
        self.out = out.absolute()  # "." has no name to derive a neighbour's from
        self.folder = self.out.with_name(f".{self.out.name}.building-{os.getpid()}")

    def __enter__(self) -> BundleDraft:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(
        self,
        models: Mapping[str, ir.Model],
        weights: Mapping[str, NDArray[np.float32]],
        checkpoint: Mapping[str, NDArray[Any]],
        manifest: Manifest,
    ) -> None:
        """Write every file; `models` maps file names to graphs, which afterwards point to weights.safetensors."""
        with self._writing():
            self.folder.mkdir(parents=True)
            _write_tensors(self.folder / WEIGHTS, weights)
            offsets = _tensor_offsets(self.folder / WEIGHTS)
            for name, model in models.items():
                _point_to_weights(model, weights, offsets, omit=name == EXPORT_TEMPLATE)
                proto = ir.to_proto(model)
                proto.producer_name = "csk-sdk"
                (self.folder / name).write_bytes(proto.SerializeToString(deterministic=True))
        self.seal(checkpoint, manifest)

    def seal(self, checkpoint: Mapping[str, NDArray[Any]], manifest: Manifest) -> None:
        """Write (or replace) the checkpoint, and the manifest with the hash of every file."""
        with self._writing():
            _write_tensors(self.folder / CHECKPOINT, checkpoint)
            files = {
                path.name: _entry(path) for path in sorted(self.folder.iterdir()) if path.name != MANIFEST
            }
            # Bytes: on Windows, text would get other line ends than those that were sealed.
            (self.folder / MANIFEST).write_bytes(replace(manifest, files=files).to_json().encode())

    def publish(self, key: Path | None = None) -> None:
        """Move the bundle to its place, signed by the private key in the PEM file `key` if there is one."""
        with self._writing():
            if key is not None:
                signature = sign((self.folder / MANIFEST).read_bytes(), key)
                (self.folder / SIGNATURE).write_bytes(signature)
            if self.out.exists():
                shutil.rmtree(self.out)
            self.folder.rename(self.out)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StorageError(
                f"The bundle could not be written to {self.out} ({reason}). Nothing was left behind."
            ) from None


def _write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    # safetensors copies from the raw pointer: anything but C order would be scrambled silently. And its own
    # save_file makes files that only their owner can read.
    path.write_bytes(save({name: np.asarray(array, order="C") for name, array in tensors.items()}))


def _tensor_offsets(path: Path) -> dict[str, int]:
    """Where each tensor's bytes begin in a safetensors file (format: length, JSON header, data)."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {
        name: 8 + length + entry["data_offsets"][0]
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _point_to_weights(
    model: ir.Model, weights: Mapping[str, NDArray[np.float32]], offsets: Mapping[str, int], omit: bool
) -> None:
    for name, array in weights.items():
        value = model.graph.initializers.get(name)
        if value is None:
            continue
        if omit:
            del model.graph.initializers[name]
            value.const_value = None
        else:
            value.const_value = ir.ExternalTensor(
                WEIGHTS,
                offsets[name],
                array.nbytes,
                ir.DataType.FLOAT,
                shape=ir.Shape(array.shape),
                name=name,
            )


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
